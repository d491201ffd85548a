// The bf16 products of training on tile registers (AMX): 32 rows by 32 columns are four tiles of
// sums, each fed by two of four tiles of operands, 16 x 16 x 32 multiply-adds in 16 cycles. A sum
// is one chain over k whatever the tile it falls into, so bits do not depend on the split. Tiles is
// AmxTiles, or its emulation in tests. Include inside the unit's anonymous namespace, after
// train_gemm.inl.h and train_vector_avx512.inl.h.

template <class Tiles>
struct TileProduct {
  static constexpr int64_t kRows = 16, kInner = 32;     // of a tile of operands
  static constexpr int64_t kElements = kRows * kInner;  // 16 rows of 32, or 16 pairs of rows of 16

  struct Operand {
    const uint16_t* data;
    int64_t stride;  // bytes
  };

  // Rows [row, row + rows) of x from column k on: in place where 16 x 32 are there, else a copy
  // with zeros.
  static Operand RowsOf(const TrainSegment& segment, int64_t row, int64_t rows, int64_t k,
                        uint16_t* copy) {
    const uint16_t* x = segment.x + row * segment.x_stride + k;
    const int64_t inner = segment.k - k < kInner ? segment.k - k : kInner;
    if (rows >= kRows && inner == kInner) return {x, segment.x_stride * 2};
    const __mmask32 mask = (uint64_t{1} << inner) - 1;
    for (int64_t i = 0; i < kRows; ++i) {
      const __m512i there = i < rows ? _mm512_maskz_loadu_epi16(mask, x + i * segment.x_stride)
                                     : _mm512_setzero_si512();
      _mm512_store_si512(copy + i * kInner, there);
    }
    return {copy, kInner * 2};
  }
  static Operand PanelOf(const TrainSegment& segment, int64_t panel, int64_t k, uint16_t* copy) {
    const uint16_t* w = segment.panels + panel * segment.panel_stride + k * kTrainLanes;
    if (segment.k - k >= kInner) return {w, 64};
    for (int64_t i = 0; i < kInner / 2; ++i) {  // pairs of k
      const __m512i there = 2 * i < segment.k - k ? _mm512_loadu_si512(w + i * 2 * kTrainLanes)
                                                  : _mm512_setzero_si512();
      _mm512_store_si512(copy + i * 2 * kTrainLanes, there);
    }
    return {copy, 64};
  }

  // Lines that are asked for while a tile of sums is computed, a few every step: those that the
  // next unit will read, to L2, and those that the tile will overwrite, which are so far beyond L2
  // that stores would wait for them.
  struct Ahead {
    const char *next, *end;
    int64_t lines;  // a step
    const char* out;
    int64_t out_stride, out_rows, out_bytes;  // bytes: of a row
    BAKESTONE_INLINE void Step() {
      for (int64_t i = 0; i < lines && next < end; ++i, next += 64) __builtin_prefetch(next, 0, 2);
      for (int64_t i = 0; i < kOutRows && out_rows > 0; ++i, --out_rows, out += out_stride) {
        for (int64_t at = 0; at < out_bytes; at += 64)
          asm volatile("prefetchw %0" : : "m"(out[at]));
      }
    }
    void SetOutputs(const TrainGemmArgs& args, int64_t row, int64_t rows, int64_t col,
                    int64_t cols) {
      const int64_t element = args.store == TrainStore::kBF16 ? 2 : 4;
      out = static_cast<const char*>(args.out) + (row * args.out_stride + col) * element;
      out_stride = args.out_stride * element;
      out_rows = rows;
      out_bytes = cols * element;
    }
  };
  static constexpr int64_t kOutRows = 2;  // a step
  // What the caller named, else the panels after panel_end, as many as this range has: of one
  // segment, the other is narrow.
  static Ahead FetchAhead(const TrainGemmArgs& args, int64_t tiles, int64_t panel_begin,
                          int64_t panel_end) {
    const TrainSegment& segment = args.segments[0];
    const int64_t steps = tiles * ((segment.k + kInner - 1) / kInner);
    const auto* begin = static_cast<const char*>(args.next);
    int64_t bytes = args.next_bytes;
    if (begin == nullptr) {
      const int64_t left = (args.cols + kTrainLanes - 1) / kTrainLanes - panel_end;
      const int64_t width = panel_end - panel_begin;
      begin = reinterpret_cast<const char*>(segment.panels + panel_end * segment.panel_stride);
      bytes = (left < width ? left : width) * segment.k * kTrainLanes * 2;
    }
    if (bytes <= 0) return {begin, begin, 0, nullptr, 0, 0, 0};
    return {begin, begin + bytes, (bytes / 64 + steps - 1) / steps, nullptr, 0, 0, 0};
  }
  // 32 of k: kR (1 or 2) tiles of rows by P (1 or 2) panels.
  template <int kR, int P>
  BAKESTONE_INLINE static void Step(Tiles& tiles, Operand x0, Operand x1, Operand w0, Operand w1) {
    tiles.template Load<4>(x0.data, x0.stride);
    tiles.template LoadOnce<6>(w0.data, w0.stride);
    tiles.template DotBF16<0, 4, 6>();
    if constexpr (P == 2) {
      tiles.template LoadOnce<7>(w1.data, w1.stride);
      tiles.template DotBF16<1, 4, 7>();
    }
    if constexpr (kR == 2) {
      tiles.template Load<5>(x1.data, x1.stride);
      tiles.template DotBF16<2, 5, 6>();
      if constexpr (P == 2) tiles.template DotBF16<3, 5, 7>();
    }
  }

