// Question-answer pairs that a local model writes from a person's own documents, to be looked
// through and trained on. For each sentence of a passage the model writes a question and then
// answers it from the passage. What fails a test is kept apart with the reason: nothing that the
// passage does not say, no question that gives its answer away, none that only makes sense beside
// the text, none twice.
//
// The tests are about form and words, not truth: pairs are for review.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "model/exec.h"
#include "model/model.h"

namespace bakestone {

// A piece of a document, ending at a paragraph.
struct Passage {
  std::filesystem::path file;
  int64_t line = 0;  // that it begins at, from 1
  std::string text;
};

// Documents (text or Markdown, compressed or not) in passages of about so many bytes.
std::vector<Passage> ReadPassages(const std::vector<std::filesystem::path>& files, size_t bytes);

// Sentences with at least six words, as views into the text.
std::vector<std::string_view> SentencesOf(std::string_view text);

// Why the pair is not to be kept; empty: it passed.
std::string JudgePair(std::string_view passage, std::string_view question, std::string_view answer);

struct MakePairsOptions {
  int64_t passage_bytes = 1200;
  int64_t per_passage = 3;  // sentences of each that are asked about, spread over it
  std::function<void(int64_t done, int64_t total)> progress = {};
  std::function<bool()> cancelled = {};
};

struct MadePairs {
  int64_t passages = 0, kept = 0, rejected = 0;
};

// Writes `out` (JSONL: {"messages", "source": {"file", "line", "sentence"}}, as recipes read it)
// and the pairs that failed beside it as OUT.rejected.jsonl, with the reason. Greedy: the same
// documents and model give the same pairs. Throws kInvalidArgument where the documents hold no
// sentence, kCancelled.
MadePairs MakePairs(const Model& model, Exec& exec, const std::vector<std::filesystem::path>& files,
                    const std::filesystem::path& out, const MakePairsOptions& options);

}  // namespace bakestone
