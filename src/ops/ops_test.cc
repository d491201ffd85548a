// Ops: the same bits for any number of threads, fused or not, one row or many; checks; errors.
#include <cmath>
#include <cstring>
#include <deque>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "kernels/isa.h"
#include "kernels/pack.h"
#include "kernels/test_cases.h"
#include "ops/activated_products.h"
#include "ops/attention.h"
#include "ops/context.h"
#include "ops/linear.h"
#include "ops/lora.h"
#include "ops/peaks.h"
#include "ops/rows.h"
#include "tensor/dequantize.h"

namespace bakestone::ops {
namespace {

using testing::RandomFloats;
using testing::RandomTensor;

MatrixView<float> View(std::vector<float>& x, int64_t cols) {
  return DenseView(x.data(), static_cast<int64_t>(x.size()) / cols, cols);
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * 4) == 0;
}

PackedMatrix RandomMatrix(ThreadPool& pool, PanelType type, int64_t n, int64_t k, uint64_t seed) {
  return Pack(pool, DiskTypeOf(type), RandomTensor(type, n, k, seed).data(), n, k);
}

// The first matrix of an adapter's pair.
struct NarrowMatrix {
  NarrowMatrix(int64_t n, int64_t k, uint64_t seed)
      : rows(RandomTensor(PanelType::kBF16, n, k, seed)), storage(NarrowPanelBytes(n, k)) {
    panel =
        PackNarrow(DenseView(reinterpret_cast<const uint16_t*>(rows.data()), n, k), storage.data());
  }
  std::vector<uint8_t> rows;
  Buffer<uint8_t> storage;
  NarrowPanel panel;
};

// As if it had been packed for an adapter.
Panel Flushed(const PackedMatrix& matrix) {
  Panel panel = matrix.panel;
  panel.flushed = true;
  return panel;
}

struct Machine {
  explicit Machine(int threads) : pool(threads), context(ChooseKernels(nullptr), pool) {}
  ThreadPool pool;
  Context context;
};

// A small layer: norm, three products, SwiGLU, residual, adapter; every op of linear.h and rows.h.
std::vector<float> RunLayer(Machine& machine, int64_t rows, PanelType type, Precision precision) {
  const int64_t k = 512, n = 77;
  Context& context = machine.context;
  auto x = RandomFloats(8 * k, 1);
  x.resize(static_cast<size_t>(rows * k));
  const auto weight = RandomFloats(k, 2);
  const auto a = RandomMatrix(machine.pool, type, n, k, 3),
             b = RandomMatrix(machine.pool, type, n, k, 4);
  const auto down = RandomMatrix(machine.pool, PanelType::kF16, k, n, 5);
  const NarrowMatrix lora_a(6, k, 6);
  const auto lora_b = RandomMatrix(machine.pool, PanelType::kBF16, n, 6, 7);
  QuantizedRows quantized;
  const ActType types[] = {ActTypeFor(type, precision), LoraActType(precision)};
  RmsNormQuantize(context, View(x, k), weight, 1e-5f, {}, types, quantized, "x");
  std::vector<float> gate(static_cast<size_t>(rows * n)), up = gate;
  const Product products[] = {{a.panel, nullptr, View(gate, n)}, {b.panel, nullptr, View(up, n)}};
  const LoraPanels pair = {lora_a.panel, Flushed(lora_b), 0.5f};
  const LoraRun lora[] = {{&pair, {0, rows}, 0}};
  MatMul(context, quantized, products, precision, Epilogue::kStore, lora);
  const ActType f32[] = {ActType::kF32};
  QuantizedRows inner;
  SwiGlu(context, View(gate, n), View(up, n), View(gate, n));
  Quantize(context, View(gate, n), f32, inner, "inner");
  const Product last[] = {{down.panel, nullptr, View(x, k)}};
  MatMul(context, inner, last, precision, Epilogue::kAdd);
  return x;
}

TEST(Ops, ResultsDoNotDependOnTheNumberOfThreads) {
  for (const PanelType type : {PanelType::kQ4_1, PanelType::kQ6_K, PanelType::kBF16}) {
    for (const Precision precision : {Precision::kServe, Precision::kExact}) {
      Machine one(1), three(3);
      EXPECT_TRUE(SameBits(RunLayer(one, 8, type, precision), RunLayer(three, 8, type, precision)))
          << testing::PanelTypeName(type);
    }
  }
}

TEST(Ops, ARowDoesNotDependOnItsNeighbours) {
  for (const PanelType type : {PanelType::kQ4_1, PanelType::kQ6_K, PanelType::kBF16}) {
    Machine machine(2);
    const auto many = RunLayer(machine, 8, type, Precision::kServe);
    const auto one = RunLayer(machine, 1, type, Precision::kServe);
    EXPECT_EQ(0, std::memcmp(many.data(), one.data(), one.size() * 4))
        << testing::PanelTypeName(type);
  }
}

TEST(NarrowPanel, IsAPanelOnceWidened) {
  ThreadPool pool(1);
  for (const int64_t k : {1, 31, 64, 97}) {
    for (const int64_t n : {1, 4, 6, 8, 11, 15, 16, 23, 32, 40}) {
      const NarrowMatrix narrow(n, k, 7);
      const PackedMatrix whole = Pack(pool, DType::kBF16, narrow.rows.data(), n, k);
      const int64_t strip = StripBytes(PanelType::kBF16, k);
      EXPECT_LE(narrow.storage.bytes(), whole.storage.bytes());
      EXPECT_EQ(std::memcmp(narrow.panel.data, whole.panel.data,
                            static_cast<size_t>(n / kStripRows * strip)),
                0);
      if (n % kStripRows == 0) continue;
      Buffer<uint8_t> room(strip, Fill::kZero);
      const Panel last = Widen(narrow.panel, room.data());
      EXPECT_EQ(last.n, n % kStripRows);
      EXPECT_EQ(std::memcmp(last.data, whole.panel.data + n / kStripRows * strip,
                            static_cast<size_t>(strip)),
                0)
          << n << " x " << k;
    }
  }
  EXPECT_EQ(NarrowPanelBytes(8, 576), 8 * 576 * 2);
}

// y = fma(scale, B h, y), h = A x, of rows of y, by the reference's kernels, row by row.
void AddByTheReference(const NarrowMatrix& a, const Panel& b, float scale, const QuantizedRows& x,
                       Range rows, Precision precision, MatrixView<float> y) {
  const ServeKernels& reference = ChooseKernels("reference").serve;
  const MatMulKernels& kernels = reference.matmul[static_cast<int>(PanelType::kBF16)];
  const auto run = precision == Precision::kExact ? kernels.exact : kernels.run;
  const ActType type = LoraActType(precision);
  const int64_t rank = b.k;
  Buffer<uint8_t> panel(PanelBytes(PanelType::kBF16, rank, x.k())),
      scratch(MatMulScratchBytes(std::max(x.k(), rank)));
  const Panel first = PackFlushed(
      DenseView(reinterpret_cast<const uint16_t*>(a.rows.data()), rank, x.k()), panel.data());
  std::vector<float> inner(static_cast<size_t>(rank)), form(static_cast<size_t>(rank + 1));
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    uint32_t error = 0;
    run({x.form(type, row, 1), first, {}, nullptr, inner.data(), rank, Epilogue::kStore, 1},
        {0, NumStrips(rank)}, scratch.data());
    const Activations h{type,        1,       rank,    rank + rank % 2, nullptr,
                        form.data(), nullptr, nullptr, nullptr};
    reference.rows.quantize[static_cast<int>(type)]({inner.data(), rank, h, {0, rank}, &error},
                                                    {0, 1});
    run({h, b, {}, nullptr, y.Row(row), y.stride, Epilogue::kAddScaled, scale}, {0, NumStrips(b.n)},
        scratch.data());
  }
}

