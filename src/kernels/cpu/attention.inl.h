// Attention over a vector class; the formulas are at the top of reference/attention.cc. A step of 64
// slots is decoded to f32 once for all rows of the tile (rows x the query heads of one key/value head),
// then both products are the same small kernel: kR rows by kW vectors, even and odd chains per 32.
#pragma once

#include "kernels/cpu/math.inl.h"
#include "kernels/kernel_table.h"

namespace bakestone {
namespace {

// acc[i][v] += even + odd over n (even, <= 32) steps of a[i][k] * b[k][16 v ..].
template <class V, int kR, int kW>
BAKESTONE_INLINE void PairBlock(const float* const* a, int64_t k0, const float* b, int64_t b_stride,
                                int64_t n, typename V::F (&acc)[kR][kW]) {
  typename V::F even[kR][kW], odd[kR][kW];
#pragma GCC unroll 8
  for (int i = 0; i < kR; ++i) {
#pragma GCC unroll 8
    for (int v = 0; v < kW; ++v) even[i][v] = odd[i][v] = V::Zero();
  }
  for (int64_t k = 0; k < n; k += 2, b += 2 * b_stride) {
    typename V::F b0[kW], b1[kW];
#pragma GCC unroll 8
    for (int v = 0; v < kW; ++v) {
      b0[v] = V::Load(b + 16 * v);
      b1[v] = V::Load(b + b_stride + 16 * v);
    }
#pragma GCC unroll 8
    for (int i = 0; i < kR; ++i) {
      const auto a0 = V::Set(a[i][k0 + k]), a1 = V::Set(a[i][k0 + k + 1]);
#pragma GCC unroll 8
      for (int v = 0; v < kW; ++v) {
        even[i][v] = V::Fma(b0[v], a0, even[i][v]);
        odd[i][v] = V::Fma(b1[v], a1, odd[i][v]);
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kR; ++i) {
#pragma GCC unroll 8
    for (int v = 0; v < kW; ++v) acc[i][v] = V::Add(acc[i][v], V::Add(even[i][v], odd[i][v]));
  }
}

// How pages hold numbers. Keys of one head: [D / 2][32][2]; values: [16][D][2].
template <class V>
struct PageBF16 {
  static constexpr int64_t kBytes = 2;
  BAKESTONE_INLINE static typename V::F Round(typename V::F x) { return RoundBF16<V>(x); }
  // Sixteen pairs apart.
  BAKESTONE_INLINE static void Split(const uint8_t* p, float* even, float* odd) {
    V::Store(even, V::LoadEven(p));
    V::Store(odd, V::LoadOdd(p));
  }
  BAKESTONE_INLINE static float One(const uint8_t* p, int64_t i) {
    uint16_t bits;
    __builtin_memcpy(&bits, p + 2 * i, 2);
    return __builtin_bit_cast(float, static_cast<uint32_t>(bits) << 16);
  }
};

template <class V>
struct PageF32 {
  static constexpr int64_t kBytes = 4;
  BAKESTONE_INLINE static typename V::F Round(typename V::F x) { return x; }
  BAKESTONE_INLINE static void Split(const uint8_t* p, float* even, float* odd) {
    for (int64_t i = 0; i < 16; ++i) {
      even[i] = One(p, 2 * i);
      odd[i] = One(p, 2 * i + 1);
    }
  }
  BAKESTONE_INLINE static float One(const uint8_t* p, int64_t i) {
    float x;
    __builtin_memcpy(&x, p + 4 * i, 4);
    return x;
  }
};

template <class V, class E>
class AttentionTile {
 public:
  AttentionTile(const AttentionArgs& args, const KvRun& run, Range rows, int64_t kv_head,
                void* scratch)
      : args_(args), run_(run), rows_(rows), kv_head_(kv_head), dim_(args.head_dim),
        width_((args.head_dim + 15) / 16 * 16), group_(args.heads / args.kv_heads),
        count_((rows.end - rows.begin) * group_) {
    float* next = static_cast<float*>(scratch);
    const auto take = [&](int64_t size) __attribute__((always_inline)) {
      float* taken = next;
      next += (size + 15) / 16 * 16;
      return taken;
    };
    keys_ = take(dim_ * kKvStep);
    values_ = take(kKvStep * width_);
    q_ = take(count_ * dim_);
    acc_ = take(count_ * width_);
    total_ = take(count_ * width_);
    m_ = take(count_);
    l_ = take(count_);
    total_m_ = take(count_);
    total_l_ = take(count_);
  }

  void Run() {
    Prepare();
    const int64_t last = Slot(count_ - 1);
    for (int64_t segment = 0; segment <= last; segment += kKvSegment) {
      RunSegment(segment);
      for (int64_t row = 0; row < count_; ++row) {
        if (Slot(row) >= segment) Merge(row, segment == 0);
      }
    }
    for (int64_t row = 0; row < count_; ++row) Output(row);
  }

  void Segment(int64_t segment, float* partial) {
    Prepare();
    RunSegment(segment);
    for (int64_t row = 0; row < count_; ++row, partial += width_ + 16) {
      for (int64_t d = 0; d < width_; d += 16) V::Store(partial + d, V::Load(acc_ + row * width_ + d));
      partial[width_] = m_[row];
      partial[width_ + 1] = l_[row];
    }
  }

  // Merges what Segment made of each; acc, m and l are read from there.
  void MergeAll(const float* partials) {
    const int64_t stride = width_ + 16;
    for (int64_t row = 0; row < count_; ++row) {
      for (int64_t segment = 0; segment * kKvSegment <= Slot(row); ++segment) {
        const float* from = partials + (segment * count_ + row) * stride;
        for (int64_t d = 0; d < width_; d += 16) V::Store(acc_ + row * width_ + d, V::Load(from + d));
        m_[row] = from[width_];
        l_[row] = from[width_ + 1];
        Merge(row, segment == 0);
      }
      Output(row);
    }
  }

 private:
  void Prepare() {
    LoadQueries();
    if (width_ != dim_) Fill(values_, kKvStep * width_);  // lanes beyond D stay finite
  }

  void RunSegment(int64_t segment) {
    const int64_t last = Slot(count_ - 1);
    Fill(acc_, count_ * width_);
    Fill(l_, count_);
    for (int64_t j0 = segment; j0 <= last && j0 < segment + kKvSegment; j0 += kKvStep) {
      LoadStep(j0, last);
      for (int64_t row = 0; row < count_;) row += StepRows(row, j0, j0 == segment);
    }
  }

  int64_t Slot(int64_t row) const {
    return run_.first_slot + (rows_.begin - run_.row_begin) + row / group_;
  }

  static void Fill(float* p, int64_t n) {
    for (int64_t i = 0; i < n; ++i) p[i] = 0;
  }

  int64_t Channel(int64_t row) const { return (kv_head_ * group_ + row % group_) * dim_; }

  void LoadQueries() {
    for (int64_t row = 0; row < count_; ++row) {
      const float* q = args_.q + (rows_.begin + row / group_) * args_.q_stride + Channel(row);
      for (int64_t d = 0; d < dim_; d += 16) {
        V::StoreN(q_ + row * dim_ + d, E::Round(V::LoadN(q + d, dim_ - d)), dim_ - d);
      }
    }
  }

  void LoadStep(int64_t j0, int64_t last) {
    for (int64_t block = 0; block < kKvStep && j0 + block <= last; block += kKvBlock) {
      const int64_t page = (j0 + block) / kKvBlock, offset = kv_head_ * dim_ * kKvBlock * E::kBytes;
      LoadKeys(run_.k_pages[page] + offset, keys_ + block);
      LoadValues(run_.v_pages[page] + offset, values_ + block * width_);
    }
  }

  void LoadKeys(const uint8_t* page, float* out) const {
    for (int64_t d = 0; d < dim_; d += 2, page += 64 * E::kBytes) {
      float *even = out + d * kKvStep, *odd = even + kKvStep;
      E::Split(page, even, odd);
      E::Split(page + 32 * E::kBytes, even + 16, odd + 16);
    }
  }

  void LoadValues(const uint8_t* page, float* out) const {
    for (int64_t j = 0; j < kKvBlock; j += 2, page += 2 * dim_ * E::kBytes) {
      float *even = out + j * width_, *odd = even + width_;
      int64_t d = 0;
      for (; d + 16 <= dim_; d += 16) E::Split(page + 2 * d * E::kBytes, even + d, odd + d);
      for (; d < dim_; ++d) {
        even[d] = E::One(page, 2 * d);
        odd[d] = E::One(page, 2 * d + 1);
      }
    }
  }

  // One step for up to V::kPairRows rows from `row` on; returns how many.
  int64_t StepRows(int64_t row, int64_t j0, bool first) {
    const int64_t left = count_ - row;
    const int64_t n = left < V::kPairRows ? left : V::kPairRows;
    if (Slot(row + n - 1) < j0) return n;
    switch (n) {
      case 1: StepGroup<1>(row, j0, first); break;
      case 2: StepGroup<2>(row, j0, first); break;
      default:
        if constexpr (V::kPairRows > 2) {
          switch (n) {
            case 3: StepGroup<3>(row, j0, first); break;
            case 4: StepGroup<4>(row, j0, first); break;
            case 5: StepGroup<5>(row, j0, first); break;
            default: StepGroup<6>(row, j0, first); break;
          }
        }
    }
    return n;
  }

  template <int kR>
  [[gnu::noinline]] void StepGroup(int64_t row, int64_t j0, bool first) {
    alignas(64) float p[kR][kKvStep];
    const int64_t most = Slot(row + kR - 1) - j0 + 1;  // live slots of the last row
    const int64_t slots = most > kKvBlock ? kKvStep : kKvBlock;
    Scores<kR>(row, slots, p);
    int64_t live[kR];
    for (int i = 0; i < kR; ++i) {
      live[i] = Slot(row + i) - j0 + 1;
      if (live[i] > kKvStep) live[i] = kKvStep;
      if (live[i] > 0) {
        SoftmaxStep(row + i, live[i], first, p[i]);
      } else {
        for (int64_t j = 0; j < kKvStep; ++j) p[i][j] = 0;
      }
    }
    for (int64_t block = 0; block < slots; block += kKvBlock) AddValues<kR>(row, block, live, p);
  }

  template <int kR>
  BAKESTONE_INLINE void Scores(int64_t row, int64_t slots, float (*s)[kKvStep]) const {
    constexpr int kW = V::kPairWidth;
    const float* q[kR];
    for (int i = 0; i < kR; ++i) q[i] = q_ + (row + i) * dim_;
    const auto scale = V::Set(args_.scale);
    for (int64_t j = 0; j < slots; j += 16 * kW) {
      typename V::F acc[kR][kW];
#pragma GCC unroll 8
      for (int i = 0; i < kR; ++i) {
#pragma GCC unroll 8
        for (int v = 0; v < kW; ++v) acc[i][v] = V::Zero();
      }
      for (int64_t d = 0; d < dim_; d += 32) {
        PairBlock<V, kR, kW>(q, d, keys_ + d * kKvStep + j, kKvStep, dim_ - d < 32 ? dim_ - d : 32,
                             acc);
      }
#pragma GCC unroll 8
      for (int i = 0; i < kR; ++i) {
#pragma GCC unroll 8
        for (int v = 0; v < kW; ++v) V::Store(s[i] + j + 16 * v, V::Mul(acc[i][v], scale));
      }
    }
  }

  // Scores to probabilities in place, zero from `live` on; rescales the row's sums.
  void SoftmaxStep(int64_t row, int64_t live, bool first, float* p) {
    const auto lowest = V::Set(-__builtin_inff());
    auto maxima = lowest;
    for (int64_t j = 0; j < live; j += 16) {
      maxima = V::Max(maxima, V::FirstN(V::Load(p + j), lowest, live - j));
    }
    float max = V::MaxOf(maxima);
    if (!first && m_[row] > max) max = m_[row];
    const float rescale = first ? 0.0f : math::Exp(m_[row] - max);
    auto sum = V::Zero();
    for (int64_t j = 0; j < kKvStep; j += 16) {
      auto value = V::Zero();
      if (j < live) {
        const auto e = E::Round(Exp<V>(V::Sub(V::Load(p + j), V::Set(max))));
        value = V::FirstN(e, V::Zero(), live - j);
      }
      V::Store(p + j, value);
      sum = j == 0 ? value : V::Add(sum, value);
    }
    m_[row] = max;
    l_[row] = __builtin_fmaf(l_[row], rescale, V::TreeSum(sum));
    float* acc = acc_ + row * width_;
    for (int64_t d = 0; d < width_; d += 16) {
      V::Store(acc + d, V::Mul(V::Load(acc + d), V::Set(rescale)));
    }
  }

  template <int kR>
  BAKESTONE_INLINE void AddValues(int64_t row, int64_t block, const int64_t* live,
                                  const float (*p)[kKvStep]) {
    constexpr int kW = V::kPairWidth;
    int64_t d = 0;
    for (; d + 16 * kW <= width_; d += 16 * kW) AddChannels<kR, kW>(row, block, d, live, p);
    for (; d < width_; d += 16) AddChannels<kR, 1>(row, block, d, live, p);
  }

  template <int kR, int kW>
  BAKESTONE_INLINE void AddChannels(int64_t row, int64_t block, int64_t d, const int64_t* live,
                                    const float (*p)[kKvStep]) {
    const float* rows[kR];
    typename V::F acc[kR][kW];
#pragma GCC unroll 8
    for (int i = 0; i < kR; ++i) {
      rows[i] = p[i];
#pragma GCC unroll 8
      for (int v = 0; v < kW; ++v) acc[i][v] = V::Load(acc_ + (row + i) * width_ + d + 16 * v);
    }
    PairBlock<V, kR, kW>(rows, block, values_ + block * width_ + d, width_, kKvBlock, acc);
#pragma GCC unroll 8
    for (int i = 0; i < kR; ++i) {
      if (live[i] <= block) continue;  // this row does not see the block
#pragma GCC unroll 8
      for (int v = 0; v < kW; ++v) V::Store(acc_ + (row + i) * width_ + d + 16 * v, acc[i][v]);
    }
  }

  void Merge(int64_t row, bool first) {
    float *total = total_ + row * width_, *acc = acc_ + row * width_;
    if (first) {
      for (int64_t d = 0; d < width_; d += 16) V::Store(total + d, V::Load(acc + d));
      total_m_[row] = m_[row];
      total_l_[row] = l_[row];
      return;
    }
    const float max = m_[row] > total_m_[row] ? m_[row] : total_m_[row];
    const float a = math::Exp(total_m_[row] - max), b = math::Exp(m_[row] - max);
    total_l_[row] = __builtin_fmaf(total_l_[row], a, l_[row] * b);
    for (int64_t d = 0; d < width_; d += 16) {
      const auto scaled = V::Mul(V::Load(acc + d), V::Set(b));
      V::Store(total + d, V::Fma(V::Load(total + d), V::Set(a), scaled));
    }
    total_m_[row] = max;
  }

  void Output(int64_t row) {
    float* out = args_.out + (rows_.begin + row / group_) * args_.out_stride + Channel(row);
    const auto inverse = V::Set(1.0f / total_l_[row]);
    for (int64_t d = 0; d < dim_; d += 16) {
      V::StoreN(out + d, V::Mul(V::Load(total_ + row * width_ + d), inverse), dim_ - d);
    }
  }

  const AttentionArgs& args_;
  const KvRun& run_;
  const Range rows_;
  const int64_t kv_head_, dim_, width_, group_, count_;
  // All in scratch: keys [D][64], values [64][width], q [count][D], acc and total [count][width].
  float *keys_, *values_, *q_, *acc_, *total_, *m_, *l_, *total_m_, *total_l_;
};

template <class V, class E>
void RunAttention(const AttentionArgs& args, const KvRun& run, Range rows, int64_t kv_head,
                  void* scratch) noexcept {
  AttentionTile<V, E>(args, run, rows, kv_head, scratch).Run();
}

template <class V, class E>
void RunSegment(const AttentionArgs& args, const KvRun& run, Range rows, int64_t kv_head,
                int64_t segment, float* partial, void* scratch) noexcept {
  AttentionTile<V, E>(args, run, rows, kv_head, scratch).Segment(segment * kKvSegment, partial);
}

template <class V>
void MergeSegments(const AttentionArgs& args, const KvRun& run, Range rows, int64_t kv_head,
                   const float* partials, void* scratch) noexcept {
  AttentionTile<V, PageF32<V>>(args, run, rows, kv_head, scratch).MergeAll(partials);
}

}  // namespace
}  // namespace bakestone
