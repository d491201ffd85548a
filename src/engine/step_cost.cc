#include "engine/step_cost.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <vector>

#include "model/decoder.h"

namespace bakestone {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kLearning = 0.2;  // of the newest step in the factor
constexpr int64_t kProbeRows = 32;
constexpr int64_t kProbeContext = 1024;
constexpr int kRepetitions = 3;    // the fastest counts: others were disturbed
constexpr double kLongStep = 0.2;  // seconds; such a step is not repeated

// One step of `rows` rows behind `context` positions that nobody computed.
class Probe {
 public:
  Probe(const Model& model, const KernelTable& kernels, ThreadPool& pool, Precision precision,
        KvType kv_type, KvPageAllocator& pages)
      : model_(model), exec_(kernels, pool, precision), state_(model.config, kv_type, pages) {
    state_.Expect(model.config.context_length);
  }

  double Seconds(int64_t rows, int64_t outputs, int64_t context) {
    if (context > state_.length()) Fill(context - state_.length());
    double best = 0;
    for (int i = 0; i < kRepetitions; ++i) {
      const auto start = Clock::now();
      Step(rows, outputs);
      const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
      best = i == 0 ? seconds : std::min(best, seconds);
      if (best > kLongStep) break;
    }
    return best;
  }

 private:
  void Fill(int64_t count) {
    state_.Reserve(count);
    state_.Commit(count);
    for (const auto& page : state_.pages()) {
      std::memset(page->bytes.data(), 0, static_cast<size_t>(page->bytes.size()));
    }
  }

  void Step(int64_t rows, int64_t outputs) {
    const std::vector<int32_t> tokens(static_cast<size_t>(rows), 0);
    std::vector<int32_t> positions, output_rows;
    for (int64_t i = 0; i < rows; ++i) {
      positions.push_back(static_cast<int32_t>(state_.length() + i));
    }
    for (int64_t i = rows - outputs; i < rows; ++i) output_rows.push_back(static_cast<int32_t>(i));
    state_.Reserve(rows);
    const std::vector<SequenceRun> runs = {{0, static_cast<int32_t>(rows), &state_}};
    std::vector<float> hidden(static_cast<size_t>(outputs * model_.config.hidden_dim)),
        logits(static_cast<size_t>(outputs * model_.config.vocab_size));
    const auto out = DenseView(hidden.data(), outputs, model_.config.hidden_dim);
    model_.decoder->Forward(exec_, {tokens, positions, runs, {}, output_rows}, out);
    if (outputs > 0) {
      model_.decoder->Logits(exec_, out,
                             DenseView(logits.data(), outputs, model_.config.vocab_size));
    }
    state_.Commit(0);
  }

  const Model& model_;
  Exec exec_;
  SequenceState state_;
};

}  // namespace

void StepSize::Add(int64_t position, int64_t count, int64_t logits) {
  rows += count;
  outputs += logits;
  keys += static_cast<double>(count) *
          (static_cast<double>(position) + static_cast<double>(count + 1) / 2);
}

double StepCost::Predict(const StepSize& size) const {
  return factor_ * (shape_.step + shape_.row * static_cast<double>(size.rows) +
                    shape_.output * static_cast<double>(size.outputs) + shape_.key * size.keys);
}

int64_t StepCost::RowsWithin(double seconds, int64_t position) const {
  constexpr double kMost = 1 << 20;
  if (!Known() || !(seconds > 0)) return 0;
  // n rows cost linear * n + quadratic * n^2.
  const double budget = seconds / factor_, quadratic = shape_.key / 2;
  const double linear = shape_.row + shape_.key * (static_cast<double>(position) + 0.5);
  if (!(linear > 0)) return static_cast<int64_t>(kMost);
  const double rows = 2 * budget / (linear + std::sqrt(linear * linear + 4 * quadratic * budget));
  return static_cast<int64_t>(std::min(rows, kMost));
}

void StepCost::Learn(const StepSize& size, double seconds) {
  const double now =
      Known() ? seconds / (Predict(size) / factor_)
              : seconds / (shape_.row * static_cast<double>(size.rows) + shape_.key * size.keys);
  if (!std::isfinite(now) || !(now > 0)) return;
  factor_ = Known() ? (1 - kLearning) * factor_ + kLearning * now : now;
}

StepCost ProbeStepCost(const Model& model, const KernelTable& kernels, ThreadPool& pool,
                       Precision precision, KvType kv_type, KvPageAllocator& pages,
                       int64_t most_pages) {
  const int64_t room = std::min(model.config.context_length, most_pages * kPageTokens);
  const int64_t rows = std::min(kProbeRows, room / 2);
  if (rows < 2) return StepCost();
  const int64_t context = std::min(kProbeContext, room - rows);
  Probe probe(model, kernels, pool, precision, kv_type, pages);
  const double one = probe.Seconds(1, 1, 0), many = probe.Seconds(rows, 0, 0),
               written = probe.Seconds(rows, rows, 0);
  const double far = probe.Seconds(rows, 0, context);
  const auto count = static_cast<double>(rows);
  StepCost::Shape shape;
  shape.output = std::max(0.0, (written - many) / count);
  shape.row = std::max(many / count / 16, (many - (one - shape.output)) / (count - 1));
  shape.step = std::max(0.0, many - count * shape.row);
  shape.key = std::max(0.0, (far - many) / (count * static_cast<double>(context)));
  return StepCost(shape);
}

}  // namespace bakestone
