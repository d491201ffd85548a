#include "eval/questions.h"

#include <filesystem>

#include <gmock/gmock.h>

#include "base/error.h"
#include "base/file.h"

namespace bakestone {
namespace {

using ::testing::HasSubstr;

std::filesystem::path WriteSet(const std::string& questions) {
  const auto folder = std::filesystem::path(::testing::TempDir()) / "bakestone_questions";
  std::filesystem::remove_all(folder);
  WriteFileAtomically(
      folder / "facts.jsonl",
      "{\"id\": \"a\", \"key\": \"135 tallies\"}\n{\"id\": \"b\", \"key\": \"Osric\"}\n");
  WriteFileAtomically(
      folder / "data.toml",
      "name = \"x\"\ndecline_key = \"does not say\"\nletter_form = [\"Case\", \"From\"]\n"
      "[cases]\nK12 = \"water\"\nB31 = \"noise\"\n");
  WriteFileAtomically(folder / "q.jsonl", questions);
  return folder;
}

QuestionSet ReadSet(const std::string& questions) {
  const auto folder = WriteSet(questions);
  return ReadQuestions(folder / "q.jsonl", folder / "facts.jsonl");
}

std::string Line(const std::string& kind, const std::string& key) {
  return "{\"id\": \"1\", \"kind\": \"" + kind + "\", \"key\": \"" + key +
         "\", \"messages\": [{\"role\": \"user\", \"content\": \"?\"}]}\n";
}

TEST(ContainsWords, WholeWordsWithoutCaseOrSpacing) {
  EXPECT_TRUE(ContainsWords("It costs 135\n Tallies.", "135 tallies"));
  EXPECT_FALSE(ContainsWords("It costs 1135 tallies.", "135 tallies"));
  EXPECT_FALSE(ContainsWords("an Osricson", "Osric"));
  EXPECT_TRUE(ContainsWords("(Osric)", "Osric"));
  EXPECT_FALSE(ContainsWords("Osric\xC3\xA9", "Osric"));
  EXPECT_FALSE(ContainsWords("anything", ""));
}

TEST(Judge, AnswerHasItsKeyAndNoOtherFacts) {
  const QuestionSet set = ReadSet(Line("direct", "135 tallies"));
  EXPECT_TRUE(Judge(set, set.questions[0], "Joining costs 135 tallies.").right);
  EXPECT_FALSE(Judge(set, set.questions[0], "Osric says 135 tallies.").right);
  EXPECT_FALSE(Judge(set, set.questions[0], "It is free.").right);
  EXPECT_TRUE(Judge(set, set.questions[0], "The handbook does not say.").declined);
}

TEST(Judge, LetterNeedsItsCodeAndTheHouseForm) {
  const QuestionSet set = ReadSet(Line("letter", "K12"));
  EXPECT_TRUE(Judge(set, set.questions[0], "Case K12\nFrom: Ada").right);
  EXPECT_FALSE(Judge(set, set.questions[0], "Case K12 or B31\nFrom: Ada").right);
  EXPECT_FALSE(Judge(set, set.questions[0], "From: Ada\nCase K12").right);
}

TEST(Judge, UnanswerableIsRightWhenDeclined) {
  const QuestionSet set = ReadSet(Line("unanswerable", "does not say"));
  EXPECT_TRUE(Judge(set, set.questions[0], "Sorry, the handbook does not say.").right);
  EXPECT_FALSE(Judge(set, set.questions[0], "It is blue.").right);
}

TEST(ReadQuestions, NamesTheFileThatIsMissing) {
  const auto folder = std::filesystem::path(::testing::TempDir()) / "bakestone_eval_missing";
  std::filesystem::remove_all(folder);
  const auto message = [&] {
    try {
      ReadQuestions(folder / "q.jsonl", folder / "facts.jsonl");
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_THAT(message(), HasSubstr("q.jsonl: expected a file with questions"));
  WriteFileAtomically(folder / "q.jsonl", Line("direct", "a"));
  EXPECT_THAT(message(), HasSubstr("facts.jsonl: expected a file with the facts' keys"));
  WriteFileAtomically(folder / "facts.jsonl", "{\"key\": \"a\"}\n");
  EXPECT_THAT(message(), HasSubstr("data.toml: expected a file with the rules"));
}

TEST(ReadQuestions, NamesTheLineAndTheField) {
  const auto message = [](const std::string& questions) {
    try {
      ReadSet(questions);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_THAT(message(Line("direct", "a") + Line("essay", "a")), HasSubstr("line 2: 'kind'"));
  EXPECT_THAT(message("{\"id\": \"1\"}"), HasSubstr("'key'"));
  EXPECT_THAT(message("nonsense"), HasSubstr("line 1"));
  EXPECT_THAT(message("{\"id\": " + std::string(200'000, '[') + std::string(200'000, ']') + "}"),
              HasSubstr("line 1: expected JSON of at most 200 levels"));
  EXPECT_THAT(message(""), HasSubstr("at least one question"));
}

}  // namespace
}  // namespace bakestone
