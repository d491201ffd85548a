// Finds added tokens (control and user-defined ones) in text: leftmost, then longest, with the
// lstrip / rstrip / single_word rules of tokenizer.json. Immutable once filled, thread-safe.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "text/byte_trie.h"
#include "text/tokenizer_spec.h"

namespace bakestone {

// Stretches of one text; `end` is an offset, the last one the text's size.
struct Stretch {
  size_t end = 0;
  bool parse_special = false;
};

struct AddedMatch {
  size_t begin = 0, end = 0;  // what it takes of the text, stripped white space included
  int32_t id = -1;
};

class AddedTokens {
 public:
  void Add(std::string_view text, int32_t id, bool control, const AddedTokenFlags& flags);
  bool empty() const { return trie_.empty(); }

  // The first match that starts at or after `from`. Control tokens match only inside one stretch
  // that has parse_special. `from` is where the text not yet consumed starts.
  std::optional<AddedMatch> Next(std::string_view text, size_t from,
                                 std::span<const Stretch> stretches) const;
  // The longest user-defined token at text[0]: its length in bytes and id; length 0: none.
  struct Prefix {
    size_t length = 0;
    int32_t id = -1;
  };
  Prefix MatchPrefix(std::string_view text) const;

 private:
  struct Token {
    int32_t id;
    bool control;
    AddedTokenFlags flags;
  };
  // Longest token at `at`; control tokens only if they end by control_end.
  struct Found {
    size_t length = 0;
    const Token* token = nullptr;
  };
  Found Longest(std::string_view text, size_t at, size_t control_end) const;

  ByteTrie trie_;  // values index tokens_
  std::vector<Token> tokens_;
  std::array<uint8_t, 256> first_ =
      {};  // bit 0: starts a user-defined token, bit 1: a control token
};

}  // namespace bakestone