  // kR (1 or 2) tiles of rows by P (1 or 2) panels -> tile [kR * 16][P * 16], stride in floats;
  // added to what is there, or to nothing.
  template <int kR, int P>
  static void Sum(Tiles& tiles, const TrainGemmArgs& args, int64_t row, int64_t row_end,
                  int64_t panel, float* tile, int64_t stride, bool add, Ahead& ahead) {
    alignas(64) uint16_t copies[4][kElements];
    if (add) {
      tiles.template Load<0>(tile, stride * 4);
      if constexpr (P == 2) tiles.template Load<1>(tile + kTrainLanes, stride * 4);
      if constexpr (kR == 2) tiles.template Load<2>(tile + kRows * stride, stride * 4);
      if constexpr (kR == 2 && P == 2) {
        tiles.template Load<3>(tile + kRows * stride + kTrainLanes, stride * 4);
      }
    } else {
      tiles.template Zero<0>();
      if constexpr (P == 2) tiles.template Zero<1>();
      if constexpr (kR == 2) tiles.template Zero<2>();
      if constexpr (kR == 2 && P == 2) tiles.template Zero<3>();
    }
    for (int32_t i = 0; i < args.num_segments; ++i) {
      const TrainSegment& segment = args.segments[i];
      const bool whole = row_end - row >= kR * kRows;
      int64_t k = 0;
      if (whole && segment.k >= kInner) {
        const uint16_t* x = segment.x + row * segment.x_stride;
        const uint16_t* w = segment.panels + panel * segment.panel_stride;
        const int64_t stride = segment.x_stride * 2;
        for (; k + kInner <= segment.k; k += kInner, x += kInner, w += kElements) {
          Step<kR, P>(tiles, {x, stride}, {x + kRows * segment.x_stride, stride}, {w, 64},
                      {w + segment.panel_stride, 64});
          ahead.Step();
        }
      }
      for (; k < segment.k; k += kInner) {
        Step<kR, P>(
            tiles, RowsOf(segment, row, row_end - row, k, copies[0]),
            kR == 2 ? RowsOf(segment, row + kRows, row_end - row - kRows, k, copies[1]) : Operand{},
            PanelOf(segment, panel, k, copies[2]),
            P == 2 ? PanelOf(segment, panel + 1, k, copies[3]) : Operand{});
        ahead.Step();
      }
    }
    tiles.template Store<0>(tile, stride * 4);
    if constexpr (P == 2) tiles.template Store<1>(tile + kTrainLanes, stride * 4);
    if constexpr (kR == 2) tiles.template Store<2>(tile + kRows * stride, stride * 4);
    if constexpr (kR == 2 && P == 2) {
      tiles.template Store<3>(tile + kRows * stride + kTrainLanes, stride * 4);
    }
  }

