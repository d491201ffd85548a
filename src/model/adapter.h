// A LoRA adapter in memory: bf16 pairs in Hugging Face row order, packed in panels for serving; a
// trained one has them row by row too.
//
// A served adapter is immutable and shared by the requests that use it. Many adapters in one step
// are read once each, a piece of one after a piece of another, and nothing of them stays in a
// cache: first matrices lie together in the order of use, and second ones, so that what a core
// fetches beyond a piece is read with the next one. A trained one is owned by the trainer, which
// rewrites the pairs from its f32 masters between steps (Set): so training computes with exactly
// the values that will be served. One thread may write while none reads.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/sha256.h"
#include "format/adapter_file.h"
#include "model/config.h"
#include "model/linear_id.h"
#include "ops/lora.h"
#include "tensor/buffer.h"
#include "tensor/matrix_view.h"

namespace bakestone {

// y += scale * B (A x): pair order, scale last (docs/numerics.md).
struct LoraPair {
  MatrixView<const uint16_t> a;  // bf16 [r, in]
  MatrixView<const uint16_t> b;  // bf16 [out, r]
  float scale = 0;               // alpha / r, or alpha / sqrt(r) with rsLoRA
};

class Adapter {
 public:
  // Checks every dimension against the config. Throws kInvalidArgument naming the tensor, expected
  // and found; kUnsupported for DoRA magnitudes and embedding deltas.
  static std::shared_ptr<const Adapter> Load(const AdapterFile& file, const ModelConfig& config);

  // An empty adapter of a trainer: no pair until Set() is called.
  Adapter(const ModelConfig& config, std::string name);

  // Rounds a [r, in] and b [out, r] to bf16 and stores them.
  void Set(LinearId id, MatrixView<const float> a, MatrixView<const float> b, float scale);

  // Of a trained adapter; null: this linear is not adapted, or the adapter was loaded.
  const LoraPair* Find(LinearId id) const noexcept;
  // The pair as Decoder::Forward reads it; null: this linear is not adapted. Only after Publish().
  const ops::LoraPanels* FindPanels(LinearId id) const noexcept;

  // Whether there is a pair at any expert of a layer. Only after Publish().
  bool AdaptsExperts(int64_t layer) const noexcept;

  // A trainer calls it after Set and before serving: packs the pairs and hashes them.
  void Publish();
  bool published() const noexcept { return published_; }  // no Set since
  const Hash& hash() const noexcept {
    return hash_;
  }  // of the pairs as published; keys the prefix cache
  const std::string& name() const noexcept { return name_; }
  int64_t bytes() const noexcept;

 private:
  void Take(const AdapterFile& file, const AdapterEntry& entry, const ModelConfig& config);
  void ForgetRows();
  std::optional<size_t> IndexOf(LinearId id) const noexcept;  // none: no such matrix

  std::string name_;
  int64_t layers_, experts_;
  Hash hash_{};
  bool published_ = false;
  std::vector<LoraPair>
      pairs_;  // [num_layers * kNumSites], then three of each expert of each layer
  std::vector<ops::LoraPanels> panels_;    // the same; a.data null: none
  std::vector<Buffer<uint16_t>> storage_;  // a then b, one buffer a pair
  // Of panels_: all first matrices, then all second ones.
  Buffer<uint8_t> panel_storage_;
  int64_t shift_ = 0;  // where they begin in it
};

}  // namespace bakestone