// Adapters of several ranks on runs of one row to more than a piece, on some rows none.
TEST(Lora, AddsToProductsWhatTheReferenceAdds) {
  const int64_t k = 96, widths[] = {77, 160}, counts[] = {1, 3, 70, 1, 25, 150, 1, 1},
                ranks[] = {1, 6, 16, 17, 64, 5, 6, 33};
  const int64_t rows = 260;
  auto x = RandomFloats(rows * k, 1);
  for (const Precision precision : {Precision::kServe, Precision::kExact}) {
    for (const int threads : {1, 2, 40}) {
      for (const Epilogue epilogue : {Epilogue::kStore, Epilogue::kAdd}) {
        Machine machine(threads);
        QuantizedRows quantized;
        const ActType types[] = {LoraActType(precision), ActTypeFor(PanelType::kQ8_0, precision)};
        Quantize(machine.context, View(x, k), types, quantized, "x");
        std::vector<float> y[2], expected[2];
        std::vector<PackedMatrix> weights;
        std::vector<Product> products, alone;
        for (int i = 0; i < 2; ++i) {
          weights.push_back(RandomMatrix(machine.pool, PanelType::kQ8_0, widths[i], k,
                                         50 + static_cast<uint64_t>(i)));
          y[i] = expected[i] = RandomFloats(rows * widths[i], 60);
          products.push_back({weights.back().panel, nullptr, View(y[i], widths[i])});
          alone.push_back({weights.back().panel, nullptr, View(expected[i], widths[i])});
        }
        MatMul(machine.context, quantized, alone, precision, epilogue);
        std::vector<NarrowMatrix> first;
        std::vector<PackedMatrix> second;
        std::deque<LoraPanels> pairs;
        std::vector<LoraRun> runs;
        int64_t begin = 0;
        for (uint64_t i = 0; i < std::size(counts); ++i) {
          for (uint64_t product = 0; product < 2; ++product) {
            if (i % 3 == 1 && product == 1) continue;  // not at every matrix
            const uint64_t seed = 4 * i + 2 * product;
            first.emplace_back(ranks[i], k, seed);
            second.push_back(
                RandomMatrix(machine.pool, PanelType::kBF16, widths[product], ranks[i], seed + 1));
            const Range own{begin, begin + counts[i]};
            pairs.push_back({first.back().panel, Flushed(second.back()), 0.25f});
            runs.push_back({&pairs.back(), own, static_cast<int64_t>(product)});
            AddByTheReference(first.back(), Flushed(second.back()), 0.25f, quantized, own,
                              precision, View(expected[product], widths[product]));
          }
          begin += counts[i] + i % 2;
        }
        ASSERT_EQ(begin, rows - 4);
        MatMul(machine.context, quantized, products, precision, epilogue, runs);
        EXPECT_TRUE(SameBits(y[0], expected[0])) << threads;
        EXPECT_TRUE(SameBits(y[1], expected[1])) << threads;
      }
    }
  }
}

