// Backward passes of training against finite differences of a double-precision forward, and what
// the products, attention and optimizer promise. The kernels are those of every table this machine
// runs.
#include "ops/train_ops.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
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

TEST(RmsNorm, BackwardMatchesFiniteDifference) {
  const int64_t rows = 3, dim = 40;
  const auto x = Values(rows * dim, 1), weight = Values(dim, 2), dh = Values(rows * dim, 3);
  const Scalar loss = [&](const std::vector<double>& at) {
    double sum = 0;
    for (int64_t row = 0; row < rows; ++row) {
      double squares = 0;
      for (int64_t i = 0; i < dim; ++i) {
        squares += at[static_cast<size_t>(row * dim + i)] * at[static_cast<size_t>(row * dim + i)];
      }
      const double inverse = 1 / std::sqrt(squares / dim + 1e-5);
      for (int64_t i = 0; i < dim; ++i) {
        const auto j = static_cast<size_t>(row * dim + i);
        sum += dh[j] * at[j] * inverse * weight[static_cast<size_t>(i)];
      }
    }
    return sum;
  };
  for (const KernelTable* table : AvailableKernels()) {
    ThreadPool pool(2);
    const auto x32 = Narrow(x), w32 = Narrow(weight), dh32 = Narrow(dh);
    std::vector<uint16_t> y(x.size()), h(x.size());
    std::vector<float> inverse(rows), dx(x.size(), 0.0f);
    ops::TrainNorm(table->train, pool,
                   {x32.data(), w32.data(), rows, dim, 1e-5f, y.data(), h.data(), inverse.data()});
    EXPECT_NEAR(Dot(Wide(h), dh), loss(x), 0.01 * std::sqrt(Dot(dh, dh)));
    ops::TrainNormBackward(
        table->train, pool,
        {dh32.data(), y.data(), inverse.data(), w32.data(), rows, dim, dx.data(), nullptr});
    ExpectGradient(loss, x, dx, 0.005);
  }
}

TEST(SwiGlu, BackwardMatchesFiniteDifference) {
  const int64_t rows = 2, dim = 23;
  const auto x = Values(rows * 2 * dim, 1, 1.5), d = Values(rows * dim, 2);
  const Scalar loss = [&](const std::vector<double>& at) {
    double sum = 0;
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t i = 0; i < dim; ++i) {
        const double gate = at[static_cast<size_t>(row * 2 * dim + i)];
        const double up = at[static_cast<size_t>((row * 2 + 1) * dim + i)];
        sum += d[static_cast<size_t>(row * dim + i)] * up * gate / (1 + std::exp(-gate));
      }
    }
    return sum;
  };
  for (const KernelTable* table : AvailableKernels()) {
    ThreadPool pool(2);
    const auto gate_up = Halves(x), d_act = Halves(d);
    std::vector<uint16_t> act(d.size()), gradient(x.size());
    ops::TrainSwiGlu(table->train, pool, {gate_up.data(), nullptr, rows, dim, act.data(), nullptr});
    EXPECT_NEAR(Dot(Wide(act), d), loss(x), 0.01 * std::sqrt(Dot(d, d)));
    ops::TrainSwiGluBackward(table->train, pool,
                             {gate_up.data(), d_act.data(), rows, dim, nullptr, gradient.data()});
    ExpectGradient(loss, x, Wide(gradient), 0.005);
  }
}

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
  int64_t rows = 31;

  ops::TrainAttentionShape shape() const {
    return {.rows = rows,
            .heads = heads,
            .kv_heads = kv_heads,
            .head_dim = dim,
            .document_begins = begins};
  }
  // out [rows, heads * dim] in double.
  std::vector<double> Forward(const std::vector<double>& q, const std::vector<double>& k,
                              const std::vector<double>& v) const {
    std::vector<double> out(q.size());
    for (int64_t row = 0; row < rows; ++row) {
      int64_t first = 0;
      for (const int32_t begin : begins) first = begin <= row ? begin : first;
      for (int64_t head = 0; head < heads; ++head) {
        const int64_t q_at = (row * heads + head) * dim;
        std::vector<double> p;
        double total = 0;
        for (int64_t key = first; key <= row; ++key) {
          double score = 0;
          for (int64_t i = 0; i < dim; ++i) {
            score += q[static_cast<size_t>(q_at + i)] * k[static_cast<size_t>(KvAt(key, head) + i)];
          }
          p.push_back(std::exp(score / std::sqrt(static_cast<double>(dim))));
          total += p.back();
        }
        for (int64_t key = first; key <= row; ++key) {
          for (int64_t i = 0; i < dim; ++i) {
            out[static_cast<size_t>(q_at + i)] += p[static_cast<size_t>(key - first)] / total *
                                                  v[static_cast<size_t>(KvAt(key, head) + i)];
          }
        }
      }
    }
    return out;
  }

 private:
  int64_t KvAt(int64_t key, int64_t head) const {
    return (key * kv_heads + head / (heads / kv_heads)) * dim;
  }
};

