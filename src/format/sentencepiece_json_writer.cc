// SentencePiece's kinds as a tokenizer.json. tokenizer_json.cc and unigram_json.cc open with the
// grammars.
//
// BPE by score becomes BPE by merges: every way to cut a piece in two pieces, the best score first.
// `tokenizers` has no two merges of one rank, so where scores tie it may cut otherwise; what is
// written is read back and tried on the vocabulary's own texts, and no file is written that
// differs.
#include <algorithm>
#include <cstdint>
#include <numeric>
#include <unordered_set>
#include <vector>

#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/quote.h"
#include "format/json_node.h"
#include "format/tokenizer_json.h"
#include "format/tokenizer_json_parts.h"
#include "format/unigram_json.h"
#include "text/spec_check.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace bakestone {
namespace {

using PieceJson = nlohmann::ordered_json;

const std::string kMark(kJsonSpaceMark);

[[noreturn]] void RefuseSpec(const TokenizerSpec& spec, const std::string& what) {
  Throw(ErrorCode::kUnsupported, "{}: a tokenizer.json cannot say {}: it would cut texts otherwise",
        spec.source, what);
}

bool HasUserDefined(const TokenizerSpec& spec) {
  return std::find(spec.types.begin(), spec.types.end(), TokenType::kUserDefined) !=
         spec.types.end();
}

// ---- BPE ----

PieceJson Merges(const TokenizerSpec& spec) {
  PieceJson merges = PieceJson::array();
  for (const auto& [left, right] : spec.merges) merges.push_back(PieceJson::array({left, right}));
  if (!spec.merges.empty()) return merges;
  std::unordered_set<std::string_view> pieces;
  const auto is_piece = [&](size_t id) {
    const TokenType type = spec.types[id];
    return type == TokenType::kNormal || type == TokenType::kUserDefined;
  };
  std::vector<size_t> order;
  for (size_t id = 0; id < spec.tokens.size(); ++id) {
    if (!is_piece(id)) continue;
    pieces.insert(spec.tokens[id]);
    order.push_back(id);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return spec.scores[a] > spec.scores[b]; });
  for (const size_t id : order) {
    const std::string_view piece = spec.tokens[id];
    for (size_t at = piece.size(); at-- > 1;) {  // of one rank, as the leftmost would be merged
      if ((static_cast<uint8_t>(piece[at]) & 0xC0) == 0x80) continue;
      const std::string_view left = piece.substr(0, at), right = piece.substr(at);
      if (!pieces.contains(left) || !pieces.contains(right)) continue;
      merges.push_back(PieceJson::array({left, right}));
    }
  }
  return merges;
}

