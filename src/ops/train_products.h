// The bf16 products of training: work split over threads by output tile, never over the inner
// dimension, so the bits do not depend on the number of threads. Layouts: kernels/train_kernels.h.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "base/thread_pool.h"
#include "kernels/train_kernels.h"

namespace bakestone::ops {

inline constexpr int64_t PanelsOf(int64_t columns) {
  return (columns + kTrainLanes - 1) / kTrainLanes;
}
// A rank padded to whole panels.
inline constexpr int64_t PadRank(int64_t rank) { return PanelsOf(rank) * kTrainLanes; }
// An inner dimension that products on tiles take in whole steps, where they copy what is shorter:
// panels have zeros beyond k, and what x has there is finite.
inline constexpr int64_t PadInner(const TrainKernels& kernels, int64_t k) {
  constexpr int64_t kStep = 32;
  return kernels.tiles ? (k + kStep - 1) / kStep * kStep : k;
}
// Elements of a panel matrix with `columns` lanes and k (even) rows.
inline constexpr int64_t PanelSize(int64_t columns, int64_t k) {
  return PanelsOf(columns) * kTrainLanes * k;
}

// The whole product. With a long K (above 1024, f32 output) it is summed in blocks of K, in order.
void TrainGemm(const TrainKernels& kernels, ThreadPool& pool, const TrainGemmArgs& args);

// What one thread has just made of an output, and has in its cache: rows x columns.
struct TrainUnit {
  int64_t row, rows, col, cols;
};
// Products of equal rows and columns, unit by unit beside each other; `after` makes of each unit
// what else is to be made of it. It must not throw.
void TrainGemm(const TrainKernels& kernels, ThreadPool& pool,
               std::span<const TrainGemmArgs> products,
               const std::function<void(const TrainUnit&)>& after);

// out += s^T z over all columns of z.
void TrainOuter(const TrainKernels& kernels, ThreadPool& pool, const TrainOuterArgs& args);

// Panels of w^T from the panels of w [k x n] (panel_stride k * 16), n and k multiples of 16: lanes
// k, pairs n, panel stride n * 16.
void TransposePanels(const TrainKernels& kernels, ThreadPool& pool, const uint16_t* in, int64_t k,
                     int64_t n, uint16_t* out);

// x [rows, r] bf16 (stride r, a multiple of 16) -> the operand s of TrainOuter, panel stride
// 16 * (rows rounded up to even).
void PackOuter(const TrainKernels& kernels, ThreadPool& pool, const uint16_t* x, int64_t rows,
               int64_t r, uint16_t* out);

}  // namespace bakestone::ops