void CheckAttention(const AttentionCase& c, const KernelTable& table, bool differences) {
  const int64_t q_width = c.heads * c.dim, kv_width = c.kv_heads * c.dim;
  const int64_t room = kTrainTileRows * q_width;
  const auto q = Values(c.rows * q_width, 1), k = Values(c.rows * kv_width, 2);
  const auto v = Values(c.rows * kv_width, 3), d = Values(c.rows * q_width, 4);
  const auto q16 = Halves(q, room), k16 = Halves(k, room), v16 = Halves(v, room);
  const auto d16 = Halves(d, room);
  ThreadPool pool(2);
  ops::TrainAttention attention(table.train, pool);
  std::vector<uint16_t> out(q.size());
  std::vector<float> log_sum(static_cast<size_t>(c.heads * c.rows));
  attention.Forward(c.shape(), q16.data(), k16.data(), v16.data(), out.data(), log_sum.data());
  const auto expected = c.Forward(q, k, v), found = Wide(out);
  for (size_t i = 0; i < found.size(); ++i) ASSERT_NEAR(found[i], expected[i], 0.02) << i;
  std::vector<float> dq(q.size()), dk(q.size()), dv(q.size());
  attention.Backward(c.shape(), q16.data(), k16.data(), v16.data(), out.data(), log_sum.data(),
                     d16.data(), {dq.data(), dk.data(), dv.data(), q_width});
  if (!differences) return;
  const auto compact = [&](const std::vector<float>& wide) {
    std::vector<float> narrow;
    for (int64_t row = 0; row < c.rows; ++row) {
      narrow.insert(narrow.end(), wide.begin() + row * q_width,
                    wide.begin() + row * q_width + kv_width);
    }
    return narrow;
  };
  ExpectGradient([&](const auto& at) { return Dot(c.Forward(at, k, v), d); }, q, dq, 0.01);
  ExpectGradient([&](const auto& at) { return Dot(c.Forward(q, at, v), d); }, k, compact(dk), 0.01);
  ExpectGradient([&](const auto& at) { return Dot(c.Forward(q, k, at), d); }, v, compact(dv), 0.01);
}

TEST(Attention, BackwardMatchesFiniteDifference) {
  for (const KernelTable* table : AvailableKernels()) CheckAttention({}, *table, true);
}

TEST(Attention, ForwardMatchesDoubleOverSeveralBlocks) {
  AttentionCase c;
  c.rows = 260;
  c.begins = {0, 1, 130};
  c.dim = 64;
  CheckAttention(c, *AvailableKernels().back(), false);
}

TEST(CrossEntropy, BackwardMatchesFiniteDifference) {
  const int64_t vocab = 37;
  const auto logits = Values(vocab, 1, 2);
  const std::vector<int32_t> target = {11};
  const std::vector<float> factor = {0.75f};
  const auto log_softmax = [](const std::vector<double>& x) {
    double sum = 0;
    for (const double value : x) sum += std::exp(value);
    std::vector<double> out;
    for (const double value : x) out.push_back(value - std::log(sum));
    return out;
  };
  const auto base = Values(vocab, 2, 2);
  for (const KernelTable* table : AvailableKernels()) {
    for (const bool kl : {false, true}) {
      const Scalar loss = [&](const std::vector<double>& at) {
        const auto p = log_softmax(at);
        if (!kl) return -0.75 * p[11];
        const auto q = log_softmax(base);
        double sum = 0;
        for (size_t i = 0; i < p.size(); ++i) sum += std::exp(q[i]) * (q[i] - p[i]);
        return 0.75 * sum;
      };
      ThreadPool pool(1);
      const auto x = Narrow(logits), b = Narrow(base);
      double nll = 0, divergence = 0;
      uint8_t correct = 2;
      std::vector<uint16_t> d(vocab + 3, 0xFFFF);
      ops::TrainLoss(table->train, pool,
                     {x.data(), kl ? b.data() : nullptr, vocab, 1, vocab, target.data(),
                      factor.data(), &nll, &divergence, &correct, d.data(), vocab + 3});
      EXPECT_NEAR(0.75 * (kl ? divergence : nll), loss(logits), 1e-5);
      EXPECT_LE(correct, 1);
      EXPECT_EQ(d[vocab], 0);
      EXPECT_EQ(d[vocab + 2], 0);
      ExpectGradient(loss, logits, Wide(d), 0.005);
    }
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
