// States and convolutions through packed documents: against their formulas in double precision and
// finite differences of them, and the same bits on any number of threads.
#include "ops/train_state.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <vector>

#include "base/rng.h"
#include "kernels/isa.h"
#include "tensor/half.h"

namespace bakestone {
namespace {

std::vector<double> Random(int64_t size, uint64_t stream, double scale = 1) {
  Rng rng(23, stream);
  std::vector<double> values(static_cast<size_t>(size));
  for (double& value : values) value = scale * static_cast<double>(rng.Normal());
  return values;
}

double Difference(const std::vector<double>& expected, const std::vector<float>& found) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double d = expected[i] - static_cast<double>(found[i]);
    error += d * d;
    norm += expected[i] * expected[i];
  }
  return std::sqrt(error / norm);
}

std::vector<double> Slopes(const std::function<double(const std::vector<double>&)>& f,
                           std::vector<double> x) {
  std::vector<double> slopes;
  for (double& value : x) {
    const double at = value, h = 1e-5;
    value = at + h;
    const double up = f(x);
    value = at - h;
    slopes.push_back((up - f(x)) / (2 * h));
    value = at;
  }
  return slopes;
}

// Documents shorter than a chunk, of several chunks, and of one row.
const std::vector<int32_t> kBegins = {0, 3, 4};
constexpr int64_t kRows = 75;
int64_t DocumentOf(int64_t row) { return row < 3 ? 0 : row < 4 ? 3 : 4; }

struct StateCase {
  bool tiled;
  int64_t heads = 4, units = 2, keys = 6, values = 5;
  // By part q, k, a, b, w [rows, heads, keys], and v [rows, heads, values]; w near 1, b small.
  std::vector<std::vector<double>> parts;

  explicit StateCase(bool tiled) : tiled(tiled) {
    for (uint64_t part = 0; part < 5; ++part) {
      parts.push_back(Random(kRows * heads * keys, part, part == 3 ? 0.1 : 0.5));
    }
    for (double& w : parts[4]) w = 0.8 + 0.1 * w;
    parts.push_back(Random(kRows * heads * values, 5));
  }
  ops::TrainStateShape shape() const {
    return {.rows = kRows,
            .heads = heads,
            .key_dim = keys,
            .value_dim = values,
            .units = units,
            .tiled = tiled,
            .document_begins = kBegins};
  }
  size_t At(int64_t row, int64_t head, int64_t width) const {
    return static_cast<size_t>((row * heads + head) * width);
  }
  std::vector<double> Outputs(const std::vector<std::vector<double>>& in) const {
    std::vector<double> out(static_cast<size_t>(kRows * heads * values));
    const auto k_dim = static_cast<size_t>(keys), v_dim = static_cast<size_t>(values);
    for (int64_t head = 0; head < heads; ++head) {
      std::vector<double> state(k_dim * v_dim);
      for (int64_t row = 0; row < kRows; ++row) {
        if (DocumentOf(row) == row) state.assign(state.size(), 0);
        const size_t at = At(row, head, keys), to = At(row, head, values);
        for (size_t j = 0; j < v_dim; ++j) {
          double s = 0;
          for (size_t i = 0; i < k_dim; ++i) s += in[2][at + i] * state[i * v_dim + j];
          for (size_t i = 0; i < k_dim; ++i) {
            double& own = state[i * v_dim + j];
            own = in[4][at + i] * own + in[3][at + i] * s + in[1][at + i] * in[5][to + j];
            out[to + j] += in[0][at + i] * own;
          }
        }
      }
    }
    return out;
  }
};

