// Every serving kernel of every table this machine runs, against the reference: the same bits, on
// sizes that are no multiple of anything; and goldens that hold machines together which never meet.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/source_dir.h"
#include "kernels/cpu/test_tables.h"
#include "kernels/isa.h"
#include "kernels/kernel_table.h"
#include "kernels/math.h"
#include "kernels/test_cases.h"
#include "tensor/dequantize.h"

namespace bakestone {

std::vector<const KernelTable*> testing::Tables() {
  std::vector<const KernelTable*> tables = AvailableKernels();
#if defined(__x86_64__)
  static const KernelTable vnni{Isa::kAvxVnni, testing::kServeAvxVnniInAvx512, kTrainAvx2,
                                kEncodeAvx2};
  static const KernelTable amx = WithTiles(testing::kTilesEmulated);
  const auto there = [&](Isa isa) {
    return std::any_of(tables.begin(), tables.end(),
                       [&](const KernelTable* table) { return table->isa == isa; });
  };
  static const KernelTable plain{Isa::kAvx512, kServeAvx512, kTrainAvx512, kEncodeAvx512};
  static const KernelTable dots = Avx512Table(true);
  if (there(Isa::kAvx512)) {
    tables.push_back(&plain);
    if (!DotsPay() && __builtin_cpu_supports("avx512bf16")) tables.push_back(&dots);
    if (!there(Isa::kAvxVnni)) tables.push_back(&vnni);
    if (!there(Isa::kAmx)) tables.push_back(&amx);
  }
#endif
  return tables;
}

std::string testing::TableName(int index) {
  const KernelTable& table = *Tables()[static_cast<size_t>(index)];
  std::string name = IsaName(table.isa);
#if defined(__x86_64__)
  if (table.isa == Isa::kAvx512) {
    const auto tile = table.serve.attention[static_cast<int>(KvElement::kBF16)].tile;
    const bool chosen = &table == &ChooseKernels("avx512");
    if (!chosen) name += tile == kDotsAvx512.attention_tile ? "_dots" : "_plain";
  }
#endif
  return name;
}

namespace {

using testing::AttentionCase;
using testing::MatMulCase;
using testing::RandomFloats;

const KernelTable& Reference() { return ChooseKernels("reference"); }

class ServeTest : public ::testing::TestWithParam<int> {
 protected:
  const KernelTable& table() const { return *testing::Tables()[static_cast<size_t>(GetParam())]; }
};

int NumTables() { return static_cast<int>(testing::Tables().size()); }

::testing::AssertionResult SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return ::testing::AssertionFailure() << "sizes differ";
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::memcmp(&a[i], &b[i], 4) != 0) {
      return ::testing::AssertionFailure() << "[" << i << "] " << a[i] << " != " << b[i];
    }
  }
  return ::testing::AssertionSuccess();
}

TEST_P(ServeTest, MatMulEqualsReferenceForEveryTypeAndRowCount) {
  for (int i = 0; i < kNumPanelTypes; ++i) {
    const auto type = static_cast<PanelType>(i);
    for (const bool exact : {false, true}) {
      for (const int64_t m : {1, 2, 3, 7, 8, 13}) {
        const MatMulCase c{type, m, 35, 3 * testing::SmallK(type), exact};
        EXPECT_TRUE(SameBits(testing::RunMatMul(table(), c), testing::RunMatMul(Reference(), c)))
            << testing::PanelTypeName(type) << " exact " << exact << " rows " << m;
      }
    }
  }
}

// Rows pass in blocks of 256, in tiles of six and four.
TEST_P(ServeTest, MatMulEqualsReferenceWhereBlocksOfRowsEnd) {
  for (const PanelType type : {PanelType::kQ4_1, PanelType::kQ8_0, PanelType::kQ4_K}) {
    for (int64_t m = 255; m <= 267; ++m) {
      const MatMulCase c{type, m, 35, testing::SmallK(type), false};
      EXPECT_TRUE(SameBits(testing::RunMatMul(table(), c), testing::RunMatMul(Reference(), c)))
          << testing::PanelTypeName(type) << " rows " << m;
    }
  }
}

