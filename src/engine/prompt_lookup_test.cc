#include "engine/prompt_lookup.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "base/rng.h"

namespace bakestone {
namespace {

using Tokens = std::vector<int32_t>;

PromptLookup Over(const Tokens& tokens) {
  PromptLookup lookup;
  lookup.Append(tokens);
  return lookup;
}

TEST(PromptLookup, GoesOnWhereTheSameTokensStoodBefore) {
  PromptLookup lookup = Over({1, 2, 3, 4, 5, 9, 9, 1, 2, 3});
  const auto guess = lookup.Propose(4);
  EXPECT_EQ(guess.match, 3);
  EXPECT_EQ(guess.tokens, (Tokens{4, 5, 9, 9}));
}

TEST(PromptLookup, LongestMatchWinsThenTheLatest) {
  EXPECT_EQ(Over({1, 2, 3, 70, 8, 2, 3, 71, 1, 2, 3}).Propose(1).tokens, Tokens{70});
  EXPECT_EQ(Over({2, 3, 70, 8, 2, 3, 71, 1, 2, 3}).Propose(1).tokens, Tokens{71});
}

TEST(PromptLookup, NothingForOneTokenOrAnEmptyText) {
  EXPECT_TRUE(Over({}).Propose(3).tokens.empty());
  EXPECT_TRUE(Over({5}).Propose(3).tokens.empty());
  EXPECT_TRUE(Over({5, 6, 5}).Propose(3).tokens.empty());
  EXPECT_TRUE(Over({1, 2, 3, 4}).Propose(3).tokens.empty());
}

TEST(PromptLookup, ContinuesAPeriod) {
  EXPECT_EQ(Over({9, 1, 2, 1, 2}).Propose(5).tokens, (Tokens{1, 2, 1, 2, 1}));
  EXPECT_EQ(Over({9, 7, 7, 7}).Propose(4).tokens, (Tokens{7, 7, 7, 7}));
}

TEST(PromptLookup, FollowsAPassageAsItsTokensComeTrue) {
  Tokens text;
  for (int32_t i = 0; i < 200; ++i) text.push_back(1000 + i);
  PromptLookup lookup = Over(text);
  lookup.Append(Tokens{5, 1010, 1011});
  for (int32_t i = 12; i < 100; ++i) {
    const auto guess = lookup.Propose(3);
    ASSERT_EQ(guess.tokens, (Tokens{1000 + i, 1001 + i, 1002 + i}));
    EXPECT_EQ(guess.match, std::min<int64_t>(i - 10, PromptLookup::kMaxMatch));
    lookup.Append(Tokens{1000 + i});
  }
  lookup.Append(Tokens{3});
  EXPECT_TRUE(lookup.Propose(3).tokens.empty());
}

TEST(PromptLookup, ExpectedTokensAreProposedFromTheBeginning) {
  PromptLookup lookup;
  lookup.Expect(Tokens{10, 11, 12, 13, 14});
  lookup.Append(Tokens{1, 2, 3});
  lookup.BeginAnswer();
  EXPECT_EQ(lookup.Propose(8).tokens, (Tokens{10, 11, 12, 13, 14}));  // not beyond them
  lookup.Append(Tokens{10});
  EXPECT_EQ(lookup.Propose(2).tokens, (Tokens{11, 12}));
  lookup.Append(Tokens{99});
  EXPECT_TRUE(lookup.Propose(2).tokens.empty());
  lookup.Append(Tokens{12, 13});
  EXPECT_EQ(lookup.Propose(2).tokens, Tokens{14});
  EXPECT_EQ(lookup.size(), 7);
}

// Against a plain search: with few different tokens the bound on places is reached, so the match
// may be shorter than the best, but it must be a match, and its continuation must be the text's.
TEST(PromptLookup, EveryGuessIsAContinuationOfARealMatch) {
  for (const uint64_t kinds : {3, 40, 5000}) {
    Rng rng(kinds, 1);
    PromptLookup lookup;
    Tokens text;
    int64_t as_long = 0, asked = 0;
    for (int step = 0; step < 3000; ++step) {
      if (step > 300 && rng.Below(40) == 0) {  // quotes itself
        const auto from = static_cast<size_t>(rng.Below(text.size() - 30));
        const Tokens quote(text.begin() + from, text.begin() + from + 30);
        text.insert(text.end(), quote.begin(), quote.end());
        lookup.Append(quote);
      }
      text.push_back(static_cast<int32_t>(rng.Below(kinds)));
      lookup.Append(std::span(text).last(1));
      if (step % 3 != 0) continue;
      const auto guess = lookup.Propose(5);
      int64_t longest = 0;
      bool found = guess.tokens.empty();
      for (size_t end = 0; end + 1 < text.size(); ++end) {
        int64_t match = 0;
        while (match <= static_cast<int64_t>(end) && match < PromptLookup::kMaxMatch &&
               text[end - match] == text[text.size() - 1 - match]) {
          ++match;
        }
        longest = std::max(longest, match);
        if (match < guess.match) continue;
        bool same = true;
        for (size_t i = 0; i < guess.tokens.size() && end + 1 + i < text.size(); ++i) {
          same &= text[end + 1 + i] == guess.tokens[i];
        }
        found |= same;
      }
      ASSERT_TRUE(found);
      EXPECT_EQ(guess.tokens.empty(), longest < PromptLookup::kMinMatch);
      ++asked;
      as_long += guess.tokens.empty() || guess.match == longest;
    }
    EXPECT_GE(as_long, asked * (kinds == 3 ? 0.3 : 0.95)) << kinds;
  }
}

}  // namespace
}  // namespace bakestone
