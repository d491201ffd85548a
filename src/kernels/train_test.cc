// Every training kernel of every table this machine runs, against the reference table, on odd
// sizes.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/rng.h"
#include "kernels/serve_tables.h"
#include "kernels/test_cases.h"
#include "tensor/half.h"

namespace bakestone {
namespace {

std::vector<const KernelTable*> FastTables() {
  std::vector<const KernelTable*> tables = testing::Tables();
  tables.erase(tables.begin());
  return tables;
}

const TrainKernels& Reference() { return kTrainReference; }

std::vector<float> Floats(int64_t size, uint64_t stream, float scale = 1) {
  Rng rng(11, stream);
  std::vector<float> values(static_cast<size_t>(size));
  for (float& value : values) value = scale * rng.Normal();
  return values;
}

std::vector<uint16_t> Halves(int64_t size, uint64_t stream, float scale = 1) {
  std::vector<uint16_t> values;
  for (const float value : Floats(size, stream, scale)) values.push_back(FloatToBF16(value));
  return values;
}

// bf16: at most one unit of rounding apart, or below `small`.
void ExpectClose(const std::vector<uint16_t>& found, const std::vector<uint16_t>& expected,
                 float small = 1e-6f) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    const float a = BF16ToFloat(found[i]), b = BF16ToFloat(expected[i]);
    ASSERT_LE(std::fabs(a - b), std::fabs(b) / 127 + small) << "at " << i;
  }
}

void ExpectClose(const std::vector<float>& found, const std::vector<float>& expected, float bound) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    ASSERT_NEAR(found[i], expected[i], bound * (1 + std::fabs(expected[i]))) << "at " << i;
  }
}

class TrainTables : public ::testing::TestWithParam<int> {
 protected:
  const TrainKernels& kernels() { return FastTables()[static_cast<size_t>(GetParam())]->train; }
};

// Ranges that cut tiles anywhere.
TEST_P(TrainTables, GemmHasTheSameBitsHoweverItIsSplit) {
  const int64_t rows = 70, cols = 90, k = 96, panels = 6;
  const auto x = Halves((rows + kTrainTileRows) * k, 1), w = Halves(panels * 16 * k, 2);
  for (const TrainStore store : {TrainStore::kF32, TrainStore::kAddF32}) {
    TrainGemmArgs args{};
    args.segments[0] = {x.data(), k, w.data(), k * 16, k};
    args.num_segments = 1;
    args.store = store;
    args.rows = rows;
    args.cols = args.out_stride = cols;
    std::vector<float> whole = Floats(rows * cols, 3), parts = whole;
    args.out = whole.data();
    kernels().gemm(args, 0, rows, 0, panels);
    args.out = parts.data();
    const int64_t row_cuts[] = {0, 5, 37, rows}, panel_cuts[] = {0, 1, 4, panels};
    for (size_t r = 0; r < 3; ++r) {
      for (size_t p = 0; p < 3; ++p) {
        kernels().gemm(args, row_cuts[r], row_cuts[r + 1], panel_cuts[p], panel_cuts[p + 1]);
      }
    }
    EXPECT_EQ(whole, parts);
  }
}

