#include "engine/stop_matcher.h"

#include <gtest/gtest.h>

#include "base/rng.h"

namespace bakestone {
namespace {

TEST(StopMatcher, HoldsBackOnlyWhatCouldBeginAStopString) {
  StopMatcher matcher({"END"});
  EXPECT_EQ(matcher.Append("the E"), "the ");
  EXPECT_EQ(matcher.Append("ast E"), "East ");
  EXPECT_EQ(matcher.Append("N"), "");
  EXPECT_EQ(matcher.Append("d"), "ENd");
  EXPECT_FALSE(matcher.matched());
  EXPECT_EQ(matcher.Append("EN"), "");
  EXPECT_EQ(matcher.Flush(), "EN");
}

TEST(StopMatcher, CutsAtAMatchOverPieces) {
  StopMatcher matcher({"\n\n"});
  EXPECT_EQ(matcher.Append("one\n"), "one");
  EXPECT_EQ(matcher.Append("\ntwo"), "");
  EXPECT_TRUE(matcher.matched());
  EXPECT_EQ(matcher.stop(), "\n\n");
  EXPECT_EQ(matcher.Append("three"), "");
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopMatcher, FirstCompleteWinsAndOfThoseTheLonger) {
  StopMatcher first({"abcd", "c"});
  EXPECT_EQ(first.Append("xabcd"), "xab");
  EXPECT_EQ(first.stop(), "c");
  StopMatcher longer({"c", "abc"});
  EXPECT_EQ(longer.Append("xabcd"), "x");
  EXPECT_EQ(longer.stop(), "abc");
}

TEST(StopMatcher, OverlappingBeginnings) {
  StopMatcher matcher({"aab"});
  EXPECT_EQ(matcher.Append("aaa"), "a");
  EXPECT_EQ(matcher.Append("b"), "");
  EXPECT_TRUE(matcher.matched());
}

TEST(StopMatcher, ResultDoesNotDependOnHowTheTextIsCut) {
  Rng rng(5, 0);
  for (int round = 0; round < 3000; ++round) {
    std::string text;
    for (int i = 0; i < 24; ++i) text += static_cast<char>('a' + rng.Below(3));
    std::vector<std::string> stops;
    for (uint64_t i = 0; i <= rng.Below(3); ++i) {
      std::string stop;
      for (uint64_t k = 0; k <= rng.Below(5); ++k) stop += static_cast<char>('a' + rng.Below(3));
      stops.push_back(stop);
    }
    StopMatcher bytes(stops), pieces(stops);
    std::string by_bytes, by_pieces;
    for (char c : text) by_bytes += bytes.Append(std::string(1, c));
    by_bytes += bytes.Flush();
    for (size_t at = 0; at < text.size();) {
      const size_t n = 1 + rng.Below(9);
      by_pieces += pieces.Append(std::string_view(text).substr(at, n));
      at += n;
    }
    by_pieces += pieces.Flush();
    ASSERT_EQ(by_bytes, by_pieces) << text;
    ASSERT_EQ(bytes.stop(), pieces.stop());
  }
}

}  // namespace
}  // namespace bakestone
