// bakestone score MODEL: what a classifier or a reranker makes of texts.
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/environment.h"
#include "cli/flags.h"
#include "cli/load_flags.h"
#include "cli/verbs.h"
#include "engine/scorer.h"

namespace bakestone::cli {

int Score(const Arguments& arguments) {
  std::string model_name;
  std::optional<std::string> question;
  std::optional<int64_t> threads;
  LoadFlags load;
  Flags flags(
      "score",
      "Texts by the head of a classifier or a reranker (BERT, XLM-R, ModernBERT): a line of JSON "
      "for each line of "
      "standard input, with a logit for each label. With QUESTION each text is read beside it.",
      "bakestone score ./bge-reranker-v2-m3 \"when does the ferry leave?\" <passages.txt");
  flags.Positional("MODEL", &model_name,
                   "A GGUF file, a Hugging Face folder, or the name of one in the home folder");
  flags.OptionalPositional("QUESTION", &question, "What the texts may answer");
  flags.Add("--threads", &threads, 1, 1024, "Threads to use");
  AddLoadFlags(flags, &load);
  flags.Parse(arguments);
  const LoadOptions loading = Loading("score", load);
  std::vector<std::string> texts;
  for (std::string line; std::getline(std::cin, line);) texts.push_back(line);
  ThreadPool pool(NumThreads(threads));
  const auto model = Model::Load(ResolveModel(model_name), Kernels(), pool, loading);
  Scorer scorer(model, Kernels(), pool);
  const auto scores = scorer.Score(question, texts);
  const std::vector<std::string>& names = model->config.classifier.names;
  for (size_t i = 0; i < scores.size(); ++i) {
    nlohmann::ordered_json line = {{"index", i}, {"logits", scores[i]}};
    if (!names.empty() && names.size() > 1) {
      line["label"] = names[static_cast<size_t>(
          std::max_element(scores[i].begin(), scores[i].end()) - scores[i].begin())];
    }
    fmt::print("{}\n", line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  }
  fmt::print(stderr, "texts: {}, tokens: {}\n", texts.size(), scorer.tokens());
  return 0;
}

}  // namespace bakestone::cli
