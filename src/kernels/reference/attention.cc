// One query row and head at a time, over the slots that it sees: the last `window` up to its own,
// or all.
//
//   s_j = (q . k_j) * scale                        the dot product: attention_pages.h
//   with a soft cap c: s_j = c - 2c / (exp(s_j * (2 / c)) + 1), which is c tanh(s_j / c)
//   per segment of 512 slots, m = l = acc = 0; per step of 64 with a slot that the row sees:
//     m' = max(m, s_j of those);  r = exp(m - m') (0 in the row's first step of the segment)
//     p_j = exp(s_j - m'), 0 where the row does not see; below 2^-50: 0 (not with f32 pages)
//     l = fma(l, r, sum p_j)                       16 lanes: lane i has slots i, i + 16, i + 32, i
//     + 48 acc = acc * r; per block of 32 with a slot that the row sees: acc += sum p_j v_j
//   segments are merged in order: m' = max(m1, m2), a = exp(m1 - m'), b = exp(m2 - m')
//     l = fma(l1, a, l2 * b), acc = fma(acc1, a, acc2 * b)
//   a sink is one more segment, the last: m its score, l = 1, acc = 0
//   out = acc * (1 / l)
//
// With bf16 pages q, k, p and v are rounded to bf16, and l sums the rounded p. f16 pages round k
// and v only (saturating), Q8_0 pages quantize k, v and q per 32 channels.
#include "kernels/math.h"
#include "kernels/reference/attention_pages.h"