  // The part of f32 outputs that a tile covers -> tile, zero elsewhere.
  static void CopyOutputs(const TrainGemmArgs& args, int64_t row, int64_t rows, int64_t col,
                          int64_t cols, float* tile) {
    const float* out = static_cast<const float*>(args.out) + row * args.out_stride + col;
    for (int64_t i = 0; i < 2 * kRows; ++i, out += args.out_stride, tile += kTileStride) {
      for (int64_t c = 0; c < kTileStride; ++c) tile[c] = i < rows && c < cols ? out[c] : 0.0f;
    }
  }

  static void Gemm(const TrainGemmArgs& args, int64_t row_begin, int64_t row_end,
                   int64_t panel_begin, int64_t panel_end) noexcept {
    alignas(64) float tile[2 * kRows * kTileStride];
    Tiles tiles(64);
    const int64_t count =
        ((row_end - row_begin + 2 * kRows - 1) / (2 * kRows)) * ((panel_end - panel_begin + 1) / 2);
    TrainGemmArgs overwriting = args;
    overwriting.store = TrainStore::kF32;
    Ahead ahead = FetchAhead(args, count, panel_begin, panel_end);
    for (int64_t row = row_begin; row < row_end; row += 2 * kRows) {
      const int64_t rows = row_end - row < 2 * kRows ? row_end - row : 2 * kRows;
      for (int64_t panel = panel_begin; panel < panel_end; panel += 2) {
        const bool both = panel + 1 < panel_end;
        const int64_t col = panel * kTrainLanes, width = both ? 2 * kTrainLanes : kTrainLanes;
        const int64_t cols = args.cols - col < width ? args.cols - col : width;
        // Plain sums of whole tiles go where they belong, others by way of L1. Sums that are added
        // to go on from what is there in either case, so that bits do not depend on the split.
        const bool add = args.store == TrainStore::kAddF32 && args.column_scale == nullptr;
        const bool direct = (add || args.store == TrainStore::kF32) &&
                            args.column_scale == nullptr && cols == width && rows % kRows == 0;
        float* sums = direct ? static_cast<float*>(args.out) + row * args.out_stride + col : tile;
        const int64_t stride = direct ? args.out_stride : kTileStride;
        if (add && !direct) CopyOutputs(args, row, rows, col, cols, tile);
        if (!add) ahead.SetOutputs(args, row, rows, col, cols);
        if (rows > kRows) {
          (both ? Sum<2, 2> : Sum<2, 1>)(tiles, args, row, row_end, panel, sums, stride, add,
                                         ahead);
        } else {
          (both ? Sum<1, 2> : Sum<1, 1>)(tiles, args, row, row_end, panel, sums, stride, add,
                                         ahead);
        }
        if (!direct) StoreTile<V>(add ? overwriting : args, tile, row, rows, col, cols);
      }
    }
  }

  // Rows t and t + 1 of z side by side, 32 of t by 32 columns: tile 0 has the columns whose number
  // has no 4 in it (in binary), tile 1 the others, as 16-bit words interleave within 128 bits.
  // Zero beyond the rows and beyond mask.
  static void PairsOf(const TrainOuterArgs& args, int64_t t, int64_t col, __mmask32 mask,
                      uint16_t* out) {
    const uint16_t* z = args.z + t * args.z_stride + col;
    for (int64_t i = 0; i < kInner; i += 2, z += 2 * args.z_stride, out += 2 * kTrainLanes) {
      const __m512i none = _mm512_setzero_si512();
      const __m512i even = t + i < args.rows ? _mm512_maskz_loadu_epi16(mask, z) : none;
      const __m512i odd =
          t + i + 1 < args.rows ? _mm512_maskz_loadu_epi16(mask, z + args.z_stride) : none;
      _mm512_store_si512(out, _mm512_unpacklo_epi16(even, odd));
      _mm512_store_si512(out + kElements, _mm512_unpackhi_epi16(even, odd));
    }
  }
  // 16 of r by 32 of t: the panel's words transposed; zero beyond.
  static void RowsOfPanel(const TrainOuterArgs& args, int64_t r, int64_t t, uint16_t* out) {
    const uint16_t* s = args.s + r / kTrainLanes * args.s_panel_stride + t * kTrainLanes;
    const int64_t left = (args.rows - t + 1) / 2;  // pairs
    if (left >= 16) {
      V::Transpose16(s, 2 * kTrainLanes, out);
      return;
    }
    alignas(64) uint16_t copy[kElements] = {};
    __builtin_memcpy(copy, s, static_cast<size_t>(left * 2 * kTrainLanes) * 2);
    V::Transpose16(copy, 2 * kTrainLanes, out);
  }

