// The frame of the bf16 products, shared by the ISA units: which tiles, and what becomes of their
// sums. The unit brings M::Tile<P>: the sums of kTrainTileRows rows x P panels into a tile [12][32]
// of floats that lies in L1; V is its vector class. Include inside the unit's anonymous namespace.
//
// A tile of x (12 rows, 14 KiB at K = 576) stays in L1 while the panels stream from L2, where the
// caller's choice of range keeps them (ops/train_products.cc).

constexpr int64_t kTileStride = 2 * kTrainLanes;

template <class V, TrainStore kStore>
void StoreRows(const TrainGemmArgs& args, const float* tile, int64_t row, int64_t rows, int64_t col,
               int64_t cols) noexcept {
  for (int64_t c = 0; c < cols; c += kTrainLanes) {
    const int64_t left = cols - c;
    const bool scaled = args.column_scale != nullptr;
    const typename V::F scale = scaled ? V::Load(args.column_scale + col + c, left) : V::Set(1);
    int64_t at = row * args.out_stride + col + c;
    for (int64_t r = 0; r < rows; ++r, at += args.out_stride) {
      typename V::F sum = V::Load(tile + r * kTileStride + c, kTrainLanes);
      if (scaled) sum = V::Mul(sum, scale);
      if constexpr (kStore == TrainStore::kBF16) {
        V::StoreBf16(static_cast<uint16_t*>(args.out) + at, sum, left);
      } else {
        float* out = static_cast<float*>(args.out) + at;
        if constexpr (kStore == TrainStore::kAddF32) sum = V::Add(V::Load(out, left), sum);
        V::Store(out, sum, left);
      }
    }
  }
}

template <class V>
void StoreTile(const TrainGemmArgs& args, const float* tile, int64_t row, int64_t rows, int64_t col,
               int64_t cols) noexcept {
  switch (args.store) {
    case TrainStore::kF32:
      return StoreRows<V, TrainStore::kF32>(args, tile, row, rows, col, cols);
    case TrainStore::kAddF32:
      return StoreRows<V, TrainStore::kAddF32>(args, tile, row, rows, col, cols);
    case TrainStore::kBF16:
      return StoreRows<V, TrainStore::kBF16>(args, tile, row, rows, col, cols);
  }
}

template <class V, class M>
void Gemm(const TrainGemmArgs& args, int64_t row_begin, int64_t row_end, int64_t panel_begin,
          int64_t panel_end) noexcept {
  alignas(64) float tile[kTrainTileRows * kTileStride];
  for (int64_t row = row_begin; row < row_end; row += kTrainTileRows) {
    const int64_t rows = row_end - row < kTrainTileRows ? row_end - row : kTrainTileRows;
    for (int64_t panel = panel_begin; panel < panel_end; panel += 2) {
      const int64_t col = panel * kTrainLanes;
      const int64_t width = panel + 1 < panel_end ? 2 * kTrainLanes : kTrainLanes;
      const int64_t cols = args.cols - col < width ? args.cols - col : width;
      if (width > kTrainLanes) {
        M::template Tile<2>(args, row, panel, tile);
      } else {
        M::template Tile<1>(args, row, panel, tile);
      }
      StoreTile<V>(args, tile, row, rows, col, cols);
    }
  }
}

// Sums of args.r rows x 16 or 32 columns are made by M::OuterTile<P>(args, r, col, tile [8][32]).
template <class V, class M>
void Outer(const TrainOuterArgs& args, int64_t col_begin, int64_t col_end) noexcept {
  alignas(64) float tile[kOuterRows * kTileStride];
  for (int64_t col = col_begin; col < col_end; col += kTileStride) {
    const int64_t cols = col_end - col < kTileStride ? col_end - col : kTileStride;
    for (int64_t r = 0; r < args.r; r += kOuterRows) {
      const int64_t rows = args.r - r < kOuterRows ? args.r - r : kOuterRows;
      if (cols == kTileStride) {
        M::template OuterTile<2>(args, r, col, cols, tile);
      } else {
        M::template OuterTile<1>(args, r, col, cols < kTrainLanes ? cols : kTrainLanes, tile);
        if (cols > kTrainLanes) {
          M::template OuterTile<1>(args, r, col + kTrainLanes, cols - kTrainLanes,
                                   tile + kTrainLanes);
        }
      }
      for (int64_t i = 0; i < rows; ++i) {
        float* out = args.out + (r + i) * args.out_row_stride + col * args.out_col_stride;
        const float* sums = tile + i * kTileStride;
        for (int64_t c = 0; c < cols; ++c) out[c * args.out_col_stride] += sums[c];
      }
    }
  }
}