TEST(TrainState, MatchesItsFormulaAndFiniteDifferences) {
  for (const bool tiled : {false, true}) {
    const StateCase c(tiled);
    const auto dy = Random(kRows * c.heads * c.values, 7);
    const auto loss = [&](const std::vector<std::vector<double>>& in) {
      const auto y = c.Outputs(in);
      double sum = 0;
      for (size_t i = 0; i < y.size(); ++i) sum += y[i] * dy[i];
      return sum;
    };
    std::vector<std::vector<double>> slopes;
    for (size_t part = 0; part < c.parts.size(); ++part) {
      slopes.push_back(Slopes(
          [&](const std::vector<double>& x) {
            auto in = c.parts;
            in[part] = x;
            return loss(in);
          },
          c.parts[part]));
    }
    const auto fill = [&](int64_t row, int64_t head, const ops::StateRow& to) {
      const size_t at = c.At(row, head, c.keys), value = c.At(row, head, c.values);
      float* const keys[] = {to.q, to.k, to.a, to.b, to.w};
      for (size_t part = 0; part < 5; ++part) {
        for (size_t i = 0; i < static_cast<size_t>(c.keys); ++i) {
          keys[part][i] = static_cast<float>(c.parts[part][at + i]);
        }
      }
      for (size_t i = 0; i < static_cast<size_t>(c.values); ++i) {
        to.v[i] = static_cast<float>(c.parts[5][value + i]);
      }
    };
    const std::vector<float> dy32(dy.begin(), dy.end());
    for (const KernelTable* table : AvailableKernels()) {
      std::vector<std::vector<float>> first;
      for (const int threads : {1, 3}) {
        ThreadPool pool(threads);
        ops::TrainState state(table->train, pool);
        std::vector<float> y(dy.size());
        state.Forward(c.shape(), fill, y.data());
        EXPECT_LT(Difference(c.Outputs(c.parts), y), 1e-6);
        std::vector<std::vector<float>> found;
        for (const auto& part : c.parts) found.emplace_back(part.size());
        state.Backward(
            c.shape(), fill, dy32.data(),
            [&](int64_t row, int64_t head, const ops::StateRowGradient& gradient) {
              const float* const keys[] = {gradient.q, gradient.k, gradient.a, gradient.b,
                                           gradient.w};
              for (size_t part = 0; part < 5; ++part) {
                std::copy_n(keys[part], c.keys, found[part].data() + c.At(row, head, c.keys));
              }
              std::copy_n(gradient.v, c.values, found[5].data() + c.At(row, head, c.values));
            });
        for (size_t part = 0; part < found.size(); ++part) {
          EXPECT_LT(Difference(slopes[part], found[part]), 1e-5) << part;
        }
        found.push_back(y);
        if (threads == 1) first = found;
        EXPECT_EQ(first, found);
      }
    }
  }
}

TEST(TrainConvolution, MatchesItsFormulaAndIsTurnedByItsBackward) {
  const int64_t channels = 70, count = 4, stride = 75;
  const auto taps = Random(count * channels, 1), bias = Random(channels, 2);
  const std::vector<float> taps32(taps.begin(), taps.end()), bias32(bias.begin(), bias.end());
  std::vector<uint16_t> x;
  for (const double value : Random(kRows * stride, 3)) {
    x.push_back(FloatToBF16(static_cast<float>(value)));
  }
  const auto d = Random(kRows * channels, 4);
  const std::vector<float> d32(d.begin(), d.end());
  for (const bool biased : {false, true}) {
    const ops::TrainConvolution shape = {.taps = taps32.data(),
                                         .bias = biased ? bias32.data() : nullptr,
                                         .count = count,
                                         .rows = kRows,
                                         .channels = channels,
                                         .document_begins = kBegins};
    std::vector<double> expected, gradient(static_cast<size_t>(kRows * channels));
    for (int64_t row = 0; row < kRows; ++row) {
      for (int64_t c = 0; c < channels; ++c) {
        const auto at = static_cast<size_t>(row * channels + c);
        double sum = biased ? static_cast<double>(bias32[static_cast<size_t>(c)]) : 0;
        for (int64_t tap = 0; tap < count; ++tap) {
          const int64_t from = row - (count - 1) + tap;
          if (from < DocumentOf(row)) continue;
          const auto w = static_cast<double>(taps32[static_cast<size_t>(tap * channels + c)]);
          sum += w * static_cast<double>(BF16ToFloat(x[static_cast<size_t>(from * stride + c)]));
          gradient[static_cast<size_t>(from * channels + c)] += w * d[at];
        }
        expected.push_back(sum);
      }
    }
    for (const KernelTable* table : AvailableKernels()) {
      ThreadPool pool(2);
      std::vector<float> y(expected.size()), dx(expected.size());
      ops::TrainConvolve(table->train, pool, shape, x.data(), stride, y.data());
      EXPECT_LT(Difference(expected, y), 1e-6);
      ops::TrainConvolveBackward(table->train, pool, shape, d32.data(), dx.data());
      EXPECT_LT(Difference(gradient, dx), 1e-6);
    }
  }
}

}  // namespace
}  // namespace bakestone
