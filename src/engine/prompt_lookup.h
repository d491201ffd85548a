// Guesses the next tokens of a text by finding its latest end earlier in itself: answers that
// quote, edit or go on with what they were given repeat long passages of it. A guess is only ever a
// proposal.
//
// The index is two chained hash tables over the last 4 and the last 2 tokens, as in LZ77: constant
// time a token to keep, a bounded walk to ask. Of the earlier places that are looked at the one
// with the longest match wins, of equals the latest; a passage that is being followed is always
// looked at. One thread at a time.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace bakestone {

class PromptLookup {
 public:
  static constexpr int64_t kMinMatch = 2;   // a single token says too little
  static constexpr int64_t kMaxMatch = 64;  // longer matches count as this long

  // Tokens that the answer is expected to hold, if the caller knows some (a file before its edit):
  // before the first Append. The answer's beginning is guessed to be theirs.
  void Expect(std::span<const int32_t> tokens);

  void Append(std::span<const int32_t> tokens);
  // Tokens appended so far.
  int64_t size() const { return static_cast<int64_t>(history_.size()) - text_begin_; }
  // The answer begins here: with Expect, the expected tokens are proposed although nothing matched
  // yet.
  void BeginAnswer();

  struct Guess {
    int64_t match = 0;            // length of the match; below kMinMatch only for expected tokens
    std::vector<int32_t> tokens;  // at most n; empty: nothing matches
  };
  Guess Propose(int64_t n);

 private:
  static constexpr int64_t kNowhere = -2;  // -1 is the place before the first token

  // Positions by the hash of the tokens that end there.
  struct Index {
    int64_t gram = 0;               // tokens hashed
    std::vector<int32_t> heads;     // by hash: the latest position; -1: none
    std::vector<int32_t> previous;  // by position: the one before with the same hash; -1: none
  };
  // An earlier position and how far the tokens up to it equal those up to the end.
  struct Place {
    int64_t end = kNowhere;
    int64_t match = 0;
  };

  void Push(int32_t token);
  void Insert(Index& index, int64_t end);
  uint64_t HashAt(int64_t gram, int64_t end) const;
  int64_t MatchLength(int64_t earlier_end) const;
  Place Find() const;

  std::vector<int32_t> history_;  // expected tokens, a separator, then the text
  int64_t text_begin_ = 0;
  int64_t expected_ = 0;  // tokens of Expect
  Index indexes_[2] = {{4, {}, {}}, {2, {}, {}}};
  Place followed_;  // of the last guess, moved along as its tokens come true
};

}  // namespace bakestone
