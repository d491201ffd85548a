#include "eval/evaluation.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <numeric>
#include <span>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "engine/chat.h"
#include "engine/engine.h"

namespace bakestone {
namespace {

using Json = nlohmann::ordered_json;

// Asks all questions at once: the engine batches them, and its answers do not depend on the batch.
class Asker {
 public:
  Asker(const std::shared_ptr<const Model>& model, std::shared_ptr<const Adapter> adapter,
        const KernelTable& kernels, ThreadPool& pool, const EvaluateOptions& options)
      : model_(model),
        adapter_(std::move(adapter)),
        options_(options),
        engine_(model, kernels, pool,
                {.kv_bytes = kKvBytes,
                 .max_queued_requests = 1 << 20,
                 .max_queued_tokens = int64_t{1} << 40}) {}

  std::vector<std::string> Ask(const QuestionSet& set) {
    answers_.resize(set.questions.size());
    for (size_t i = 0; i < set.questions.size(); ++i) {
      GenerationRequest request;
      request.prompt = Prompt(set.questions[i]);
      request.adapter = adapter_;
      request.max_tokens = options_.max_tokens;
      request.sink = [this, i](Event&& event) { Take(i, std::move(event)); };
      engine_.Submit(std::move(request));
    }
    std::unique_lock lock(mutex_);
    const auto total = static_cast<int64_t>(set.questions.size());
    while (finished_ < total) {
      changed_.wait_for(lock, std::chrono::milliseconds(200));
      if (error_) throw *error_;
      if (options_.progress) options_.progress("questions", finished_, total);
      if (options_.cancelled && options_.cancelled()) {
        Throw(ErrorCode::kCancelled, "stopped while questions were being answered");
      }
    }
    return answers_;
  }

 private:
  static constexpr int64_t kKvBytes = int64_t{192} << 20;

  std::vector<int32_t> Prompt(const Question& question) const {
    Json messages = Json::parse(question.messages);
    if (!options_.system.empty()) {
      messages.insert(messages.begin(), Json{{"role", "system"}, {"content", options_.system}});
    }
    return RenderChat(*model_, messages).tokens;
  }

  void Take(size_t index, Event&& event) {
    std::lock_guard lock(mutex_);
    answers_[index] += event.text;
    if (event.error && !error_) error_ = event.error;
    if (event.finish) ++finished_;
    changed_.notify_one();
  }

