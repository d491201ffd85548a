#include "kernels/test_cases.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>

#include "base/rng.h"
#include "kernels/math.h"
#include "kernels/pack.h"
#include "tensor/half.h"

namespace bakestone::testing {
namespace {

// Where the f16 scales of a block lie; -1: none.
struct ScaleOffsets {
  int first, second;
};

ScaleOffsets OffsetsOf(PanelType type) {
  switch (type) {
    case PanelType::kQ4_1:
    case PanelType::kQ5_1:
    case PanelType::kQ4_K:
    case PanelType::kQ5_K:
      return {0, 2};
    case PanelType::kQ2_K:
      return {80, 82};
    case PanelType::kQ3_K:
      return {108, -1};
    case PanelType::kQ6_K:
      return {208, -1};
    default:
      return {0, -1};
  }
}

// Replaces the scales of one block, random bytes so far.
void SetScales(PanelType type, Rng& rng, uint8_t* block) {
  if (type == PanelType::kMXFP4) {
    block[0] = static_cast<uint8_t>(112 + rng.Below(16));
    return;
  }
  const ScaleOffsets offsets = OffsetsOf(type);
  for (const int offset : {offsets.first, offsets.second}) {
    if (offset < 0) continue;
    const uint16_t half = FloatToF16(0.02f * rng.Normal());
    std::memcpy(block + offset, &half, 2);
  }
}

void SetPlain(PanelType type, const std::vector<float>& x, uint8_t* out) {
  for (size_t i = 0; i < x.size(); ++i) {
    if (type == PanelType::kF32) {
      std::memcpy(out + 4 * i, &x[i], 4);
      continue;
    }
    const uint16_t bits = type == PanelType::kF16 ? FloatToF16(x[i]) : FloatToBF16(x[i]);
    std::memcpy(out + 2 * i, &bits, 2);
  }
}

template <class T>
void Update(Sha256& hash, const std::vector<T>& values) {
  hash.Update(
      std::span(reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(T)));
}

}  // namespace

std::vector<float> RandomFloats(int64_t n, uint64_t seed, float scale) {
  Rng rng(seed, 1);
  std::vector<float> out(static_cast<size_t>(n));
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = scale * rng.Normal() * (i % 97 == 96 ? 8.0f : 1.0f);
  }
  return out;
}

std::vector<uint8_t> RandomTensor(PanelType type, int64_t n, int64_t k, uint64_t seed) {
  const DType disk = DiskTypeOf(type);
  std::vector<uint8_t> out(static_cast<size_t>(n * RowBytes(disk, k)));
  if (!IsQuantized(disk)) {
    SetPlain(type, RandomFloats(n * k, seed, 0.3f), out.data());
    return out;
  }
  Rng rng(seed, 2);
  for (uint8_t& byte : out) byte = static_cast<uint8_t>(rng.Below(256));
  const auto block = static_cast<size_t>(BlockBytes(disk));
  for (size_t i = 0; i < out.size(); i += block) SetScales(type, rng, out.data() + i);
  return out;
}

PanelCase RandomPanel(PanelType type, int64_t n, int64_t k, uint64_t seed) {
  PanelCase out;
  out.rows = RandomTensor(type, n, k, seed);
  out.storage = Buffer<uint8_t>(PanelBytes(type, n, k));
  out.panel = {out.storage.data(), n, k, type};
  PackStrips({type, out.rows.data(), n, k, nullptr, out.storage.data()}, {0, NumStrips(n)});
  return out;
}

