// bakestone eval MODEL: bits per byte and perplexity of texts, answers to questions.
#include <cstdio>
#include <memory>
#include <optional>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/environment.h"
#include "cli/flags.h"
#include "cli/load_flags.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "cli/verbs.h"
#include "data/byte_source.h"
#include "eval/evaluation.h"
#include "model/load_adapter.h"

namespace bakestone::cli {
namespace {

void Print(const Evaluation& evaluation) {
  for (const ScoredText& text : evaluation.texts) {
    fmt::print("{:<32} {:>8} tokens  {:.4f} bits/byte  perplexity {:.3f}\n", text.name,
               text.score.tokens, text.score.BitsPerByte(), text.score.Perplexity());
  }
  for (int i = 0; i < kNumQuestionKinds; ++i) {
    const auto kind = static_cast<QuestionKind>(i);
    const KindTally tally = evaluation.Tally(kind);
    if (tally.asked == 0) continue;
    fmt::print("{:<32} {:>3} of {:>3} right  {:>3.0f} %  {} declined\n", QuestionKindName(kind),
               tally.right, tally.asked, tally.Share() * 100, tally.declined);
  }
}

}  // namespace

int Eval(const Arguments& arguments) {
  std::string model_name;
  std::optional<std::string> adapter_path, questions_path, facts_path;
  std::vector<std::string> text_paths;
  std::optional<int64_t> threads;
  bool json = false;
  LoadFlags load;
  EvaluateOptions options;
  Flags flags("eval",
              "Measure a model: how well it predicts texts, and which questions it answers.",
              "bakestone eval smollm2-135m-instruct --text notes.txt --adapter adapter.gguf");
  flags.Positional("MODEL", &model_name,
                   "A GGUF file, a Hugging Face folder, or the name of one in the home folder");
  flags.Add("--adapter", &adapter_path, "A GGUF adapter or a PEFT folder");
  flags.Add("--text", &text_paths, "Score this text file");
  flags.Add("--text-tokens", &options.text_tokens, 2, int64_t{1} << 40,
            "Tokens scored of each text, from its start");
  flags.Add("--questions", &questions_path, "JSONL of held-out questions");
  flags.Add("--facts", &facts_path, "JSONL of the facts' keys (default: facts.jsonl beside them)");
  flags.Add("--system", &options.system, "System prompt of the questions");
  flags.Add("--max-tokens", &options.max_tokens, 1, 4096, "Longest answer");
  flags.Add("--threads", &threads, 1, 1024, "Threads to use");
  AddLoadFlags(flags, &load);
  flags.Add("--json", &json, "Print one JSON object, with every answer");
  flags.Parse(arguments);
  const LoadOptions loading = Loading("eval", load);
  if (text_paths.empty() && !questions_path) {
    throw UsageError("eval: expected --text or --questions; see 'bakestone eval --help'");
  }
  CatchSignals();
  ThreadPool pool(NumThreads(threads));
  const auto model = Model::Load(ResolveModel(model_name), Kernels(), pool, loading);
  std::vector<TextToScore> texts;
  for (const std::string& path : text_paths) texts.push_back({path, ReadText(path), false});
  std::optional<QuestionSet> questions;
  if (questions_path) {
    const std::filesystem::path path(*questions_path);
    questions = ReadQuestions(
        path, facts_path ? std::filesystem::path(*facts_path) : path.parent_path() / "facts.jsonl");
  }
  std::unique_ptr<Progress> progress;
  std::string label;
  options.cancelled = StopRequested;
  options.progress = [&](const std::string& what, int64_t done, int64_t total) {
    if (!progress || what != label) {
      progress =
          std::make_unique<Progress>(what, total, what == "questions" ? "answers" : "tokens");
      label = what;
    }
    progress->Update(done);
  };
  const Evaluation evaluation =
      Evaluate(model, adapter_path ? LoadAdapter(*adapter_path, *model) : nullptr, Kernels(), pool,
               texts, questions ? &*questions : nullptr, options);
  progress.reset();
  if (json) {
    fmt::print("{}\n", ToJson(evaluation).dump(2));
  } else {
    Print(evaluation);
  }
  return 0;
}

}  // namespace bakestone::cli
