#include "pipeline/make_pairs.h"

#include <gmock/gmock.h>

#include "base/file.h"

namespace bakestone {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* kPassage =
    "The mill at Ostrel opens at seven and closes at 18:30. Grain is weighed before milling.";

TEST(MakePairs, SentencesAreThoseWithSomethingInThem) {
  EXPECT_THAT(
      SentencesOf("# Title\n\nThe mill opens at seven every day. No.\n\n* Grain is weighed before "
                  "it is milled"),
      ElementsAre("The mill opens at seven every day.", "Grain is weighed before it is milled"));
}

TEST(MakePairs, EachTestNamesWhatIsWrong) {
  const auto judge = [](const char* question, const char* answer) {
    return JudgePair(kPassage, question, answer);
  };
  EXPECT_EQ(judge("When does the mill open?", "It opens at seven."), "");
  EXPECT_THAT(judge("The mill opens at seven.", "Yes."), HasSubstr("question mark"));
  EXPECT_THAT(judge("When?", "At seven."), HasSubstr("1 words, expected 3 to 40"));
  EXPECT_THAT(judge("What does the text say of the mill?", "It opens at seven."),
              HasSubstr("beside the text"));
  EXPECT_THAT(judge("When does the mill close?", "At 19 o'clock."),
              HasSubstr("says 19, the text does not"));
  EXPECT_THAT(judge("When does the mill open?", "Whenever customers arrive."),
              HasSubstr("words that the text does not have"));
  EXPECT_THAT(judge("Is grain weighed before milling?", "Grain is weighed before milling."),
              HasSubstr("gives the answer away"));
  EXPECT_THAT(judge("Which planet has rings?", "The mill opens at seven."),
              HasSubstr("something else"));
  EXPECT_THAT(judge("When does the mill open?", ""), HasSubstr("0 words"));
}

TEST(MakePairs, PassagesKnowTheirPlace) {
  const auto file = std::filesystem::path(::testing::TempDir()) / "bakestone_pairs" / "book.md";
  WriteFileAtomically(file, "# Book\n\n## One\n\nThe mill opens.\n\n## Two\n\nIt closes.\n");
  const std::vector<Passage> passages = ReadPassages({file}, 1000);
  ASSERT_EQ(passages.size(), 3u);
  EXPECT_EQ(passages[1].line, 3);
  EXPECT_THAT(passages[2].text, HasSubstr("It closes."));
}

}  // namespace
}  // namespace bakestone
