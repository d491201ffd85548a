// Training kernels for AVX-512 with BF16: rounding is one instruction. The products come on f32
// multiply-adds and on vdpbf16ps, 64 operations a cycle on Zen 4: 12 rows x 32 columns are 24
// accumulators, which hide the instruction's latency and leave registers for two panels and a
// broadcast.
#include <immintrin.h>

#include <cstdint>

#include "kernels/math.h"
#include "kernels/train_kernels.h"
#include "tensor/half.h"

namespace bakestone {
namespace {

constexpr int kOuterRows = 8;
#include "kernels/cpu/train_gemm.inl.h"
#include "kernels/cpu/train_pack.inl.h"
constexpr int kStateVectors = 8;
#include "kernels/cpu/train_rows.inl.h"
#include "kernels/cpu/train_vector_avx512.inl.h"

[[gnu::always_inline]] inline __m512bh Broadcast(const uint16_t* pair) {
  int32_t word;
  __builtin_memcpy(&word, pair, sizeof word);
  return (__m512bh)_mm512_set1_epi32(word);
}

struct DotProduct {
  template <int P>
  static void Tile(const TrainGemmArgs& args, int64_t row, int64_t panel, float* tile) noexcept {
    __m512 sums[kTrainTileRows][P];
#pragma GCC unroll 12
    for (int r = 0; r < kTrainTileRows; ++r) {
      for (int p = 0; p < P; ++p) sums[r][p] = V::Zero();
    }
    for (int32_t i = 0; i < args.num_segments; ++i) {
      const TrainSegment& segment = args.segments[i];
      const int64_t stride = segment.x_stride;
      // Four pointers and two offsets address the 12 rows without spilling.
      const uint16_t* x0 = segment.x + row * stride;
      const uint16_t *x3 = x0 + 3 * stride, *x6 = x0 + 6 * stride, *x9 = x0 + 9 * stride;
      const uint16_t* w = segment.panels + panel * segment.panel_stride;
      const int64_t panel_stride = segment.panel_stride;
      for (int64_t pairs = segment.k / 2; pairs > 0; --pairs) {
        __m512bh weights[P];
#pragma GCC unroll 2
        for (int p = 0; p < P; ++p) {
          const uint16_t* at = w + p * panel_stride;
          _mm_prefetch(reinterpret_cast<const char*>(at + 32 * 16), _MM_HINT_T0);
          weights[p] = (__m512bh)_mm512_loadu_si512(at);
        }
#pragma GCC unroll 12
        for (int r = 0; r < kTrainTileRows; ++r) {
          const uint16_t* base = r < 3 ? x0 : r < 6 ? x3 : r < 9 ? x6 : x9;
          const __m512bh x = Broadcast(base + (r % 3) * stride);
#pragma GCC unroll 2
          for (int p = 0; p < P; ++p) sums[r][p] = _mm512_dpbf16_ps(sums[r][p], x, weights[p]);
        }
        w += 2 * kTrainLanes;
        x0 += 2;
        x3 += 2;
        x6 += 2;
        x9 += 2;
      }
    }
#pragma GCC unroll 12
    for (int r = 0; r < kTrainTileRows; ++r) {
      for (int p = 0; p < P; ++p) {
        _mm512_store_ps(tile + r * kTileStride + p * kTrainLanes, sums[r][p]);
      }
    }
  }

  template <int P>
  static void OuterTile(const TrainOuterArgs& args, int64_t r0, int64_t col, int64_t cols,
                        float* tile) noexcept {
    __m512 sums[kOuterRows][P];
#pragma GCC unroll 8
    for (int r = 0; r < kOuterRows; ++r) {
      for (int p = 0; p < P; ++p) sums[r][p] = V::Zero();
    }
    const uint16_t* s = args.s + r0 / kTrainLanes * args.s_panel_stride + r0 % kTrainLanes * 2;
    const int64_t left = P == 1 ? cols : kTrainLanes;
    for (int64_t t = 0; t < args.rows; t += 2, s += 2 * kTrainLanes) {
      const uint16_t* even = args.z + t * args.z_stride + col;
      const uint16_t* odd = t + 1 < args.rows ? even + args.z_stride : nullptr;
      __m512bh z[P];
#pragma GCC unroll 2
      for (int p = 0; p < P; ++p) {
        z[p] = (__m512bh)V::Pairs(even + p * kTrainLanes,
                                  odd == nullptr ? nullptr : odd + p * kTrainLanes, left);
      }
#pragma GCC unroll 8
      for (int r = 0; r < kOuterRows; ++r) {
        const __m512bh x = Broadcast(s + 2 * r);
#pragma GCC unroll 2
        for (int p = 0; p < P; ++p) sums[r][p] = _mm512_dpbf16_ps(sums[r][p], x, z[p]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kOuterRows; ++r) {
      for (int p = 0; p < P; ++p) {
        _mm512_store_ps(tile + r * kTileStride + p * kTrainLanes, sums[r][p]);
      }
    }
  }
};

template <class Product>
void GemmOn(const TrainGemmArgs& args, int64_t row_begin, int64_t row_end, int64_t panel_begin,
            int64_t panel_end) noexcept {
  Gemm<V, Product>(args, row_begin, row_end, panel_begin, panel_end);
}

template <class Product>
constexpr TrainKernels Make() {
  TrainKernels kernels = MakeTrainKernels<V>();
  kernels.gemm = GemmOn<Product>;
  kernels.outer = Outer<V, Product>;
  return kernels;
}

constexpr TrainKernels MakeDot() {
  TrainKernels kernels = Make<DotProduct>();
  kernels.product = "vdpbf16ps";
  return kernels;
}

}  // namespace

constinit const TrainKernels kTrainAvx512Bf16 = Make<FmaProduct<V, 12>>();
constinit const TrainKernels kTrainAvx512Bf16Dot = MakeDot();

}  // namespace bakestone
