// The training half of the decoder: forward that keeps what backward needs, chunked loss, backward.
// Arithmetic: bf16 products with f32 sums over the same quantized weights that are served
// (dequantized tile by tile); deterministic: the bits do not depend on the number of threads.
//
// Trainable: LoRA pairs on any set of linears. The frozen base gets no weight gradient and work stops
// below the lowest trained tensor.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "model/adapter.h"
#include "model/decoder.h"
#include "tensor/matrix_view.h"

namespace bakestone {

// Where each trained pair lies in one flat f32 array: masters, gradients and moments share it.
struct LoraSlot {
  LinearId id;
  int64_t rank = 0, in = 0, out = 0;
  int64_t a_offset = 0;  // [rank, in]
  int64_t b_offset = 0;  // [out, rank]
};

struct LoraLayout {
  std::vector<LoraSlot> slots;  // ascending by id
  int64_t size = 0;             // floats
  // Throws kInvalidArgument for an empty target list or a rank outside [1, 1024].
  static LoraLayout Make(const ModelConfig& config, std::span<const Site> targets, int64_t rank);
  const LoraSlot* Find(LinearId id) const noexcept;
};

// A packed batch: documents one after another, attention never crosses a boundary.
struct TrainBatch {
  std::span<const int32_t> tokens;              // [T]
  std::span<const int32_t> positions;           // [T], restarting at each document
  std::span<const int32_t> document_begins;     // ascending, first is 0; each document ends where the next begins
  std::span<const int32_t> loss_rows;           // ascending rows whose *next-token* target is trained
  std::span<const int32_t> targets;             // [loss_rows] token ids
  std::span<const float> weights;               // [loss_rows] weight of each row's loss; 1 for plain
};

struct PassOptions {
  bool recompute = false;  // keep only layer inputs and recompute each layer in backward (less memory)
  // Spent on keeping weights as bf16 (two bytes a weight, four for the head); what does not fit is
  // dequantized again at each use. The bits are the same.
  int64_t weight_cache_bytes = int64_t{1} << 30;
};

// Sums, so that any split into micro-batches adds up to the same quantities.
struct LossSums {
  double nll = 0;          // sum over loss rows of weight * -log p(target), nats
  double kl = 0;           // sum over loss rows of weight * KL(base || model), nats (KL rows only)
  double weight = 0;       // sum of weights
  int64_t rows = 0;
  int64_t correct = 0;     // rows whose argmax is the target
};

class TrainerPass {
 public:
  // References must outlive it. Not thread-safe; keeps scratch between calls.
  TrainerPass(const Decoder& decoder, const KernelTable& kernels, ThreadPool& pool,
              PassOptions options = {});
  ~TrainerPass();

  // Loss only (evaluation): sums over the batch. adapter null: the base.
  LossSums Evaluate(const TrainBatch& batch, const Adapter* adapter);

  // One micro-batch: loss, and gradients of (gradient_scale * sum of weighted losses) with respect to
  // the pairs of the layout, ACCUMULATED into gradients [layout.size]. The adapter has a pair for every
  // slot. kl_to_base: the loss of every loss row is KL(base || model) over the whole vocabulary instead
  // of the target's -log p; the base is the same weights without the adapter.
  LossSums ForwardBackward(const TrainBatch& batch, const Adapter& adapter, const LoraLayout& layout,
                           float gradient_scale, bool kl_to_base, std::span<float> gradients);

  int64_t peak_bytes() const noexcept;  // of scratch and saved activations

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace bakestone
