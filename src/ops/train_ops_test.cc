// Backward passes of training against finite differences of a double-precision forward, and what
// the products, attention and optimizer promise. The kernels are those of every table this machine
// runs.
#include "ops/train_ops.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <numeric>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/rng.h"
#include "kernels/isa.h"
#include "ops/train_attention.h"
#include "ops/train_products.h"
#include "ops/train_rows.h"
#include "tensor/half.h"

namespace bakestone {
namespace {

// Values that are exact in bf16.
std::vector<double> Values(int64_t size, uint64_t stream, double scale = 1) {
  Rng rng(21, stream);
  std::vector<double> values(static_cast<size_t>(size));
  for (double& value : values) {
    value = BF16ToFloat(FloatToBF16(static_cast<float>(scale) * rng.Normal()));
  }
  return values;
}
std::vector<float> Narrow(const std::vector<double>& x) { return {x.begin(), x.end()}; }
std::vector<uint16_t> Halves(const std::vector<double>& x, int64_t room = 0) {
  std::vector<uint16_t> out;
  for (const double value : x) out.push_back(FloatToBF16(static_cast<float>(value)));
  out.resize(out.size() + static_cast<size_t>(room));
  return out;
}
std::vector<double> Wide(const std::vector<uint16_t>& x) {
  std::vector<double> out;
  for (const uint16_t value : x) out.push_back(BF16ToFloat(value));
  return out;
}

using Scalar = std::function<double(const std::vector<double>&)>;

// Central differences of f at x, against found; the bound is on the norm of the whole difference.
template <class T>
void ExpectGradient(const Scalar& f, std::vector<double> x, const std::vector<T>& found,
                    double bound) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double at = x[i], h = 1e-5;
    x[i] = at + h;
    const double up = f(x);
    x[i] = at - h;
    const double slope = (up - f(x)) / (2 * h);
    x[i] = at;
    error += (slope - static_cast<double>(found[i])) * (slope - static_cast<double>(found[i]));
    norm += slope * slope;
  }
  EXPECT_LT(std::sqrt(error / norm), bound);
}

double Dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

void CheckNorm(bool centred) {
  const int64_t rows = 3, dim = 40;
  const auto x = Values(rows * dim, 1), weight = Values(dim, 2), dh = Values(rows * dim, 3),
             bias = Values(dim, 4);
  const Scalar loss = [&](const std::vector<double>& at) {
    double sum = 0;
    for (int64_t row = 0; row < rows; ++row) {
      const double* own = at.data() + row * dim;
      const double mean = centred ? std::accumulate(own, own + dim, 0.0) / dim : 0;
      double squares = 0;
      for (int64_t i = 0; i < dim; ++i) squares += (own[i] - mean) * (own[i] - mean);
      const double inverse = 1 / std::sqrt(squares / dim + 1e-5);
      for (int64_t i = 0; i < dim; ++i) {
        const auto j = static_cast<size_t>(i);
        const double h = (own[i] - mean) * inverse * weight[j] + (centred ? bias[j] : 0);
        sum += dh[static_cast<size_t>(row * dim + i)] * h;
      }
    }
    return sum;
  };
  for (const KernelTable* table : AvailableKernels()) {
    ThreadPool pool(2);
    const auto x32 = Narrow(x), w32 = Narrow(weight), dh32 = Narrow(dh), b32 = Narrow(bias);
    std::vector<uint16_t> y(x.size()), h(x.size());
    std::vector<float> inverse(rows), dx(x.size(), 0.0f);
    ops::TrainNorm(table->train, pool,
                   {.x = x32.data(),
                    .weight = w32.data(),
                    .bias = centred ? b32.data() : nullptr,
                    .centred = centred,
                    .rows = rows,
                    .dim = dim,
                    .eps = 1e-5f,
                    .y = y.data(),
                    .h = h.data(),
                    .inverse = inverse.data()});
    EXPECT_NEAR(Dot(Wide(h), dh), loss(x), 0.01 * std::sqrt(Dot(dh, dh)));
    ops::TrainNormBackward(table->train, pool,
                           {.centred = centred,
                            .dh = dh32.data(),
                            .y = y.data(),
                            .inverse = inverse.data(),
                            .weight = w32.data(),
                            .rows = rows,
                            .dim = dim,
                            .dx = dx.data(),
                            .dx_bf16 = nullptr});
    ExpectGradient(loss, x, dx, 0.005);
  }
}

TEST(RmsNorm, BackwardMatchesFiniteDifference) { CheckNorm(false); }

TEST(LayerNorm, BackwardMatchesFiniteDifference) { CheckNorm(true); }

