#include "eval/kl_score.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/rng.h"
#include "ops/rows.h"
#include "tensor/buffer.h"

namespace bakestone {
namespace {

constexpr int64_t kKlLogitRows = 32;

// Sum of p * (a - b): chains of 16 in f32, f64 above.
double WeightedDifference(const float* p, const float* a, const float* b, int64_t n) {
  double total = 0;
  int64_t i = 0;
  while (i + 16 <= n) {
    float sums[16] = {};
    const int64_t end = std::min(n - (n - i) % 16, i + 16 * 64);
    for (; i < end; i += 16) {
      for (int j = 0; j < 16; ++j) sums[j] += p[i + j] * (a[i + j] - b[i + j]);
    }
    for (const float sum : sums) total += static_cast<double>(sum);
  }
  for (; i < n; ++i) total += static_cast<double>(p[i] * (a[i] - b[i]));
  return total;
}

int64_t Likeliest(std::span<const float> logits) {
  return std::max_element(logits.begin(), logits.end()) - logits.begin();
}

// The hidden rows of one window and, chunk by chunk, their logits.
class WindowRun {
 public:
  WindowRun(const Predictor& predictor, Exec& exec, std::span<const int32_t> tokens)
      : model_(*predictor.model),
        exec_(exec),
        hidden_(static_cast<int64_t>(tokens.size()) * predictor.model->config.hidden_dim) {
    const auto rows = static_cast<int32_t>(tokens.size());
    std::vector<int32_t> positions(tokens.size());
    std::iota(positions.begin(), positions.end(), 0);
    const SequenceRun sequence{0, rows, nullptr};
    const AdapterRun run{0, rows, predictor.adapter};
    Step step;
    step.tokens = tokens;
    step.positions = positions;
    step.sequences = {&sequence, 1};
    step.adapters = {&run, 1};
    step.output_rows = positions;
    model_.decoder->Forward(exec, step, {hidden_.data(), rows, model_.config.hidden_dim});
  }

  void Logits(int64_t begin, int64_t count, Buffer<float>& logits,
              std::vector<SoftmaxStats>& stats) {
    const int64_t dim = model_.config.hidden_dim, vocabulary = model_.config.vocab_size;
    if (logits.size() < count * vocabulary) logits = Buffer<float>(count * vocabulary);
    stats.resize(static_cast<size_t>(count));
    model_.decoder->Logits(exec_, {hidden_.data() + begin * dim, count, dim},
                           {logits.data(), count, vocabulary});
    ops::ComputeSoftmaxStats(exec_.context, {logits.data(), count, vocabulary}, stats);
  }

 private:
  const Model& model_;
  Exec& exec_;
  Buffer<float> hidden_;
};

class Comparison {
 public:
  Comparison(const Predictor& original, std::span<const Predictor> others, Exec& exec)
      : original_(original),
        others_(others),
        exec_(exec),
        scores_(others.size()),
        vocabulary_(original.model->config.vocab_size),
        probabilities_(kKlLogitRows * vocabulary_) {
    BAKESTONE_CHECK(exec.precision == Precision::kExact);
    for (const Predictor& other : others) {
      if (other.model->config.vocab_size == vocabulary_) continue;
      Throw(ErrorCode::kInvalidArgument,
            "models to compare: expected vocabularies of {} tokens, found {}", vocabulary_,
            other.model->config.vocab_size);
    }
  }

  void Window(std::span<const int32_t> tokens) {
    WindowRun original(original_, exec_, tokens);
    std::vector<WindowRun> others;
    for (const Predictor& other : others_) others.emplace_back(other, exec_, tokens);
    const auto rows = static_cast<int64_t>(tokens.size());
    for (int64_t begin = 0; begin < rows; begin += kKlLogitRows) {
      const int64_t count = std::min(kKlLogitRows, rows - begin);
      original.Logits(begin, count, logits_, stats_);
      for (int64_t row = 0; row < count; ++row) {
        ops::Softmax(exec_.context, Row(logits_, row), stats_[static_cast<size_t>(row)],
                     Row(probabilities_, row));
      }
      for (size_t i = 0; i < others.size(); ++i) {
        others[i].Logits(begin, count, other_logits_, other_stats_);
        for (int64_t row = 0; row < count; ++row) {
          const bool has_target = begin + row + 1 < rows;
          Add(scores_[i], row, has_target ? tokens[static_cast<size_t>(begin + row + 1)] : -1);
        }
      }
    }
  }

  std::vector<KlScore> Take() { return std::move(scores_); }

 private:
  std::span<float> Row(Buffer<float>& matrix, int64_t row) const {
    return matrix.span().subspan(static_cast<size_t>(row * vocabulary_),
                                 static_cast<size_t>(vocabulary_));
  }