ActivationCase MakeActivations(const KernelTable& table, ActType type, const std::vector<float>& x,
                               int64_t rows, int64_t k) {
  ActivationCase out;
  const int64_t stride = (k + 63) / 64 * 64;
  const auto size = [&](int64_t per_row) { return static_cast<size_t>(rows * per_row); };
  out.q.resize(size(stride));
  out.f.resize(size(stride));
  out.scale.resize(size(k / 32 + 1));
  out.scaled_sum.resize(size(k / 32 + 1));
  out.sum.resize(size(k / 16 + 1));
  out.view = {type,
              rows,
              k,
              stride,
              out.q.data(),
              out.f.data(),
              out.scale.data(),
              out.scaled_sum.data(),
              out.sum.data()};
  const QuantizeArgs args{x.data(), k, out.view, {0, k}, &out.error};
  table.serve.rows.quantize[static_cast<int>(type)](args, {0, rows});
  return out;
}

// Every fifth weight is tiny, or zero where that is what becomes of it.
void AddTiny(PanelCase& panel, Tiny tiny) {
  if (tiny == Tiny::kNone) return;
  auto* values = reinterpret_cast<uint16_t*>(panel.storage.data());
  const int64_t count = panel.storage.bytes() / 2;
  for (int64_t i = 0; i < count; i += 5) values[i] = tiny == Tiny::kFlushed ? 0 : 0x9A34;
  panel.panel.flushed = tiny == Tiny::kFlushed;
}

std::vector<float> RunMatMul(const KernelTable& table, const MatMulCase& c) {
  const auto x = RandomFloats(c.m * c.k, 11);
  const auto bias = RandomFloats(c.n, 12);
  PanelCase panel = RandomPanel(c.type, c.n, c.k, 13);
  const PanelCase up = RandomPanel(c.type, c.n, c.k, 14);
  AddTiny(panel, c.tiny);
  const ActType act = c.exact ? ActType::kF32 : ActTypeOf(c.type);
  const ActivationCase a = MakeActivations(table, act, x, c.m, c.k);
  std::vector<float> y = RandomFloats(c.m * c.n, 15);
  const MatMulArgs args{a.view,   panel.panel, up.panel,   c.bias ? bias.data() : nullptr,
                        y.data(), c.n,         c.epilogue, 0.37f};
  Buffer<uint8_t> scratch(MatMulScratchBytes(c.k));
  const MatMulKernels& kernels = table.serve.matmul[static_cast<int>(c.type)];
  const int64_t strips = NumStrips(c.n), cut = strips / 2;
  for (const Range range : {Range{cut, strips}, Range{0, cut}}) {
    (c.exact ? kernels.exact : kernels.run)(args, range, scratch.data());
  }
  return y;
}

std::vector<float> Sinks(const AttentionCase& c) { return RandomFloats(c.heads, 24); }

const char* KvElementName(KvElement element) {
  constexpr const char* kNames[kNumKvElements] = {"bf16", "f32", "f16", "q8_0"};
  return kNames[static_cast<int>(element)];
}

AttentionRunner::AttentionRunner(const KernelTable& table, const AttentionCase& c)
    : table_(table),
      c_(c),
      q_(RandomFloats(c.rows * c.heads * c.head_dim, 23)),
      sinks_(Sinks(c)),
      out_(q_.size()),
      scratch_(AttentionScratchBytes(c.heads / c.kv_heads, c.head_dim)) {
  const int64_t kv_dim = c.kv_heads * c.head_dim;
  const auto k = RandomFloats(c.slots * kv_dim, 21), v = RandomFloats(c.slots * kv_dim, 22);
  const int64_t pages = (c.slots + kKvBlock - 1) / kKvBlock;
  const int64_t bytes = c.kv_heads * KvHeadBytes(c.element, c.head_dim);
  const int64_t aligned = (bytes + 63) / 64 * 64;
  storage_ = Buffer<uint8_t>(2 * pages * aligned, Fill::kZero);
  for (int64_t i = 0; i < pages; ++i) {
    k_pages_.push_back(storage_.data() + 2 * i * aligned);
    v_pages_.push_back(storage_.data() + (2 * i + 1) * aligned);
  }
  uint32_t error = 0;
  table.serve.attention[static_cast<int>(c.element)].write(
      {k.data(), v.data(), kv_dim, kv_dim, c.kv_heads, c.head_dim, &error},
      {0, c.slots, 0, k_pages_.data(), v_pages_.data()}, {0, c.slots});
}