// Tables have tiles of their own for many rows: whole ones, rows and strips that are left over, and
// a strip that is not full.
TEST_P(ServeTest, MatMulOfManyRowsEqualsReference) {
  for (int i = 0; i < kNumPanelTypes; ++i) {
    const auto type = static_cast<PanelType>(i);
    for (const int64_t m : {35, type == PanelType::kQ4_1 || type == PanelType::kQ6_K ? 262 : 64}) {
      const MatMulCase c{type, m, 67, 2 * testing::SmallK(type)};
      EXPECT_TRUE(SameBits(testing::RunMatMul(table(), c), testing::RunMatMul(Reference(), c)))
          << testing::PanelTypeName(type) << " rows " << m;
    }
  }
}

TEST_P(ServeTest, MatMulEpiloguesEqualReference) {
  for (const Epilogue epilogue :
       {Epilogue::kStore, Epilogue::kAdd, Epilogue::kAddScaled, Epilogue::kSwiGlu}) {
    for (const PanelType type : {PanelType::kQ4_1, PanelType::kQ4_K, PanelType::kBF16}) {
      for (const int64_t m : {9, 53}) {
        for (const bool bias : {false, true}) {
          const MatMulCase c{type, m, 53, testing::SmallK(type), false, epilogue, bias};
          EXPECT_TRUE(SameBits(testing::RunMatMul(table(), c), testing::RunMatMul(Reference(), c)))
              << testing::PanelTypeName(type) << " rows " << m << " epilogue "
              << static_cast<int>(epilogue);
        }
      }
      const MatMulCase exact{type, 9, 21, testing::SmallK(type), true, epilogue, true};
      EXPECT_TRUE(
          SameBits(testing::RunMatMul(table(), exact), testing::RunMatMul(Reference(), exact)))
          << testing::PanelTypeName(type) << " exact, epilogue " << static_cast<int>(epilogue);
    }
  }
}

// Sizes of adapters: ranks as k, and as n.
TEST_P(ServeTest, MatMulOfFlushedPanelsEqualsReference) {
  for (const int64_t k : {1, 2, 7, 8, 16, 30, 32, 40, 96, 160}) {
    for (const int64_t m : {1, 2, 3, 4, 5, 8, 15, 16, 17, 33, 70}) {
      for (const Epilogue epilogue : {Epilogue::kStore, Epilogue::kAddScaled}) {
        MatMulCase c{PanelType::kBF16, m, 83, k, false, epilogue};
        c.tiny = testing::Tiny::kThere;
        const auto expected = testing::RunMatMul(Reference(), c);
        EXPECT_TRUE(SameBits(testing::RunMatMul(table(), c), expected)) << m << " x " << k;
        c.tiny = testing::Tiny::kFlushed;
        EXPECT_TRUE(SameBits(testing::RunMatMul(table(), c), expected)) << m << " x " << k;
      }
    }
  }
}

// The panel with its last strip narrow, where it is not full.
Buffer<uint8_t> Narrowed(const Panel& panel) {
  const int64_t whole = panel.n / kStripRows * StripBytes(PanelType::kBF16, panel.k);
  const int64_t own = 4 * NarrowLanes(panel.n), pairs = (panel.k + 1) / 2;
  Buffer<uint8_t> out(whole + own * pairs);
  std::memcpy(out.data(), panel.data, static_cast<size_t>(whole));
  for (int64_t i = 0; i < pairs; ++i) {
    if (own == 0) break;
    std::memcpy(out.data() + whole + i * own, panel.data + whole + i * 64,
                static_cast<size_t>(own));
  }
  return out;
}

// Of a panel [n, k] of weights that no product flushes.
testing::PanelCase FlushedPanel(int64_t n, int64_t k, uint64_t seed) {
  testing::PanelCase panel = testing::RandomPanel(PanelType::kBF16, n, k, seed);
  panel.panel.flushed = true;
  return panel;
}

// A row [rank] of inner products in their form.
struct InnerRow {
  InnerRow(ActType type, int64_t rank)
      : values(static_cast<size_t>(rank + rank % 2)),
        view{type, 1, rank, rank + rank % 2, nullptr, values.data(), nullptr, nullptr, nullptr} {}
  std::vector<float> values;
  Activations view;
};

