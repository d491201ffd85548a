#include "pipeline/stage_observer.h"

#include <utility>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "base/machine.h"
#include "engine/chat.h"

namespace bakestone {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

StageObserver::StageObserver(BakeObserver& observer, const Model& model, Exec& exec,
                             const QuestionSet* questions, const EvalRecipe& eval,
                             std::string label, double probe_seconds,
                             std::function<void(const KeptValues&)> keep)
    : observer_(observer),
      model_(model),
      exec_(exec),
      questions_(questions),
      eval_(eval),
      label_(std::move(label)),
      probe_seconds_(probe_seconds),
      keep_(std::move(keep)),
      last_probe_(Clock::now()) {
  if (questions == nullptr || probe_seconds <= 0) return;
  const auto direct = questions->OfKind(QuestionKind::kDirect);
  if (!direct.empty()) probe_ = direct[direct.size() / 2];
}

void StageObserver::TakeTexts(const StepReport& report) {
  if (report.texts.empty()) return;
  texts_.clear();
  for (const TextReading& text : report.texts) {
    texts_ += fmt::format("  {} {:.3f} bits/byte ({:+.1f} %)", text.name, text.bits_per_byte,
                          text.Change() * 100);
  }
}

void StageObserver::TakeScores(const StepReport& report) {
  if (!report.heldout_loss && !report.answers) return;
  scores_.clear();
  if (report.heldout_loss) {
    scores_ += fmt::format("  held out {:.3f} ({:.0f} % right)", *report.heldout_loss,
                           report.heldout_accuracy.value_or(0) * 100);
  }
  if (report.answers) scores_ += fmt::format("  answers {:.0f} %", report.answers->right * 100);
}

void StageObserver::OnStep(const StepReport& report) {
  last_ = report;
  TakeTexts(report);
  TakeScores(report);
  const double rate = report.seconds > 0 ? static_cast<double>(report.tokens) / report.seconds : 0;
  std::string note = fmt::format("loss {:.3f}", report.loss);
  note += scores_;
  if (report.reward_margin != 0) {
    note +=
        fmt::format("  margin {:.2f}, {:.0f} % right", report.reward_margin, report.accuracy * 100);
  }
  note += texts_;
  note += fmt::format("  rate {:.1e}  {:.0f} tokens/s", report.learning_rate, rate);
  constexpr double kKept = 0.9;  // of the sums from one step to the next
  flop_ = kKept * flop_ + report.flop;
  flop_seconds_ = kKept * flop_seconds_ + report.step_seconds;
  if (limit_ > 0 && flop_seconds_ > 0) {
    note += fmt::format("  {:.0f} % of the limit", 100 * flop_ / flop_seconds_ / limit_);
  }
  note += fmt::format("  {:.1f} GB", static_cast<double>(PeakMemoryBytes()) * 1e-9);
  observer_.OnProgress(label_, report.step, report.num_steps, "steps", note);
}

void StageObserver::Between(Adapter& adapter) {
  if (probe_ == nullptr) return;
  if (std::chrono::duration<double>(Clock::now() - last_probe_).count() < probe_seconds_) return;
  adapter.Publish();
  Json messages = Json::parse(probe_->messages);
  if (!eval_.system.empty()) {
    messages.insert(messages.begin(), Json{{"role", "system"}, {"content", eval_.system}});
  }
  AnsweredQuestion answered;
  answered.id = probe_->id;
  answered.question = probe_->text;
  answered.answer = AnswerGreedily(model_, &adapter, exec_, RenderChat(model_, messages).tokens,
                                   eval_.max_tokens);
  answered.right = Judge(*questions_, *probe_, answered.answer).right;
  observer_.OnProbe(answered, last_.seconds);
  last_probe_ = Clock::now();
}

}  // namespace bakestone
