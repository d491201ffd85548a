#include "eval/questions.h"

#include <algorithm>
#include <array>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/json_depth.h"
#include "format/toml_table.h"

namespace bakestone {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array<std::string_view, kNumQuestionKinds> kKindNames = {"direct", "situational",
                                                                        "letter", "unanswerable"};

std::string Field(const Json& object, const char* key, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_string() ||
      found->get_ref<const std::string&>().empty()) {
    Throw(ErrorCode::kInvalidArgument, "{}: '{}': expected a text that is not empty, found {}",
          where, key, found == object.end() ? "nothing" : found->dump());
  }
  return found->get<std::string>();
}

// Which of the three files is missing, and what it is for.
void CheckThere(const std::filesystem::path& path, const char* what) {
  std::error_code code;
  if (std::filesystem::is_regular_file(path, code)) return;
  Throw(ErrorCode::kNotFound,
        "{}: expected a file with {} (examples/handbook/README.md shows all three), found none",
        path.string(), what);
}

// Calls body(object, where) for every line of a JSONL file.
template <class Body>
void ForEachLine(const std::filesystem::path& path, const Body& body) {
  const std::string contents = ReadFile(path);
  size_t begin = 0;
  for (int64_t number = 1; begin < contents.size(); ++number) {
    const size_t end = std::min(contents.find('\n', begin), contents.size());
    const std::string_view line(contents.data() + begin, end - begin);
    begin = end + 1;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = fmt::format("{}, line {}", path.string(), number);
    CheckJsonLevels(line, where);
    const Json object = Json::parse(line, nullptr, false);
    if (object.is_discarded() || !object.is_object()) {
      Throw(ErrorCode::kInvalidArgument, "{}: expected one JSON object a line", where);
    }
    body(object, where);
  }
}

bool IsWordByte(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return byte >= 0x80 || (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') ||
         (byte >= 'A' && byte <= 'Z');
}

// Lower case (ASCII) with each run of white space as one space.
std::string Fold(std::string_view text) {
  std::string folded;
  for (const char c : text) {
    if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
      if (!folded.empty() && folded.back() != ' ') folded.push_back(' ');
    } else {
      folded.push_back(c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c);
    }
  }
  return folded;
}

// The lines of a filed letter begin with the words of the form, in order.
bool FollowsForm(std::string_view answer, const std::vector<std::string>& form) {
  size_t next = 0;
  while (!answer.empty() && next < form.size()) {
    const size_t end = std::min(answer.find('\n'), answer.size());
    const std::string_view line = answer.substr(0, end);
    if (line.substr(0, form[next].size()) == form[next]) ++next;
    answer.remove_prefix(std::min(end + 1, answer.size()));
  }
  return next == form.size();
}

Verdict JudgeKey(const std::vector<std::string>& keys, const Question& question,
                 std::string_view answer, const char* what) {
  Verdict verdict;
  if (!ContainsWords(answer, question.key)) {
    verdict.why = fmt::format("expected the {} '{}'", what, question.key);
    return verdict;
  }
  for (const std::string& other : keys) {
    if (other != question.key && ContainsWords(answer, other)) {
      verdict.why = fmt::format("has another {} too: '{}'", what, other);
      return verdict;
    }
  }
  verdict.right = true;
  return verdict;
}

void ReadRules(const std::filesystem::path& path, QuestionSet* set) {
  toml::table parsed;
  try {
    parsed = toml::parse(ReadFile(path), path.string());
  } catch (const toml::parse_error& error) {
    Throw(ErrorCode::kInvalidArgument, "{}, line {}: {}", path.string(), error.source().begin.line,
          error.description());
  }
  TomlTable table(parsed, path.string());
  set->decline_key = table.String("decline_key", "");
  set->letter_form = table.Strings("letter_form");
  if (parsed["cases"].is_table()) {
    for (const auto& [code, meaning] : *parsed["cases"].as_table()) {
      set->case_codes.emplace_back(code.str());
    }
  }
}

}  // namespace

std::string_view QuestionKindName(QuestionKind kind) {
  return kKindNames[static_cast<size_t>(kind)];
}

std::vector<const Question*> QuestionSet::OfKind(QuestionKind kind) const {
  std::vector<const Question*> found;
  for (const Question& question : questions) {
    if (question.kind == kind) found.push_back(&question);
  }
  return found;
}

QuestionSet ReadQuestions(const std::filesystem::path& questions,
                          const std::filesystem::path& facts) {
  QuestionSet set;
  CheckThere(questions, "questions, one JSON object a line");
  CheckThere(facts, "the facts' keys that answers are held against, one JSON object a line");
  CheckThere(questions.parent_path() / "data.toml", "the rules by which answers are judged");
  ForEachLine(facts, [&](const Json& object, const std::string& where) {
    set.fact_keys.push_back(Field(object, "key", where));
  });
  ReadRules(questions.parent_path() / "data.toml", &set);
  ForEachLine(questions, [&](const Json& object, const std::string& where) {
    Question question;
    question.id = Field(object, "id", where);
    question.key = Field(object, "key", where);
    const std::string kind = Field(object, "kind", where);
    const auto found = std::find(kKindNames.begin(), kKindNames.end(), kind);
    if (found == kKindNames.end()) {
      Throw(ErrorCode::kInvalidArgument,
            "{}: 'kind': expected direct, situational, letter or unanswerable, found '{}'", where,
            kind);
    }
    question.kind = static_cast<QuestionKind>(found - kKindNames.begin());
    const auto messages = object.find("messages");
    if (messages == object.end() || !messages->is_array() || messages->empty() ||
        !messages->back().is_object()) {
      Throw(ErrorCode::kInvalidArgument, "{}: 'messages': expected a list of messages", where);
    }
    question.text = Field(messages->back(), "content", where);
    question.messages = messages->dump();
    set.questions.push_back(std::move(question));
  });
  if (set.questions.empty()) {
    Throw(ErrorCode::kInvalidArgument, "{}: expected at least one question, found none",
          questions.string());
  }
  return set;
}

bool ContainsWords(std::string_view text, std::string_view key) {
  const std::string folded = Fold(text), wanted = Fold(key);
  if (wanted.empty()) return false;
  for (size_t at = folded.find(wanted); at != std::string::npos; at = folded.find(wanted, at + 1)) {
    const bool begins = at == 0 || !IsWordByte(folded[at - 1]) || !IsWordByte(wanted.front());
    const size_t end = at + wanted.size();
    const bool ends =
        end == folded.size() || !IsWordByte(folded[end]) || !IsWordByte(wanted.back());
    if (begins && ends) return true;
  }
  return false;
}

Verdict Judge(const QuestionSet& set, const Question& question, std::string_view answer) {
  const bool declined = ContainsWords(answer, set.decline_key);
  Verdict verdict;
  switch (question.kind) {
    case QuestionKind::kDirect:
    case QuestionKind::kSituational:
      verdict = JudgeKey(set.fact_keys, question, answer, "key");
      break;
    case QuestionKind::kLetter:
      verdict = JudgeKey(set.case_codes, question, answer, "case code");
      if (verdict.right && !FollowsForm(answer, set.letter_form)) {
        verdict.right = false;
        verdict.why = "not in the house form";
      }
      break;
    case QuestionKind::kUnanswerable:
      verdict.right = declined;
      if (!declined) verdict.why = "expected it to decline";
      break;
  }
  verdict.declined = declined;
  return verdict;
}

}  // namespace bakestone