TEST(Lora, InnerProductsThatAreNotFiniteAreAnError) {
  Machine machine(2);
  const int64_t k = 64, rows = 3;
  std::vector<float> x(static_cast<size_t>(rows * k), 1e38f), y(static_cast<size_t>(rows * 16));
  const ActType types[] = {ActType::kBF16};
  QuantizedRows quantized;
  Quantize(machine.context, View(x, k), types, quantized, "x");
  const NarrowMatrix a(6, k, 1);
  const auto b = RandomMatrix(machine.pool, PanelType::kBF16, 16, 6, 2),
             w = RandomMatrix(machine.pool, PanelType::kBF16, 16, k, 3);
  const Product product = {w.panel, nullptr, View(y, 16)};
  Buffer<uint8_t> storage(a.storage.bytes());
  std::memset(storage.data(), 0x7E, static_cast<size_t>(storage.bytes()));
  const LoraPanels pair = {{storage.data(), 6, k}, Flushed(b), 1};
  const LoraRun run = {&pair, {0, rows}, 0};
  EXPECT_THROW(MatMul(machine.context, quantized, {&product, 1}, Precision::kServe,
                      Epilogue::kStore, {&run, 1}),
               Error);
}

void ExpectSameForms(const Activations& a, const Activations& b) {
  ASSERT_EQ(a.rows, b.rows);
  ASSERT_EQ(a.k, b.k);
  const auto same = [](const auto* x, const auto* y, int64_t count) {
    return std::memcmp(x, y, static_cast<size_t>(count) * sizeof *x) == 0;
  };
  if (a.type == ActType::kBF16 || a.type == ActType::kF32) {
    for (int64_t row = 0; row < a.rows; ++row) {
      EXPECT_TRUE(same(a.f + row * a.stride, b.f + row * b.stride, a.k));
    }
    return;
  }
  const bool by_32 = a.type == ActType::kInt8x32;
  const int64_t groups = a.rows * a.k / (by_32 ? 32 : 128);
  for (int64_t row = 0; row < a.rows; ++row) {
    EXPECT_TRUE(same(a.q + row * a.stride, b.q + row * b.stride, a.k));
  }
  EXPECT_TRUE(same(a.scale, b.scale, groups));
  EXPECT_TRUE(same(a.sum, b.sum, a.rows * a.k / (by_32 ? 32 : 16)));
  EXPECT_TRUE(!by_32 || same(a.scaled_sum, b.scaled_sum, groups));
}