  void Add(KlScore& score, int64_t row, int32_t target) {
    const std::span<float> a = Row(logits_, row), b = Row(other_logits_, row),
                           p = Row(probabilities_, row);
    const double log_a = ops::LogSumExp(stats_[static_cast<size_t>(row)]);
    const double log_b = ops::LogSumExp(other_stats_[static_cast<size_t>(row)]);
    const double kl =
        WeightedDifference(p.data(), a.data(), b.data(), vocabulary_) - (log_a - log_b);
    score.kl.push_back(static_cast<float>(std::max(0.0, kl)));
    score.same.push_back(Likeliest(a) == Likeliest(b) ? 1 : 0);
    if (target < 0) return;
    score.original_nats += log_a - static_cast<double>(a[static_cast<size_t>(target)]);
    score.other_nats += log_b - static_cast<double>(b[static_cast<size_t>(target)]);
    ++score.targets;
  }

  const Predictor original_;
  std::span<const Predictor> others_;
  Exec& exec_;
  std::vector<KlScore> scores_;
  int64_t vocabulary_;
  Buffer<float> logits_, other_logits_, probabilities_;
  std::vector<SoftmaxStats> stats_, other_stats_;
};

}  // namespace

double KlScore::MeanKl() const {
  double sum = 0;
  for (const float value : kl) sum += static_cast<double>(value);
  return kl.empty() ? 0 : sum / static_cast<double>(kl.size());
}

double KlScore::QuantileKl(double q) const {
  if (kl.empty()) return 0;
  std::vector<float> sorted = kl;
  const auto at =
      std::min(sorted.size() - 1, static_cast<size_t>(q * static_cast<double>(sorted.size())));
  std::nth_element(sorted.begin(), sorted.begin() + static_cast<ptrdiff_t>(at), sorted.end());
  return static_cast<double>(sorted[at]);
}

double KlScore::Agreement() const {
  const auto sum = std::accumulate(same.begin(), same.end(), int64_t{0});
  return same.empty() ? 0 : static_cast<double>(sum) / static_cast<double>(same.size());
}

double KlScore::OriginalPerplexity() const {
  return std::exp(original_nats / static_cast<double>(std::max<int64_t>(1, targets)));
}

double KlScore::Perplexity() const {
  return std::exp(other_nats / static_cast<double>(std::max<int64_t>(1, targets)));
}

std::vector<KlScore> ScoreKl(const Predictor& original, std::span<const Predictor> others,
                             Exec& exec, std::span<const std::string> texts,
                             const KlOptions& options) {
  std::vector<std::vector<int32_t>> tokens;
  int64_t total = 0, done = 0;
  for (const std::string& text : texts) {
    tokens.push_back(original.model->tokenizer.Encode(text, {.add_special = false}));
    if (static_cast<int64_t>(tokens.back().size()) > options.max_tokens) {
      tokens.back().resize(static_cast<size_t>(options.max_tokens));
    }
    total += static_cast<int64_t>(tokens.back().size());
  }
  if (total < 2) {
    Throw(ErrorCode::kInvalidArgument,
          "texts to compare on: expected at least two tokens, found {}", total);
  }
  Comparison comparison(original, others, exec);
  const int64_t window = std::min(options.window, original.model->config.context_length);
  for (const std::vector<int32_t>& text : tokens) {
    for (size_t begin = 0; begin < text.size(); begin += static_cast<size_t>(window)) {
      const size_t length = std::min(static_cast<size_t>(window), text.size() - begin);
      comparison.Window(std::span(text).subspan(begin, length));
      done += static_cast<int64_t>(length);
      if (options.progress) options.progress(done, total);
    }
  }
  return comparison.Take();
}

RatioEstimate BootstrapRatio(std::span<const float> a, std::span<const float> b, int64_t block,
                             uint64_t seed) {
  BAKESTONE_CHECK(a.size() == b.size() && !a.empty() && block > 0);
  constexpr int kDraws = 4000;
  const size_t blocks = (a.size() + static_cast<size_t>(block) - 1) / static_cast<size_t>(block);
  std::vector<double> sum_a(blocks), sum_b(blocks);
  for (size_t i = 0; i < a.size(); ++i) {
    sum_a[i / static_cast<size_t>(block)] += static_cast<double>(a[i]);
    sum_b[i / static_cast<size_t>(block)] += static_cast<double>(b[i]);
  }
  const auto ratio = [](double x, double y) { return y > 0 ? x / y : x > 0 ? INFINITY : 1.0; };
  RatioEstimate estimate;
  estimate.ratio = ratio(std::accumulate(sum_a.begin(), sum_a.end(), 0.0),
                         std::accumulate(sum_b.begin(), sum_b.end(), 0.0));
  Rng rng(seed, 0);
  std::vector<double> draws(kDraws);
  for (double& draw : draws) {
    double x = 0, y = 0;
    for (size_t i = 0; i < blocks; ++i) {
      const size_t at = static_cast<size_t>(rng.Below(blocks));
      x += sum_a[at];
      y += sum_b[at];
    }
    draw = ratio(x, y);
  }
  std::sort(draws.begin(), draws.end());
  estimate.upper = draws[static_cast<size_t>(0.975 * kDraws)];
  return estimate;
}

}  // namespace bakestone
