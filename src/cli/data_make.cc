// bakestone data make DOC...: a local model writes question-answer pairs from documents, for
// review.
#include <cstdio>
#include <memory>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "cli/data_actions.h"
#include "cli/environment.h"
#include "cli/flags.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "pipeline/make_pairs.h"

namespace bakestone::cli {

int DataMake(const Arguments& arguments) {
  std::vector<std::string> documents;
  std::string model_name, out = "pairs.jsonl";
  std::optional<int64_t> threads;
  MakePairsOptions options;
  bool json = false;
  Flags flags("data make",
              "A local model writes question-answer pairs from your documents. What fails a test "
              "of form or is not in "
              "the text is kept apart with the reason. Read them before you train on them.",
              "bakestone data make handbook.md --model smollm2-135m-instruct --output pairs.jsonl");
  flags.PositionalList("DOCUMENT", &documents, "Texts or Markdown files");
  flags.Add("--model", &model_name,
            "Who writes: a GGUF file, or the name of one in the home folder");
  flags.Add("--output", &out, "Where to (default pairs.jsonl; OUTPUT.rejected.jsonl beside it)");
  flags.Add("--per-passage", &options.per_passage, 1, 1000,
            "Questions to try for each passage (default 3)");
  flags.Add("--passage-bytes", &options.passage_bytes, 100, 100'000,
            "About how long a passage is (default 1200)");
  flags.Add("--threads", &threads, 1, 1024, "Threads to use");
  flags.Add("--json", &json, "Print the counts as one JSON object");
  flags.Parse(arguments);
  if (model_name.empty()) throw UsageError("data make: --model is needed: it writes the questions");
  if (documents.empty()) throw UsageError("data make: expected at least one document");
  CatchSignals();
  ThreadPool pool(NumThreads(threads));
  const auto model = Model::Load(ResolveModel(model_name), Kernels(), pool, Loading(false));
  Exec exec(Kernels(), pool);
  std::unique_ptr<Progress> progress;
  options.progress = [&](int64_t done, int64_t total) {
    if (!progress) progress = std::make_unique<Progress>("questions", total, "questions");
    progress->Update(done);
  };
  options.cancelled = [] { return StopRequested(); };
  const MadePairs made =
      MakePairs(*model, exec, {documents.begin(), documents.end()}, out, options);
  progress.reset();
  if (json) {
    fmt::print("{}\n", nlohmann::ordered_json{{"passages", made.passages},
                                              {"kept", made.kept},
                                              {"rejected", made.rejected},
                                              {"output", out}}
                           .dump(2));
  } else {
    fmt::print(
        "{} passages: {} pairs in {}, {} that failed a test in {}.rejected.jsonl\nread them before "
        "you train on them\n",
        made.passages, made.kept, out, made.rejected, out);
  }
  return 0;
}

}  // namespace bakestone::cli