// y = the activation of y, with up where it is gated.
void ActivateInPlace(Machine& machine, Activation activation, MatrixView<float> y,
                     MatrixView<const float> up) {
  const RowKernels& kernels = machine.context.serve().rows;
  const BinaryArgs two{y.data, up.data, y.data, y.stride, up.stride, y.stride, y.cols};
  const UnaryArgs one{y.data, y.data, y.stride, y.stride, y.cols, 0};
  const Range rows{0, y.rows};
  switch (activation) {
    case Activation::kSwiGlu:
      return kernels.swiglu(two, rows);
    case Activation::kGeGlu:
      return kernels.geglu(two, rows);
    case Activation::kErfGeGlu:
      return kernels.erf_geglu(two, rows);
    case Activation::kGelu:
      return kernels.gelu(one, rows);
    case Activation::kErfGelu:
      return kernels.erf_gelu(one, rows);
  }
}

TEST(MatMulActivateQuantize, EqualsTheSeparateSteps) {
  Machine machine(2);
  const int64_t rows = 520, n = 512, k = 96;
  const auto gate = RandomMatrix(machine.pool, PanelType::kQ4_1, n, k, 1);
  const auto up = RandomMatrix(machine.pool, PanelType::kQ4_1, n, k, 2);
  const auto other_up = RandomMatrix(machine.pool, PanelType::kQ8_0, n, k, 2);
  auto x = RandomFloats(rows * k, 3);
  const auto bias = RandomFloats(n, 4);
  const NarrowMatrix lora_a(8, k, 5);
  const auto lora_b = RandomMatrix(machine.pool, PanelType::kBF16, n, 8, 6);
  const LoraPanels pair = {lora_a.panel, Flushed(lora_b), 0.5f};
  const LoraRun lora[] = {{&pair, {0, 1}, 0}, {&pair, {7, 300}, 0}, {&pair, {4, 519}, 1}};
  const ActType types[] = {ActType::kInt8x32, ActType::kBF16},
                forms[] = {ActType::kInt8x32, ActType::kInt8x128, ActType::kBF16};
  QuantizedRows quantized, separate, fused;
  Quantize(machine.context, View(x, k), types, quantized, "x");
  for (const Activation activation :
       {Activation::kSwiGlu, Activation::kGeGlu, Activation::kErfGeGlu, Activation::kGelu,
        Activation::kErfGelu}) {
    for (const bool plain : {true, false}) {
      SCOPED_TRACE(static_cast<int>(activation));
      const bool gated = activation != Activation::kGelu && activation != Activation::kErfGelu;
      const float* added = plain ? nullptr : bias.data();
      std::vector<float> a(static_cast<size_t>(rows * n)), b = a;
      const Panel& second = plain ? up.panel : other_up.panel;
      const Product products[] = {{gate.panel, added, View(a, n)}, {second, added, View(b, n)}};
      for (const bool adapted : {false, true}) {
        const std::span<const LoraRun> runs =
            adapted ? std::span<const LoraRun>(lora).first(gated ? 3 : 2)
                    : std::span<const LoraRun>();
        MatMul(machine.context, quantized, products, Precision::kServe, Epilogue::kStore, runs);
        ActivateInPlace(machine, activation, View(a, n), View(b, n));
        Quantize(machine.context, View(a, n), forms, separate, "a");
        const ActivatedProducts made = {
            {gate.panel, added, {}}, gated ? Product{second, added, {}} : Product{}, activation};
        for (const int threads : {1, 2, 5}) {
          Machine other(threads);
          for (const auto& asked : {std::span<const ActType>(forms), std::span(forms).first(1)}) {
            MatMulActivateQuantize(other.context, quantized, made, Precision::kServe, runs, asked,
                                   fused, "a");
            for (const ActType type : asked) ExpectSameForms(fused.form(type), separate.form(type));
          }
        }
      }
    }
  }
}