TEST_P(ServeTest, AdapterRowEqualsItsProductByTheReference) {
  for (const int64_t rank : {1, 4, 6, 8, 11, 16, 23, 32, 40, 130}) {
    for (const int64_t k : {1, 31, 64, 97, 200}) {
      for (const ActType type : {ActType::kBF16, ActType::kF32}) {
        const auto a = FlushedPanel(rank, k, 61);
        const auto x = testing::MakeActivations(Reference(), type, RandomFloats(k, 63), 1, k);
        const MatMulKernels& kernels = Reference().serve.matmul[static_cast<int>(PanelType::kBF16)];
        const auto run = type == ActType::kF32 ? kernels.exact : kernels.run;
        Buffer<uint8_t> scratch(MatMulScratchBytes(std::max(k, rank)));
        std::vector<float> inner(static_cast<size_t>(rank));
        run({x.view, a.panel, {}, nullptr, inner.data(), rank, Epilogue::kStore, 1},
            {0, NumStrips(rank)}, scratch.data());
        const auto expected = testing::MakeActivations(Reference(), type, inner, 1, rank);
        const Buffer<uint8_t> narrow = Narrowed(a.panel);
        Buffer<uint8_t> room(AdapterRowScratchBytes(rank));
        const InnerRow h(type, rank);
        uint32_t error = 0;
        table().serve.adapter_row({x.view, narrow.data(), h.view, &error}, room.data());
        EXPECT_EQ(std::memcmp(h.view.f, expected.view.f, static_cast<size_t>(4 * rank)), 0)
            << rank << " x " << k;
        EXPECT_EQ(error, 0u);
      }
    }
  }
}

TEST_P(ServeTest, AdapterRowReportsInnerProductsThatAreNotFinite) {
  const std::vector<float> values(64, 1e38f);
  for (const ActType type : {ActType::kBF16, ActType::kF32}) {
    const auto x = testing::MakeActivations(table(), type, values, 1, 64);
    auto big = FlushedPanel(6, 64, 61);
    for (int64_t i = 1; i < big.storage.bytes(); i += 2) big.storage.data()[i] = 0x7E;
    const Buffer<uint8_t> narrow = Narrowed(big.panel);
    Buffer<uint8_t> room(AdapterRowScratchBytes(6));
    const InnerRow h(type, 6);
    uint32_t error = 0;
    table().serve.adapter_row({x.view, narrow.data(), h.view, &error}, room.data());
    EXPECT_EQ(error, kErrorNotFinite);
  }
}

TEST_P(ServeTest, WhatIsReadNextChangesNothing) {
  for (const PanelType type : {PanelType::kQ4_1, PanelType::kQ6_K, PanelType::kBF16}) {
    for (const int64_t rows : {1, 7, 16, 37, 130}) {
      const int64_t k = testing::SmallK(type), n = 83;
      const auto panel = testing::RandomPanel(type, n, k, 1);
      const auto x =
          testing::MakeActivations(table(), ActTypeOf(type), RandomFloats(rows * k, 2), rows, k);
      Buffer<uint8_t> scratch(MatMulScratchBytes(k)), next(64 * 4096);
      const Lines parts[] = {{next.data(), 1}, {next.data() + 640, 3000}, {next.data() + 64, 70}};
      std::vector<float> y[2];
      for (const bool reads : {false, true}) {
        y[reads].resize(static_cast<size_t>(rows * n));
        MatMulArgs args{x.view, panel.panel, {}, nullptr, y[reads].data(), n, Epilogue::kStore, 1};
        if (reads) args.read_next = {parts, 3, 3071};
        table().serve.matmul[static_cast<int>(type)].run(args, {0, NumStrips(n)}, scratch.data());
      }
      EXPECT_TRUE(SameBits(y[0], y[1])) << testing::PanelTypeName(type) << ", " << rows;
    }
  }
}

TEST_P(ServeTest, MatMulOfOneRowEqualsThatRowAmongMany) {
  for (int i = 0; i < kNumPanelTypes; ++i) {
    const auto type = static_cast<PanelType>(i);
    const int64_t k = 2 * testing::SmallK(type);
    const auto many = testing::RunMatMul(table(), {type, 12, 33, k});
    const auto one = testing::RunMatMul(table(), {type, 1, 33, k});  // the same first row of x
    EXPECT_EQ(0, std::memcmp(many.data(), one.data(), one.size() * 4))
        << testing::PanelTypeName(type);
  }
}

