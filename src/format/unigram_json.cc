// The grammar, as far as it is read:
//
//   "model": {"type": "Unigram", "vocab": [[piece, score], ...], "unk_id", "byte_fallback"}
//   "normalizer": Precompiled | Strip | Replace of a text or of " {2,}", and of "\A +" and
//                 "[ \u2581]+\z" by nothing | NFC | Prepend of U+2581, the last
//   "pre_tokenizer": WhitespaceSplit, then Metaspace
#include "format/unigram_json.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

namespace bakestone {
namespace {

using Json = nlohmann::json;
using Kind = NormalizerStep::Kind;

int Base64Value(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

std::vector<uint8_t> FromBase64(const JsonNode& step, const char* field) {
  std::string text = step.Text(field, "");
  if (text.empty() || text.size() % 4 != 0) {
    step.Fail(field, "base64", fmt::format("{} characters", text.size()));
  }
  for (int i = 0; i < 2 && text.ends_with('='); ++i) text.pop_back();
  std::vector<uint8_t> bytes;
  bytes.reserve(text.size() / 4 * 3 + 3);
  uint32_t bits = 0;
  int count = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const int value = Base64Value(text[i]);
    if (value < 0) step.Fail(field, "base64", fmt::format("another character at {}", i));
    bits = bits << 6 | static_cast<uint32_t>(value);
    count += 6;
    if (count < 8) continue;
    count -= 8;
    bytes.push_back(static_cast<uint8_t>(bits >> count));
  }
  return bytes;
}

NormalizerStep ReadReplace(const JsonNode& step) {
  const Json* value = step.Find("pattern");
  if (value == nullptr) step.Fail("pattern", "an object", Json());
  const JsonNode pattern(step.source(), step.where() + ".pattern", *value);
  const std::string regex = pattern.Text("Regex", ""), to = step.Text("content", "");
  if (regex == " {2,}") return {.kind = Kind::kReplaceSpaces, .from = {}, .to = to};
  if (to.empty() && regex == kLeadingSpaces)
    return {.kind = Kind::kDropLeading, .from = {}, .to = {}};
  if (to.empty() && regex == kTrailingSpaces)
    return {.kind = Kind::kDropTrailing, .from = {}, .to = {}};
  if (!regex.empty()) {
    pattern.Refuse("Regex", "two spaces or more, ' {2,}', or those at the ends by nothing", regex);
  }
  const std::string from = pattern.Text("String", "");
  if (from.empty()) pattern.Fail("String", "a text", *value);
  return {.kind = Kind::kReplace, .from = from, .to = to};
}

// prepended: by the normalizer, before each stretch of text.
void ReadMarks(const JsonNode& step, bool prepended, TokenizerSpec& spec) {
  if (const std::string mark = step.Text("replacement", std::string(kJsonSpaceMark));
      mark != kJsonSpaceMark) {
    step.Refuse("replacement", "U+2581", mark);
  }
  spec.split_marks = step.Bool("split", true);
  const std::string scheme =
      step.Text("prepend_scheme", step.Bool("add_prefix_space", true) ? "always" : "never");
  if (prepended && (scheme != "never" || spec.split_white_space)) {
    step.Refuse("prepend_scheme", "never where the normalizer prepends", scheme);
  }
  if (scheme == "always") {
    spec.space_prefix = SpacePrefix::kEveryUnspacedPiece;
  } else if (scheme == "first" && !spec.split_white_space) {
    spec.space_prefix = SpacePrefix::kFirst;
  } else if (scheme == "never") {
    if (prepended) spec.space_prefix = SpacePrefix::kEveryPiece;
  } else {
    step.Refuse("prepend_scheme",
                spec.split_white_space ? "always or never" : "first, always or never", scheme);
  }
}

}  // namespace

void ReadUnigramModel(const JsonNode& model, TokenizerSpec& spec) {
  spec.kind = TokenizerKind::kUnigram;
  spec.marked_words = true;
  spec.byte_fallback = model.Bool("byte_fallback", false);
  const Json* vocab = model.Find("vocab");
  if (vocab == nullptr || !vocab->is_array() || vocab->empty() ||
      vocab->size() >= static_cast<size_t>(kMaxJsonTokens)) {
    model.Fail("vocab", fmt::format("a list of fewer than {} pieces", kMaxJsonTokens),
               vocab != nullptr ? *vocab : Json());
  }
  for (const Json& piece : *vocab) {
    const bool fits =
        piece.is_array() && piece.size() == 2 && piece[0].is_string() && piece[1].is_number() &&
        std::fabs(piece[1].get<double>()) <= static_cast<double>(std::numeric_limits<float>::max());
    if (!fits) {
      model.Fail(fmt::format("vocab[{}]", spec.tokens.size()), "a piece and its score", piece);
    }
    const std::string& text = piece[0].get_ref<const std::string&>();
    const bool byte =
        spec.byte_fallback && text.size() == 6 && text.starts_with("<0x") && text.ends_with('>');
    spec.tokens.push_back(text);
    spec.scores.push_back(static_cast<float>(piece[1].get<double>()));
    spec.types.push_back(byte ? TokenType::kByte : TokenType::kNormal);
  }
  if (model.Find("unk_id") == nullptr) return;
  if (model.Id("unk_id") >= static_cast<int64_t>(spec.tokens.size())) {
    model.Fail("unk_id", fmt::format("an id below {}", spec.tokens.size()), *model.Find("unk_id"));
  }
  spec.unk = static_cast<int32_t>(model.Id("unk_id"));
}

void ReadUnigramText(const std::vector<JsonNode>& normalizers,
                     const std::vector<JsonNode>& pre_tokenizers, TokenizerSpec& spec) {
  spec.space_prefix = SpacePrefix::kNever;
  spec.split_user_defined = true;
  bool prepended = false;
  for (const JsonNode& step : normalizers) {
    const std::string type = step.type();
    if (prepended) {
      step.Refuse("type", "Prepend to be the last step", type);
    } else if (type == "Prepend" && step.Text("prepend", "") == kJsonSpaceMark) {
      prepended = true;
    } else if (type == "Precompiled" && spec.precompiled_charsmap.empty()) {
      spec.precompiled_charsmap = FromBase64(step, "precompiled_charsmap");
      spec.normalizer.push_back({.kind = Kind::kCharsmap, .from = {}, .to = {}});
    } else if (type == "Strip") {
      if (step.Bool("strip_left", true)) {
        spec.normalizer.push_back({.kind = Kind::kStripLeft, .from = {}, .to = {}});
      }
      if (step.Bool("strip_right", true)) {
        spec.normalizer.push_back({.kind = Kind::kStripRight, .from = {}, .to = {}});
      }
    } else if (type == "Replace") {
      spec.normalizer.push_back(ReadReplace(step));
    } else if (type == "NFC") {
      spec.normalizer.push_back({.kind = Kind::kNfc, .from = {}, .to = {}});
    } else {
      step.Refuse("type", "Precompiled (once), Strip, Replace, NFC or Prepend of U+2581", type);
    }
  }
  bool marked = false;
  for (const JsonNode& step : pre_tokenizers) {
    const std::string type = step.type();
    if (type == "WhitespaceSplit" && !marked) {
      spec.split_white_space = true;
    } else if (type == "Metaspace" && !marked) {
      ReadMarks(step, prepended, spec);
      marked = true;
    } else {
      step.Refuse("type", "WhitespaceSplit, then Metaspace", type);
    }
  }
  if (!marked) {
    Throw(
        ErrorCode::kUnsupported,
        "{}: field 'pre_tokenizer': expected Metaspace, by which spaces become U+2581, found none",
        spec.source);
  }
}

}  // namespace bakestone
