// Held-out questions and how their answers are judged.
//
// A handbook folder's files (examples/handbook/README.md has the format):
//   questions  JSONL: {"id", "kind", "messages", "key", "expected"?}
//   facts      JSONL: {"id", "key"}: a right answer has its own key and no other fact's
//   rules      TOML beside the questions, "data.toml": decline_key, letter_form, [cases]
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace bakestone {

enum class QuestionKind : uint8_t { kDirect, kSituational, kLetter, kUnanswerable };
inline constexpr int kNumQuestionKinds = 4;
std::string_view QuestionKindName(QuestionKind kind);

struct Question {
  std::string id;
  QuestionKind kind = QuestionKind::kDirect;
  std::string messages;  // JSON list of messages; ends with the user's turn
  std::string text;      // the last message's content
  std::string key;
};

struct QuestionSet {
  std::vector<Question> questions;
  std::vector<std::string> fact_keys;    // of all facts
  std::vector<std::string> case_codes;   // of all letters
  std::vector<std::string> letter_form;  // first words of a filed letter's lines
  std::string decline_key;               // part of every answer that declines

  std::vector<const Question*> OfKind(QuestionKind kind) const;
};

// Throws kNotFound, or kInvalidArgument naming file, line, field, expected and found.
QuestionSet ReadQuestions(const std::filesystem::path& questions,
                          const std::filesystem::path& facts);

// Whether `text` has `key` as whole words: letters compared without case, white space folded, and
// neither neighbour a letter or digit.
bool ContainsWords(std::string_view text, std::string_view key);

struct Verdict {
  bool right = false;
  bool declined = false;  // the answer has the decline's words
  std::string why;        // for people: what was missing or too much
};

// Direct and situational: the key and no other fact's key. Letter: the case code, no other code,
// and the house form. Unanswerable: declined.
Verdict Judge(const QuestionSet& set, const Question& question, std::string_view answer);

}  // namespace bakestone