// The extremes of every quant against the extremes of activations: where 16-bit sums would
// saturate.
TEST_P(ServeTest, MatMulDoesNotSaturateAtExtremes) {
  for (int i = 0; i < kNumPanelTypes; ++i) {
    const auto type = static_cast<PanelType>(i);
    if (PanelShapeOf(type).block == 2) continue;
    for (const int fill : {0x00, 0x80, 0x7F, 0xFF, 0x08, 0x88}) {
      const int64_t k = testing::SmallK(type);
      testing::PanelCase c = testing::RandomPanel(type, 32, k, 3);
      const auto quants = static_cast<size_t>(PanelShapeOf(type).low);  // k is one block
      std::memset(c.storage.data(), fill, quants);
      std::memset(c.storage.data() + StripBytes(type, k), fill, quants);
      for (const auto& [rows, sign] : {std::pair(1, 1.0f), {1, -1.0f}, {56, 1.0f}, {56, -1.0f}}) {
        const std::vector<float> x(static_cast<size_t>(rows * k), sign);
        std::vector<float> y[2];
        for (int t = 0; t < 2; ++t) {
          const KernelTable& kernels = t == 0 ? Reference() : table();
          const auto a = testing::MakeActivations(kernels, ActTypeOf(type), x, rows, k);
          y[t].resize(static_cast<size_t>(rows) * 32);
          Buffer<uint8_t> scratch(MatMulScratchBytes(k));
          kernels.serve.matmul[i].run(
              {a.view, c.panel, {}, nullptr, y[t].data(), 32, Epilogue::kStore, 1}, {0, 2},
              scratch.data());
        }
        EXPECT_TRUE(SameBits(y[1], y[0])) << testing::PanelTypeName(type) << " fill " << fill;
      }
    }
  }
}

TEST_P(ServeTest, QuantizeEqualsReference) {
  for (int i = 0; i < kNumActTypes; ++i) {
    const auto type = static_cast<ActType>(i);
    for (const int64_t k : {256, 768, type == ActType::kInt8x32 ? 96 : 512, i >= 2 ? 77 : 1024}) {
      auto x = RandomFloats(3 * k, 51);
      for (int64_t j = 0; j < 32; ++j) {
        x[static_cast<size_t>(j)] *= 0x1p-110f;  // below the threshold
      }
      x[40] = 0x1p-51f;
      x[41] = -0.0f;
      const auto a = testing::MakeActivations(table(), type, x, 3, k);
      const auto b = testing::MakeActivations(Reference(), type, x, 3, k);
      EXPECT_EQ(a.q, b.q);
      EXPECT_EQ(a.sum, b.sum);
      EXPECT_TRUE(SameBits(a.f, b.f));
      EXPECT_TRUE(SameBits(a.scale, b.scale));
      EXPECT_TRUE(SameBits(a.scaled_sum, b.scaled_sum));
      EXPECT_EQ(a.error, 0u);
    }
  }
}

TEST_P(ServeTest, QuantizeReportsNanAndInfinity) {
  const float bad[] = {std::nanf(""), -std::nanf(""), INFINITY, -INFINITY};
  for (int i = 0; i < kNumActTypes; ++i) {
    for (const float value : bad) {
      for (const size_t at : {0u, 37u, 255u}) {
        auto x = RandomFloats(256, 52);
        x[at] = value;
        EXPECT_EQ(testing::MakeActivations(table(), static_cast<ActType>(i), x, 1, 256).error,
                  kErrorNotFinite);
      }
    }
  }
}

TEST_P(ServeTest, RowKernelsEqualReference) {
  for (const int64_t k : {1, 15, 16, 17, 31, 33, 64, 100, 576}) {
    constexpr int64_t kRows = 3;
    const auto a = RandomFloats(kRows * k, 61, 20.0f), b = RandomFloats(kRows * k, 62);
    std::vector<float> y[2][15];
    for (int t = 0; t < 2; ++t) {
      const RowKernels& rows = (t == 0 ? Reference() : table()).serve.rows;
      for (auto& out : y[t]) out.resize(a.size());
      rows.rms_norm({a.data(), k, b.data(), 1e-6f, y[t][0].data(), k, k}, {0, kRows});
      rows.swiglu({a.data(), b.data(), y[t][1].data(), k, k, k, k}, {0, kRows});
      rows.add({a.data(), b.data(), y[t][2].data(), k, k, k, k}, {0, kRows});
      rows.layer_norm({a.data(), k, b.data(), nullptr, 1e-6f, y[t][5].data(), k, k}, {0, kRows});
      rows.layer_norm({a.data(), k, b.data(), b.data(), 1e-6f, y[t][6].data(), k, k}, {0, kRows});
      rows.geglu({a.data(), b.data(), y[t][7].data(), k, k, k, k}, {0, kRows});
      rows.gelu({a.data(), y[t][8].data(), k, k, k, 0}, {0, kRows});
      rows.soft_cap({y[t][8].data(), y[t][8].data(), k, k, k, 5}, {0, kRows});
      rows.erf_geglu({a.data(), b.data(), y[t][9].data(), k, k, k, k}, {0, kRows});
      rows.erf_gelu({a.data(), y[t][10].data(), k, k, k, 0}, {0, kRows});
      rows.sigmoid({a.data(), y[t][11].data(), k, k, k, 0}, {0, kRows});
      rows.exp({b.data(), y[t][12].data(), k, k, k, 2}, {0, kRows});
      rows.gate({a.data(), b.data(), y[t][13].data(), k, k, k, k}, {0, kRows});
      rows.clamped_swiglu({a.data(), b.data(), y[t][14].data(), k, k, k, k}, {0, kRows});
      SoftmaxStats stats[kRows];
      rows.softmax_stats(a.data(), k, k, stats, {0, kRows});
      for (int64_t m = 0; m < kRows; ++m) {
        rows.softmax(a.data() + m * k, k, stats[m], y[t][3].data() + m * k);
        y[t][4][static_cast<size_t>(m)] = stats[m].sum;
      }
    }
    for (int op = 0; op < 15; ++op) EXPECT_TRUE(SameBits(y[1][op], y[0][op])) << k << " op " << op;
  }
}

