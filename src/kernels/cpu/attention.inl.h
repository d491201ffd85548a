// Attention over a vector class; the formulas are at the top of reference/attention.cc. A tile is
// rows x the query heads of one key/value head; each step of 64 slots goes through three phases for
// all of its rows: scores, softmax, values. Both products read the pages as they are, kRows rows by
// kWidth vectors at a time; how pages are held and multiplied is a policy: attention_float.inl.h,
// attention_q8.inl.h.
#pragma once

#include "kernels/cpu/math.inl.h"
#include "kernels/cpu/unpack.inl.h"
#include "kernels/kernel_table.h"

namespace bakestone {
namespace {

// Rows of a register tile of float products: 6 x 2 vectors x 2 chains are 24 of AVX-512's 32
// registers, 3 x 1 x 2 are 12 of AVX2's 16 (two a vector) and 24 of NEON's 32 (four a vector).
template <class V>
constexpr int kRegisterRows = V::kPairRows > 2 ? 6 : 3;

// A part of the scratch, handed out in multiples of 16 floats.
class ScratchFloats {
 public:
  explicit ScratchFloats(void* scratch) : next_(static_cast<float*>(scratch)) {}
  BAKESTONE_INLINE float* Take(int64_t size) {
    float* taken = next_;
    next_ += (size + 15) / 16 * 16;
    return taken;
  }

 private:
  float* next_;
};

// What the policies share: where the rows of a tile are, and its buffers.
template <class V>
struct TileRows {
  const AttentionArgs& args;
  const KvRun& run;
  const Range rows;
  const int64_t kv_head, dim, width, group, count;
  float *scores, *acc, *rescale;  // [count][64], [count][width], [count]
  int64_t *first, *last;          // [count]: the slots that a row sees, both inclusive
  int32_t *begin, *end;           // [count]: those of the step, from its first one

  BAKESTONE_INLINE int64_t Head(int64_t row) const { return kv_head * group + row % group; }
  BAKESTONE_INLINE const float* Query(int64_t row) const {
    return args.q + (rows.begin + row / group) * args.q_stride + Head(row) * dim;
  }
  BAKESTONE_INLINE bool Sees(int64_t row, int64_t block) const {
    return begin[row] < block + kKvBlock && end[row] > block;
  }
  // The page that takes the place of `page` in the next step. The first rows that read a page fetch
  // that one, line by line: a row that decodes would wait for every page, of which the hardware
  // foresees none.
  BAKESTONE_INLINE const uint8_t* Next(const uint8_t* const* pages, int64_t page) const {
    constexpr int64_t kStepPages = kKvStep / kKvBlock;
    const int64_t final = last[count - 1] / kKvBlock;
    return pages[page + kStepPages < final ? page + kStepPages : final];
  }
};

template <class V, template <class> class Pages>
class AttentionTile {
 public:
  AttentionTile(const AttentionArgs& args, const KvRun& run, Range rows, int64_t kv_head,
                void* scratch)
      : t_{args,
           run,
           rows,
           kv_head,
           args.head_dim,
           (args.head_dim + 15) / 16 * 16,
           args.heads / args.kv_heads,
           (rows.end - rows.begin) * (args.heads / args.kv_heads),
           nullptr,
           nullptr,
           nullptr,
           nullptr,
           nullptr,
           nullptr,
           nullptr} {
    ScratchFloats floats(scratch);
    t_.scores = floats.Take(t_.count * kKvStep);
    t_.acc = floats.Take(t_.count * t_.width);
    t_.rescale = floats.Take(t_.count);
    t_.first = reinterpret_cast<int64_t*>(floats.Take(2 * t_.count));
    t_.last = reinterpret_cast<int64_t*>(floats.Take(2 * t_.count));
    t_.begin = reinterpret_cast<int32_t*>(floats.Take(t_.count));
    t_.end = reinterpret_cast<int32_t*>(floats.Take(t_.count));
    total_ = floats.Take(t_.count * t_.width);
    m_ = floats.Take(t_.count);
    l_ = floats.Take(t_.count);
    next_m_ = floats.Take(t_.count);
    total_m_ = floats.Take(t_.count);
    total_l_ = floats.Take(t_.count);
    for (int64_t row = 0; row < t_.count; ++row) {
      t_.first[row] = FirstVisibleSlot(args, SlotOf(run, rows.begin + row / t_.group));
      t_.last[row] = LastVisibleSlot(run, rows.begin + row / t_.group);
    }
    pages_.Prepare(t_, floats);
  }

  void Run() {
    const int64_t last = t_.last[t_.count - 1];
    for (int64_t segment = FirstSegment(0); segment <= last; segment += kKvSegment) {
      RunSegment(segment);
      for (int64_t row = 0; row < t_.count; ++row) {
        if (Sees(row, segment)) Merge(row, segment == FirstSegment(row));
      }
    }
    for (int64_t row = 0; row < t_.count; ++row) Output(row);
  }