void AttentionRunner::RunTile(const AttentionArgs& args, const KvRun& run, Range rows,
                              int64_t kv_head) {
  const AttentionKernels& kernels = table_.serve.attention[static_cast<int>(c_.element)];
  if (!c_.by_segment) {
    kernels.tile(args, run, rows, kv_head, scratch_.data());
    return;
  }
  const int64_t last = LastVisibleSlot(run, rows.end - 1) / kKvSegment;
  const int64_t first = FirstVisibleSlot(args, SlotOf(run, rows.begin)) / kKvSegment;
  const int64_t size =
      (rows.end - rows.begin) * (c_.heads / c_.kv_heads) * AttentionPartialStride(c_.head_dim);
  std::vector<float> partials(static_cast<size_t>((last - first + 1) * size));
  for (int64_t segment = last; segment >= first; --segment) {  // in any order
    kernels.segment(args, run, rows, kv_head, segment, partials.data() + (segment - first) * size,
                    scratch_.data());
  }
  kernels.merge(args, run, rows, kv_head, partials.data(), scratch_.data());
}

const std::vector<float>& AttentionRunner::Run() {
  const int64_t q_dim = c_.heads * c_.head_dim;
  const float scale = 1.0f / static_cast<float>(c_.head_dim / 8 + 1);
  const AttentionArgs args{q_.data(),
                           out_.data(),
                           q_dim,
                           q_dim,
                           c_.heads,
                           c_.kv_heads,
                           c_.head_dim,
                           scale,
                           c_.window,
                           c_.soft_cap,
                           c_.sinks ? sinks_.data() : nullptr};
  KvRun run{0, c_.rows, c_.slots - c_.rows, k_pages_.data(), v_pages_.data()};
  if (c_.both_ways) {
    run.first_slot = c_.slots - 1;
    run.slot_step = 0;
  }
  if (c_.ahead > 0) {
    run.first_slot += c_.ahead;
    run.last_slot = c_.slots - 1;
  }
  for (int64_t row = 0; row < c_.rows; row += c_.tile) {
    const Range rows{row, row + c_.tile < c_.rows ? row + c_.tile : c_.rows};
    for (int64_t h = 0; h < c_.kv_heads; ++h) RunTile(args, run, rows, h);
  }
  return out_;
}

std::vector<float> RunAttention(const KernelTable& table, const AttentionCase& c) {
  return AttentionRunner(table, c).Run();
}

std::vector<float> RunDelta(const KernelTable& table, const DeltaCase& c) {
  const int64_t stride = 2 * c.key_dim + c.value_dim + 3, size = c.key_dim * c.value_dim;
  const auto qkv = RandomFloats(c.rows * stride, 51, 0.3f);
  std::vector<float> decay = RandomFloats(2 * c.rows, 52), rate = RandomFloats(2 * c.rows, 53);
  for (float& value : decay) value = 1 / (1 + std::fabs(value));
  for (float& value : rate) value = 1 / (1 + std::fabs(value));
  std::vector<float> out(static_cast<size_t>(c.rows * c.value_dim)),
      after(static_cast<size_t>(size));
  const std::vector<float> first = RandomFloats(size, 54);
  const float* q = qkv.data();
  for (int64_t begin = 0; begin < c.rows; begin += c.step) {
    const float* before = begin == 0 ? first.data() : after.data();
    table.serve.rows.delta_rule(
        {q, q + c.key_dim, q + 2 * c.key_dim, stride, decay.data(), rate.data(), 2, before,
         after.data(), out.data(), c.value_dim, c.key_dim, c.value_dim},
        {begin, std::min(begin + c.step, c.rows)});
  }
  out.insert(out.end(), after.begin(), after.end());
  return out;
}

