// bakestone embed MODEL: texts as vectors.
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
#include "engine/embedder.h"

namespace bakestone::cli {
namespace {

std::optional<Pooling> ParsePooling(const std::string& name) {
  if (name.empty()) return std::nullopt;
  if (name == "mean") return Pooling::kMean;
  if (name == "first") return Pooling::kFirst;
  if (name == "last") return Pooling::kLast;
  throw UsageError(fmt::format("embed: --pooling: expected mean, first or last, found '{}'", name));
}

}  // namespace

int Embed(const Arguments& arguments) {
  std::string model_name, pooling;
  std::optional<std::string> text;
  std::optional<int64_t> threads;
  LoadFlags load;
  Flags flags("embed",
              "Texts as vectors of length 1: a line of JSON for each line of standard input, or "
              "for TEXT. Encoders (BERT, "
              "MiniLM, BGE, XLM-R, ModernBERT, EmbeddingGemma) are pooled as their files say, "
              "decoders by their last token.",
              "bakestone embed ./all-MiniLM-L6-v2 <questions.txt >vectors.jsonl");
  flags.Positional("MODEL", &model_name,
                   "A GGUF file, a Hugging Face folder, or the name of one in the home folder");
  flags.OptionalPositional("TEXT", &text, "The text");
  flags.Add("--pooling", &pooling, "mean, first or last: other than the model's own");
  flags.Add("--threads", &threads, 1, 1024, "Threads to use");
  AddLoadFlags(flags, &load);
  flags.Parse(arguments);
  const LoadOptions loading = Loading("embed", load);
  const std::optional<Pooling> chosen = ParsePooling(pooling);
  std::vector<std::string> texts;
  if (text) texts.push_back(*text);
  for (std::string line; !text && std::getline(std::cin, line);) texts.push_back(line);
  ThreadPool pool(NumThreads(threads));
  const auto model = Model::Load(ResolveModel(model_name), Kernels(), pool, loading);
  Embedder embedder(model, Kernels(), pool, chosen);
  const auto vectors = embedder.Embed(texts);
  for (size_t i = 0; i < vectors.size(); ++i) {
    fmt::print("{}\n", nlohmann::json{{"index", i}, {"embedding", vectors[i]}}.dump());
  }
  fmt::print(stderr, "texts: {}, tokens: {}\n", texts.size(), embedder.tokens());
  return 0;
}

}  // namespace bakestone::cli
