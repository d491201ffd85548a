#include "text/learn_merges.h"

#include <gmock/gmock.h>

#include "base/error.h"

namespace bakestone {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// Letters a to z and the space as "Ġ", and one merge.
TokenizerSpec Letters() {
  TokenizerSpec spec;
  spec.pre_tokenizer = "gpt-2";
  for (char c = 'a'; c <= 'z'; ++c) spec.tokens.emplace_back(1, c);
  spec.tokens.insert(spec.tokens.end(), {"Ġ", "th", "<end>"});
  spec.types.assign(spec.tokens.size(), TokenType::kNormal);
  spec.types.back() = TokenType::kControl;
  spec.merges = {{"t", "h"}};
  return spec;
}

// As AddTokens (convert/add_tokens.h) writes them.
TokenizerSpec With(TokenizerSpec spec, const std::vector<LearnedMerge>& merges) {
  for (const LearnedMerge& merge : merges) {
    spec.tokens.push_back(merge.left + merge.right);
    spec.types.push_back(TokenType::kNormal);
    spec.merges.emplace_back(merge.left, merge.right);
  }
  return spec;
}

TEST(LearnMerges, TheCommonestPairIsMergedFirstAndNewOnesBuildOnIt) {
  MergeLearner learner(Letters());
  learner.Add("the the the then cab");
  const auto merges = learner.Learn(3, 2).merges;
  ASSERT_THAT(merges, SizeIs(2));  // the third one is not there twice
  EXPECT_EQ(merges[0].left + merges[0].right, "the");
  EXPECT_THAT(merges[0].pieces, ElementsAre(27, 4));
  EXPECT_EQ(merges[1].left + merges[1].right, "Ġthe");
  EXPECT_THAT(merges[1].pieces, ElementsAre(26, 27, 4));
  const Tokenizer tokenizer(With(Letters(), merges));
  EXPECT_THAT(tokenizer.Encode("the then"), ElementsAre(29, 30, 13));
  EXPECT_EQ(tokenizer.Decode(tokenizer.Encode("the then cab")), "the then cab");
}

TEST(LearnMerges, TheOrderOfTheTextDoesNotMatter) {
  const auto learn = [](std::initializer_list<const char*> texts) {
    MergeLearner learner(Letters());
    for (const char* text : texts) learner.Add(text);
    std::vector<std::string> tokens;
    for (const LearnedMerge& merge : learner.Learn(6, 1).merges) {
      tokens.push_back(merge.left + "+" + merge.right);
    }
    return tokens;
  };
  EXPECT_EQ(learn({"abc abd abc", "xyz xyz"}), learn({"xyz xyz", "abc abd abc"}));
}

TEST(LearnMerges, EverySymbolOfAWordIsCountedAsTheTokenizerWillWriteIt) {
  MergeLearner learner(Letters());
  learner.Add("aaaa aaaa aaa bababa bababa thththth");
  const LearnedMerges learned = learner.Learn(8, 1);
  const auto& merges = learned.merges;
  const Tokenizer old(Letters()), grown(With(Letters(), merges));
  const std::string text = "aaaa aaaa aaa bababa bababa thththth";
  EXPECT_EQ(learned.tokens_before, static_cast<int64_t>(old.Encode(text).size()));
  EXPECT_EQ(learned.tokens_after, static_cast<int64_t>(grown.Encode(text).size()));
  EXPECT_LT(learned.tokens_after, learned.tokens_before);
  for (size_t i = 0; i < merges.size(); ++i) {  // each new token is what its pieces spell
    EXPECT_EQ(old.Decode(merges[i].pieces),
              grown.Decode(std::vector<int32_t>{old.vocab_size() + static_cast<int32_t>(i)}));
  }
}

TEST(LearnMerges, NothingToLearnAndOtherKinds) {
  MergeLearner learner(Letters());
  EXPECT_THAT(learner.Learn(5, 1).merges, IsEmpty());
  TokenizerSpec other = Letters();
  other.kind = TokenizerKind::kUnigram;
  other.scores.assign(other.tokens.size(), 0.0f);
  EXPECT_THROW(MergeLearner{other}, Error);
}

}  // namespace
}  // namespace bakestone