  // out += sums [16 of r][32 columns as PairsOf orders them].
  static void AddOuter(const TrainOuterArgs& args, const float* sums, int64_t r, int64_t col,
                       int64_t cols) {
    const int64_t rows = args.r - r < kRows ? args.r - r : kRows;
    alignas(64) float turned[2][kRows * kTrainLanes];  // [column][r]
    if (args.out_row_stride == 1) {
      for (int half = 0; half < 2; ++half) {
        V::Transpose16(reinterpret_cast<const uint16_t*>(sums + half * kRows * kTrainLanes),
                       2 * kTrainLanes, reinterpret_cast<uint16_t*>(turned[half]));
      }
    }
    float* out = args.out + r * args.out_row_stride + col * args.out_col_stride;
    for (int64_t c = 0; c < cols; ++c) {
      const int64_t half = c / 4 % 2, lane = c / 8 * 4 + c % 4;
      float* to = out + c * args.out_col_stride;
      if (args.out_row_stride == 1) {
        V::Store(to, V::Add(V::Load(to, rows), V::Load(turned[half] + lane * kRows, kRows)), rows);
        continue;
      }
      const float* from = sums + half * kRows * kTrainLanes + lane;
      for (int64_t i = 0; i < rows; ++i) to[i * args.out_row_stride] += from[i * kTrainLanes];
    }
  }

  // Rows are taken in blocks whose s fits the stack, transposed once for all columns.
  static constexpr int64_t kOuterBlock = 1024;

  static void OuterBlock(Tiles& tiles, const TrainOuterArgs& args, int64_t begin, int64_t end,
                         int64_t col_begin, int64_t col_end) {
    alignas(64) uint16_t s[kOuterBlock / kInner * kElements];
    alignas(64) uint16_t z[2 * kElements];
    alignas(64) float sums[2 * kRows * kTrainLanes];
    for (int64_t r = 0; r < args.r; r += kRows) {
      for (int64_t t = begin; t < end; t += kInner) {
        RowsOfPanel(args, r, t, s + (t - begin) / kInner * kElements);
      }
      for (int64_t col = col_begin; col < col_end; col += kTileStride) {
        const int64_t cols = col_end - col < kTileStride ? col_end - col : kTileStride;
        const auto mask = static_cast<__mmask32>((uint64_t{1} << cols) - 1);
        tiles.template Zero<0>();
        tiles.template Zero<1>();
        for (int64_t t = begin; t < end; t += kInner) {
          PairsOf(args, t, col, mask, z);
          tiles.template Load<4>(s + (t - begin) / kInner * kElements, 64);
          tiles.template Load<6>(z, 64);
          tiles.template DotBF16<0, 4, 6>();
          tiles.template Load<7>(z + kElements, 64);
          tiles.template DotBF16<1, 4, 7>();
        }
        tiles.template Store<0>(sums, 64);
        tiles.template Store<1>(sums + kRows * kTrainLanes, 64);
        AddOuter(args, sums, r, col, cols);
      }
    }
  }

  static void Outer(const TrainOuterArgs& args, int64_t col_begin, int64_t col_end) noexcept {
    Tiles tiles(64);
    for (int64_t t = 0; t < args.rows; t += kOuterBlock) {
      const int64_t end = t + kOuterBlock < args.rows ? t + kOuterBlock : args.rows;
      OuterBlock(tiles, args, t, end, col_begin, col_end);
    }
  }
};