// Outputs that fill no strip, which only plain panels may have as inputs of the last product.
TEST(MatMulActivateQuantize, TakesAnyWidth) {
  Machine machine(3);
  const int64_t rows = 3, n = 115, k = 96;
  const auto up = RandomMatrix(machine.pool, PanelType::kQ8_0, n, k, 1);
  auto x = RandomFloats(rows * k, 3);
  const ActType types[] = {ActType::kInt8x32}, forms[] = {ActType::kBF16, ActType::kF32};
  QuantizedRows quantized, separate, fused;
  Quantize(machine.context, View(x, k), types, quantized, "x");
  std::vector<float> a(static_cast<size_t>(rows * n));
  const Product product = {up.panel, nullptr, View(a, n)};
  MatMul(machine.context, quantized, {&product, 1}, Precision::kServe);
  ActivateInPlace(machine, Activation::kGelu, View(a, n), View(a, n));
  Quantize(machine.context, View(a, n), forms, separate, "a");
  MatMulActivateQuantize(machine.context, quantized,
                         {{up.panel, nullptr, {}}, {}, Activation::kGelu}, Precision::kServe, {},
                         forms, fused, "a");
  for (const ActType type : forms) ExpectSameForms(fused.form(type), separate.form(type));
}

TEST(RmsNormQuantize, EqualsNormThenQuantize) {
  Machine machine(2);
  const int64_t rows = 6, k = 256;
  auto x = RandomFloats(rows * k, 1);
  const auto weight = RandomFloats(k, 2);
  const ActType types[] = {ActType::kInt8x32, ActType::kInt8x128, ActType::kBF16};
  std::vector<float> y(x.size()), z(x.size());
  QuantizedRows fused, separate;
  RmsNormQuantize(machine.context, View(x, k), weight, 1e-5f, View(y, k), types, fused, "x");
  RmsNorm(machine.context, View(x, k), weight, 1e-5f, View(z, k));
  Quantize(machine.context, View(z, k), types, separate, "z");
  EXPECT_TRUE(SameBits(y, z));
  for (const ActType type : types) ExpectSameForms(fused.form(type), separate.form(type));
}