TEST_P(TrainTables, GemmMatchesReference) {
  const struct {
    int64_t rows, cols, k, k2;
  } shapes[] = {{1, 1, 2, 0},      {12, 32, 64, 16}, {13, 33, 10, 0}, {25, 48, 34, 2},
                {7, 100, 576, 48}, {36, 33, 64, 0},  {51, 64, 96, 16}};
  for (const auto& shape : shapes) {
    const int64_t padded_rows = (shape.rows + kTrainTileRows) / kTrainTileRows * kTrainTileRows;
    const int64_t panels = (shape.cols + 15) / 16, stride = shape.k + 6;
    const auto x = Halves(padded_rows * stride, 1), w = Halves(panels * 16 * shape.k, 2);
    const auto x2 = Halves(padded_rows * shape.k2, 3), w2 = Halves(panels * 16 * shape.k2, 4);
    const auto scale = Floats(shape.cols, 5);
    for (const TrainStore store : {TrainStore::kF32, TrainStore::kAddF32, TrainStore::kBF16}) {
      for (const bool scaled : {false, true}) {
        TrainGemmArgs args{};
        args.segments[0] = {x.data(), stride, w.data(), shape.k * 16, shape.k};
        args.segments[1] = {x2.data(), shape.k2, w2.data(), shape.k2 * 16, shape.k2};
        args.num_segments = shape.k2 > 0 ? 2 : 1;
        args.store = store;
        args.rows = shape.rows;
        args.cols = shape.cols;
        args.out_stride = shape.cols + 3;
        args.column_scale = scaled ? scale.data() : nullptr;
        const int64_t size = shape.rows * args.out_stride;
        std::vector<float> wide[2] = {Floats(size, 6), Floats(size, 6)};
        std::vector<uint16_t> narrow[2] = {Halves(size, 7), Halves(size, 7)};
        for (int side = 0; side < 2; ++side) {
          args.out = store == TrainStore::kBF16 ? static_cast<void*>(narrow[side].data())
                                                : static_cast<void*>(wide[side].data());
          const TrainKernels& table = side == 0 ? kernels() : Reference();
          table.gemm(args, 0, shape.rows, 0, panels);
        }
        ExpectClose(wide[0], wide[1], 1e-4f);
        ExpectClose(narrow[0], narrow[1], 1e-3f);
      }
    }
  }
}

TEST_P(TrainTables, OuterMatchesReferenceAndAccumulates) {
  for (const int64_t rows : {1, 2, 31, 64}) {
    for (const int64_t r : {1, 8, 16, 21}) {
      for (const int64_t cols : {1, 16, 45, 96}) {
        const int64_t even = rows + rows % 2, panels = (r + 15) / 16;
        const auto s = Halves(panels * 16 * even, 1), z = Halves(rows * (cols + 5), 2);
        for (const bool transposed : {false, true}) {
          std::vector<float> out[2] = {Floats(r * cols, 3), Floats(r * cols, 3)};
          for (int side = 0; side < 2; ++side) {
            (side == 0 ? kernels() : Reference())
                .outer({s.data(), even * 16, z.data(), cols + 5, rows, r, cols, out[side].data(),
                        transposed ? 1 : cols, transposed ? r : 1},
                       0, cols);
          }
          ExpectClose(out[0], out[1], 1e-4f);
        }
      }
    }
  }
}

TEST_P(TrainTables, PackingIsExact) {
  for (const int64_t n : {1, 16, 31, 48}) {
    for (const int64_t k : {2, 32, 37, 64}) {
      const int64_t k_padded = (k + 15) / 16 * 16, panels = (n + 15) / 16;
      const auto lanes = Halves(n * (k + 1), 1), pairs = Halves(k * (n + 3), 2);
      std::vector<uint16_t> out[2][2];
      for (int side = 0; side < 2; ++side) {
        const TrainKernels& table = side == 0 ? kernels() : Reference();
        for (auto& panel : out[side]) panel.resize(static_cast<size_t>(panels * 16 * k_padded));
        table.pack_lanes(lanes.data(), k + 1, n, k, k_padded, out[side][0].data(), k_padded * 16, 0,
                         panels);
        table.pack_pairs(pairs.data(), n + 3, k, n, k_padded, out[side][1].data(), k_padded * 16, 0,
                         panels);
      }
      EXPECT_EQ(out[0][0], out[1][0]) << n << " x " << k;
      EXPECT_EQ(out[0][1], out[1][1]) << n << " x " << k;
    }
  }
}

TEST_P(TrainTables, TransposedPanelsAreThoseOfTheTranspose) {
  const int64_t n = 48, k = 32;
  const auto w = Halves(n * k, 1);
  std::vector<uint16_t> panels(w.size()), expected(w.size()), found(w.size());
  Reference().pack_lanes(w.data(), k, n, k, k, panels.data(), k * 16, 0, n / 16);
  Reference().pack_pairs(w.data(), k, n, k, n, expected.data(), n * 16, 0, k / 16);
  kernels().transpose_panels(panels.data(), k * 16, n, found.data(), n * 16, 0, k / 16);
  EXPECT_EQ(found, expected);
  std::vector<uint16_t> reference(w.size());
  Reference().transpose_panels(panels.data(), k * 16, n, reference.data(), n * 16, 0, k / 16);
  EXPECT_EQ(reference, expected);
}

