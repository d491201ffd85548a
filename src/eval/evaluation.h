// One evaluation of a model, with or without an adapter: texts scored, questions asked and judged.
// Plain data that goes to JSON and back, so that a later stage compares it without running it
// again.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "eval/questions.h"
#include "eval/text_score.h"
#include "model/exec.h"
#include "model/model.h"

namespace bakestone {

struct TextToScore {
  std::string name, text;
  bool general = false;  // else of the domain
};

struct ScoredText {
  std::string name;
  bool general = false;
  TextScore score;
};

struct AnsweredQuestion {
  std::string id, question, answer, why;
  QuestionKind kind = QuestionKind::kDirect;
  bool right = false, declined = false;
};

struct KindTally {
  int64_t right = 0, asked = 0, declined = 0;
  double Share() const {
    return asked > 0 ? static_cast<double>(right) / static_cast<double>(asked) : 0;
  }
};

struct Evaluation {
  std::vector<ScoredText> texts;
  std::vector<AnsweredQuestion> answers;

  KindTally Tally(QuestionKind kind) const;
  KindTally Total() const;
  // Over all texts of one side together; nullopt-like tokens == 0 without any.
  TextScore Side(bool general) const;
};

nlohmann::ordered_json ToJson(const Evaluation& evaluation);
// Throws kCorrupt naming `where`.
Evaluation EvaluationFromJson(const nlohmann::ordered_json& json, const std::string& where);

struct EvaluateOptions {
  std::string system;           // system prompt of the questions; empty: the template's own
  int64_t max_tokens = 64;      // longest answer
  int64_t text_tokens = 12000;  // scored of each text
  std::function<void(const std::string& what, int64_t done, int64_t total)> progress;
  std::function<bool()> cancelled;  // may be empty; true throws kCancelled
};

// Greedy answers, with the serving arithmetic. questions may be null. Uses the pool throughout.
Evaluation Evaluate(const std::shared_ptr<const Model>& model,
                    std::shared_ptr<const Adapter> adapter, const KernelTable& kernels,
                    ThreadPool& pool, const std::vector<TextToScore>& texts,
                    const QuestionSet* questions, const EvaluateOptions& options);

// The answer to one conversation, greedy: what a run asks while it trains.
std::string AnswerGreedily(const Model& model, const Adapter* adapter, Exec& exec,
                           const std::vector<int32_t>& prompt, int64_t max_tokens);

}  // namespace bakestone