// f32 multiply-adds over the bf16 operands, widened in registers: for CPUs without fast bf16 dot
// products. R rows at a time so that the accumulators fit the registers.
template <class V, int R>
struct FmaProduct {
  template <int P>
  static void Tile(const TrainGemmArgs& args, int64_t row, int64_t panel, float* tile) noexcept {
    for (int64_t part = 0; part < kTrainTileRows; part += R) {
      typename V::F sums[R][P];
      for (int r = 0; r < R; ++r) {
        for (int p = 0; p < P; ++p) sums[r][p] = V::Zero();
      }
      for (int32_t s = 0; s < args.num_segments; ++s) {
        const TrainSegment& segment = args.segments[s];
        const uint16_t* x = segment.x + (row + part) * segment.x_stride;
        const uint16_t* w = segment.panels + panel * segment.panel_stride;
        for (int64_t k = 0; k < segment.k; k += 2, w += 2 * kTrainLanes) {
          typename V::F even[P], odd[P];
          for (int p = 0; p < P; ++p) V::Widen(w + p * segment.panel_stride, &even[p], &odd[p]);
#pragma GCC unroll 12
          for (int r = 0; r < R; ++r) {
            const typename V::F x_even = V::Set(BF16ToFloat(x[r * segment.x_stride + k]));
            const typename V::F x_odd = V::Set(BF16ToFloat(x[r * segment.x_stride + k + 1]));
#pragma GCC unroll 2
            for (int p = 0; p < P; ++p) {
              sums[r][p] = V::Fma(odd[p], x_odd, V::Fma(even[p], x_even, sums[r][p]));
            }
          }
        }
      }
      for (int r = 0; r < R; ++r) {
        for (int p = 0; p < P; ++p) {
          V::Store(tile + (part + r) * kTileStride + p * kTrainLanes, sums[r][p], kTrainLanes);
        }
      }
    }
  }

  template <int P>
  static void OuterTile(const TrainOuterArgs& args, int64_t r0, int64_t col, int64_t cols,
                        float* tile) noexcept {
    const uint16_t* s = args.s + r0 / kTrainLanes * args.s_panel_stride + r0 % kTrainLanes * 2;
    for (int p = 0; p < P; ++p) {
      const int64_t left = P == 1 ? cols : kTrainLanes;
      for (int part = 0; part < kOuterRows; part += 4) {
        typename V::F sums[4];
        for (int i = 0; i < 4; ++i) sums[i] = V::Zero();
        for (int64_t t = 0; t < args.rows; t += 2) {
          const uint16_t* z = args.z + t * args.z_stride + col + p * kTrainLanes;
          const typename V::F even = V::LoadBf16(z, left);
          const typename V::F odd =
              t + 1 < args.rows ? V::LoadBf16(z + args.z_stride, left) : V::Zero();
          const uint16_t* pair = s + t * kTrainLanes + part * 2;
#pragma GCC unroll 4
          for (int i = 0; i < 4; ++i) {
            sums[i] = V::Fma(odd, V::Set(BF16ToFloat(pair[i * 2 + 1])),
                             V::Fma(even, V::Set(BF16ToFloat(pair[i * 2])), sums[i]));
          }
        }
        for (int i = 0; i < 4; ++i) {
          V::Store(tile + (part + i) * kTileStride + p * kTrainLanes, sums[i], kTrainLanes);
        }
      }
    }
  }
};