double ActivationOf(TrainGate gate, double x, double up) {
  const double gelu = x / (1 + std::exp(-std::sqrt(8 / M_PI) * (x + 0.044715 * x * x * x)));
  switch (gate) {
    case TrainGate::kSilu:
      return up * x / (1 + std::exp(-x));
    case TrainGate::kGelu:
      return up * gelu;
    case TrainGate::kGeluAlone:
      return gelu;
    case TrainGate::kSigmoid:
      return up / (1 + std::exp(-x));
    case TrainGate::kClamped: {
      const double g = std::min(x, 7.0);
      return g / (1 + std::exp(-1.702 * g)) * (std::clamp(up, -7.0, 7.0) + 1);
    }
  }
  return 0;
}

void CheckActivation(TrainGate gate, double spread = 1.5) {
  constexpr float kFactor = 0.5f;
  const int64_t rows = 2, dim = 23;
  const auto x = Values(rows * 2 * dim, 1, spread), d = Values(rows * dim, 2);
  const Scalar loss = [&](const std::vector<double>& at) {
    double sum = 0;
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t i = 0; i < dim; ++i) {
        sum += kFactor * d[static_cast<size_t>(row * dim + i)] *
               ActivationOf(gate, at[static_cast<size_t>(row * 2 * dim + i)],
                            at[static_cast<size_t>((row * 2 + 1) * dim + i)]);
      }
    }
    return sum;
  };
  for (const KernelTable* table : AvailableKernels()) {
    ThreadPool pool(2);
    const auto gate_up = Halves(x), d_act = Halves(d);
    std::vector<uint16_t> act(d.size()), again(d.size()), gradient(x.size());
    TrainActivationArgs args = {.gate = gate_up.data(),
                                .up = gate_up.data() + dim,
                                .stride = 2 * dim,
                                .rows = rows,
                                .dim = dim,
                                .factor = kFactor,
                                .act = act.data(),
                                .act_stride = dim,
                                .d_act = d_act.data(),
                                .d_act_stride = dim,
                                .d_gate = gradient.data(),
                                .d_up = gradient.data() + dim};
    ops::TrainActivate(table->train, pool, gate, args);
    const auto made = Wide(act);
    EXPECT_NEAR(Dot(made, d), loss(x), 0.01 * std::sqrt(Dot(d, d) * (1 + Dot(made, made))));
    args.act = again.data();
    ops::TrainActivateBackward(table->train, pool, gate, args);
    ExpectGradient(loss, x, Wide(gradient), 0.005);
    EXPECT_EQ(act, again);
  }
}

TEST(SwiGlu, BackwardMatchesFiniteDifference) { CheckActivation(TrainGate::kSilu); }

TEST(GeGlu, BackwardMatchesFiniteDifference) { CheckActivation(TrainGate::kGelu); }

TEST(SigmoidGate, BackwardMatchesFiniteDifference) { CheckActivation(TrainGate::kSigmoid); }

TEST(Gelu, BackwardMatchesFiniteDifference) { CheckActivation(TrainGate::kGeluAlone); }

// Some beyond either clamp.
TEST(ClampedSwiGlu, BackwardMatchesFiniteDifference) { CheckActivation(TrainGate::kClamped, 6); }