  std::shared_ptr<const Model> model_;
  std::shared_ptr<const Adapter> adapter_;
  const EvaluateOptions& options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> answers_;
  int64_t finished_ = 0;
  std::optional<Error> error_;
  Engine engine_;  // last: its loop calls Take until it is gone
};

}  // namespace

KindTally Evaluation::Tally(QuestionKind kind) const {
  KindTally tally;
  for (const AnsweredQuestion& answer : answers) {
    if (answer.kind != kind) continue;
    ++tally.asked;
    tally.right += answer.right;
    tally.declined += answer.declined;
  }
  return tally;
}

KindTally Evaluation::Total() const {
  KindTally total;
  for (int kind = 0; kind < kNumQuestionKinds; ++kind) {
    const KindTally tally = Tally(static_cast<QuestionKind>(kind));
    total.asked += tally.asked;
    total.right += tally.right;
    total.declined += tally.declined;
  }
  return total;
}

TextScore Evaluation::Side(bool general) const {
  TextScore sum;
  for (const ScoredText& text : texts) {
    if (text.general != general) continue;
    sum.tokens += text.score.tokens;
    sum.bytes += text.score.bytes;
    sum.nats += text.score.nats;
  }
  return sum;
}

Json ToJson(const Evaluation& evaluation) {
  Json json = {{"texts", Json::array()}, {"kinds", Json::object()}, {"answers", Json::array()}};
  for (const ScoredText& text : evaluation.texts) {
    json["texts"].push_back({{"name", text.name},
                             {"general", text.general},
                             {"tokens", text.score.tokens},
                             {"bytes", text.score.bytes},
                             {"nats", text.score.nats},
                             {"bits_per_byte", text.score.BitsPerByte()},
                             {"perplexity", text.score.Perplexity()}});
  }
  for (int i = 0; i < kNumQuestionKinds; ++i) {
    const auto kind = static_cast<QuestionKind>(i);
    const KindTally tally = evaluation.Tally(kind);
    if (tally.asked == 0) continue;
    json["kinds"][std::string(QuestionKindName(kind))] = {
        {"asked", tally.asked}, {"right", tally.right}, {"declined", tally.declined}};
  }
  for (const AnsweredQuestion& answer : evaluation.answers) {
    json["answers"].push_back({{"id", answer.id},
                               {"kind", QuestionKindName(answer.kind)},
                               {"question", answer.question},
                               {"answer", answer.answer},
                               {"right", answer.right},
                               {"declined", answer.declined},
                               {"why", answer.why}});
  }
  return json;
}

Evaluation EvaluationFromJson(const Json& json, const std::string& where) {
  Evaluation evaluation;
  try {
    for (const Json& text : json.at("texts")) {
      evaluation.texts.push_back({text.at("name"),
                                  text.at("general"),
                                  {text.at("tokens"), text.at("bytes"), text.at("nats")}});
    }
    for (const Json& answer : json.at("answers")) {
      AnsweredQuestion read;
      read.id = answer.at("id");
      read.question = answer.at("question");
      read.answer = answer.at("answer");
      read.why = answer.at("why");
      read.right = answer.at("right");
      read.declined = answer.at("declined");
      const std::string kind = answer.at("kind");
      for (int i = 0; i < kNumQuestionKinds; ++i) {
        if (QuestionKindName(static_cast<QuestionKind>(i)) == kind) {
          read.kind = static_cast<QuestionKind>(i);
        }
      }
      evaluation.answers.push_back(std::move(read));
    }
  } catch (const nlohmann::json::exception& error) {
    Throw(ErrorCode::kCorrupt, "{}: expected an evaluation: {}; delete it and run again", where,
          error.what());
  }
  return evaluation;
}

Evaluation Evaluate(const std::shared_ptr<const Model>& model,
                    std::shared_ptr<const Adapter> adapter, const KernelTable& kernels,
                    ThreadPool& pool, const std::vector<TextToScore>& texts,
                    const QuestionSet* questions, const EvaluateOptions& options) {
  Evaluation evaluation;
  {
    Exec exec(kernels, pool);
    for (const TextToScore& text : texts) {
      TextScoreOptions score;
      score.max_tokens = options.text_tokens;
      score.progress = [&](int64_t done, int64_t total) {
        if (options.progress) options.progress(text.name, done, total);
        if (options.cancelled && options.cancelled()) {
          Throw(ErrorCode::kCancelled, "stopped while '{}' was being scored", text.name);
        }
      };
      evaluation.texts.push_back(
          {text.name, text.general, ScoreText(*model, adapter.get(), exec, text.text, score)});
    }
  }
  if (questions == nullptr) return evaluation;
  Asker asker(model, adapter, kernels, pool, options);
  const std::vector<std::string> answers = asker.Ask(*questions);
  for (size_t i = 0; i < answers.size(); ++i) {
    const Question& question = questions->questions[i];
    Verdict verdict = Judge(*questions, question, answers[i]);
    evaluation.answers.push_back({question.id, question.text, answers[i], std::move(verdict.why),
                                  question.kind, verdict.right, verdict.declined});
  }
  return evaluation;
}

std::string AnswerGreedily(const Model& model, const Adapter* adapter, Exec& exec,
                           const std::vector<int32_t>& prompt, int64_t max_tokens) {
  const auto allocator = MakeHeapAllocator(model.config, KvType::kBf16, int64_t{64} << 20);
  SequenceState state(model.config, KvType::kBf16, *allocator);
  state.Expect(static_cast<int64_t>(prompt.size()) + max_tokens);
  std::vector<float> hidden(static_cast<size_t>(model.config.hidden_dim));
  std::vector<float> logits(static_cast<size_t>(model.config.vocab_size));
  const auto vocabulary = std::min<int64_t>(model.config.vocab_size, model.tokenizer.vocab_size());
  std::vector<int32_t> tokens = prompt, answer;
  while (static_cast<int64_t>(answer.size()) < max_tokens) {
    const auto rows = static_cast<int32_t>(tokens.size());
    std::vector<int32_t> positions(tokens.size());
    std::iota(positions.begin(), positions.end(), static_cast<int32_t>(state.length()));
    const int32_t last = rows - 1;
    const SequenceRun sequence{0, rows, &state};
    const AdapterRun run{0, rows, adapter};
    state.Reserve(rows);
    model.decoder->Forward(exec, {tokens, positions, {&sequence, 1}, {&run, 1}, {&last, 1}},
                           {hidden.data(), 1, model.config.hidden_dim});
    state.Commit(rows);
    model.decoder->Logits(exec, {hidden.data(), 1, model.config.hidden_dim},
                          {logits.data(), 1, model.config.vocab_size});
    const auto next = static_cast<int32_t>(
        std::max_element(logits.begin(), logits.begin() + vocabulary) - logits.begin());
    if (model.tokenizer.IsEndOfGeneration(next)) break;
    answer.push_back(next);
    tokens = {next};
  }
  return model.tokenizer.Decode(answer);
}

}  // namespace bakestone
