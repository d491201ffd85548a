// Masks of grammars that count characters (maxLength, minLength, counts in patterns). Where many
// characters are counted the library knows no token's answer beforehand: to compile such a grammar
// for a vocabulary of 150,000 takes it seconds, and so does one mask. So two grammars are followed:
// one without the counts, which has the masks, and the exact one, which is compiled for no
// vocabulary at all and only asked about texts. A mask is that of the first. The token that is
// drawn is asked about, and only where the counts forbid it the mask is narrowed and the engine
// draws again, so that near its end a counted text does without rare tokens. What the exact grammar
// refuses is never said. Internal to grammar/.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/token_mask.h"
#include "grammar/wire.h"

namespace bakestone::grammar {

inline bool HasBit(const std::vector<uint32_t>& bits, int32_t id) {
  return (bits[static_cast<size_t>(id) / 32] >> (id % 32) & 1) != 0;
}

// A grammar that is followed text by text. Used by one thread at a time.
class TextFollower {
 public:
  virtual ~TextFollower() = default;
  virtual bool Accept(const std::string& text) = 0;  // false: not legal here, nothing has changed
  virtual void Rollback(int64_t count) = 0;          // of texts
  virtual bool Complete() = 0;                       // it may end here
};

// What is to be known of a vocabulary's tokens inside a text.
class TokenTexts {
 public:
  explicit TokenTexts(const Vocabulary& vocabulary);

  static constexpr int kMost = 32;  // characters; longer tokens are not looked for near an end
  using Bits = std::vector<uint32_t>;

  const std::string& TextOf(int32_t id) const { return texts_[static_cast<size_t>(id)]; }
  bool Ends(int32_t id) const { return HasBit(endings_, id); }
  // Whole characters but quotes, backslashes, '<' and control characters.
  const Bits& plain() const { return plain_; }
  // With more characters, of any kind, [0, kMost].
  const Bits& LongerThan(int characters) const { return longer_[static_cast<size_t>(characters)]; }
  const std::vector<int32_t>& shortest_first() const { return shortest_first_; }  // all ids

 private:
  std::vector<std::string> texts_;
  Bits plain_, endings_;
  std::vector<Bits> longer_;
  std::vector<int32_t> shortest_first_;
};

// exact is relaxed with counts. Tokens of `markers` stand for their spellings (grammar/calls.h) in
// exact.
std::unique_ptr<TokenMask> MakeBoundedMask(std::unique_ptr<TextFollower> exact,
                                           std::unique_ptr<TokenMask> relaxed,
                                           const std::vector<int32_t>& markers,
                                           std::shared_ptr<const TokenTexts> texts);

// A grammar of FromJsonSchema, FromCalls or WholeRegex without its counts of characters: a counted
// text becomes the rule "string", or "text" where it is written without quotes, and many of a class
// or of a group any number. As it was: it has none.
std::string WithoutCounts(std::string_view ebnf);

}  // namespace bakestone::grammar
