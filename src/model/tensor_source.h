// The tensors of one model as the loader takes them, whichever format holds them. Keeps a reference
// to the file or folder, whose bytes it names. Read-only; any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tensor/dtype.h"

namespace bakestone {

class GgufFile;
class HfFolder;

// Row-major: n rows of k, any alignment. A vector is one row.
struct StoredTensor {
  std::string_view name;  // as the decoder's names have it
  std::string_view type_name;
  bool has_type = true;  // false: a type that no weight has; `type` is then meaningless
  DType type = DType::kF32;
  std::vector<int64_t> shape;  // slowest dimension first
  std::span<const uint8_t> data;

  int64_t rows() const;  // of all matrices of a stack together
  int64_t cols() const { return shape.empty() ? 1 : shape.back(); }
  std::string ShapeText() const;  // as the format writes it: "64 x 128"
  bool fastest_first = false;     // how it writes it
};

class TensorSource {
 public:
  // Not explicit: either is what Weights::Load takes.
  TensorSource(const GgufFile& file);
  TensorSource(const HfFolder& folder);

  const std::string& name() const { return name_; }
  std::span<const StoredTensor> tensors() const { return tensors_; }
  const StoredTensor* Find(std::string_view tensor) const;    // null if absent
  const StoredTensor& Tensor(std::string_view tensor) const;  // throws kCorrupt naming it
  // Whether nothing is lost when a tensor is not used: it belongs to another part of the model than
  // the decoder, or says again what the config says.
  bool MayIgnore(const StoredTensor& tensor) const;
  // These bytes are not needed soon.
  void Forget(std::span<const uint8_t> range) const { forget_(range); }

 private:
  void Index();

  std::string name_;
  bool is_hf_;
  std::vector<StoredTensor> tensors_;
  std::unordered_map<std::string_view, size_t> by_name_;
  std::function<void(std::span<const uint8_t>)> forget_;
};

}  // namespace bakestone
