// Masks of grammars that count characters (maxLength, minLength). The library answers "may this
// token come now?" for one token in microseconds, but where a character is counted it knows no
// token's answer beforehand, and a mask over a vocabulary of 150,000 takes seconds. So two grammars
// are followed: one without the counts, whose masks are known beforehand, and the exact one, which
// is only asked: how many characters have room, whether the text may end, and about the few tokens
// for which that does not say it. Of tokens for which it would have to be asked one by one only the
// shortest are taken, so that a mask may lack tokens that the grammar allows. It has none that the
// grammar does not allow, but for a schema with the character DEL in a text of its own (by which
// room is found out): that answer may end in an error. Internal to grammar/.
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

// A mask that can be asked about text, too.
class AskedMask : public TokenMask {
 public:
  virtual bool Could(
      const std::string& text) = 0;  // the answer could go on with it; nothing changes
};

// What is to be known of a vocabulary's tokens inside a JSON string.
class TokenLengths {
 public:
  explicit TokenLengths(const Vocabulary& vocabulary);

  static constexpr int kMost =
      32;  // characters; longer tokens are not taken inside of counted grammars
  using Bits = std::vector<uint32_t>;

  const Bits& plain() const {
    return plain_;
  }  // whole characters but quotes, backslashes, '<' and control characters
  const Bits& quoted() const { return quoted_; }  // with a quote
  const Bits& several() const {
    return several_;
  }  // with more than one: another text may begin in it
  const Bits& LongerThan(int characters) const {
    return longer_[static_cast<size_t>(characters)];
  }  // of any kind, [0, kMost]
  int CharactersOf(int32_t id) const {
    return characters_[static_cast<size_t>(id)];
  }  // at most 255
  std::span<const int32_t> shortest_first() const {
    return shortest_first_;
  }  // all ids, by their bytes

 private:
  Bits plain_, quoted_, several_;
  std::vector<Bits> longer_;
  std::vector<uint8_t> characters_;
  std::vector<int32_t> shortest_first_;
};

// exact is relaxed with counts.
std::unique_ptr<TokenMask> MakeBoundedMask(std::unique_ptr<AskedMask> exact,
                                           std::unique_ptr<AskedMask> relaxed,
                                           std::shared_ptr<const TokenLengths> lengths);

// A grammar of FromJsonSchema or FromCalls without its counts of characters: what is counted
// becomes the rule "string", or "text" where it is written without quotes. As it was: it has none.
std::string WithoutCounts(std::string_view ebnf);

}  // namespace bakestone::grammar
