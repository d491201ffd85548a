// The linears of training for a group of matrices that share their input, forward and backward:
//
//   forward    y = g (x W^T + s (x A^T) B^T)                          g: train_lora.h; 1 without
//              DoRA
//   backward   dz = g dy    dx = dz W + (s dz B) A
//              dB = dz^T (s x A^T)    dA = (s dz B)^T x    dmagnitude = sum over t of dy y /
//              magnitude dW = dy^T x of a matrix that is itself trained, dbias = sum over t of dy
//
// B A is never formed. The scale is applied where x A^T and dz B are rounded to bf16. A frozen
// matrix gets no gradient.
#pragma once

#include <array>
#include <cstdint>
#include <functional>

#include "base/thread_pool.h"
#include "kernels/train_kernels.h"
#include "model/train_layout.h"
#include "model/train_lora.h"
#include "model/train_weights.h"
#include "ops/train_products.h"
#include "tensor/buffer.h"

namespace bakestone {

struct LinearForward {
  const uint16_t* x;  // [rows, in]
  int64_t rows;
  uint16_t* xa;  // [rows, lora.r]: s x A^T, kept for the backward
  void* out;     // [rows, out]
  TrainStore store;
  // Called for each part of out that is made; null: nothing is. The group's matrices are equally
  // wide then, and the columns are those of one.
  const std::function<void(const ops::TrainUnit&)>* after = nullptr;
};
// panels: of the group's W.
void Forward(const TrainKernels& kernels, ThreadPool& pool, const GroupShape& shape,
             const LoraGroup& lora, const uint16_t* panels, const LinearForward& args);

// Grows as it is used; one thread at a time.
struct LinearScratch {
  Buffer<uint16_t> d_xa, xa_pairs, d_xa_pairs;  // of the pairs
  Buffer<uint16_t> dz;                          // of DoRA
  Buffer<uint16_t> dy_columns, x_pairs;         // of whole matrices
  int64_t bytes() const noexcept;
};

struct LinearBackward {
  const uint16_t* dy;      // [rows, out]
  const uint16_t *x, *xa;  // as in the forward
  const uint16_t* y;       // [rows, out] the output, bias left out; DoRA only
  int64_t rows;
  void* dx;  // [rows, in], f32 or bf16; null: not wanted
  TrainStore store;
  // Called for each part of dx that is made; null: nothing is. x may be what it makes.
  const std::function<void(const ops::TrainUnit&)>* after;
  std::array<const LoraSlot*, 3> slots;       // by site of the group; null: no gradient wanted
  std::array<const MatrixSlot*, 3> matrices;  // the same
  float* gradients;                           // accumulated into
};
// transposed: panels of the group's W^T; may be null when dx is.
void Backward(const TrainKernels& kernels, ThreadPool& pool, const GroupShape& shape,
              const LoraGroup& lora, const uint16_t* transposed, const LinearBackward& args,
              LinearScratch& scratch);

// out [cols, in] += dy^T x, the columns [first, first + cols) of dy [rows, dy_stride]; x [rows,
// in].
struct MatrixGradient {
  const uint16_t* dy;
  int64_t dy_stride, first, cols;
  const uint16_t* x_pairs;  // as PackRowPairs made them
  int64_t in, rows;
  float* out;
};
// x [rows, in] as panels whose pairs are rows, for AddMatrixGradient.
void PackRowPairs(const TrainKernels& kernels, ThreadPool& pool, const uint16_t* x, int64_t rows,
                  int64_t in, Buffer<uint16_t>& pairs);
void AddMatrixGradient(const TrainKernels& kernels, ThreadPool& pool, const MatrixGradient& args,
                       Buffer<uint16_t>& columns);

}  // namespace bakestone