TEST_P(TrainTables, TransposeIsExactAndZeroBeyondItsRows) {
  for (const int64_t rows : {1, 2, 31, 32, 45}) {
    for (const int64_t cols : {1, 16, 37}) {
      const int64_t stride = cols + 3, out_stride = rows + 6;
      const auto x = Halves(rows * stride, 1);
      std::vector<uint16_t> out(static_cast<size_t>(cols * out_stride), uint16_t{7});
      kernels().transpose(x.data(), stride, rows, out.data(), out_stride, 0, cols);
      for (int64_t col = 0; col < cols; ++col) {
        for (int64_t row = 0; row < out_stride; ++row) {
          const uint16_t expected =
              row < rows ? x[static_cast<size_t>(row * stride + col)] : uint16_t{0};
          ASSERT_EQ(out[static_cast<size_t>(col * out_stride + row)], expected)
              << row << " " << col;
        }
      }
    }
  }
}

TEST_P(TrainTables, ColumnDotMatchesReferenceAndAccumulates) {
  const int64_t rows = 37, cols = 45, stride = cols + 3;
  const auto a = Floats(rows * stride, 1), factor = Floats(cols, 2);
  const auto half = Halves(rows * stride, 3), b = Halves(rows * stride, 4);
  const TrainColumnDotArgs cases[] = {
      {a.data(), nullptr, stride, b.data(), stride, nullptr, rows, nullptr},
      {nullptr, half.data(), stride, b.data(), stride, factor.data(), rows, nullptr},
      {nullptr, half.data(), stride, nullptr, 0, nullptr, rows, nullptr}};
  for (TrainColumnDotArgs args : cases) {
    std::vector<float> sums[2] = {Floats(cols, 5), Floats(cols, 5)};
    for (int side = 0; side < 2; ++side) {
      args.sums = sums[side].data();
      (side == 0 ? kernels() : Reference()).column_dot(args, 0, 16);
      (side == 0 ? kernels() : Reference()).column_dot(args, 16, cols);
    }
    ExpectClose(sums[0], sums[1], 1e-5f);
    EXPECT_NE(sums[0], Floats(cols, 5));
  }
}

TEST_P(TrainTables, AddBf16IsExact) {
  const auto y = Halves(45, 1);
  std::vector<float> found = Floats(45, 2), expected = found;
  kernels().add_bf16(y.data(), found.data(), 45);
  Reference().add_bf16(y.data(), expected.data(), 45);
  EXPECT_EQ(found, expected);
}

TEST_P(TrainTables, RoundsLikeFloatToBF16) {
  Rng rng(1, 2);
  std::vector<float> x;
  for (int i = 0; i < 10007; ++i) x.push_back(FloatOfBits(static_cast<uint32_t>(rng.Next())));
  std::vector<uint16_t> found(x.size());
  kernels().to_bf16(x.data(), found.data(), static_cast<int64_t>(x.size()));
  for (size_t i = 0; i < x.size(); ++i) ASSERT_EQ(found[i], FloatToBF16(x[i])) << x[i];
}

