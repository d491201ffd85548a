// One query row and head at a time, over the slots 0 .. its own:
//
//   s_j = (q . k_j) * scale                        pair order over the channels
//   per segment of 512 slots, m = l = acc = 0; per step of 64:
//     m' = max(m, s_j of live slots);  r = exp(m - m') (0 in the first step)
//     p_j = exp(s_j - m'), 0 where the slot is not live
//     l = fma(l, r, sum p_j)                       16 lanes: lane i has slots i, i + 16, i + 32, i + 48
//     acc = acc * r; per block of 32 with a live slot: acc += even + odd, chains of fma(p_j, v_j)
//   segments are merged in order: m' = max(m1, m2), a = exp(m1 - m'), b = exp(m2 - m')
//     l = fma(l1, a, l2 * b), acc = fma(acc1, a, acc2 * b)
//   out = acc * (1 / l)
//
// With bf16 pages q, k, p and v are rounded to bf16, and l sums the rounded p.
#include <cmath>
#include <cstring>

#include "kernels/math.h"
#include "kernels/reference/reference.h"
#include "tensor/half.h"

namespace bakestone::reference {
namespace {

constexpr int64_t kMaxHeadDim = 512;

struct BF16 {
  using Type = uint16_t;
  static float Load(const uint8_t* page, int64_t i) {
    uint16_t bits;
    std::memcpy(&bits, page + 2 * i, 2);
    return BF16ToFloat(bits);
  }
  static void Store(uint8_t* page, int64_t i, float x) {
    const uint16_t bits = FloatToBF16(RoundBF16(x));
    std::memcpy(page + 2 * i, &bits, 2);
  }
  static float Round(float x) { return RoundBF16(x); }
};

struct F32 {
  using Type = float;
  static float Load(const uint8_t* page, int64_t i) {
    float x;
    std::memcpy(&x, page + 4 * i, 4);
    return x;
  }
  static void Store(uint8_t* page, int64_t i, float x) { std::memcpy(page + 4 * i, &x, 4); }
  static float Round(float x) { return x; }
};

// Elements of a page: keys [kv_heads][D / 2][32][2], values [kv_heads][16][D][2].
int64_t KeyIndex(int64_t head, int64_t head_dim, int64_t slot, int64_t d) {
  return head * head_dim * kKvBlock + d / 2 * 64 + slot % kKvBlock * 2 + d % 2;
}
int64_t ValueIndex(int64_t head, int64_t head_dim, int64_t slot, int64_t d) {
  return head * head_dim * kKvBlock + slot % kKvBlock / 2 * head_dim * 2 + d * 2 + slot % 2;
}

template <class E>
void WriteKv(const WriteKvArgs& args, const KvRun& run, Range rows) {
  for (int64_t t = rows.begin; t < rows.end; ++t) {
    const int64_t slot = run.first_slot + (t - run.row_begin);
    uint8_t* keys = run.k_pages[slot / kKvBlock];
    uint8_t* values = run.v_pages[slot / kKvBlock];
    for (int64_t h = 0; h < args.kv_heads; ++h) {
      for (int64_t d = 0; d < args.head_dim; ++d) {
        const float k = args.k[t * args.k_stride + h * args.head_dim + d];
        const float v = args.v[t * args.v_stride + h * args.head_dim + d];
        if (!IsFinite(k) || !IsFinite(v)) SetError(args.error, kErrorNotFinite);
        E::Store(keys, KeyIndex(h, args.head_dim, slot, d), k);
        E::Store(values, ValueIndex(h, args.head_dim, slot, d), v);
      }
    }
  }
}

// Where one row and head attends.
template <class E>
struct Row {
  const KvRun& run;
  int64_t kv_head, head_dim, slot;
  float scale;
  float q[kMaxHeadDim];

  float Score(int64_t j) const {
    const uint8_t* page = run.k_pages[j / kKvBlock];
    float sum = 0;
    for (int64_t d0 = 0; d0 < head_dim; d0 += 32) {
      float even = 0, odd = 0;
      for (int64_t d = d0; d < head_dim && d < d0 + 32; d += 2) {
        even = std::fma(q[d], E::Load(page, KeyIndex(kv_head, head_dim, j, d)), even);
        odd = std::fma(q[d + 1], E::Load(page, KeyIndex(kv_head, head_dim, j, d + 1)), odd);
      }
      sum += even + odd;
    }
    return sum * scale;
  }