TEST(Rope, BackwardIsTheTransposeOfForward) {
  const int64_t rows = 4, heads = 3, head_dim = 24, dim = 20;
  const auto x = Values(rows * heads * head_dim, 1), y = Values(rows * heads * head_dim, 2);
  std::vector<float> cosines, sines;
  for (const double angle : Values(rows * dim / 2, 3)) {
    cosines.push_back(static_cast<float>(std::cos(angle)));
    sines.push_back(static_cast<float>(std::sin(angle)));
  }
  for (const KernelTable* table : AvailableKernels()) {
    ThreadPool pool(1);
    const auto rotated = [&](const std::vector<double>& in, float sign) {
      const auto in32 = Narrow(in);
      std::vector<uint16_t> out(in.size());
      ops::TrainRope(table->train, pool,
                     {in32.data(), heads * head_dim, out.data(), heads * head_dim, cosines.data(),
                      sines.data(), rows, heads, head_dim, dim, sign});
      return Wide(out);
    };
    EXPECT_NEAR(Dot(rotated(x, 1), y), Dot(x, rotated(y, -1)), 0.01 * std::sqrt(Dot(x, x)));
    const auto back = rotated(rotated(x, 1), -1);
    for (size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(back[i], x[i], 0.02);
  }
}

// Documents of odd lengths, one longer than a block of work; groups of heads.
struct AttentionCase {
  int64_t heads = 4, kv_heads = 2, dim = 10;
  std::vector<int32_t> begins = {0, 3, 4};
  int64_t rows = 31, window = 0;
  double cap = 0;
  std::vector<float> sinks;

  ops::TrainAttentionShape shape() const {
    return {.rows = rows,
            .heads = heads,
            .kv_heads = kv_heads,
            .head_dim = dim,
            .window = window,
            .soft_cap = static_cast<float>(cap),
            .sinks = sinks.empty() ? nullptr : sinks.data(),
            .document_begins = begins};
  }
  double Scaled(double score) const {
    score /= std::sqrt(static_cast<double>(dim));
    return cap > 0 ? cap * std::tanh(score / cap) : score;
  }
  // Of a row and a head: the first key that it sees, and what it gives each from there on.
  std::pair<int64_t, std::vector<double>> Shares(const std::vector<double>& q,
                                                 const std::vector<double>& k, int64_t row,
                                                 int64_t head) const {
    int64_t first = 0;
    for (const int32_t begin : begins) first = begin <= row ? begin : first;
    if (window > 0) first = std::max(first, row - window + 1);
    const int64_t q_at = (row * heads + head) * dim;
    std::vector<double> p;
    double total = sinks.empty() ? 0 : std::exp(sinks[static_cast<size_t>(head)]);
    for (int64_t key = first; key <= row; ++key) {
      double score = 0;
      for (int64_t i = 0; i < dim; ++i) {
        score += q[static_cast<size_t>(q_at + i)] * k[static_cast<size_t>(KvAt(key, head) + i)];
      }
      p.push_back(std::exp(Scaled(score)));
      total += p.back();
    }
    for (double& share : p) share /= total;
    return {first, p};
  }
  // out [rows, heads * dim] in double.
  std::vector<double> Forward(const std::vector<double>& q, const std::vector<double>& k,
                              const std::vector<double>& v) const {
    std::vector<double> out(q.size());
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t head = 0; head < heads; ++head) {
        const auto [first, p] = Shares(q, k, row, head);
        for (int64_t key = first; key <= row; ++key) {
          for (int64_t i = 0; i < dim; ++i) {
            out[static_cast<size_t>((row * heads + head) * dim + i)] +=
                p[static_cast<size_t>(key - first)] * v[static_cast<size_t>(KvAt(key, head) + i)];
          }
        }
      }
    }
    return out;
  }
  // Gradients of the sum of d * out, by the formula: q, k and v.
  std::array<std::vector<double>, 3> Backward(const std::vector<double>& q,
                                              const std::vector<double>& k,
                                              const std::vector<double>& v,
                                              const std::vector<double>& d) const {
    std::array<std::vector<double>, 3> sums = {std::vector<double>(q.size()),
                                               std::vector<double>(k.size()),
                                               std::vector<double>(v.size())};
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t head = 0; head < heads; ++head) {
        const auto [first, p] = Shares(q, k, row, head);
        const auto at = static_cast<size_t>((row * heads + head) * dim);
        std::vector<double> dp(p.size());
        double delta = 0;
        for (size_t j = 0; j < p.size(); ++j) {
          const auto kv = static_cast<size_t>(KvAt(first + static_cast<int64_t>(j), head));
          for (size_t i = 0; i < static_cast<size_t>(dim); ++i) {
            dp[j] += d[at + i] * v[kv + i];
            sums[2][kv + i] += p[j] * d[at + i];
          }
          delta += p[j] * dp[j];
        }
        for (size_t j = 0; j < p.size(); ++j) {
          const auto kv = static_cast<size_t>(KvAt(first + static_cast<int64_t>(j), head));
          double score = 0;
          for (size_t i = 0; i < static_cast<size_t>(dim) && cap > 0; ++i) {
            score += q[at + i] * k[kv + i];
          }
          const double t = cap > 0 ? Scaled(score) / cap : 0;
          const double ds =
              p[j] * (dp[j] - delta) * (1 - t * t) / std::sqrt(static_cast<double>(dim));
          for (size_t i = 0; i < static_cast<size_t>(dim); ++i) {
            sums[0][at + i] += ds * k[kv + i];
            sums[1][kv + i] += ds * q[at + i];
          }
        }
      }
    }
    return sums;
  }

 private:
  int64_t KvAt(int64_t key, int64_t head) const {
    return (key * kv_heads + head / (heads / kv_heads)) * dim;
  }
};