TEST_P(TrainTables, RowOperationsMatchReference) {
  for (const int64_t dim : {16, 30, 64, 90}) {
    const int64_t rows = 5, size = rows * dim;
    const auto x = Floats(size, 1), weight = Floats(dim, 2), dh = Floats(size, 3),
               bias = Floats(dim, 8);
    const auto d_act = Halves(size, 5);
    const auto angles = Floats(rows * dim / 2, 6);
    std::vector<float> cosines, sines;
    for (const float angle : angles) {
      cosines.push_back(std::cos(angle));
      sines.push_back(std::sin(angle));
    }
    for (const bool centred : {false, true}) {
      std::vector<uint16_t> halves[2][5];
      std::vector<float> floats[2][4];
      const float* added = centred ? bias.data() : nullptr;
      for (int side = 0; side < 2; ++side) {
        const TrainKernels& table = side == 0 ? kernels() : Reference();
        auto& h = halves[side];
        auto& f = floats[side];
        for (auto& values : h) values.resize(static_cast<size_t>(2 * size));
        f[0].resize(rows);
        f[1] = Floats(size, 7);
        f[2].resize(static_cast<size_t>(rows * 2));
        table.norm({.x = x.data(),
                    .weight = weight.data(),
                    .bias = added,
                    .centred = centred,
                    .rows = rows,
                    .dim = dim,
                    .eps = 1e-5f,
                    .y = h[0].data(),
                    .h = h[1].data(),
                    .inverse = f[0].data()});
        table.norm_backward({.centred = centred,
                             .dh = dh.data(),
                             .y = halves[0][0].data(),
                             .inverse = floats[0][0].data(),
                             .weight = weight.data(),
                             .rows = rows,
                             .dim = dim,
                             .dx = f[1].data(),
                             .dx_bf16 = h[2].data()});
        table.scale_rows(halves[0][0].data(), weight.data(), added, rows, dim, h[3].data());
        table.rope({x.data(), dim, h[4].data(), dim, cosines.data(), sines.data(), rows, 1, dim,
                    dim / 4 * 2, -1});
        table.row_dot({halves[0][0].data(), d_act.data(), rows, 2, dim / 2, f[2].data(), rows});
        f[3] = {static_cast<float>(table.sum_squares(x.data(), size))};
      }
      for (size_t i = 0; i < 5; ++i) ExpectClose(halves[0][i], halves[1][i], 1e-5f);
      for (size_t i = 0; i < 4; ++i) ExpectClose(floats[0][i], floats[1][i], 2e-5f);
    }
  }
}

TEST_P(TrainTables, ActivationsMatchReference) {
  for (size_t gate = 0; gate < kNumTrainGates; ++gate) {
    for (const int64_t dim : {16, 30, 90}) {
      const int64_t rows = 5, size = rows * dim;
      const auto gate_up = Halves(2 * size, 4, 5), d_act = Halves(size, 5);
      std::vector<uint16_t> halves[2][3];
      for (int side = 0; side < 2; ++side) {
        const TrainKernels& table = side == 0 ? kernels() : Reference();
        auto& h = halves[side];
        for (auto& values : h) values.resize(static_cast<size_t>(2 * size));
        TrainActivationArgs args = {.gate = gate_up.data(),
                                    .up = gate_up.data() + dim,
                                    .stride = 2 * dim,
                                    .rows = rows,
                                    .dim = dim,
                                    .factor = 0.5f,
                                    .act = h[0].data(),
                                    .act_stride = dim + 1,
                                    .d_act = d_act.data(),
                                    .d_act_stride = dim,
                                    .d_gate = h[1].data(),
                                    .d_up = h[1].data() + dim};
        table.activate[gate](args);
        args.act = h[2].data();
        table.activate_backward[gate](args);
        EXPECT_EQ(h[0], h[2]);
      }
      for (size_t i = 0; i < 2; ++i) ExpectClose(halves[0][i], halves[1][i], 1e-5f);
    }
  }
}

TEST_P(TrainTables, SigmoidsAndCapsMatchReference) {
  for (const int64_t size : {1, 16, 77}) {
    const auto x = Floats(size, 1, 6);
    const auto d = Halves(size, 2);
    std::vector<float> sigmoids[2], capped[2];
    std::vector<uint16_t> slopes[2];
    for (int side = 0; side < 2; ++side) {
      const TrainKernels& table = side == 0 ? kernels() : Reference();
      sigmoids[side].resize(x.size());
      table.sigmoid(x.data(), sigmoids[side].data(), size);
      capped[side] = x;
      table.soft_cap(capped[side].data(), size, 0.3f, 5);
      slopes[side] = d;
      table.soft_cap_backward(capped[0].data(), 0.2f, slopes[side].data(), size);
    }
    ExpectClose(sigmoids[0], sigmoids[1], 1e-6f);
    ExpectClose(capped[0], capped[1], 1e-5f);
    ExpectClose(slopes[0], slopes[1], 1e-5f);
  }
}

