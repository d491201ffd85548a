#include "pipeline/bake_scores.h"

#include <algorithm>
#include <utility>

#include <fmt/core.h>

#include "base/sha256.h"
#include "data/source_plan.h"
#include "pipeline/data_record.h"
#include "pipeline/lineage.h"

namespace bakestone {

BakeScores::BakeScores(const Recipe& recipe, const KernelTable& kernels, ThreadPool& pool,
                       BakeObserver& observer)
    : recipe_(recipe), kernels_(kernels), pool_(pool), observer_(observer) {
  if (!recipe.eval.questions.empty()) {
    questions_ = ReadQuestions(recipe.eval.questions, recipe.eval.facts);
  }
}

std::string BakeScores::Key(const std::string& base_hash) const {
  const EvalRecipe& eval = recipe_.eval;
  std::string key =
      fmt::format("eval 1|{}|{}|{}|{}", base_hash, eval.system, eval.max_tokens, eval.text_tokens);
  if (questions_) {
    key += "|" + ToHex(HashOfFile(eval.questions)) + "|" + ToHex(HashOfFile(eval.facts));
  }
  for (const auto* names : {&eval.domain, &eval.general}) {
    for (const std::string& name : *names) {
      const DataSource& source = recipe_.Source(name);
      key += "|" + name + "|" + ToHex(HashOfFile(source.path)) + ReadingKey(source);
    }
  }
  return HashOfParts({key});
}

Evaluation BakeScores::Run(const std::string& name, const Tuned& tuned) const {
  std::vector<TextToScore> texts;
  for (const bool general : {false, true}) {
    for (const std::string& source : general ? recipe_.eval.general : recipe_.eval.domain) {
      texts.push_back({source, TextOf(source), general});
    }
  }
  EvaluateOptions options;
  options.system = recipe_.eval.system;
  options.max_tokens = recipe_.eval.max_tokens;
  options.text_tokens = recipe_.eval.text_tokens;
  options.progress = [&](const std::string& what, int64_t done, int64_t total) {
    observer_.OnProgress(name + " " + what, done, total, what == "questions" ? "answers" : "tokens",
                         "");
  };
  options.cancelled = [&] { return observer_.Cancelled(); };
  return Evaluate(tuned.model, tuned.adapter, kernels_, pool_, texts, questions(), options);
}

// The middle one of each kind: chosen before anything is known about the answers.
std::vector<std::string> BakeScores::Shown() const {
  std::vector<std::string> shown;
  if (!questions_) return shown;
  for (int kind = 0; kind < kNumQuestionKinds; ++kind) {
    const auto found = questions_->OfKind(static_cast<QuestionKind>(kind));
    if (!found.empty()) shown.push_back(found[found.size() / 2]->id);
  }
  return shown;
}

// As much of a source's text as is scored, of what was held out where it is split.
std::string BakeScores::TextOf(const std::string& name) const {
  constexpr int64_t kBytesPerToken = 64;  // of long pieces, with room to spare
  const int64_t most =
      std::max<int64_t>(int64_t{4} << 20, recipe_.eval.text_tokens * kBytesPerToken);
  return TextToScoreOf(recipe_.Source(name), most, {.pool = &pool_});
}

}  // namespace bakestone