TEST_P(ServeTest, RopeEqualsReference) {
  for (const int64_t dim : {2, 30, 64}) {
    std::vector<float> cos, sin;
    for (int64_t i = 0; i < 4 * dim / 2; ++i) {
      cos.push_back(static_cast<float>(math::Cos(static_cast<double>(i))));
      sin.push_back(static_cast<float>(math::Sin(static_cast<double>(i))));
    }
    std::vector<float> x[2];
    for (int t = 0; t < 2; ++t) {
      x[t] = RandomFloats(4 * 3 * 66, 71);
      (t == 0 ? Reference() : table())
          .serve.rows.rope({x[t].data(), 3 * 66, 3, 66, dim, cos.data(), sin.data()}, {0, 4});
    }
    EXPECT_TRUE(SameBits(x[1], x[0])) << dim;
  }
}

TEST_P(ServeTest, RwkvRuleEqualsReferenceInOneCallOrMany) {
  for (const int64_t dim : {1, 12, 16, 17, 32, 33, 64}) {
    const std::vector<float> expected = testing::RunRwkv(Reference(), {dim, dim, 7});
    for (const int64_t step : {1, 3, 7}) {
      EXPECT_TRUE(SameBits(testing::RunRwkv(table(), {dim, dim, 7, step}), expected)) << dim;
    }
  }
}

TEST_P(ServeTest, DeltaRuleEqualsReferenceInOneCallOrMany) {
  for (const int64_t value_dim : {1, 12, 16, 17, 31, 32, 33, 48, 49, 64, 76, 128}) {
    for (const int64_t key_dim : {1, 8, 128}) {
      const std::vector<float> expected = testing::RunDelta(Reference(), {key_dim, value_dim, 7});
      for (const int64_t step : {1, 3, 7}) {
        EXPECT_TRUE(SameBits(testing::RunDelta(table(), {key_dim, value_dim, 7, step}), expected))
            << key_dim << 'x' << value_dim;
      }
    }
  }
}

TEST_P(ServeTest, GoldensHold) {
  std::ifstream file(std::string(SourceDir()) + "/src/kernels/goldens.txt");
  ASSERT_TRUE(file) << "make it with the target kernel_goldens";
  std::map<std::string, std::string> expected;
  for (std::string name, hash; file >> name >> hash;) expected[name] = hash;
  const auto found = testing::ComputeGoldens(table());
  EXPECT_EQ(found.size(), expected.size());
  for (const auto& golden : found) EXPECT_EQ(golden.hash, expected[golden.name]) << golden.name;
}

INSTANTIATE_TEST_SUITE_P(Tables, ServeTest, ::testing::Range(0, NumTables()),
                         [](const auto& info) { return testing::TableName(info.param); });