// Every output of a state's rows, forward with all states kept, and backward from the forward of
// the reference.
TEST_P(TrainTables, StatesMatchReference) {
  for (const auto& [keys, values] :
       {std::pair<int64_t, int64_t>{8, 12}, {16, 16}, {20, 33}, {9, 131}}) {
    const int64_t rows = 4, state = keys * values;
    std::vector<float> parts[5];
    for (size_t i = 0; i < 5; ++i) parts[i] = Floats(rows * keys, 1 + i, 0.5);
    const auto v = Floats(rows * values, 6), dy = Floats(rows * values, 7);
    const TrainStateRows in = {parts[0].data(),
                               parts[1].data(),
                               parts[2].data(),
                               parts[3].data(),
                               parts[4].data(),
                               v.data(),
                               rows,
                               keys,
                               values};
    std::vector<float> states[2], s[2], y[2], d_state[2], d_keys[2][5], d_values[2][2];
    for (int side = 0; side < 2; ++side) {
      const TrainKernels& table = side == 0 ? kernels() : Reference();
      states[side] = Floats((rows + 1) * state, 8);
      for (auto* out : {&s[side], &y[side]}) out->resize(static_cast<size_t>(rows * values));
      table.state({in, states[side].data(), state, s[side].data(), y[side].data()});
      std::vector<float> last(states[side].begin(), states[side].begin() + state), s_again(s[side]),
          y_again(y[side]);
      table.state({in, last.data(), 0, s_again.data(), y_again.data()});
      EXPECT_EQ(y_again, y[side]);
      EXPECT_TRUE(std::equal(last.begin(), last.end(), states[side].end() - state));
      d_state[side] = Floats(state, 9);
      for (auto& out : d_keys[side]) out.resize(static_cast<size_t>(rows * keys));
      for (auto& out : d_values[side]) out.resize(static_cast<size_t>(rows * values));
      auto& d = d_keys[side];
      table.state_backward({.in = in,
                            .states = states[0].data(),
                            .states_stride = state,
                            .s = s[0].data(),
                            .dy = dy.data(),
                            .d_state = d_state[side].data(),
                            .dq = d[0].data(),
                            .dk = d[1].data(),
                            .da = d[2].data(),
                            .db = d[3].data(),
                            .dw = d[4].data(),
                            .dv = d_values[side][0].data(),
                            .ds = d_values[side][1].data()});
    }
    ExpectClose(states[0], states[1], 1e-4f);
    ExpectClose(s[0], s[1], 1e-4f);
    ExpectClose(y[0], y[1], 1e-4f);
    ExpectClose(d_state[0], d_state[1], 1e-3f);
    for (size_t i = 0; i < 5; ++i) ExpectClose(d_keys[0][i], d_keys[1][i], 1e-3f);
    ExpectClose(d_values[0][0], d_values[1][0], 1e-3f);
  }
}

TEST_P(TrainTables, SoftmaxAndItsBackwardMatchReference) {
  const int64_t rows = 9, cols = 39, padded = 48, stride = 48;
  const auto scores = Floats(rows * stride, 1, 3), dp = Floats(rows * stride, 2);
  const auto log_sum = Floats(cols, 3), delta = Floats(cols, 4);
  for (const int64_t first : {1, 17, 39}) {
    std::vector<uint16_t> p[2];
    std::vector<float> sums[2];
    for (int side = 0; side < 2; ++side) {
      auto s = scores;
      p[side].assign(static_cast<size_t>(rows * padded), 0xFFFF);
      sums[side].resize(rows);
      (side == 0 ? kernels() : Reference())
          .softmax({s.data(), stride, rows, first, cols, padded, 0.25f, p[side].data(), padded,
                    sums[side].data()});
    }
    ExpectClose(p[0], p[1]);
    ExpectClose(sums[0], sums[1], 1e-5f);
  }
  for (const bool by_column : {false, true}) {
    for (const int64_t first : {by_column ? -20 : 1, by_column ? 0 : 30}) {
      std::vector<uint16_t> out[2][2];
      for (int side = 0; side < 2; ++side) {
        for (auto& values : out[side]) values.assign(static_cast<size_t>(rows * padded), 0xFFFF);
        (side == 0 ? kernels() : Reference())
            .softmax_backward({scores.data(), dp.data(), stride, rows, first, cols, padded, 0.25f,
                               log_sum.data(), delta.data(), by_column, out[side][0].data(),
                               out[side][1].data(), padded});
      }
      ExpectClose(out[0][0], out[1][0], 1e-5f);
      ExpectClose(out[0][1], out[1][1], 1e-5f);
    }
  }
}

