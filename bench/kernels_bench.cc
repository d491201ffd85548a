// Kernels on one core: BM_<Op>/<dtype>/<isa>/<M>x<N>x<K>. Products report multiply-adds per second
// and, in `share`, the part of this core's limit, which is measured first: integer dot products (or
// f32 multiply-adds) for many rows, bytes read for one row over panels larger than the caches.
//
//   cmake --preset release -DBAKESTONE_BENCH=ON && cmake --build --preset release --target
//   kernels_bench build/release/bench/kernels_bench --benchmark_filter=Q4_1/avx512
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/isa.h"
#include "kernels/peak.h"
#include "kernels/test_cases.h"
#include "tensor/buffer.h"

namespace bakestone {
namespace {

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Bytes per second that one core reads from memory.
double ReadBandwidth() {
  static const double value = [] {
    Buffer<uint64_t> data(int64_t{32} << 20, Fill::kZero);  // 256 MiB
    std::memset(data.data(), 1, static_cast<size_t>(data.bytes()));
    double best = 0;
    for (int round = 0; round < 3; ++round) {
      const double start = Seconds();
      uint64_t sums[8] = {};
      for (int64_t i = 0; i < data.size(); i += 8) {
        for (int j = 0; j < 8; ++j) sums[j] += data[i + j];
      }
      benchmark::DoNotOptimize(sums);
      best = std::max(best, static_cast<double>(data.bytes()) / (Seconds() - start));
    }
    return best;
  }();
  return value;
}

// Multiply-adds per second of the one-block product that never leaves the L1 cache.
double PeakProducts(const KernelTable& table, PanelType type) {
  const int64_t k = 512;
  const auto panel = testing::RandomPanel(type, 16, k, 1);
  const auto a =
      testing::MakeActivations(table, ActTypeOf(type), testing::RandomFloats(8 * k, 2), 8, k);
  std::vector<float> y(8 * 16);
  Buffer<uint8_t> scratch(MatMulScratchBytes(k));
  const MatMulArgs args{a.view, panel.panel, {}, nullptr, y.data(), 16, Epilogue::kStore, 1};
  const auto run = table.serve.matmul[static_cast<int>(type)].run;
  double best = 0;
  for (int round = 0; round < 5; ++round) {
    const double start = Seconds();
    for (int i = 0; i < 2000; ++i) run(args, {0, 1}, scratch.data());
    best = std::max(best, 2000.0 * 8 * 16 * k / (Seconds() - start));
  }
  return best;
}

struct Shape {
  int64_t m, n, k;
};

// A panel of n rows that repeats 64 random ones: drawing them all would take longer than the
// benchmark.
Buffer<uint8_t> RepeatedPanel(PanelType type, int64_t n, int64_t k) {
  const auto rows = testing::RandomPanel(type, 64, k, 1);
  Buffer<uint8_t> out(PanelBytes(type, n, k));
  for (int64_t at = 0; at < out.bytes(); at += rows.storage.bytes()) {
    const int64_t left = std::min(rows.storage.bytes(), out.bytes() - at);
    std::memcpy(out.data() + at, rows.storage.data(), static_cast<size_t>(left));
  }
  return out;
}

void MatMulBench(benchmark::State& state, const KernelTable& table, PanelType type, Shape s) {
  const Buffer<uint8_t> storage = RepeatedPanel(type, s.n, s.k);
  const Panel panel{storage.data(), s.n, s.k, type};
  const auto a = testing::MakeActivations(table, ActTypeOf(type),
                                          testing::RandomFloats(s.m * s.k, 2), s.m, s.k);
  std::vector<float> y(static_cast<size_t>(s.m * s.n));
  Buffer<uint8_t> scratch(MatMulScratchBytes(s.k));
  const MatMulArgs args{a.view, panel, {}, nullptr, y.data(), s.n, Epilogue::kStore, 1};
  const auto run = table.serve.matmul[static_cast<int>(type)].run;
  for (auto _ : state) run(args, {0, NumStrips(s.n)}, scratch.data());
  const double products = static_cast<double>(s.m * s.n * s.k);
  const double bytes = static_cast<double>(PanelBytes(type, s.n, s.k));
  const double limit = s.m == 1 ? ReadBandwidth() : PeakProducts(table, type);
  using benchmark::Counter;
  state.counters["mac/s"] = Counter(products, Counter::kIsIterationInvariantRate);
  state.counters["bytes/s"] = Counter(bytes, Counter::kIsIterationInvariantRate);
  state.counters["share"] =
      Counter((s.m == 1 ? bytes : products) / limit, Counter::kIsIterationInvariantRate);
}

// Multiply-adds per second that one core can do with the table's registers: of bf16 pages, or of
// f32.
double PeakOfPages(const KernelTable& table, KvElement element) {
  const PeakKernels& peak = PeakKernelsOf(table.isa);
  const bool tiles = element == KvElement::kBF16 && peak.bf16_dot != nullptr;
  const Buffer<uint8_t> operands(kPeakOperandBytes, Fill::kZero);
  alignas(64) float result[16];
  double best = 0;
  for (int round = 0; round < 10; ++round) {
    const double start = Seconds();
    const int64_t products =
        (tiles ? peak.bf16_dot : peak.float_fma)(100000, operands.data(), result);
    best = std::max(best, static_cast<double>(products) / (Seconds() - start));
  }
  return best;
}

// Multiply-adds of what the rows see, and their share of this core's limit.
void AttentionBench(benchmark::State& state, const KernelTable& table,
                    const testing::AttentionCase& c) {
  testing::AttentionRunner runner(table, c);
  for (auto _ : state) runner.Run();
  const double products =
      static_cast<double>(2 * c.heads * c.head_dim * c.rows * (c.slots - c.rows / 2));
  using benchmark::Counter;
  state.counters["flop/s"] = Counter(2 * products, Counter::kIsIterationInvariantRate);
  state.counters["share"] =
      Counter(products / PeakOfPages(table, c.element), Counter::kIsIterationInvariantRate);
}

void RowsBench(benchmark::State& state, const KernelTable& table, bool swiglu, int64_t k) {
  const auto a = testing::RandomFloats(k, 1), b = testing::RandomFloats(k, 2);
  std::vector<float> y(static_cast<size_t>(k));
  for (auto _ : state) {
    if (swiglu) {
      table.serve.rows.swiglu({a.data(), b.data(), y.data(), k, k, k, k}, {0, 1});
    } else {
      table.serve.rows.rms_norm({a.data(), k, b.data(), 1e-5f, y.data(), k, k}, {0, 1});
    }
    benchmark::DoNotOptimize(y.data());
  }
  state.SetBytesProcessed(state.iterations() * k * 12);
}

// One head of the gated delta rule; bytes of its state, read and written once a call.
void DeltaBench(benchmark::State& state, const KernelTable& table, int64_t rows) {
  constexpr int64_t kDim = 128;
  const auto qkv = testing::RandomFloats(rows * 3 * kDim, 1, 0.3f);
  const std::vector<float> gates(static_cast<size_t>(rows), 0.5f);
  std::vector<float> s(kDim * kDim), y(static_cast<size_t>(rows * kDim));
  const float* q = qkv.data();
  for (auto _ : state) {
    table.serve.rows.delta_rule({q, q + kDim, q + 2 * kDim, 3 * kDim, gates.data(), gates.data(), 1,
                                 s.data(), s.data(), y.data(), kDim, kDim, kDim},
                                {0, rows});
    benchmark::DoNotOptimize(y.data());
  }
  state.SetBytesProcessed(state.iterations() * kDim * kDim * 8);
  state.counters["flop/s"] = benchmark::Counter(static_cast<double>(rows * kDim * kDim * 7),
                                                benchmark::Counter::kIsIterationInvariantRate);
}

// An empty call: what one parallel loop costs.
void PoolBench(benchmark::State& state) {
  ThreadPool pool(static_cast<int>(state.range(0)));
  for (auto _ : state) {
    pool.ParallelFor(64, 8, [](int64_t begin, int64_t, int) { benchmark::DoNotOptimize(begin); });
  }
}

std::string Name(const char* op, const char* dtype, const KernelTable& table, Shape s) {
  return std::string("BM_") + op + "/" + dtype + "/" + IsaName(table.isa) + "/" +
         std::to_string(s.m) + "x" + std::to_string(s.n) + "x" + std::to_string(s.k);
}

void Register(const KernelTable& table) {
  for (int i = 0; i < kNumPanelTypes; ++i) {
    const auto type = static_cast<PanelType>(i);
    const bool super = PanelShapeOf(type).block == 256;
    const int64_t k = super ? 2048 : 576, n = super ? 2048 : 1536;
    for (const Shape s : {Shape{1, n, k}, Shape{1, 131072, k}, Shape{4, 131072, k},
                          Shape{8, 131072, k}, Shape{8, n, k}, Shape{32, n, k}, Shape{512, n, k}}) {
      benchmark::RegisterBenchmark(
          Name("MatMul", testing::PanelTypeName(type), table, s).c_str(),
          [&table, type, s](auto& st) { MatMulBench(st, table, type, s); });
    }
  }
  for (const KvElement element : {KvElement::kBF16, KvElement::kF16, KvElement::kQ8_0}) {
    // SmolLM2-135M: prompts, a chunk at the end of a long one, decoding
    for (const auto& [slots, rows] :
         {std::pair<int64_t, int64_t>{512, 512}, {2048, 512}, {512, 1}, {8192, 1}}) {
      const testing::AttentionCase c{element, 9, 3, 64, slots, rows};
      benchmark::RegisterBenchmark(
          Name("Attention", testing::KvElementName(element), table, {rows, slots, 64}).c_str(),
          [&table, c](auto& st) { AttentionBench(st, table, c); });
    }
  }
  for (const int64_t rows : {1, 64}) {
    benchmark::RegisterBenchmark(Name("DeltaRule", "f32", table, {rows, 128, 128}).c_str(),
                                 [&table, rows](auto& st) { DeltaBench(st, table, rows); });
  }
  for (const bool swiglu : {false, true}) {
    benchmark::RegisterBenchmark(
        Name(swiglu ? "SwiGlu" : "RmsNorm", "f32", table, {1, 1, 1536}).c_str(),
        [&table, swiglu](auto& st) { RowsBench(st, table, swiglu, 1536); });
  }
}

}  // namespace
}  // namespace bakestone

int main(int argc, char** argv) {
  for (const bakestone::KernelTable* table : bakestone::AvailableKernels()) {
    if (table->isa != bakestone::Isa::kReference) bakestone::Register(*table);
  }
  benchmark::RegisterBenchmark("BM_ParallelFor", bakestone::PoolBench)
      ->Arg(1)
      ->Arg(2)
      ->UseRealTime();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
