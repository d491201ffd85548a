#include "text/sentencepiece_text.h"

#include "text/utf8.h"

namespace bakestone {

SentencePieceText::SentencePieceText(const TokenizerSpec& spec, const Vocabulary& vocabulary)
    : vocabulary_(vocabulary),
      charsmap_(spec.source, spec.precompiled_charsmap),
      space_prefix_(spec.space_prefix),
      squeeze_(spec.remove_extra_whitespaces),
      bytes_(spec.byte_fallback && vocabulary.has_byte_tokens),
      // A model whose unknown token also ends a turn: text must not be able to do that.
      unk_(spec.unk >= 0 && spec.types[static_cast<size_t>(spec.unk)] == TokenType::kUnknown
               ? spec.unk
               : -1) {
  std::vector<bool> split(spec.tokens.size(), spec.split_user_defined);  // before the model
  for (const AddedTokenFlags& flags : spec.added) {
    if (flags.normalized) split[static_cast<size_t>(flags.id)] = false;
  }
  for (int32_t id = 0; id < vocabulary.texts.size(); ++id) {
    const auto at = static_cast<size_t>(id);
    if (spec.types[at] != TokenType::kUserDefined || split[at]) continue;
    const std::string_view text = vocabulary.texts[id];
    raw_user_defined_.Add(text, id, false, {});
    std::string spelled;
    for (const char c : text) c == ' ' ? spelled.append(kSpacePiece) : spelled.append(1, c);
    user_defined_.Add(spelled, id, false, {});
  }
}

SentencePieceText::Part SentencePieceText::NormalizePrefix(std::string_view text) const {
  if (const auto found = raw_user_defined_.MatchPrefix(text); found.length) {
    return {text.substr(0, found.length), found.length};
  }
  if (const auto rule = charsmap_.Find(text); rule.length) return {rule.replacement, rule.length};
  uint32_t codepoint;
  const int length = DecodeUtf8(text.data(), text.data() + text.size(), &codepoint);
  if (length == 0) return {"\xEF\xBF\xBD", 1};
  return {text.substr(0, static_cast<size_t>(length)), static_cast<size_t>(length)};
}

bool SentencePieceText::Prefixed(std::string_view text, FragmentPlace place) const {
  const bool spaced = text.starts_with(' ') || text.starts_with(kSpacePiece);
  switch (space_prefix_) {
    case SpacePrefix::kNever:
      return false;
    case SpacePrefix::kAfterSpecial:
      return place != FragmentPlace::kElsewhere;
    case SpacePrefix::kFirst:
      return place == FragmentPlace::kFirst && !spaced;
    case SpacePrefix::kEveryPiece:
      return true;
    case SpacePrefix::kEveryUnspacedPiece:
      return !spaced;
  }
  return false;
}

std::string SentencePieceText::Normalize(std::string_view text, FragmentPlace place) const {
  std::string out;
  while (squeeze_ && !text.empty()) {
    const Part part = NormalizePrefix(text);
    if (part.text != " ") break;
    text.remove_prefix(part.taken);
  }
  if (text.empty()) return out;
  out.reserve(text.size() + text.size() / 2);
  if (Prefixed(text, place)) out.append(kSpacePiece);
  bool after_space = squeeze_;
  while (!text.empty()) {
    Part part = NormalizePrefix(text);
    text.remove_prefix(part.taken);
    while (after_space && part.text.starts_with(' ')) part.text.remove_prefix(1);
    if (part.text.empty()) continue;
    for (const char c : part.text) c == ' ' ? out.append(kSpacePiece) : out.append(1, c);
    after_space = squeeze_ && part.text.ends_with(' ');
  }
  while (squeeze_ && out.ends_with(kSpacePiece)) out.resize(out.size() - kSpacePiece.size());
  return out;
}

void SentencePieceText::AppendUnknown(std::string_view character, bool* previous_unknown,
                                      std::vector<int32_t>* ids) const {
  bool whole = bytes_;
  for (const char c : character) {
    whole = whole && vocabulary_.byte_ids[static_cast<uint8_t>(c)] >= 0;
  }
  if (whole) {
    for (const char c : character) ids->push_back(vocabulary_.byte_ids[static_cast<uint8_t>(c)]);
    *previous_unknown = false;
  } else {
    if (!*previous_unknown && unk_ >= 0) ids->push_back(unk_);
    *previous_unknown = true;
  }
}

}  // namespace bakestone