// The columns of `width` that the first columns of wider rows are.
std::vector<float> Compact(const std::vector<float>& wide, int64_t rows, int64_t wide_width,
                           int64_t width) {
  std::vector<float> narrow;
  for (int64_t row = 0; row < rows; ++row) {
    narrow.insert(narrow.end(), wide.begin() + row * wide_width,
                  wide.begin() + row * wide_width + width);
  }
  return narrow;
}

double Distance(const std::vector<double>& expected, const std::vector<float>& found) {
  double error = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double difference = expected[i] - static_cast<double>(found[i]);
    error += difference * difference;
  }
  return std::sqrt(error / Dot(expected, expected));
}

void CheckAttention(const AttentionCase& c, const KernelTable& table) {
  const int64_t q_width = c.heads * c.dim, kv_width = c.kv_heads * c.dim;
  const int64_t room = kTrainTileRows * q_width;
  const auto q = Values(c.rows * q_width, 1), k = Values(c.rows * kv_width, 2);
  const auto v = Values(c.rows * kv_width, 3), d = Values(c.rows * q_width, 4);
  const auto q16 = Halves(q, room), k16 = Halves(k, room), v16 = Halves(v, room);
  const auto d16 = Halves(d, room);
  std::array<std::vector<float>, 3> first_bits;
  for (const int threads : {1, 3}) {
    ThreadPool pool(threads);
    ops::TrainAttention attention(table.train, pool);
    std::vector<uint16_t> out(q.size());
    std::vector<float> log_sum(static_cast<size_t>(c.heads * c.rows));
    attention.Forward(c.shape(), q16.data(), k16.data(), v16.data(), out.data(), log_sum.data());
    const auto expected = c.Forward(q, k, v), found = Wide(out);
    for (size_t i = 0; i < found.size(); ++i) ASSERT_NEAR(found[i], expected[i], 0.02) << i;
    std::array<std::vector<float>, 3> gradients;
    for (auto& values : gradients) values.resize(q.size());
    attention.Backward(
        c.shape(), q16.data(), k16.data(), v16.data(), out.data(), log_sum.data(), d16.data(),
        {gradients[0].data(), gradients[1].data(), gradients[2].data(), q_width, q_width});
    for (size_t i = 1; i < 3; ++i) gradients[i] = Compact(gradients[i], c.rows, q_width, kv_width);
    const auto slopes = c.Backward(q, k, v, d);
    for (size_t i = 0; i < 3; ++i) EXPECT_LT(Distance(slopes[i], gradients[i]), 0.01) << i;
    if (threads == 1) {
      first_bits = gradients;
    } else {
      EXPECT_EQ(first_bits, gradients);
    }
  }
}

TEST(Attention, TheFormulaMatchesFiniteDifference) {
  AttentionCase c;
  c.cap = 0.8;
  c.sinks = {0.5f, -1, 2, 1};
  const int64_t kv = c.rows * c.kv_heads * c.dim;
  const auto q = Values(c.rows * c.heads * c.dim, 1), k = Values(kv, 2), v = Values(kv, 3);
  const auto d = Values(c.rows * c.heads * c.dim, 4);
  const auto slopes = c.Backward(q, k, v, d);
  ExpectGradient([&](const auto& at) { return Dot(c.Forward(at, k, v), d); }, q, slopes[0], 1e-6);
  ExpectGradient([&](const auto& at) { return Dot(c.Forward(q, at, v), d); }, k, slopes[1], 1e-6);
  ExpectGradient([&](const auto& at) { return Dot(c.Forward(q, k, at), d); }, v, slopes[2], 1e-6);
}

TEST(Attention, MatchesTheFormula) {
  for (const KernelTable* table : AvailableKernels()) {
    CheckAttention({}, *table);
    // Enough documents that one unit of work has all heads of a key.
    AttentionCase many;
    many.begins = {0, 3, 4, 9, 11, 12, 20, 22, 30};
    CheckAttention(many, *table);
    AttentionCase blocks;
    blocks.rows = 260;
    blocks.begins = {0, 1, 130};
    blocks.dim = 64;
    CheckAttention(blocks, *table);
    AttentionCase capped;
    capped.cap = 0.8;
    CheckAttention(capped, *table);
    capped.window = 5;
    CheckAttention(capped, *table);
    AttentionCase sinking;
    sinking.sinks = {0.5f, -1, 2, 1};
    CheckAttention(sinking, *table);
    sinking.window = 5;
    CheckAttention(sinking, *table);
  }
}

// More queries than stand beside a block of keys at a time; and a window that ends within them.
TEST(Attention, LongDocumentsMatchTheFormula) {
  AttentionCase c;
  c.heads = 2;
  c.kv_heads = 1;
  c.dim = 16;
  c.rows = 1100;
  c.begins = {0, 37};
  for (const int64_t window : {0, 50, 700}) {
    c.window = window;
    CheckAttention(c, *AvailableKernels().back());
  }
}