  // acc += even + odd over the block of 32 slots that starts at j0.
  void AddBlock(const float* p, int64_t j0, float* acc) const {
    const uint8_t* page = run.v_pages[j0 / kKvBlock];
    for (int64_t d = 0; d < head_dim; ++d) {
      float even = 0, odd = 0;
      for (int64_t j = 0; j < kKvBlock; j += 2) {
        even = std::fma(p[j], E::Load(page, ValueIndex(kv_head, head_dim, j, d)), even);
        odd = std::fma(p[j + 1], E::Load(page, ValueIndex(kv_head, head_dim, j + 1, d)), odd);
      }
      acc[d] += even + odd;
    }
  }
};

struct State {
  float m, l;
  float acc[kMaxHeadDim];
};

template <class E>
void Step(const Row<E>& row, int64_t j0, bool first, State& state) {
  float s[kKvStep], p[kKvStep];
  const int64_t live = row.slot - j0 + 1 < kKvStep ? row.slot - j0 + 1 : kKvStep;
  float max = first ? -INFINITY : state.m;
  for (int64_t j = 0; j < live; ++j) {
    s[j] = row.Score(j0 + j);
    max = s[j] > max ? s[j] : max;
  }
  const float rescale = first ? 0.0f : math::Exp(state.m - max);
  float lanes[16];
  for (int64_t j = 0; j < kKvStep; ++j) {
    p[j] = j < live ? E::Round(math::Exp(s[j] - max)) : 0.0f;
    lanes[j % 16] = j < 16 ? p[j] : lanes[j % 16] + p[j];
  }
  state.l = std::fma(state.l, rescale, TreeSum(lanes));
  for (int64_t d = 0; d < row.head_dim; ++d) state.acc[d] = state.acc[d] * rescale;
  for (int64_t block = 0; block < live; block += kKvBlock) {
    row.AddBlock(p + block, j0 + block, state.acc);
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

template <class E>
State AttendSegment(const Row<E>& row, int64_t segment) {
  State state{};
  for (int64_t j0 = segment; j0 <= row.slot && j0 < segment + kKvSegment; j0 += kKvStep) {
    Step(row, j0, j0 == segment, state);
  }
  return state;
}

void AddSegment(const State& next, int64_t segment, int64_t head_dim, State& total) {
  if (segment == 0) {
    total = next;
  } else {
    Merge(next, head_dim, total);
  }
}

void Finish(const State& total, int64_t head_dim, float* out) {
  const float inverse = 1.0f / total.l;
  for (int64_t d = 0; d < head_dim; ++d) out[d] = total.acc[d] * inverse;
}

// The rows of a tile: heads of the group fastest.
struct Tile {
  const AttentionArgs& args;
  const KvRun& run;
  const Range rows;
  const int64_t kv_head;

  int64_t group() const { return args.heads / args.kv_heads; }
  int64_t count() const { return (rows.end - rows.begin) * group(); }
  int64_t Slot(int64_t i) const { return run.first_slot + (rows.begin + i / group() - run.row_begin); }
  int64_t Channel(int64_t i) const { return (kv_head * group() + i % group()) * args.head_dim; }
  float* Out(int64_t i) const {
    return args.out + (rows.begin + i / group()) * args.out_stride + Channel(i);
  }
  template <class E>
  Row<E> MakeRow(int64_t i) const {
    Row<E> row{run, kv_head, args.head_dim, Slot(i), args.scale, {}};
    const float* q = args.q + (rows.begin + i / group()) * args.q_stride + Channel(i);
    for (int64_t d = 0; d < args.head_dim; ++d) row.q[d] = E::Round(q[d]);
    return row;
  }
};

template <class E>
void Attention(const Tile& tile) {
  for (int64_t i = 0; i < tile.count(); ++i) {
    const Row<E> row = tile.MakeRow<E>(i);
    State total{};
    for (int64_t segment = 0; segment <= row.slot; segment += kKvSegment) {
      AddSegment(AttendSegment(row, segment), segment, tile.args.head_dim, total);
    }
    Finish(total, tile.args.head_dim, tile.Out(i));
  }
}

template <class E>
void Segment(const Tile& tile, int64_t segment, float* partial) {
  const int64_t stride = AttentionPartialStride(tile.args.head_dim);
  for (int64_t i = 0; i < tile.count(); ++i) {
    const State state = AttendSegment(tile.MakeRow<E>(i), segment * kKvSegment);
    std::memcpy(partial + i * stride, state.acc, static_cast<size_t>(tile.args.head_dim) * 4);
    partial[(i + 1) * stride - 16] = state.m;
    partial[(i + 1) * stride - 15] = state.l;
  }
}

}  // namespace

void WriteKvBF16(const WriteKvArgs& args, const KvRun& run, Range rows) noexcept {
  WriteKv<BF16>(args, run, rows);
}
void WriteKvF32(const WriteKvArgs& args, const KvRun& run, Range rows) noexcept {
  WriteKv<F32>(args, run, rows);
}
void AttentionBF16(const AttentionArgs& args, const KvRun& run, Range rows, int64_t kv_head,
                   void*) noexcept {
  Attention<BF16>({args, run, rows, kv_head});
}
void AttentionF32(const AttentionArgs& args, const KvRun& run, Range rows, int64_t kv_head,
                  void*) noexcept {
  Attention<F32>({args, run, rows, kv_head});
}
void SegmentBF16(const AttentionArgs& args, const KvRun& run, Range rows, int64_t kv_head,
                 int64_t segment, float* partial, void*) noexcept {
  Segment<BF16>({args, run, rows, kv_head}, segment, partial);
}
void SegmentF32(const AttentionArgs& args, const KvRun& run, Range rows, int64_t kv_head,
                int64_t segment, float* partial, void*) noexcept {
  Segment<F32>({args, run, rows, kv_head}, segment, partial);
}

void MergeSegments(const AttentionArgs& args, const KvRun& run, Range rows, int64_t kv_head,
                   const float* partials, void*) noexcept {
  const Tile tile{args, run, rows, kv_head};
  const int64_t stride = AttentionPartialStride(args.head_dim);
  for (int64_t i = 0; i < tile.count(); ++i) {
    State total{};
    for (int64_t segment = 0; segment <= tile.Slot(i); segment += kKvSegment) {
      const float* from = partials + (segment / kKvSegment * tile.count() + i) * stride;
      State next{from[stride - 16], from[stride - 15], {}};
      std::memcpy(next.acc, from, static_cast<size_t>(args.head_dim) * 4);
      AddSegment(next, segment, args.head_dim, total);
    }
    Finish(total, args.head_dim, tile.Out(i));
  }
}

}  // namespace bakestone::reference
