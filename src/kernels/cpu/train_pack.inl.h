// Panels from rows, shared by the ISA units. The unit's V brings Transpose16 (16 x 16 words of 32
// bits) and Pairs (two rows of bf16 to pairs). Include inside the unit's anonymous namespace.

// Words [row][word] of 16 rows from word `first` on -> out [word][16]; absent ones are zero.
inline void PackLanesSlowly(const uint16_t* x, int64_t stride, int64_t rows, int64_t k,
                            int64_t first, int64_t words, uint16_t* out) noexcept {
  for (int64_t w = 0; w < words; ++w) {
    for (int64_t i = 0; i < kTrainLanes; ++i) {
      const int64_t c = (first + w) * 2;
      out[(w * kTrainLanes + i) * 2] = i < rows && c < k ? x[i * stride + c] : 0;
      out[(w * kTrainLanes + i) * 2 + 1] = i < rows && c + 1 < k ? x[i * stride + c + 1] : 0;
    }
  }
}

template <class V>
void PackLanes(const uint16_t* x, int64_t stride, int64_t n, int64_t k, int64_t k_padded,
               uint16_t* panels, int64_t panel_stride, int64_t panel_begin,
               int64_t panel_end) noexcept {
  for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
    const uint16_t* rows = x + panel * kTrainLanes * stride;
    const int64_t count = n - panel * kTrainLanes;
    uint16_t* out = panels + panel * panel_stride;
    int64_t word = 0;
    if (count >= kTrainLanes) {
      for (; (word + 16) * 2 <= k; word += 16) {
        V::Transpose16(rows + word * 2, stride, out + word * 2 * kTrainLanes);
      }
    }
    PackLanesSlowly(rows, stride, count, k, word, k_padded / 2 - word,
                    out + word * 2 * kTrainLanes);
  }
}

template <class V>
void PackPairs(const uint16_t* x, int64_t stride, int64_t k, int64_t n, int64_t k_padded,
               uint16_t* panels, int64_t panel_stride, int64_t panel_begin,
               int64_t panel_end) noexcept {
  for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
    const int64_t col = panel * kTrainLanes;
    uint16_t* out = panels + panel * panel_stride;
    for (int64_t row = 0; row < k_padded; row += 2, out += 2 * kTrainLanes) {
      V::StorePairs(out, row < k ? x + row * stride + col : nullptr,
                    row + 1 < k ? x + (row + 1) * stride + col : nullptr, n - col);
    }
  }
}

// Words of 64 bits hold 2 lanes x 2 of k of the input and 2 of k x 2 lanes of the output: swapping
// the middle halves turns one into the other, and the words themselves are transposed.
template <class V>
void TransposePanels(const uint16_t* in, int64_t in_stride, int64_t n, uint16_t* out,
                     int64_t out_stride, int64_t panel_begin, int64_t panel_end) noexcept {
  constexpr int64_t kBlock = kTrainLanes * kTrainLanes;
  constexpr int64_t kAhead = 4;  // input panels: their blocks are farther apart than a page
  for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
    for (int64_t block = 0; block < n / kTrainLanes; ++block) {
      const uint16_t* from = in + block * in_stride + panel * kBlock;
      if (block + kAhead < n / kTrainLanes) {
        for (int64_t i = 0; i < kBlock; i += 32) __builtin_prefetch(from + kAhead * in_stride + i);
      }
      V::TransposeBlock(from, out + panel * out_stride + block * kBlock);
    }
  }
}

// Pairs of rows, 16 columns wide, are words of 32 bits: 16 such rows of words transposed are 16
// columns of 32 values.
template <class V>
void Transpose(const uint16_t* x, int64_t stride, int64_t rows, uint16_t* out, int64_t out_stride,
               int64_t col_begin, int64_t col_end) noexcept {
  constexpr int64_t kBlock = 2 * kTrainLanes;
  alignas(64) uint16_t pairs[kTrainLanes * kBlock], block[kTrainLanes * kBlock];
  for (int64_t col = col_begin; col < col_end; col += kTrainLanes) {
    const int64_t cols = col_end - col < kTrainLanes ? col_end - col : kTrainLanes;
    for (int64_t row = 0; row < out_stride; row += kBlock) {
      for (int64_t pair = 0; pair < kTrainLanes; ++pair) {
        const int64_t even = row + 2 * pair;
        V::StorePairs(pairs + pair * kBlock, even < rows ? x + even * stride + col : nullptr,
                      even + 1 < rows ? x + (even + 1) * stride + col : nullptr, cols);
      }
      V::Transpose16(pairs, kBlock, block);
      const int64_t size = out_stride - row < kBlock ? out_stride - row : kBlock;
      for (int64_t c = 0; c < cols; ++c) {
        uint16_t* to = out + (col + c) * out_stride + row;
        const uint16_t* from = block + c * kBlock;
        if (size == kBlock) {
          __builtin_memcpy(to, from, kBlock * sizeof(uint16_t));
        } else {
          for (int64_t i = 0; i < size; ++i) to[i] = from[i];
        }
      }
    }
  }
}
