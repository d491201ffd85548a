// The bf16 products of training: work split over threads by output tile, never over the inner
// dimension, so the bits do not depend on the number of threads. Layouts: kernels/train_kernels.h.
#pragma once

#include <cstdint>

#include "base/thread_pool.h"
#include "kernels/train_kernels.h"

namespace bakestone::ops {

inline constexpr int64_t PanelsOf(int64_t columns) {
  return (columns + kTrainLanes - 1) / kTrainLanes;
}
// A rank padded to whole panels.
inline constexpr int64_t PadRank(int64_t rank) { return PanelsOf(rank) * kTrainLanes; }
// Elements of a panel matrix with `columns` lanes and k (even) rows.
inline constexpr int64_t PanelSize(int64_t columns, int64_t k) {
  return PanelsOf(columns) * kTrainLanes * k;
}

// The whole product. One segment with a long K (above 4096, f32 output) is summed in blocks of K,
// in order.
void TrainGemm(const TrainKernels& kernels, ThreadPool& pool, const TrainGemmArgs& args);

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