TEST_P(TrainTables, PartsOfALossMatchReference) {
  for (const int64_t cols : {1, 16, 77, 256}) {
    const int64_t rows = 3, stride = 260;
    const auto logits = Floats(rows * stride, 1, 4);
    std::vector<TrainLossPart> parts[2];
    for (int side = 0; side < 2; ++side) {
      parts[side].resize(rows);
      (side == 0 ? kernels() : Reference())
          .loss_part({logits.data(), stride, rows, cols, parts[side].data()});
    }
    for (size_t row = 0; row < static_cast<size_t>(rows); ++row) {
      EXPECT_EQ(parts[0][row].largest, parts[1][row].largest);
      EXPECT_NEAR(parts[0][row].sum, parts[1][row].sum, 1e-5f * parts[1][row].sum);
    }
  }
}

TEST_P(TrainTables, GradientOfALossMatchesReference) {
  const int64_t rows = 3, cols = 245, stride = 256;
  const auto logits = Floats(rows * stride, 1, 4);
  auto base = logits;
  for (size_t i = 0; i < base.size(); ++i) base[i] += 0.1f * static_cast<float>(i % 7);
  // In the columns, at their end, and in others.
  const std::vector<int32_t> targets = {1000, 1244, 77};
  const std::vector<float> factors = {1, -0.5f, 3}, log_sums = {11, 12, 13},
                           base_log_sums = {11.5f, 12, 13};
  for (const bool kl : {false, true}) {
    std::vector<uint16_t> d[2];
    std::vector<double> divergence[2];
    for (int side = 0; side < 2; ++side) {
      d[side].assign(static_cast<size_t>(rows * stride), 0xFFFF);
      divergence[side].assign(rows, 1.5);
      (side == 0 ? kernels() : Reference())
          .loss_gradient({.logits = logits.data(),
                          .base = kl ? base.data() : nullptr,
                          .stride = stride,
                          .rows = rows,
                          .cols = cols,
                          .log_sum = log_sums.data(),
                          .base_log_sum = base_log_sums.data(),
                          .targets = targets.data(),
                          .first = 1000,
                          .factors = factors.data(),
                          .kl = divergence[side].data(),
                          .d = d[side].data(),
                          .d_stride = stride,
                          .d_cols = stride});
    }
    ExpectClose(d[0], d[1], 1e-8f);
    for (size_t row = 0; row < static_cast<size_t>(rows); ++row) {
      EXPECT_NEAR(divergence[0][row], divergence[1][row], 1e-5);
    }
  }
}

TEST_P(TrainTables, AdamWMatchesReference) {
  const int64_t size = 1003;
  const auto gradients = Floats(size, 1);
  std::vector<float> state[2][3];
  for (int side = 0; side < 2; ++side) {
    for (size_t i = 0; i < 3; ++i) state[side][i] = Floats(size, 2 + i);
    for (float& v : state[side][2]) v = v * v;
    (side == 0 ? kernels() : Reference())
        .adamw({state[side][0].data(), state[side][1].data(), state[side][2].data(),
                gradients.data(), size, 1e-2f, 0.9f, 0.99f, 1e-8f, 0.1f, 0.5f, 2.0f, 3.0f});
  }
  for (size_t i = 0; i < 3; ++i) ExpectClose(state[0][i], state[1][i], 1e-6f);
}

INSTANTIATE_TEST_SUITE_P(Isa, TrainTables,
                         ::testing::Range(0, static_cast<int>(FastTables().size())),
                         [](const auto& info) { return testing::TableName(info.param + 1); });
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(TrainTables);

}  // namespace
}  // namespace bakestone
