// The loss through a head against a plain computation in double, over several units of the
// vocabulary, on every table this machine runs.
#include "ops/train_loss.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "base/rng.h"
#include "kernels/isa.h"
#include "ops/train_products.h"
#include "tensor/half.h"

namespace bakestone {
namespace {

using Rows = std::vector<std::vector<double>>;

// bf16 values [rows, dim], with room for the end of a tile.
std::vector<uint16_t> RandomHalves(int64_t rows, int64_t dim, uint64_t stream, float scale) {
  Rng rng(31, stream);
  std::vector<uint16_t> values(static_cast<size_t>((rows + kTrainTileRows) * dim));
  for (int64_t i = 0; i < rows * dim; ++i) {
    values[static_cast<size_t>(i)] = FloatToBF16(scale * rng.Normal());
  }
  return values;
}

struct LossCase {
  int64_t rows = 70, dim = 32, vocab = 700;
  bool kl = false;
  float cap = 0;
};

class LossTest : public ::testing::Test {
 protected:
  struct Model {
    std::vector<uint16_t> hidden, head, panels, transposed;
  };
  struct Result {
    std::vector<double> nll, kl;
    std::vector<uint8_t> correct;
    std::vector<float> d_hidden;
    std::vector<uint16_t> d_logits;
    bool operator==(const Result&) const = default;
  };

  void Make(const LossCase& c) {
    case_ = c;
    padded_ = ops::PanelsOf(c.vocab) * kTrainLanes;
    for (int which = 0; which < 2; ++which) {
      Model& model = which == 0 ? model_ : base_;
      const auto stream = static_cast<uint64_t>(2 * which);
      model.hidden = RandomHalves(c.rows, c.dim, stream, 1);
      model.head = RandomHalves(c.vocab, c.dim, stream + 1, 0.3f);
      model.panels.resize(static_cast<size_t>(padded_ * c.dim));
      model.transposed.resize(model.panels.size());
      kTrainReference.pack_lanes(model.head.data(), c.dim, c.vocab, c.dim, c.dim,
                                 model.panels.data(), c.dim * kTrainLanes, 0,
                                 ops::PanelsOf(c.vocab));
    }
    targets_.clear();
    factors_.clear();
    Rng rng(31, 9);
    for (int64_t row = 0; row < c.rows; ++row) {
      targets_.push_back(static_cast<int32_t>(rng.Below(static_cast<uint64_t>(c.vocab))));
      factors_.push_back(0.5f + 0.25f * static_cast<float>(row % 3));
    }
    // Some rows whose target is the likeliest.
    const Rows logits = Logits(model_);
    for (size_t row = 0; row < 10; ++row) {
      targets_[row] = static_cast<int32_t>(
          std::max_element(logits[row].begin(), logits[row].end()) - logits[row].begin());
    }
  }

  Rows Logits(const Model& model) const {
    Rows logits(static_cast<size_t>(case_.rows));
    for (int64_t row = 0; row < case_.rows; ++row) {
      for (int64_t id = 0; id < case_.vocab; ++id) {
        double sum = 0;
        for (int64_t i = 0; i < case_.dim; ++i) {
          sum +=
              static_cast<double>(
                  BF16ToFloat(model.hidden[static_cast<size_t>(row * case_.dim + i)])) *
              static_cast<double>(BF16ToFloat(model.head[static_cast<size_t>(id * case_.dim + i)]));
        }
        const double cap = case_.cap;
        logits[static_cast<size_t>(row)].push_back(cap > 0 ? cap * std::tanh(sum / cap) : sum);
      }
    }
    return logits;
  }

  // Of the last of several calls for so many rows each.
  Result Run(const TrainKernels& kernels, int threads, bool gradient, bool keep,
             const std::vector<int64_t>& calls) {
    ThreadPool pool(threads);
    ops::TransposeHead(kernels, pool, model_.panels.data(), case_.vocab, case_.dim,
                       model_.transposed.data());
    ops::TrainLoss loss(kernels, pool);
    Result result;
    for (const int64_t count : calls) {
      const auto rows = static_cast<size_t>(count), dim = static_cast<size_t>(case_.dim);
      const int64_t kept = keep ? (count + kTrainTileRows) * padded_ : 0;
      result = {.nll = std::vector<double>(rows),
                .kl = std::vector<double>(rows),
                .correct = std::vector<uint8_t>(rows),
                .d_hidden = std::vector<float>(gradient ? rows * dim : 0),
                .d_logits = std::vector<uint16_t>(static_cast<size_t>(kept))};
      loss.Run({.model = {model_.hidden.data(), model_.panels.data()},
                .base = {case_.kl ? base_.hidden.data() : nullptr, base_.panels.data()},
                .rows = count,
                .dim = case_.dim,
                .vocab = case_.vocab,
                .soft_cap = case_.cap,
                .targets = targets_.data(),
                .nll = result.nll.data(),
                .kl = result.kl.data(),
                .correct = result.correct.data(),
                .transposed = gradient ? model_.transposed.data() : nullptr,
                .factors = factors_.data(),
                .d_hidden = result.d_hidden.data(),
                .d_logits = keep ? result.d_logits.data() : nullptr,
                .d_stride = padded_});
    }
    return result;
  }
  Result Run(const TrainKernels& kernels, int threads, bool gradient, bool keep) {
    return Run(kernels, threads, gradient, keep, {case_.rows});
  }

  static double LogSum(const std::vector<double>& x) {
    const double top = *std::max_element(x.begin(), x.end());
    double sum = 0;
    for (const double value : x) sum += std::exp(value - top);
    return top + std::log(sum);
  }

