#include "text/added_tokens.h"

#include "text/unicode.h"
#include "text/utf8.h"

namespace bakestone {
namespace {

uint8_t ClassAfter(std::string_view text, size_t at, size_t* length) {
  uint32_t codepoint;
  const int n = DecodeUtf8(text.data() + at, text.data() + text.size(), &codepoint);
  *length = n ? static_cast<size_t>(n) : 1;
  return n ? CharClasses::Get()[codepoint] : 0;
}

// The class of the character that ends at `at` and where it begins.
uint8_t ClassBefore(std::string_view text, size_t at, size_t* begin) {
  for (size_t back = 1; back <= 4 && back <= at; ++back) {
    size_t length;
    const uint8_t cls = ClassAfter(text.substr(0, at), at - back, &length);
    if ((static_cast<uint8_t>(text[at - back]) & 0xC0) != 0x80) {
      *begin = length == back ? at - back : at - 1;
      return length == back ? cls : 0;
    }
  }
  *begin = at - 1;
  return 0;
}

constexpr uint8_t kWord = kLetter | kNumber | kMark | kConnector;

bool TouchesWord(std::string_view text, size_t begin, size_t end) {
  size_t ignored;
  return (begin > 0 && (ClassBefore(text, begin, &ignored) & kWord)) ||
         (end < text.size() && (ClassAfter(text, end, &ignored) & kWord));
}

}  // namespace

void AddedTokens::Add(std::string_view text, int32_t id, bool control,
                      const AddedTokenFlags& flags) {
  if (text.empty()) return;
  trie_.Insert(text, static_cast<int32_t>(tokens_.size()));
  tokens_.push_back({id, control, flags});
  first_[static_cast<uint8_t>(text[0])] |= control ? 2 : 1;
}

AddedTokens::Found AddedTokens::Longest(std::string_view text, size_t at,
                                        size_t control_end) const {
  Found best;
  int32_t node = ByteTrie::kRoot;
  for (size_t i = at; i < text.size();) {
    node = trie_.Child(node, static_cast<uint8_t>(text[i]));
    if (node < 0) break;
    ++i;
    const int32_t value = trie_.value(node);
    if (value < 0 || (tokens_[static_cast<size_t>(value)].control && i > control_end)) continue;
    best = {i - at, &tokens_[static_cast<size_t>(value)]};
  }
  return best;
}

AddedTokens::Prefix AddedTokens::MatchPrefix(std::string_view text) const {
  if (text.empty() || !(first_[static_cast<uint8_t>(text[0])] & 1)) return {};
  const Found found = Longest(text, 0, 0);
  return found.length ? Prefix{found.length, found.token->id} : Prefix{};
}

std::optional<AddedMatch> AddedTokens::Next(std::string_view text, size_t from,
                                            std::span<const Stretch> stretches) const {
  auto stretch = stretches.begin();
  for (size_t at = from; at < text.size(); ++at) {
    while (stretch->end <= at) ++stretch;
    const uint8_t wanted = stretch->parse_special ? 3 : 1;
    if (!(first_[static_cast<uint8_t>(text[at])] & wanted)) continue;
    const Found found = Longest(text, at, stretch->parse_special ? stretch->end : 0);
    if (found.length == 0) continue;
    AddedMatch match{at, at + found.length, found.token->id};
    const AddedTokenFlags& flags = found.token->flags;
    if (flags.single_word && TouchesWord(text, match.begin, match.end)) continue;
    size_t begin, length;
    while (flags.lstrip && match.begin > from &&
           (ClassBefore(text, match.begin, &begin) & kSpace)) {
      match.begin = begin;
    }
    while (flags.rstrip && match.end < text.size() &&
           (ClassAfter(text, match.end, &length) & kSpace)) {
      match.end += length;
    }
    return match;
  }
  return std::nullopt;
}

}  // namespace bakestone