  void Segment(int64_t segment, float* partial) {
    RunSegment(segment);
    for (int64_t row = 0; row < t_.count; ++row, partial += t_.width + 16) {
      const float* acc = t_.acc + row * t_.width;
      for (int64_t d = 0; d < t_.width; d += 16) V::Store(partial + d, V::Load(acc + d));
      partial[t_.width] = m_[row];
      partial[t_.width + 1] = l_[row];
    }
  }

  // Merges what Segment made of each; acc, m and l are read from there.
  void MergeAll(const float* partials) {
    const int64_t stride = t_.width + 16, first = FirstSegment(0);
    for (int64_t row = 0; row < t_.count; ++row) {
      for (int64_t segment = FirstSegment(row); segment <= t_.last[row]; segment += kKvSegment) {
        const float* from = partials + ((segment - first) / kKvSegment * t_.count + row) * stride;
        float* acc = t_.acc + row * t_.width;
        for (int64_t d = 0; d < t_.width; d += 16) V::Store(acc + d, V::Load(from + d));
        m_[row] = from[t_.width];
        l_[row] = from[t_.width + 1];
        Merge(row, segment == FirstSegment(row));
      }
      Output(row);
    }
  }

 private:
  BAKESTONE_INLINE int64_t FirstSegment(int64_t row) const {
    return t_.first[row] / kKvSegment * kKvSegment;
  }
  BAKESTONE_INLINE bool Sees(int64_t row, int64_t segment) const {
    return t_.last[row] >= segment && t_.first[row] < segment + kKvSegment;
  }

  static void Fill(float* p, int64_t n, float value) {
    for (int64_t i = 0; i < n; i += 16) V::Store(p + i, V::Set(value));
  }

  // exp(-infinity - m) is 0: the first step of a row needs no case of its own.
  void RunSegment(int64_t segment) {
    const int64_t last = t_.last[t_.count - 1];
    Fill(t_.acc, t_.count * t_.width, 0);
    Fill(l_, t_.count, 0);
    Fill(m_, t_.count, -__builtin_inff());
    int64_t from = t_.first[0] / kKvStep * kKvStep;
    if (from < segment) from = segment;
    for (int64_t j0 = from; j0 <= last && j0 < segment + kKvSegment; j0 += kKvStep) RunStep(j0);
  }

  void RunStep(int64_t j0) {
    // The rows that see a slot of the step follow each other: both ends of what a row sees ascend.
    int64_t begin = 0, end = t_.count;
    while (begin < end && t_.last[begin] < j0) begin += t_.group;
    while (end > begin && t_.first[end - 1] >= j0 + kKvStep) end -= t_.group;
    for (int64_t row = begin; row < end; ++row) {
      const int64_t first = t_.first[row] - j0, live = t_.last[row] - j0 + 1;
      t_.begin[row] = static_cast<int32_t>(first > 0 ? first : 0);
      t_.end[row] = static_cast<int32_t>(live < kKvStep ? live : kKvStep);
    }
    for (int64_t row = begin; row < end;) row += pages_.Scores(t_, row, end - row, j0);
    Softmax(begin, end);
    for (int64_t row = begin; row < end;) row += pages_.AddValues(t_, row, end - row, j0);
  }

  // Scores to probabilities in place, zero where the row does not see. Three loops, so that the
  // rows' long chains of dependent operations overlap.
  void Softmax(int64_t begin, int64_t end) {
    const float cap = t_.args.soft_cap;
    for (int64_t row = begin; row < end; ++row) {
      float* s = t_.scores + row * kKvStep;
      if (cap > 0) SoftCap(s, cap);
      const float max = Max(s, t_.begin[row], t_.end[row]);
      next_m_[row] = max > m_[row] ? max : m_[row];
    }
    for (int64_t row = begin / 16 * 16; row < end; row += 16) {
      V::Store(t_.rescale + row, Exp<V>(V::Sub(V::Load(m_ + row), V::Load(next_m_ + row))));
    }
    for (int64_t row = begin; row < end;) {
      if (row + 2 <= end && Whole(row) && Whole(row + 1)) {
        Probabilities<2>(row);
        row += 2;
      } else {
        Whole(row) ? Probabilities<1>(row) : SomeProbabilities(row);
        ++row;
      }
    }
  }

  BAKESTONE_INLINE bool Whole(int64_t row) const {
    return t_.begin[row] == 0 && t_.end[row] == kKvStep;
  }

  BAKESTONE_INLINE void Advance(int64_t row, typename V::F sum) {
    m_[row] = next_m_[row];
    l_[row] = __builtin_fmaf(l_[row], t_.rescale[row], V::TreeSum(sum));
  }

  static void SoftCap(float* s, float cap) {
    for (int64_t j = 0; j < kKvStep; j += 16) {
      V::Store(s + j, bakestone::SoftCap<V>(V::Load(s + j), cap));
    }
  }