  void Check(const Result& found, bool gradient) {
    const Rows logits = Logits(model_), base = Logits(base_);
    double error = 0, norm = 0;
    for (size_t row = 0; row < logits.size(); ++row) {
      const std::vector<double>& x = logits[row];
      const double log_sum = LogSum(x), base_log_sum = LogSum(base[row]);
      const auto target = static_cast<size_t>(targets_[row]);
      EXPECT_NEAR(found.nll[row], log_sum - x[target], 1e-4);
      const bool right = std::max_element(x.begin(), x.end()) - x.begin() == targets_[row];
      EXPECT_EQ(found.correct[row], right ? 1 : 0) << row;
      double kl = 0;
      std::vector<double> d(x.size());
      for (size_t id = 0; id < x.size(); ++id) {
        const double p = std::exp(x[id] - log_sum), q = std::exp(base[row][id] - base_log_sum);
        kl += q * (base[row][id] - base_log_sum - x[id] + log_sum);
        d[id] = static_cast<double>(factors_[row]) * (p - (case_.kl       ? q
                                                           : id == target ? 1.0
                                                                          : 0.0));
        const double t = case_.cap > 0 ? x[id] / static_cast<double>(case_.cap) : 0;
        d[id] *= 1 - t * t;
      }
      if (case_.kl) {
        EXPECT_NEAR(found.kl[row], kl, 1e-4);
      }
      if (!gradient) continue;
      for (int64_t i = 0; i < case_.dim; ++i) {
        double slope = 0;
        for (size_t id = 0; id < d.size(); ++id) {
          slope += d[id] *
                   static_cast<double>(BF16ToFloat(
                       model_.head[id * static_cast<size_t>(case_.dim) + static_cast<size_t>(i)]));
        }
        const double difference =
            slope -
            static_cast<double>(
                found.d_hidden[row * static_cast<size_t>(case_.dim) + static_cast<size_t>(i)]);
        error += difference * difference;
        norm += slope * slope;
      }
      if (found.d_logits.empty()) continue;
      const uint16_t* kept = found.d_logits.data() + row * static_cast<size_t>(padded_);
      for (size_t id = 0; id < d.size(); ++id) {
        ASSERT_NEAR(BF16ToFloat(kept[id]), d[id], 0.008 * std::fabs(d[id]) + 1e-6);
      }
      for (int64_t id = case_.vocab; id < padded_; ++id) EXPECT_EQ(kept[id], 0);
    }
    if (gradient) {
      EXPECT_LT(std::sqrt(error / norm), 0.005);
    }
  }

  LossCase case_;
  int64_t padded_ = 0;
  Model model_, base_;
  std::vector<int32_t> targets_;
  std::vector<float> factors_;
};

TEST_F(LossTest, MatchesAPlainComputation) {
  for (const KernelTable* table : AvailableKernels()) {
    for (const bool kl : {false, true}) {
      for (const int64_t vocab : {48, 700, 2501}) {
        Make({.vocab = vocab, .kl = kl});
        Check(Run(table->train, 2, true, true), true);
        Make({.vocab = vocab, .kl = kl, .cap = 2});
        Check(Run(table->train, 2, false, false), false);
        Check(Run(table->train, 2, true, false), true);
        Check(Run(table->train, 2, true, true), true);
      }
    }
  }
}

TEST_F(LossTest, HasTheSameBitsOnAnyNumberOfThreads) {
  Make({.rows = 130, .vocab = 2501, .kl = true});
  for (const KernelTable* table : AvailableKernels()) {
    const Result one = Run(table->train, 1, true, true);
    for (const int threads : {2, 20}) EXPECT_EQ(one, Run(table->train, threads, true, true));
  }
}

TEST_F(LossTest, WhatIsKeptFromACallChangesNothing) {
  Make({});
  for (const KernelTable* table : AvailableKernels()) {
    for (const int64_t rows : {1, 33, 70}) {
      const Result fresh = Run(table->train, 2, true, false, {rows});
      EXPECT_EQ(fresh, Run(table->train, 2, true, false, {70, rows})) << rows;
      EXPECT_EQ(fresh, Run(table->train, 2, true, false, {1, rows})) << rows;
    }
  }
}

// Two equal rows of the head: a target is right only where it is the first of them.
TEST_F(LossTest, OnlyTheFirstOfEqualLogitsIsRight) {
  for (const auto& [first, second] : {std::pair<int64_t, int64_t>{3, 5}, {40, 690}}) {
    Make({});
    for (int64_t i = 0; i < case_.dim; ++i) {
      const uint16_t value =
          FloatToBF16(4 * BF16ToFloat(model_.hidden[static_cast<size_t>(i)]));  // large for row 0
      model_.head[static_cast<size_t>(first * case_.dim + i)] = value;
      model_.head[static_cast<size_t>(second * case_.dim + i)] = value;
    }
    kTrainReference.pack_lanes(model_.head.data(), case_.dim, case_.vocab, case_.dim, case_.dim,
                               model_.panels.data(), case_.dim * kTrainLanes, 0,
                               ops::PanelsOf(case_.vocab));
    for (const KernelTable* table : AvailableKernels()) {
      targets_[0] = static_cast<int32_t>(first);
      EXPECT_EQ(Run(table->train, 1, false, false).correct[0], 1);
      targets_[0] = static_cast<int32_t>(second);
      EXPECT_EQ(Run(table->train, 1, false, false).correct[0], 0);
    }
  }
}

}  // namespace
}  // namespace bakestone
