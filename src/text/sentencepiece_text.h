// What the two SentencePiece kinds share: normalization (character rules, U+2581 for spaces, the
// space before the text) and which pieces text can make. Immutable and thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/added_tokens.h"
#include "text/charsmap.h"
#include "text/text_model.h"

namespace bakestone {

inline constexpr std::string_view kSpacePiece = "\xE2\x96\x81";  // U+2581

class SentencePieceText {
 public:
  SentencePieceText(const TokenizerSpec& spec, const Vocabulary& vocabulary);

  // Valid UTF-8 whatever the input: invalid bytes become U+FFFD, one each.
  std::string Normalize(std::string_view text, FragmentPlace place) const;

  // User-defined pieces, spelled as normalized text spells them.
  const AddedTokens& user_defined() const { return user_defined_; }

  // What stands for a character that is no piece: its bytes' tokens where the vocabulary has byte
  // tokens, else one unknown token for each run of such characters (previous_unknown says that the
  // last id is one), or nothing where the unknown token is a control token or absent.
  void AppendUnknown(std::string_view character, bool* previous_unknown,
                     std::vector<int32_t>* ids) const;

 private:
  struct Part {
    std::string_view text;
    size_t taken;
  };
  Part NormalizePrefix(std::string_view text) const;

  const Vocabulary& vocabulary_;
  Charsmap charsmap_;
  AddedTokens raw_user_defined_;  // as the file spells them
  AddedTokens user_defined_;
  bool Prefixed(std::string_view text, FragmentPlace place) const;

  SpacePrefix space_prefix_;
  bool squeeze_, bytes_;
  int32_t unk_;
};

}  // namespace bakestone