// What the reference computes is what the formulas mean: against double arithmetic.
TEST(Reference, MatMulIsCloseToDoubleArithmetic) {
  for (int i = 0; i < kNumPanelTypes; ++i) {
    const auto type = static_cast<PanelType>(i);
    const int64_t m = 4, n = 17, k = 4 * testing::SmallK(type);
    const auto x = RandomFloats(m * k, 11);
    const auto panel = testing::RandomPanel(type, n, k, 13);
    for (const bool exact : {false, true}) {
      const auto y = testing::RunMatMul(Reference(), {type, m, n, k, exact});
      double error = 0, power = 0;
      std::vector<float> row(static_cast<size_t>(k));
      for (int32_t r = 0; r < n; ++r) {
        Reference().serve.dequantize[i].rows(panel.panel, &r, 1, row.data(), k);
        for (int64_t j = 0; j < m; ++j) {
          double sum = 0;
          for (int64_t c = 0; c < k; ++c) {
            sum += static_cast<double>(row[static_cast<size_t>(c)]) *
                   static_cast<double>(x[static_cast<size_t>(j * k + c)]);
          }
          const double d = static_cast<double>(y[static_cast<size_t>(j * n + r)]) - sum;
          error += d * d;
          power += sum * sum;
        }
      }
      EXPECT_LT(std::sqrt(error / power), exact ? 1e-5 : 0.03) << testing::PanelTypeName(type);
    }
  }
}

// With rate 1 and no decay, a state that holds one value under a key gives another one once it is
// told.
TEST(Reference, DeltaRuleReplacesWhatAKeyStandsFor) {
  const float q[2] = {0, 1}, k[2] = {0, 1}, v[3] = {5, 6, 7}, one = 1, half = 0.5f;
  const std::vector<float> before = {1, 2, 3, 10, 20, 30};
  std::vector<float> after(6), y(3);
  DeltaRuleArgs args{q, k, v, 3, &one, &one, 1, before.data(), after.data(), y.data(), 3, 2, 3};
  Reference().serve.rows.delta_rule(args, {0, 1});
  EXPECT_EQ(y, (std::vector<float>{5, 6, 7}));
  EXPECT_EQ(after, (std::vector<float>{1, 2, 3, 5, 6, 7}));
  args.decay = args.rate = &half;
  Reference().serve.rows.delta_rule(args, {0, 1});
  EXPECT_EQ(y, (std::vector<float>{5, 8, 11}));  // half of 10, 20, 30, and half the way from there
  EXPECT_EQ(after, (std::vector<float>{0.5f, 1, 1.5f, 5, 8, 11}));
}

TEST(Reference, ActivationsAndLayerNormAreWhatTheirFormulasMean) {
  const auto x = RandomFloats(300, 63, 4.0f), w = RandomFloats(300, 64);
  std::vector<float> gelu(x.size()), erf_gelu(x.size()), capped(x.size()), norm(x.size());
  const RowKernels& rows = Reference().serve.rows;
  rows.gelu({x.data(), gelu.data(), 300, 300, 300, 0}, {0, 1});
  rows.erf_gelu({x.data(), erf_gelu.data(), 300, 300, 300, 0}, {0, 1});
  rows.soft_cap({x.data(), capped.data(), 300, 300, 300, 3}, {0, 1});
  rows.layer_norm({x.data(), 300, w.data(), w.data(), 1e-5f, norm.data(), 300, 300}, {0, 1});
  double mean = 0, variance = 0;
  for (const float value : x) mean += static_cast<double>(value) / 300;
  for (const float value : x) {
    variance += (static_cast<double>(value) - mean) * (static_cast<double>(value) - mean) / 300;
  }
  for (size_t i = 0; i < x.size(); ++i) {
    const double v = static_cast<double>(x[i]), weight = static_cast<double>(w[i]);
    const double inner = std::sqrt(2 / 3.14159265358979323846) * (v + 0.044715 * v * v * v);
    EXPECT_NEAR(static_cast<double>(gelu[i]), 0.5 * v * (1 + std::tanh(inner)), 2e-6);
    EXPECT_NEAR(static_cast<double>(erf_gelu[i]), 0.5 * v * (1 + std::erf(v / std::sqrt(2.0))),
                1e-6);
    EXPECT_NEAR(static_cast<double>(capped[i]), 3 * std::tanh(v / 3), 2e-6);
    EXPECT_NEAR(static_cast<double>(norm[i]),
                (v - mean) / std::sqrt(variance + 1e-5) * weight + weight, 2e-5);
  }
}

TEST(ChooseKernels, NamesTheKnownTables) {
  EXPECT_EQ(ChooseKernels("reference").isa, Isa::kReference);
  try {
    ChooseKernels("sse9");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(std::string(error.what()).find("reference"), std::string::npos);
  }
}

}  // namespace
}  // namespace bakestone
