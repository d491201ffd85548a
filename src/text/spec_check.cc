#include "text/spec_check.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "text/sentencepiece_text.h"
#include "text/utf8.h"

namespace bakestone {
namespace {

constexpr size_t kMaxTokens = size_t{1} << 24;
constexpr size_t kMaxTokenBytes = 4096;  // the longest in use are under 300; bounds every trie walk

// Tokens that models are known to end a turn or a document with.
constexpr std::string_view kEndOfGeneration[] = {
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<turn|>",
    "<|eot|>",
    "<|eom|>",
    "<|end_of_turn|>",
    "<EOT>",
    "</s>",
    "<|END_OF_TURN_TOKEN|>",
    "<|end_of_role|>",
    "<\xEF\xBD\x9C"
    "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"};
// In a vocabulary with these two (harmony), <|end|> closes a message and not the answer, and a role
// header is closed by <|end_of_role|> in the vocabularies that have it.
constexpr std::string_view kHarmony[] = {"<|return|>", "<|call|>"};
constexpr std::string_view kTurnMarks[] = {"<start_of_turn>", "<end_of_turn>", "<bos>",
                                           "<eos>",           "<s>",           "</s>"};

bool IsSentencePiece(const TokenizerSpec& spec) {
  return spec.kind == TokenizerKind::kSentencePieceBpe || spec.kind == TokenizerKind::kUnigram;
}

// <|...|> , also with the full-width bars of DeepSeek.
bool LooksLikeControl(std::string_view text) {
  const auto wrapped = [&](std::string_view open, std::string_view close) {
    return text.size() > open.size() + close.size() && text.starts_with(open) &&
           text.ends_with(close);
  };
  return wrapped("<|", "|>") || wrapped("<\xEF\xBD\x9C", "\xEF\xBD\x9C>") ||
         std::find(std::begin(kTurnMarks), std::end(kTurnMarks), text) != std::end(kTurnMarks);
}

// The byte that "<0xHH>" names, or -1.
int ParseByteToken(std::string_view text) {
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return -1;
  int value = 0;
  for (const char c : text.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                             : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

void CheckSizes(const TokenizerSpec& spec) {
  const size_t n = spec.tokens.size();
  const auto fail = [&](const char* field, const std::string& expected, size_t found) {
    Throw(ErrorCode::kCorrupt, "{}: {}: expected {}, found {}", spec.source, field, expected,
          found);
  };
  if (n == 0 || n > kMaxTokens) fail("tokens", fmt::format("1 to {} entries", kMaxTokens), n);
  if (!spec.types.empty() && spec.types.size() != n) {
    fail("token types", fmt::format("{} entries, one a token", n), spec.types.size());
  }
  if ((IsSentencePiece(spec) || !spec.scores.empty()) && spec.scores.size() != n) {
    fail("token scores", fmt::format("{} entries, one a token", n), spec.scores.size());
  }
  for (size_t i = 0; i < n; ++i) {
    if (spec.tokens[i].size() > kMaxTokenBytes) {
      Throw(ErrorCode::kCorrupt, "{}: tokens[{}]: expected at most {} bytes, found {}", spec.source,
            i, kMaxTokenBytes, spec.tokens[i].size());
    }
    if (!spec.scores.empty() && !std::isfinite(spec.scores[i])) {
      Throw(ErrorCode::kCorrupt, "{}: scores[{}]: expected a finite number, found {}", spec.source,
            i, spec.scores[i]);
    }
  }
  for (size_t i = 0; i < spec.types.size(); ++i) {
    const int type = static_cast<int>(spec.types[i]);
    if (type < 1 || type > 6) {
      Throw(ErrorCode::kCorrupt, "{}: token types[{}]: expected 1 to 6, found {}", spec.source, i,
            type);
    }
  }
}

void CheckId(const TokenizerSpec& spec, const char* field, int32_t id, int32_t lowest) {
  const auto n = static_cast<int32_t>(spec.tokens.size());
  if (id < lowest || id >= n) {
    Throw(ErrorCode::kCorrupt, "{}: {}: expected a token id from 0 to {}, found {}", spec.source,
          field, n - 1, id);
  }
}

void CheckIds(const TokenizerSpec& spec) {
  CheckId(spec, "bos token", spec.bos, -1);
  CheckId(spec, "eos token", spec.eos, -1);
  CheckId(spec, "eot token", spec.eot, -1);
  CheckId(spec, "eom token", spec.eom, -1);
  CheckId(spec, "unknown token", spec.unk, -1);
  CheckId(spec, "padding token", spec.pad, -1);
  for (const int32_t id : spec.extra_eog) CheckId(spec, "end-of-generation token", id, 0);
  for (const AddedTokenFlags& added : spec.added) CheckId(spec, "added token", added.id, 0);
  for (const PairPart& part : spec.pair) {
    if (part.kind == PairPart::Kind::kToken) CheckId(spec, "token of a pair", part.token, 0);
  }
  if (spec.add_bos && spec.bos < 0) {
    Throw(ErrorCode::kCorrupt, "{}: add_bos is set but there is no bos token", spec.source);
  }
  if (spec.kind == TokenizerKind::kWordPiece && spec.unk < 0) {
    Throw(ErrorCode::kCorrupt, "{}: unknown token: expected one, found none", spec.source);
  }
  if (spec.add_eos && spec.eos < 0) {
    Throw(ErrorCode::kCorrupt, "{}: add_eos is set but there is no eos token", spec.source);
  }
}

// Old files have no types: what can be told from ids and spellings is.
void InferTypes(TokenizerSpec* spec) {
  spec->types.assign(spec->tokens.size(), TokenType::kNormal);
  for (size_t i = 0; i < spec->tokens.size(); ++i) {
    if (IsSentencePiece(*spec) && ParseByteToken(spec->tokens[i]) >= 0) {
      spec->types[i] = TokenType::kByte;
    }
    if (LooksLikeControl(spec->tokens[i])) spec->types[i] = TokenType::kControl;
  }
  if (spec->unk >= 0) spec->types[static_cast<size_t>(spec->unk)] = TokenType::kUnknown;
}

}  // namespace

std::vector<int32_t> CheckAndComplete(TokenizerSpec* spec) {
  CheckSizes(*spec);
  CheckIds(*spec);
  if (spec->types.empty()) InferTypes(spec);
  if (IsSentencePiece(*spec) && spec->unk >= 0) {
    spec->types[static_cast<size_t>(spec->unk)] = TokenType::kUnknown;
  }
  std::vector<int32_t> eog = spec->extra_eog;
  for (const int32_t id : {spec->eos, spec->eot, spec->eom}) {
    if (id >= 0) eog.push_back(id);
  }
  size_t harmony = 0;
  int32_t end_mark = -1;
  for (size_t i = 0; i < spec->tokens.size(); ++i) {
    const std::string_view text = spec->tokens[i];
    TokenType& type = spec->types[i];
    if (type == TokenType::kUserDefined && LooksLikeControl(text)) type = TokenType::kControl;
    if (text.starts_with("[PAD") && text == fmt::format("[PAD{}]", i)) type = TokenType::kUnused;
    if (type != TokenType::kControl) continue;
    harmony += std::find(std::begin(kHarmony), std::end(kHarmony), text) != std::end(kHarmony);
    if (text == "<|end|>") end_mark = static_cast<int32_t>(i);
    if (std::find(std::begin(kEndOfGeneration), std::end(kEndOfGeneration), text) !=
        std::end(kEndOfGeneration)) {
      eog.push_back(static_cast<int32_t>(i));
    }
  }
  if (harmony == std::size(kHarmony)) std::erase(eog, end_mark);
  std::sort(eog.begin(), eog.end());
  eog.erase(std::unique(eog.begin(), eog.end()), eog.end());
  for (const int32_t id : eog) spec->types[static_cast<size_t>(id)] = TokenType::kControl;
  if (spec->bos >= 0) spec->types[static_cast<size_t>(spec->bos)] = TokenType::kControl;
  return eog;
}

void FillVocabulary(const TokenizerSpec& spec, Vocabulary* vocabulary) {
  std::fill(std::begin(vocabulary->byte_ids), std::end(vocabulary->byte_ids), -1);
  std::string bytes;
  for (size_t i = 0; i < spec.tokens.size(); ++i) {
    const std::string& text = spec.tokens[i];
    const auto id = static_cast<int32_t>(i);
    const TokenType type = spec.types[i];
    vocabulary->texts.Add(text);
    bytes.clear();
    if (type == TokenType::kByte) {
      const int byte = ParseByteToken(text);
      if (byte < 0) {
        Throw(ErrorCode::kCorrupt,
              "{}: tokens[{}] is a byte token: expected <0x00> to <0xFF>, found '{}'", spec.source,
              i, ToValidUtf8(text));
      }
      if (IsSentencePiece(spec) && vocabulary->byte_ids[byte] >= 0) {
        Throw(ErrorCode::kCorrupt, "{}: tokens[{}] '{}': token {} stands for the same byte",
              spec.source, i, ToValidUtf8(text), vocabulary->byte_ids[byte]);
      }
      bytes.push_back(static_cast<char>(byte));
      if (IsSentencePiece(spec)) vocabulary->byte_ids[byte] = id;
      vocabulary->has_byte_tokens = true;
    } else if (type == TokenType::kControl || type == TokenType::kUserDefined) {
      bytes = text;
    } else if (spec.kind == TokenizerKind::kGreedy) {
      bytes = text;
      if (type == TokenType::kNormal && bytes.size() == 1) {
        vocabulary->byte_ids[static_cast<uint8_t>(bytes[0])] = id;
      }
    } else if (spec.kind ==
               TokenizerKind::kWordPiece) {  // a word follows a space, a part of one does not
      bytes = text.starts_with("##") ? text.substr(2) : " " + text;
    } else if (!IsSentencePiece(spec)) {
      if (!ByteLevelToBytes(text, &bytes)) {
        bytes = text;
      } else if (bytes.size() == 1) {
        vocabulary->byte_ids[static_cast<uint8_t>(bytes[0])] = id;
      }
    }
    if (IsSentencePiece(spec) && type != TokenType::kByte && type != TokenType::kControl) {
      bytes.clear();
      for (size_t at = 0; at < text.size();) {
        const bool space = text.compare(at, kSpacePiece.size(), kSpacePiece) == 0;
        bytes.push_back(space ? ' ' : text[at]);
        at += space ? kSpacePiece.size() : 1;
      }
      if (type == TokenType::kUnknown && !spec.marked_words) {
        bytes = " \xE2\x81\x87 ";  // U+2047, as SentencePiece shows it
      }
    }
    vocabulary->bytes.Add(bytes);
  }
  vocabulary->by_text = StringIndex(&vocabulary->texts, spec.tokens.size());
  for (int32_t id = 0; id < vocabulary->texts.size(); ++id) {
    if (vocabulary->texts[id].empty()) continue;
    if (const int32_t first = vocabulary->by_text.Insert(id); first >= 0) {
      Throw(ErrorCode::kCorrupt, "{}: tokens[{}] '{}' repeats tokens[{}]", spec.source, id,
            ToValidUtf8(vocabulary->texts[id]), first);
    }
  }
}

}  // namespace bakestone