TEST(Quantize, ThrowsOnNanAndNamesTheRows) {
  Machine machine(1);
  auto x = RandomFloats(64, 1);
  x[40] = std::nanf("");
  const ActType types[] = {ActType::kInt8x32};
  QuantizedRows out;
  try {
    Quantize(machine.context, View(x, 64), types, out, "attention output");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInternal);
    EXPECT_NE(std::string(error.what()).find("attention output"), std::string::npos);
  }
  x[40] = 0;
  EXPECT_NO_THROW(
      Quantize(machine.context, View(x, 64), types, out, "x"));  // the error was cleared
}

TEST(Pack, RefusesIntegersAndRaggedRows) {
  ThreadPool pool(1);
  const std::vector<uint8_t> bytes(4096);
  EXPECT_THROW(Pack(pool, DType::kI32, bytes.data(), 1, 32), Error);
  EXPECT_THROW(Pack(pool, DType::kQ4_K, bytes.data(), 1, 128), Error);
}

TEST(Embed, EqualsTheFilesRows) {
  Machine machine(2);
  const int64_t n = 40, k = 64;
  const auto bytes = RandomTensor(PanelType::kQ8_0, n, k, 1);
  const auto matrix = Pack(machine.pool, DType::kQ8_0, bytes.data(), n, k);
  const std::vector<int32_t> ids = {3, 39, 0, 17, 3};
  std::vector<float> out(ids.size() * static_cast<size_t>(k)), row(static_cast<size_t>(k));
  Embed(machine.context, matrix.panel, ids, View(out, k));
  for (size_t i = 0; i < ids.size(); ++i) {
    bakestone::DequantizeRow(DType::kQ8_0, bytes.data() + ids[i] * RowBytes(DType::kQ8_0, k),
                             row.data(), k);
    EXPECT_EQ(0, std::memcmp(row.data(), &out[i * static_cast<size_t>(k)], row.size() * 4));
  }
}

TEST(RopeTable, EqualsCosinesOfTheAngles) {
  RopeTable table({.theta = 10000, .dim = 64});
  const std::vector<int32_t> positions = {0, 1, 511, 100000};
  table.Set(positions);
  for (size_t row = 0; row < positions.size(); ++row) {
    for (size_t i = 0; i < 32; ++i) {
      const double angle = positions[row] * std::pow(10000.0, -2.0 * static_cast<double>(i) / 64);
      EXPECT_NEAR(table.cos()[row * 32 + i], std::cos(angle), 1e-7);
      EXPECT_NEAR(table.sin()[row * 32 + i], std::sin(angle), 1e-7);
    }
  }
}

TEST(RopeTable, ScalesAndFactorsDivideTheFrequencies) {
  const std::vector<float> factors(32, 8.0f);
  RopeTable plain({.theta = 500000, .dim = 64}),
      scaled({.theta = 500000, .dim = 64, .linear_scale = 8});
  RopeTable divided({.theta = 500000, .dim = 64, .frequency_factors = factors});
  const std::vector<int32_t> near = {5}, far = {40};
  plain.Set(near);
  scaled.Set(far);
  divided.Set(far);
  for (int i = 0; i < 32; ++i) {
    EXPECT_EQ(plain.cos()[i], scaled.cos()[i]);
    EXPECT_EQ(plain.sin()[i], divided.sin()[i]);
  }
}

TEST(Softmax, SumsToOneAndLogSumExpIsItsLogarithm) {
  Machine machine(2);
  const int64_t k = 49152;
  auto logits = RandomFloats(2 * k, 1, 3.0f);
  std::vector<SoftmaxStats> stats(2);
  ComputeSoftmaxStats(machine.context, View(logits, k), stats);
  for (size_t row = 0; row < 2; ++row) {
    const std::span<float> span(&logits[row * static_cast<size_t>(k)], static_cast<size_t>(k));
    double sum = 0, exact = 0;
    for (const float x : span) exact += std::exp(static_cast<double>(x));
    EXPECT_NEAR(LogSumExp(stats[row]), std::log(exact), 1e-5);
    Softmax(machine.context, span, stats[row], span);
    for (const float p : span) sum += static_cast<double>(p);
    EXPECT_NEAR(sum, 1, 1e-5);
  }
}