namespace bakestone::reference {
namespace {

template <KvElement kElement>
struct RowFor;
template <>
struct RowFor<KvElement::kBF16> {
  using Type = FloatRow<BF16>;
};
template <>
struct RowFor<KvElement::kF32> {
  using Type = FloatRow<F32>;
};
template <>
struct RowFor<KvElement::kF16> {
  using Type = FloatRow<F16>;
};
template <>
struct RowFor<KvElement::kQ8_0> {
  using Type = Q8Row;
};

struct State {
  float m, l;
  float acc[kMaxHeadDim];
};

// What a row sees, in absolute slots; both inclusive.
struct Sight {
  int64_t first, last;
  bool Sees(int64_t begin, int64_t size) const { return first < begin + size && last >= begin; }
};

template <class Row>
void Step(const Row& row, const AttentionArgs& args, Sight sight, int64_t j0, bool first,
          State& state) {
  float s[kKvStep], p[kKvStep];
  float max = first ? -INFINITY : state.m;
  for (int64_t j = 0; j < kKvStep; ++j) {
    if (!sight.Sees(j0 + j, 1)) continue;
    s[j] = row.Score(j0 + j) * args.scale;
    if (args.soft_cap > 0) {
      const float e = math::Exp(s[j] * (2.0f / args.soft_cap)) + 1.0f;
      s[j] = args.soft_cap - (args.soft_cap + args.soft_cap) / e;
    }
    max = s[j] > max ? s[j] : max;
  }
  const float rescale = first ? 0.0f : math::Exp(state.m - max);
  float lanes[16];
  for (int64_t j = 0; j < kKvStep; ++j) {
    p[j] = sight.Sees(j0 + j, 1) ? Row::Probability(math::Exp(s[j] - max)) : 0.0f;
    lanes[j % 16] = j < 16 ? p[j] : lanes[j % 16] + p[j];
  }
  state.l = std::fma(state.l, rescale, TreeSum(lanes));
  for (int64_t d = 0; d < args.head_dim; ++d) state.acc[d] = state.acc[d] * rescale;
  for (int64_t block = 0; block < kKvStep; block += kKvBlock) {
    if (sight.Sees(j0 + block, kKvBlock)) row.AddBlock(p + block, j0 + block, state.acc);
  }
  state.m = max;
}

void Merge(const State& next, int64_t head_dim, State& total) {
  const float max = next.m > total.m ? next.m : total.m;
  const float a = math::Exp(total.m - max), b = math::Exp(next.m - max);
  total.l = std::fma(total.l, a, next.l * b);
  for (int64_t d = 0; d < head_dim; ++d) {
    total.acc[d] = std::fma(total.acc[d], a, next.acc[d] * b);
  }
  total.m = max;
}

template <class Row>
State AttendSegment(const Row& row, const Tile& tile, int64_t i, int64_t segment) {
  const Sight sight{tile.First(i), tile.Last(i)};
  State state{};
  bool first = true;
  for (int64_t j0 = segment; j0 < segment + kKvSegment; j0 += kKvStep) {
    if (!sight.Sees(j0, kKvStep)) continue;
    Step(row, tile.args, sight, j0, first, state);
    first = false;
  }
  return state;
}

// All segments of row i in order, each from `get`, then the sink.
template <class Get>
void MergeRow(const Tile& tile, int64_t i, const Get& get) {
  const int64_t head_dim = tile.args.head_dim;
  State total{};
  for (int64_t segment = tile.FirstSegment(i); segment <= tile.Last(i); segment += kKvSegment) {
    const State next = get(segment);
    if (segment == tile.FirstSegment(i)) {
      total = next;
    } else {
      Merge(next, head_dim, total);
    }
  }
  if (tile.args.sinks != nullptr) Merge({tile.args.sinks[tile.Head(i)], 1, {}}, head_dim, total);
  const float inverse = 1.0f / total.l;
  for (int64_t d = 0; d < head_dim; ++d) tile.Out(i)[d] = total.acc[d] * inverse;
}

}  // namespace

template <KvElement kElement>
void AttentionOf<kElement>::Write(const WriteKvArgs& args, const KvRun& run, Range rows) noexcept {
  const int64_t dim = args.head_dim, bytes = KvHeadBytes(kElement, dim);
  for (int64_t t = rows.begin; t < rows.end; ++t) {
    const int64_t slot = SlotOf(run, t), page = slot / kKvBlock;
    for (int64_t h = 0; h < args.kv_heads; ++h) {
      const float* k = args.k + t * args.k_stride + h * dim;
      const float* v = args.v + t * args.v_stride + h * dim;
      for (int64_t d = 0; d < dim; ++d) {
        if (!IsFinite(k[d]) || !IsFinite(v[d])) SetError(args.error, kErrorNotFinite);
      }
      RowFor<kElement>::Type::Write(k, v, dim, slot, run.k_pages[page] + h * bytes,
                                    run.v_pages[page] + h * bytes, args.error);
    }
  }
}

template <KvElement kElement>
void AttentionOf<kElement>::Attend(const AttentionArgs& args, const KvRun& run, Range rows,
                                   int64_t kv_head, void*) noexcept {
  const Tile tile{args, run, rows, kv_head};
  for (int64_t i = 0; i < tile.count(); ++i) {
    const typename RowFor<kElement>::Type row(tile, i);
    MergeRow(tile, i, [&](int64_t segment) { return AttendSegment(row, tile, i, segment); });
  }
}

template <KvElement kElement>
void AttentionOf<kElement>::Segment(const AttentionArgs& args, const KvRun& run, Range rows,
                                    int64_t kv_head, int64_t segment, float* partial,
                                    void*) noexcept {
  const Tile tile{args, run, rows, kv_head};
  const int64_t stride = AttentionPartialStride(args.head_dim);
  for (int64_t i = 0; i < tile.count(); ++i) {
    const typename RowFor<kElement>::Type row(tile, i);
    const State state = AttendSegment(row, tile, i, segment * kKvSegment);
    std::memcpy(partial + i * stride, state.acc, static_cast<size_t>(args.head_dim) * 4);
    partial[(i + 1) * stride - 16] = state.m;
    partial[(i + 1) * stride - 15] = state.l;
  }
}

template struct AttentionOf<KvElement::kBF16>;
template struct AttentionOf<KvElement::kF32>;
template struct AttentionOf<KvElement::kF16>;
template struct AttentionOf<KvElement::kQ8_0>;

void MergeSegments(const AttentionArgs& args, const KvRun& run, Range rows, int64_t kv_head,
                   const float* partials, void*) noexcept {
  const Tile tile{args, run, rows, kv_head};
  const int64_t stride = AttentionPartialStride(args.head_dim);
  for (int64_t i = 0; i < tile.count(); ++i) {
    MergeRow(tile, i, [&](int64_t segment) {
      const int64_t index = (segment - tile.FirstSegment(0)) / kKvSegment;
      const float* from = partials + (index * tile.count() + i) * stride;
      State next{from[stride - 16], from[stride - 15], {}};
      std::memcpy(next.acc, from, static_cast<size_t>(args.head_dim) * 4);
      return next;
    });
  }
}

}  // namespace bakestone::reference