std::vector<float> RunRwkv(const KernelTable& table, const DeltaCase& c) {
  const int64_t dim = c.value_dim, stride = 6 * dim + 1;
  const auto parts = RandomFloats(c.rows * stride, 55, 0.3f);
  std::vector<float> out(static_cast<size_t>(c.rows * dim)), after(static_cast<size_t>(dim * dim));
  const std::vector<float> first = RandomFloats(dim * dim, 56);
  const float* p = parts.data();
  for (int64_t begin = 0; begin < c.rows; begin += c.step) {
    const float* before = begin == 0 ? first.data() : after.data();
    table.serve.rows.rwkv_rule({p, p + dim, p + 2 * dim, p + 3 * dim, p + 4 * dim, p + 5 * dim,
                                stride, before, after.data(), out.data(), dim, dim},
                               {begin, std::min(begin + c.step, c.rows)});
  }
  out.insert(out.end(), after.begin(), after.end());
  return out;
}

const char* PanelTypeName(PanelType type) { return DTypeName(DiskTypeOf(type)); }

int64_t SmallK(PanelType type) {
  const int64_t block = PanelShapeOf(type).block;
  return block == 2 ? 45 : block;
}

namespace {

std::string HashFloats(const std::vector<float>& values) {
  Sha256 hash;
  Update(hash, values);
  return ToHex(hash.Finish());
}

void AddPanelGoldens(const KernelTable& table, std::vector<Golden>& out) {
  for (int i = 0; i < kNumPanelTypes; ++i) {
    const auto type = static_cast<PanelType>(i);
    const std::string name = PanelTypeName(type);
    const int64_t k = PanelShapeOf(type).block == 256 ? 768 : 288, n = 40;
    const PanelCase panel = RandomPanel(type, n, k, 13);
    Sha256 hash;
    hash.Update(panel.storage.span());
    out.push_back({"pack/" + name, ToHex(hash.Finish())});
    std::vector<float> strip(static_cast<size_t>(k * 16));
    table.serve.dequantize[i].strip(panel.panel, 1, 0, k, strip.data());
    out.push_back({"dequantize/" + name, HashFloats(strip)});
    out.push_back({"matmul/" + name, HashFloats(RunMatMul(table, {type, 11, n, k}))});
    out.push_back({"exact/" + name, HashFloats(RunMatMul(table, {type, 11, n, k, true}))});
  }
}

void AddQuantizeGoldens(const KernelTable& table, std::vector<Golden>& out) {
  constexpr const char* kNames[kNumActTypes] = {"int8x32", "int8x128", "bf16", "f32"};
  for (int i = 0; i < kNumActTypes; ++i) {
    const ActivationCase a =
        MakeActivations(table, static_cast<ActType>(i), RandomFloats(5 * 512, 31), 5, 512);
    Sha256 hash;
    Update(hash, a.q);
    Update(hash, a.f);
    Update(hash, a.scale);
    Update(hash, a.scaled_sum);
    Update(hash, a.sum);
    out.push_back({std::string("quantize/") + kNames[i], ToHex(hash.Finish())});
  }
}

void AddRowGoldens(const KernelTable& table, std::vector<Golden>& out) {
  constexpr int64_t kRows = 3, kK = 1111;
  const RowKernels& rows = table.serve.rows;
  const auto a = RandomFloats(kRows * kK, 41, 3.0f), b = RandomFloats(kRows * kK, 42);
  std::vector<float> y(a.size());
  rows.rms_norm({a.data(), kK, b.data(), 1e-5f, y.data(), kK, kK}, {0, kRows});
  out.push_back({"rms_norm", HashFloats(y)});
  rows.swiglu({a.data(), b.data(), y.data(), kK, kK, kK, kK}, {0, kRows});
  out.push_back({"swiglu", HashFloats(y)});
  rows.add({a.data(), b.data(), y.data(), kK, kK, kK, kK}, {0, kRows});
  out.push_back({"add", HashFloats(y)});
  rows.layer_norm({a.data(), kK, b.data(), a.data(), 1e-5f, y.data(), kK, kK}, {0, kRows});
  out.push_back({"layer_norm", HashFloats(y)});
  rows.geglu({a.data(), b.data(), y.data(), kK, kK, kK, kK}, {0, kRows});
  out.push_back({"geglu", HashFloats(y)});
  rows.erf_geglu({a.data(), b.data(), y.data(), kK, kK, kK, kK}, {0, kRows});
  out.push_back({"erf_geglu", HashFloats(y)});
  rows.gate({a.data(), b.data(), y.data(), kK, kK, kK, kK}, {0, kRows});
  out.push_back({"gate", HashFloats(y)});
  rows.clamped_swiglu({a.data(), b.data(), y.data(), kK, kK, kK, kK}, {0, kRows});
  out.push_back({"clamped_swiglu", HashFloats(y)});
  rows.exp({a.data(), y.data(), kK, kK, kK, -0.7f}, {0, kRows});
  out.push_back({"exp", HashFloats(y)});
  rows.soft_cap({a.data(), y.data(), kK, kK, kK, 2.5f}, {0, kRows});
  out.push_back({"soft_cap", HashFloats(y)});
  SoftmaxStats stats[kRows];
  rows.softmax_stats(a.data(), kK, kK, stats, {0, kRows});
  for (int64_t i = 0; i < kRows; ++i) {
    rows.softmax(a.data() + i * kK, kK, stats[i], y.data() + i * kK);
  }
  for (const SoftmaxStats& s : stats) y.insert(y.end(), {s.max, s.sum});
  out.push_back({"softmax", HashFloats(y)});
  const int64_t dim = 36, head_dim = 40, heads = 3;
  std::vector<float> x = RandomFloats(kRows * heads * head_dim, 43), cos, sin;
  for (int64_t i = 0; i < kRows * dim / 2; ++i) {
    cos.push_back(static_cast<float>(math::Cos(0.37 * static_cast<double>(i))));
    sin.push_back(static_cast<float>(math::Sin(0.37 * static_cast<double>(i))));
  }
  rows.rope({x.data(), heads * head_dim, heads, head_dim, dim, cos.data(), sin.data()}, {0, kRows});
  out.push_back({"rope", HashFloats(x)});
}

// Every type of pages, with and without a window, a soft cap and sinks.
void AddAttentionGoldens(const KernelTable& table, std::vector<Golden>& out) {
  for (const KvElement element :
       {KvElement::kBF16, KvElement::kF32, KvElement::kF16, KvElement::kQ8_0}) {
    const std::string name = std::string("attention/") + KvElementName(element);
    AttentionCase c{element, 4, 2, 72, 1100, 21};
    if (element == KvElement::kF16 || element == KvElement::kQ8_0) {
      out.push_back({name, HashFloats(RunAttention(table, c))});
    }
    c.window = 550;
    c.soft_cap = 20;
    c.sinks = true;
    out.push_back({name + "/window_cap_sinks", HashFloats(RunAttention(table, c))});
  }
}

}  // namespace

std::vector<Golden> ComputeGoldens(const KernelTable& table) {
  std::vector<Golden> out;
  AddPanelGoldens(table, out);
  AddQuantizeGoldens(table, out);
  AddRowGoldens(table, out);
  out.push_back(
      {"attention/bf16", HashFloats(RunAttention(table, {KvElement::kBF16, 6, 2, 64, 1100, 37}))});
  out.push_back(
      {"attention/f32", HashFloats(RunAttention(table, {KvElement::kF32, 4, 4, 44, 530, 21}))});
  AddAttentionGoldens(table, out);
  out.push_back({"delta_rule", HashFloats(RunDelta(table, {40, 76, 9}))});
  out.push_back({"rwkv_rule", HashFloats(RunRwkv(table, {76, 76, 9}))});
  return out;
}

}  // namespace bakestone::testing