// One sequence of 600 slots: whole, in chunks, and row by row, on one thread or three.
TEST(Attention, DoesNotDependOnChunksThreadsOrNeighbours) {
  const AttentionShape shape{6, 2, 64, KvElement::kBF16};
  const int64_t slots = 600, q_dim = 6 * 64, kv_dim = 2 * 64;
  auto q = RandomFloats(slots * q_dim, 1), k = RandomFloats(slots * kv_dim, 2);
  auto v = RandomFloats(slots * kv_dim, 3);
  std::vector<float> expected(q.size());
  for (const int64_t chunk : {slots, int64_t{37}, int64_t{1}}) {
    Machine machine(chunk == 37 ? 3 : 1);
    TemporaryPages pages;
    pages.Reset(shape, slots);
    std::vector<float> out(q.size());
    for (int64_t first = 0; first < slots; first += chunk) {
      const int64_t rows = std::min(chunk, slots - first);
      const KvRun run{0, rows, first, pages.k_pages(), pages.v_pages()};
      WriteKv(machine.context, shape, {&run, 1}, View(k, kv_dim).Rows(first, rows),
              View(v, kv_dim).Rows(first, rows));
      Attention(machine.context, shape, {&run, 1}, View(q, q_dim).Rows(first, rows),
                View(out, q_dim).Rows(first, rows));
    }
    if (chunk == slots) {
      expected = out;
    } else {
      EXPECT_TRUE(SameBits(out, expected)) << chunk;
    }
  }
}

// One row at a long context is shared by the threads segment by segment; beside it a short one.
TEST(Attention, OfOneLongRowDoesNotDependOnThreads) {
  const AttentionShape shape{3, 1, 32, KvElement::kBF16};
  const int64_t slots = 1700;
  auto k = RandomFloats(slots * 32, 1), v = RandomFloats(slots * 32, 2),
       q = RandomFloats(2 * 96, 3);
  std::vector<float> expected;
  for (const int threads : {1, 2, 3, 8}) {
    Machine machine(threads);
    TemporaryPages a, b;
    a.Reset(shape, slots);
    b.Reset(shape, 40);
    const KvRun all{0, slots, 0, a.k_pages(), a.v_pages()}, few{0, 40, 0, b.k_pages(), b.v_pages()};
    WriteKv(machine.context, shape, {&all, 1}, View(k, 32), View(v, 32));
    WriteKv(machine.context, shape, {&few, 1}, View(k, 32).Rows(0, 40), View(v, 32).Rows(0, 40));
    const KvRun rows[] = {{0, 1, slots - 1, a.k_pages(), a.v_pages()},
                          {1, 2, 39, b.k_pages(), b.v_pages()}};
    std::vector<float> out(q.size());
    Attention(machine.context, shape, rows, View(q, 96), View(out, 96));
    if (threads == 1) {
      expected = out;
    } else {
      EXPECT_TRUE(SameBits(out, expected)) << threads;
    }
  }
}

// 128 rows at the end of 32,768 slots: the scores alone would be 16 MiB for each of the two heads.
TEST(Attention, NeedsNoMemoryThatGrowsWithRowsTimesSlots) {
  const AttentionShape shape{2, 1, 16, KvElement::kQ8_0};
  const int64_t slots = 32768, rows = 128;
  auto k = RandomFloats(slots * 16, 1), v = RandomFloats(slots * 16, 2),
       q = RandomFloats(rows * 32, 3);
  Machine machine(3);
  TemporaryPages pages;
  pages.Reset(shape, slots);
  const KvRun all{0, slots, 0, pages.k_pages(), pages.v_pages()};
  WriteKv(machine.context, shape, {&all, 1}, View(k, 16), View(v, 16));
  std::vector<float> out(q.size());
  for (const int64_t count : {rows, int64_t{1}}) {  // tiles; one row, cut into segments
    const KvRun run{0, count, slots - count, pages.k_pages(), pages.v_pages()};
    Attention(machine.context, shape, {&run, 1}, View(q, 32).Rows(0, count),
              View(out, 32).Rows(0, count));
    EXPECT_LT(machine.context.scratch_bytes(), 3 << 20);
  }
}