// The space before texts and, where decoding takes it away, that.
PieceJson SpaceMarks(const TokenizerSpec& spec) {
  const PieceJson replace = {
      {"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kMark}};
  if (spec.space_prefix == SpacePrefix::kNever) return replace;
  return {{"type", "Sequence"},
          {"normalizers",
           PieceJson::array({PieceJson{{"type", "Prepend"}, {"prepend", kMark}}, replace})}};
}

PieceJson SpaceDecoder(const TokenizerSpec& spec) {
  PieceJson steps = PieceJson::array(
      {PieceJson{{"type", "Replace"}, {"pattern", {{"String", kMark}}}, {"content", " "}},
       PieceJson{{"type", "ByteFallback"}}, PieceJson{{"type", "Fuse"}}});
  if (spec.strips_space && spec.space_prefix != SpacePrefix::kNever) {
    steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  }
  return {{"type", "Sequence"}, {"decoders", steps}};
}

void CheckBpe(const TokenizerSpec& spec) {
  if (!spec.precompiled_charsmap.empty() || spec.remove_extra_whitespaces) {
    RefuseSpec(spec, "BPE of SentencePiece whose rules change characters or drop spaces");
  }
  const bool after_special = spec.space_prefix == SpacePrefix::kAfterSpecial;
  if (!after_special && spec.space_prefix != SpacePrefix::kNever &&
      spec.space_prefix != SpacePrefix::kEveryPiece) {
    RefuseSpec(spec, "BPE with this rule of a space before texts");
  }
  if (after_special && HasUserDefined(spec)) {
    RefuseSpec(spec, "that there is no space before a text that follows a user-defined token");
  }
}

// Spaces, emoji, characters of no piece, spellings of tokens.
std::vector<std::string> HostileTexts() {
  std::vector<std::string> texts = {
      "a",
      " a",
      "a ",
      "\t",
      "\n\n \n",
      "a\r\nb",
      "\xE2\x96\x81",
      "a \xE2\x96\x81 b",
      "\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x8D\xB3 \xF0\x9F\x87\xA7\xF0\x9F\x87\xB7",
      "e\xCC\x81\xCC\x81 \xED\x95\x9C\xEA\xB8\x80 \xE4\xBD\xA0\xE5\xA5\xBD",
      "<0x41><0x0A>",
      "<s>a</s> b<unk>",
      "x<|im_end|> y",
      std::string("a\0b", 3),
      "ababababab aaaaaaaaaaa"};
  for (size_t n = 2; n < 40; ++n) texts.push_back(std::string(n, ' ') + "x" + std::string(n, ' '));
  return texts;
}

// All tokens as texts hold them, in two orders.
std::vector<std::string> TextsOf(const Tokenizer& tokenizer) {
  constexpr int64_t kTokensOfText = 12, kStep = 7919;  // a prime, beyond neighbours
  std::vector<std::string> texts;
  const int64_t count = tokenizer.vocab_size();
  for (const int64_t step : {int64_t{1}, kStep}) {
    for (int64_t i = 0; i < count; ++i) {
      if (i % kTokensOfText == 0) texts.emplace_back();
      const auto id = static_cast<int32_t>(i * step % count);
      if (tokenizer.Type(id) != TokenType::kUnused) {
        texts.back().append(ToValidUtf8(tokenizer.TokenBytes(id)));
      }
    }
  }
  return texts;
}

void CheckSameIds(const TokenizerSpec& spec, const std::string& json) {
  const Tokenizer mine(spec), written(FromTokenizerJson(json, spec.source));
  std::vector<std::string> texts = HostileTexts();
  for (std::string& text : TextsOf(mine)) texts.push_back(std::move(text));
  for (const std::string& text : texts) {
    for (const bool parse : {false, true}) {
      const auto a = mine.Encode(text, {.add_special = false, .parse_special = parse});
      if (a == written.Encode(text, {.add_special = false, .parse_special = parse})) continue;
      RefuseSpec(spec, "how this tokenizer cuts " + Quote(text.substr(0, 200)));
    }
  }
}

std::string Bpe(const TokenizerSpec& spec) {
  CheckBpe(spec);
  const bool bytes = spec.byte_fallback && std::find(spec.types.begin(), spec.types.end(),
                                                     TokenType::kByte) != spec.types.end();
  const bool unknown = spec.unk >= 0 && spec.types[static_cast<size_t>(spec.unk)] ==
                                            TokenType::kUnknown;  // else it may end a text
  const PieceJson unk =
      unknown ? PieceJson(spec.tokens[static_cast<size_t>(spec.unk)]) : PieceJson();
  return DumpedJson({{"version", "1.0"},
                     {"truncation", nullptr},
                     {"padding", nullptr},
                     {"added_tokens", AddedTokensJson(spec)},
                     {"normalizer", SpaceMarks(spec)},
                     {"pre_tokenizer", nullptr},
                     {"post_processor", TemplateJson(spec)},
                     {"decoder", SpaceDecoder(spec)},
                     {"model",
                      {{"type", "BPE"},
                       {"dropout", nullptr},
                       {"unk_token", unk},
                       {"continuing_subword_prefix", nullptr},
                       {"end_of_word_suffix", nullptr},
                       {"fuse_unk", true},
                       {"byte_fallback", bytes},
                       {"ignore_merges", false},
                       {"vocab", VocabularyJson(spec)},
                       {"merges", Merges(spec)}}}},
                    spec);
}

// ---- Unigram ----

std::string Base64(const std::vector<uint8_t>& bytes) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (size_t at = 0; at < bytes.size(); at += 3) {
    const size_t count = std::min<size_t>(3, bytes.size() - at);
    uint32_t bits = 0;
    for (size_t i = 0; i < 3; ++i) bits = bits << 8 | (i < count ? bytes[at + i] : 0U);
    for (size_t i = 0; i < 4; ++i) text += i <= count ? kDigits[bits >> (18 - 6 * i) & 63] : '=';
  }
  return text;
}

// The pieces and their scores, by id; unused ones only behind all others, where they are left out.
PieceJson Pieces(const TokenizerSpec& spec) {
  size_t count = spec.tokens.size();
  while (count > 0 && spec.types[count - 1] == TokenType::kUnused) --count;
  PieceJson pieces = PieceJson::array();
  for (size_t id = 0; id < count; ++id) {
    if (spec.types[id] == TokenType::kUnused || spec.types[id] == TokenType::kByte) {
      RefuseSpec(
          spec, fmt::format("that token {} {} of a Unigram model is {}", id, Quote(spec.tokens[id]),
                            spec.types[id] == TokenType::kByte ? "a byte" : "unused"));
    }
    pieces.push_back(PieceJson::array({spec.tokens[id], static_cast<double>(spec.scores[id])}));
  }
  return pieces;
}

// What SentencePiece does to a text: its map of characters, and spaces dropped at the ends and but
// for one of several.
PieceJson UnigramNormalizer(const TokenizerSpec& spec) {
  PieceJson steps = PieceJson::array();
  if (!spec.precompiled_charsmap.empty()) {
    steps.push_back(
        {{"type", "Precompiled"}, {"precompiled_charsmap", Base64(spec.precompiled_charsmap)}});
  }
  if (spec.remove_extra_whitespaces) {
    const auto replace = [&](std::string_view regex, const char* content) {
      steps.push_back({{"type", "Replace"}, {"pattern", {{"Regex", regex}}}, {"content", content}});
    };
    replace(kLeadingSpaces, "");
    replace(kTrailingSpaces, "");
    replace(" {2,}", " ");
  }
  if (spec.space_prefix != SpacePrefix::kNever) {
    steps.push_back({{"type", "Prepend"}, {"prepend", kMark}});
  }
  if (steps.empty()) return nullptr;
  return {{"type", "Sequence"}, {"normalizers", steps}};
}

std::string UnigramFile(const TokenizerSpec& spec) {
  const bool known =
      spec.space_prefix == SpacePrefix::kNever || spec.space_prefix == SpacePrefix::kAfterSpecial;
  if (HasUserDefined(spec) || spec.marked_words || !known) {
    RefuseSpec(spec, "a Unigram model with user-defined tokens, or with other rules than its own");
  }
  // Words are searched one by one, but where a piece reaches over a space.
  const bool split = std::none_of(spec.tokens.begin(), spec.tokens.end(), [](const auto& token) {
    return token.find(kMark, 1) != std::string::npos;
  });
  const PieceJson marks = {
      {"type", "Metaspace"}, {"replacement", kMark}, {"prepend_scheme", "never"}, {"split", split}};
  return DumpedJson({{"version", "1.0"},
                     {"truncation", nullptr},
                     {"padding", nullptr},
                     {"added_tokens", AddedTokensJson(spec)},
                     {"normalizer", UnigramNormalizer(spec)},
                     {"pre_tokenizer", marks},
                     {"post_processor", TemplateJson(spec)},
                     {"decoder", SpaceDecoder(spec)},
                     {"model",
                      {{"type", "Unigram"},
                       {"unk_id", spec.unk >= 0 ? PieceJson(spec.unk) : PieceJson()},
                       {"vocab", Pieces(spec)},
                       {"byte_fallback", false}}}},
                    spec);
}

}  // namespace

std::string SentencePieceToJson(TokenizerSpec spec) {
  CheckAndComplete(&spec);
  if (spec.kind == TokenizerKind::kUnigram) return UnigramFile(spec);
  // Without a space before texts, user-defined tokens are found in normalized text, as here.
  if (spec.space_prefix == SpacePrefix::kNever && !spec.split_user_defined) {
    for (size_t id = 0; id < spec.types.size(); ++id) {
      if (spec.types[id] != TokenType::kUserDefined) continue;
      spec.added.push_back({.id = static_cast<int32_t>(id), .normalized = true});
    }
  }
  const std::string json = Bpe(spec);
  CheckSameIds(spec, json);
  return json;
}

}  // namespace bakestone