  // x where begin <= j + lane < end, else y.
  BAKESTONE_INLINE static typename V::F Visible(typename V::F x, typename V::F y, int64_t j,
                                                int64_t begin, int64_t end) {
    const auto kept = V::FirstN(x, y, end - j);
    return begin > j ? V::FirstN(y, kept, begin - j) : kept;
  }

  BAKESTONE_INLINE static float Max(const float* s, int64_t begin, int64_t end) {
    if (begin == 0 && end == kKvStep) {
      return V::MaxOf(
          V::Max(V::Max(V::Load(s), V::Load(s + 16)), V::Max(V::Load(s + 32), V::Load(s + 48))));
    }
    const auto lowest = V::Set(-__builtin_inff());
    auto max = lowest;
    for (int64_t j = 0; j < end; j += 16) {
      max = V::Max(max, Visible(V::Load(s + j), lowest, j, begin, end));
    }
    return V::MaxOf(max);
  }

  // kN rows that see all of the step, side by side.
  template <int kN>
  BAKESTONE_INLINE void Probabilities(int64_t row) {
    float* s = t_.scores + row * kKvStep;
    typename V::F p[kN][4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
#pragma GCC unroll 2
      for (int n = 0; n < kN; ++n) {
        p[n][i] = Pages<V>::Probability(
            V::Sub(V::Load(s + n * kKvStep + 16 * i), V::Set(next_m_[row + n])));
        V::Store(s + n * kKvStep + 16 * i, p[n][i]);
      }
    }
#pragma GCC unroll 2
    for (int n = 0; n < kN; ++n) {
      Advance(row + n, V::Add(V::Add(V::Add(p[n][0], p[n][1]), p[n][2]), p[n][3]));
    }
  }

  void SomeProbabilities(int64_t row) {
    float* s = t_.scores + row * kKvStep;
    typename V::F sum = V::Zero();
    for (int64_t j = 0; j < kKvStep; j += 16) {
      auto p = V::Zero();
      if (j < t_.end[row]) {
        p = Pages<V>::Probability(V::Sub(V::Load(s + j), V::Set(next_m_[row])));
        p = Visible(p, V::Zero(), j, t_.begin[row], t_.end[row]);
      }
      V::Store(s + j, p);
      sum = j == 0 ? p : V::Add(sum, p);
    }
    Advance(row, sum);
  }

  void Merge(int64_t row, bool first) {
    float *total = total_ + row * t_.width, *acc = t_.acc + row * t_.width;
    if (first) {
      for (int64_t d = 0; d < t_.width; d += 16) V::Store(total + d, V::Load(acc + d));
      total_m_[row] = m_[row];
      total_l_[row] = l_[row];
      return;
    }
    const float max = m_[row] > total_m_[row] ? m_[row] : total_m_[row];
    const float a = math::Exp(total_m_[row] - max), b = math::Exp(m_[row] - max);
    total_l_[row] = __builtin_fmaf(total_l_[row], a, l_[row] * b);
    for (int64_t d = 0; d < t_.width; d += 16) {
      const auto scaled = V::Mul(V::Load(acc + d), V::Set(b));
      V::Store(total + d, V::Fma(V::Load(total + d), V::Set(a), scaled));
    }
    total_m_[row] = max;
  }

  void Output(int64_t row) {
    if (t_.args.sinks != nullptr) {  // one more segment: m is the sink, l is 1, acc is 0
      m_[row] = t_.args.sinks[t_.Head(row)];
      l_[row] = 1;
      Fill(t_.acc + row * t_.width, t_.width, 0);
      Merge(row, false);
    }
    float* out =
        t_.args.out + (t_.rows.begin + row / t_.group) * t_.args.out_stride + t_.Head(row) * t_.dim;
    const auto inverse = V::Set(1.0f / total_l_[row]);
    for (int64_t d = 0; d < t_.dim; d += 16) {
      V::StoreN(out + d, V::Mul(V::Load(total_ + row * t_.width + d), inverse), t_.dim - d);
    }
  }

  TileRows<V> t_;
  Pages<V> pages_;
  // All in scratch: total [count][width], the others [count].
  float *total_, *m_, *l_, *next_m_, *total_m_, *total_l_;
};

template <class V, template <class> class Pages>
void RunAttention(const AttentionArgs& args, const KvRun& run, Range rows, int64_t kv_head,
                  void* scratch) noexcept {
  AttentionTile<V, Pages>(args, run, rows, kv_head, scratch).Run();
}

template <class V, template <class> class Pages>
void RunSegment(const AttentionArgs& args, const KvRun& run, Range rows, int64_t kv_head,
                int64_t segment, float* partial, void* scratch) noexcept {
  AttentionTile<V, Pages>(args, run, rows, kv_head, scratch).Segment(segment * kKvSegment, partial);
}

template <class V, template <class> class Pages>
void MergeSegments(const AttentionArgs& args, const KvRun& run, Range rows, int64_t kv_head,
                   const float* partials, void* scratch) noexcept {
  AttentionTile<V, Pages>(args, run, rows, kv_head, scratch).MergeAll(partials);
}

}  // namespace
}  // namespace bakestone