// A window makes far slots unseen: their pages may hold anything, even what is no number.
TEST(Attention, DoesNotReadBeforeTheWindow) {
  AttentionShape shape{4, 2, 32, KvElement::kF16};
  shape.window = 100;
  const int64_t slots = 1200, rows = 3;
  auto k = RandomFloats(slots * 64, 1), v = RandomFloats(slots * 64, 2),
       q = RandomFloats(rows * 128, 3);
  std::vector<float> expected;
  for (const bool spoiled : {false, true}) {
    Machine machine(2);
    TemporaryPages pages;
    pages.Reset(shape, slots);
    const KvRun all{0, slots, 0, pages.k_pages(), pages.v_pages()};
    WriteKv(machine.context, shape, {&all, 1}, View(k, 64), View(v, 64));
    if (spoiled) {  // up to the last step of 64 before the first row's window
      for (int64_t page = 0; page < (slots - rows - 100) / kKvStep * 2; ++page) {
        std::memset(pages.k_pages()[page], 0xFF, static_cast<size_t>(KvPageBytes(shape)));
        std::memset(pages.v_pages()[page], 0xFF, static_cast<size_t>(KvPageBytes(shape)));
      }
    }
    const KvRun run{0, rows, slots - rows, pages.k_pages(), pages.v_pages()};
    std::vector<float> out(q.size());
    Attention(machine.context, shape, {&run, 1}, View(q, 128), View(out, 128));
    if (spoiled) {
      EXPECT_TRUE(SameBits(out, expected));
    } else {
      expected = out;
    }
  }
}

TEST(Attention, SequencesInOneStepDoNotSeeEachOther) {
  const AttentionShape shape{2, 1, 32, KvElement::kBF16};
  auto q = RandomFloats(70 * 64, 1), k = RandomFloats(70 * 32, 2), v = RandomFloats(70 * 32, 3);
  Machine machine(2);
  TemporaryPages a, b;
  a.Reset(shape, 40);
  b.Reset(shape, 30);
  const KvRun runs[] = {{0, 40, 0, a.k_pages(), a.v_pages()},
                        {40, 70, 0, b.k_pages(), b.v_pages()}};
  WriteKv(machine.context, shape, runs, View(k, 32), View(v, 32));
  std::vector<float> both(q.size()), alone(static_cast<size_t>(30 * 64));
  Attention(machine.context, shape, runs, View(q, 64), View(both, 64));
  const KvRun second{0, 30, 0, b.k_pages(), b.v_pages()};
  Attention(machine.context, shape, {&second, 1}, View(q, 64).Rows(40, 30), View(alone, 64));
  EXPECT_EQ(0, std::memcmp(&both[40 * 64], alone.data(), alone.size() * 4));
}

TEST(MeasurePeaks, FindsRatesForEveryTable) {
  ThreadPool pool(2);
  for (const KernelTable* table : AvailableKernels()) {
    const Peaks peaks = MeasurePeaks(*table, pool);
    EXPECT_GT(peaks.int8_per_second, 1e6) << IsaName(table->isa);
    EXPECT_GT(peaks.float_per_second, 1e6) << IsaName(table->isa);
    EXPECT_GE(peaks.bf16_per_second, peaks.float_per_second) << IsaName(table->isa);
  }
}

}  // namespace
}  // namespace bakestone::ops