TEST(TrainGemm, ALongInnerDimensionIsSummedInBlocks) {
  const int64_t rows = 30, cols = 40, k = 4608;
  const auto x = Halves(Values(rows * k, 1), kTrainTileRows * k), w = Halves(Values(48 * k, 2));
  std::vector<uint16_t> panels(48 * k);
  kTrainReference.pack_lanes(w.data(), k, 48, k, k, panels.data(), k * 16, 0, 3);
  for (const KernelTable* table : AvailableKernels()) {
    std::vector<std::vector<float>> results;
    for (const int threads : {1, 3}) {
      ThreadPool pool(threads);
      std::vector<float> out(rows * cols, 1.0f);
      TrainGemmArgs args{};
      args.segments[0] = {x.data(), k, panels.data(), k * 16, k};
      args.num_segments = 1;
      args.store = TrainStore::kAddF32;
      args.rows = rows;
      args.cols = args.out_stride = cols;
      args.out = out.data();
      ops::TrainGemm(table->train, pool, args);
      results.push_back(out);
    }
    EXPECT_EQ(results[0], results[1]);
    for (int64_t row = 0; row < rows; row += 7) {
      for (int64_t col = 0; col < cols; ++col) {
        double sum = 1;
        for (int64_t i = 0; i < k; ++i) {
          sum += static_cast<double>(BF16ToFloat(x[static_cast<size_t>(row * k + i)])) *
                 static_cast<double>(BF16ToFloat(w[static_cast<size_t>(col * k + i)]));
        }
        ASSERT_NEAR(results[0][static_cast<size_t>(row * cols + col)], sum, 2e-3);
      }
    }
  }
}

TEST(AdamW, FirstStepMovesByTheRateAgainstTheSign) {
  for (const KernelTable* table : AvailableKernels()) {
    ThreadPool pool(2);
    std::vector<float> params(10000, 2.0f), m(params.size()), v(params.size()), g(params.size());
    for (size_t i = 0; i < g.size(); ++i) g[i] = i % 2 == 0 ? 0.5f : -3.0f;
    ops::AdamW(table->train, pool, {.learning_rate = 0.01, .weight_decay = 0.1, .step = 1}, params,
               m, v, g);
    EXPECT_NEAR(params[0], 2 - 0.01 - 0.01 * 0.1 * 2, 1e-6);
    EXPECT_NEAR(params[9999], 2 + 0.01 - 0.01 * 0.1 * 2, 1e-6);
    EXPECT_NEAR(m[0], 0.05, 1e-7);
    EXPECT_NEAR(v[1], 0.009, 1e-6);
  }
}

TEST(AdamW, FindsTheMinimumOfAQuadratic) {
  for (const KernelTable* table : AvailableKernels()) {
    ThreadPool pool(1);
    std::vector<float> params = {5, -4, 3}, m(3), v(3), g(3);
    for (int64_t step = 1; step <= 2000; ++step) {
      for (size_t i = 0; i < 3; ++i) g[i] = 2 * (params[i] - static_cast<float>(i));
      ops::AdamW(table->train, pool, {.learning_rate = 0.02, .step = step}, params, m, v, g);
    }
    for (size_t i = 0; i < 3; ++i) EXPECT_NEAR(params[i], static_cast<float>(i), 1e-2);
  }
}

TEST(GradientNorm, IsTheSameForAnyThreadsAndTellsNotFinite) {
  std::vector<float> gradients;
  Rng rng(3, 3);
  for (int i = 0; i < 123457; ++i) gradients.push_back(rng.Normal());
  double squares = 0;
  for (const float g : gradients) squares += static_cast<double>(g) * static_cast<double>(g);
  for (const KernelTable* table : AvailableKernels()) {
    ThreadPool one(1), three(3);
    const double norm = ops::GradientNorm(table->train, one, gradients);
    EXPECT_EQ(norm, ops::GradientNorm(table->train, three, gradients));
    EXPECT_NEAR(norm, std::sqrt(squares), 1e-9 * norm);
    auto broken = gradients;
    broken[100000] = NAN;
    EXPECT_TRUE(std::isnan(ops::GradientNorm(table->train, one, broken)));
  }
  EXPECT_EQ(ops::ClipScale(4, 1), 0.25);
  EXPECT_EQ(ops::ClipScale(0.5, 1), 1);
  EXPECT_EQ(ops::ClipScale(4, 0), 1);
}

}  // namespace
}  // namespace bakestone
