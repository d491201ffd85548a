// The linears of training: y = x W^T + s (x A^T) B^T for a group of matrices that share their input,
// forward and backward. The base is frozen: no gradient for W; the pairs' gradients are
//     dB = dY^T (s x A^T)      dA = (s dY B)^T x      dx = dY W + (s dY B) A
// and B A is never formed. The scale is applied where x A^T and dY B are rounded to bf16.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/train_kernels.h"
#include "model/adapter.h"
#include "model/config.h"
#include "model/train_weights.h"
#include "model/trainer_pass.h"
#include "tensor/buffer.h"

namespace bakestone {

// The pairs of one group as panels. Ranks are padded to 16 with zeros, so that each begins a panel.
struct LoraGroup {
  struct Part {
    int site = 0;             // index within the group
    int64_t rank = 0;         // 0: not adapted
    int64_t r_begin = 0;      // of its columns in the stacked product
    const uint16_t* b_forward = nullptr;   // lanes out, pairs r
    const uint16_t* b_backward = nullptr;  // lanes r, pairs out
  };
  std::array<Part, 3> parts{};
  int64_t r = 0;                           // stacked, padded; 0: nothing adapted
  const uint16_t* a_forward = nullptr;     // lanes r, pairs in
  const uint16_t* a_backward = nullptr;    // lanes in, pairs r
  const float* scale = nullptr;            // [r]
};

// An adapter's pairs, packed anew when it changed. Null adapter: no pairs.
class PackedAdapter {
 public:
  void Pack(const ModelConfig& config, const Adapter* adapter, const TrainKernels& kernels,
            ThreadPool& pool);
  const LoraGroup& group(int64_t layer, TrainGroup group) const {
    return groups_[static_cast<size_t>(layer * kNumTrainGroups + static_cast<int64_t>(group))];
  }
  int64_t widest() const noexcept { return widest_; }  // largest stacked rank
  int64_t total() const noexcept { return total_; }    // of all stacked ranks
  int64_t bytes() const noexcept { return panels_.bytes() + scales_.bytes(); }

 private:
  std::vector<LoraGroup> groups_;
  Buffer<uint16_t> panels_;
  Buffer<float> scales_;
  int64_t widest_ = 0, total_ = 0;
};

struct LinearScratch {
  Buffer<uint16_t> d_xa, xa_pairs, d_xa_pairs;
  void Reserve(int64_t rows, int64_t widest);
  int64_t bytes() const noexcept { return d_xa.bytes() + xa_pairs.bytes() + d_xa_pairs.bytes(); }
};

struct LinearForward {
  const uint16_t* x;  // [rows, in]
  int64_t rows;
  uint16_t* xa;       // [rows, lora.r]: s x A^T, kept for the backward
  void* out;          // [rows, out]
  TrainStore store;
};
void Forward(const TrainKernels& kernels, ThreadPool& pool, const GroupShape& shape,
             const LoraGroup& lora, const uint16_t* panels, const LinearForward& args);

struct LinearBackward {
  const uint16_t* dy;       // [rows, out]
  const uint16_t *x, *xa;   // as in the forward
  int64_t rows;
  void* dx;                 // [rows, in], f32 or bf16; null: not wanted
  TrainStore store;
  std::array<const LoraSlot*, 3> slots;  // by site of the group; null: no gradient wanted
  float* gradients;         // accumulated into
};
// transposed: panels of the group's W^T; may be null when dx is.
void Backward(const TrainKernels& kernels, ThreadPool& pool, const GroupShape& shape,
              const LoraGroup& lora, const uint16_t* transposed, const LinearBackward& args,
              LinearScratch& scratch);

}  // namespace bakestone
