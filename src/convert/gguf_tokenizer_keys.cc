// gguf_tokenizer.cc (format/) reads what is written here.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/error.h"
#include "base/quote.h"
#include "convert/gguf_keys.h"
#include "format/rwkv_vocabulary.h"

namespace bakestone {
namespace {

// GGUF marks the first piece of a word with U+2581, and the others not at all.
std::string MarkedPiece(const std::string& token, TokenType type) {
  if (type != TokenType::kNormal || (token.starts_with("[") && token.ends_with("]"))) return token;
  return token.starts_with("##") ? token.substr(2) : "\xE2\x96\x81" + token;
}

// Of tokenizers whose first and last tokens are a classifier's.
void AddEncoderIds(const TokenizerSpec& spec, GgufWriter& writer) {
  const std::pair<const char*, int32_t> ids[] = {{"bos", spec.bos},     {"cls", spec.bos},
                                                 {"eos", spec.eos},     {"seperator", spec.eos},
                                                 {"unknown", spec.unk}, {"padding", spec.pad}};
  for (const auto& [name, id] : ids) {
    if (id < 0) continue;
    writer.AddU32(fmt::format("tokenizer.ggml.{}_token_id", name), static_cast<uint32_t>(id));
  }
  writer.AddBool("tokenizer.ggml.add_bos_token", spec.add_bos);
  writer.AddBool("tokenizer.ggml.add_eos_token", spec.add_eos);
}

void AddWordPieces(const TokenizerSpec& spec, const ModelConfig& config, const std::string& source,
                   GgufWriter& writer) {
  if (!spec.lowercase || !spec.strip_accents || !spec.space_around_han) {
    Throw(ErrorCode::kUnsupported,
          "{}: the tokenizer keeps upper case or accents, which GGUF has no key for: its readers "
          "would cut texts otherwise",
          source);
  }
  std::vector<std::string> tokens;
  std::vector<int32_t> types;
  for (size_t i = 0; i < spec.tokens.size(); ++i) {
    const TokenType type = i < spec.types.size() ? spec.types[i] : TokenType::kNormal;
    tokens.push_back(MarkedPiece(spec.tokens[i], type));
    types.push_back(static_cast<int32_t>(type));
  }
  while (static_cast<int64_t>(tokens.size()) < config.vocab_size) {
    tokens.push_back(fmt::format("[PAD{}]", tokens.size()));
    types.push_back(static_cast<int32_t>(TokenType::kUnused));
  }
  writer.AddString("tokenizer.ggml.model", "bert");
  writer.AddString("tokenizer.ggml.pre", "jina-v2-en");  // nothing of its own: as converters write
  writer.AddStrings("tokenizer.ggml.tokens", std::span<const std::string>(tokens));
  writer.AddI32s("tokenizer.ggml.token_type", types);
  AddEncoderIds(spec, writer);
}

// SentencePiece's rules, which GGUF has keys for, of a Unigram model in a tokenizer.json. Those are
// the same but for characters with marks on them, which SentencePiece's map takes one by one.
struct UnigramRules {
  bool squeezes = false;  // spaces at the ends, and all but one of several
  bool prefixes = false;
};
UnigramRules RulesOf(const TokenizerSpec& spec, const std::string& source) {
  UnigramRules rules = {.squeezes = spec.remove_extra_whitespaces || spec.split_white_space,
                        .prefixes = spec.space_prefix != SpacePrefix::kNever};
  bool known = spec.space_prefix != SpacePrefix::kFirst;
  for (const NormalizerStep& step : spec.normalizer) {
    using Kind = NormalizerStep::Kind;
    known = known && step.kind != Kind::kReplace && step.kind != Kind::kNfc;
    known = known && (step.kind != Kind::kCharsmap || &step == spec.normalizer.data());
    rules.squeezes = rules.squeezes || step.kind == Kind::kReplaceSpaces;
  }
  const bool spaces_count =
      spec.space_prefix == SpacePrefix::kEveryUnspacedPiece && !rules.squeezes;
  const bool split = spec.marked_words && std::find(spec.types.begin(), spec.types.end(),
                                                    TokenType::kUserDefined) != spec.types.end();
  if (!known || spaces_count || (split && rules.prefixes)) {
    Throw(ErrorCode::kUnsupported,
          "{}: expected a Unigram tokenizer by SentencePiece's rules (a map of characters, spaces "
          "dropped, a space before texts), found others, which GGUF has no keys for",
          source);
  }
  return rules;
}

void AddUnigram(const TokenizerSpec& spec, const ModelConfig& config, const std::string& source,
                GgufWriter& writer) {
  const UnigramRules rules = RulesOf(spec, source);
  std::vector<std::string> tokens = spec.tokens;
  std::vector<int32_t> types(tokens.size(), static_cast<int32_t>(TokenType::kNormal));
  std::vector<float> scores = spec.scores;
  for (size_t i = 0; i < spec.types.size(); ++i) types[i] = static_cast<int32_t>(spec.types[i]);
  if (spec.unk >= 0)
    types[static_cast<size_t>(spec.unk)] = static_cast<int32_t>(TokenType::kUnknown);
  const auto unused = [](size_t id) { return fmt::format("[PAD{}]", id); };
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i].empty()) tokens[i] = unused(i);
  }
  while (static_cast<int64_t>(tokens.size()) < config.vocab_size) {
    tokens.push_back(unused(tokens.size()));
    types.push_back(static_cast<int32_t>(TokenType::kUnused));
    scores.push_back(-1e4f);
  }
  writer.AddString("tokenizer.ggml.model", "t5");
  writer.AddString("tokenizer.ggml.pre", "default");
  writer.AddStrings("tokenizer.ggml.tokens", std::span<const std::string>(tokens));
  writer.AddF32s("tokenizer.ggml.scores", scores);
  writer.AddI32s("tokenizer.ggml.token_type", types);
  writer.AddBool("tokenizer.ggml.add_space_prefix", rules.prefixes);
  writer.AddBool("tokenizer.ggml.remove_extra_whitespaces", rules.squeezes);
  if (!spec.precompiled_charsmap.empty()) {
    writer.AddBytes("tokenizer.ggml.precompiled_charsmap", spec.precompiled_charsmap);
  }
  AddEncoderIds(spec, writer);
}

void AddRwkvTokens(const TokenizerSpec& spec, const ModelConfig& config, GgufWriter& writer) {
  std::vector<std::string> tokens;
  std::vector<int32_t> types;
  for (size_t i = 0; i < spec.tokens.size(); ++i) {
    const TokenType type = i < spec.types.size() ? spec.types[i] : TokenType::kNormal;
    const bool text = type == TokenType::kNormal;
    tokens.push_back(text ? EscapeRwkvToken(spec.tokens[i]) : spec.tokens[i]);
    types.push_back(static_cast<int32_t>(type));
  }
  while (static_cast<int64_t>(tokens.size()) < config.vocab_size) {
    tokens.push_back(fmt::format("[PAD{}]", tokens.size()));
    types.push_back(static_cast<int32_t>(TokenType::kUnused));
  }
  writer.AddString("tokenizer.ggml.model", "rwkv");
  writer.AddStrings("tokenizer.ggml.tokens", std::span<const std::string>(tokens));
  writer.AddI32s("tokenizer.ggml.token_type", types);
  const std::pair<const char*, int32_t> ids[] = {
      {"bos", spec.bos}, {"eos", spec.eos}, {"eot", spec.eot}};
  for (const auto& [name, id] : ids) {
    if (id < 0) continue;
    writer.AddU32(fmt::format("tokenizer.ggml.{}_token_id", name), static_cast<uint32_t>(id));
  }
}

}  // namespace

void AddTokenizerKeys(const TokenizerSpec& spec, const ModelConfig& config,
                      const std::string& source, GgufWriter& writer) {
  const int64_t rows = config.vocab_size;
  const bool by_merges = config.architecture == "gemma4" && !spec.merges.empty() &&
                         spec.space_prefix == SpacePrefix::kNever;
  const bool bytes = spec.kind == TokenizerKind::kByteBpe;
  if (bytes && !spec.pre_patterns.empty()) {
    Throw(ErrorCode::kUnsupported,
          "{}: the tokenizer cuts text by patterns that GGUF has no name for: {}", source,
          Quote(spec.pre_patterns.front()));
  }
  if (spec.kind == TokenizerKind::kWordPiece) return AddWordPieces(spec, config, source, writer);
  if (spec.kind == TokenizerKind::kGreedy) return AddRwkvTokens(spec, config, writer);
  if (spec.kind == TokenizerKind::kUnigram) return AddUnigram(spec, config, source, writer);
  std::vector<std::string> tokens = spec.tokens;
  std::vector<int32_t> types(spec.tokens.size(), static_cast<int32_t>(TokenType::kNormal));
  for (size_t i = 0; i < spec.types.size(); ++i) types[i] = static_cast<int32_t>(spec.types[i]);
  std::vector<float> scores = spec.scores;
  while (static_cast<int64_t>(tokens.size()) < rows) {
    tokens.push_back(fmt::format("[PAD{}]", tokens.size()));
    types.push_back(static_cast<int32_t>(TokenType::kUnused));
    if (!scores.empty()) scores.push_back(-1e4f);
  }
  for (size_t i = 0; i < spec.tokens.size(); ++i) {
    if (tokens[i].empty()) tokens[i] = fmt::format("[PAD{}]", i);  // an id that nothing names
  }
  writer.AddString("tokenizer.ggml.model", bytes ? "gpt2" : by_merges ? "gemma4" : "llama");
  if (bytes) writer.AddString("tokenizer.ggml.pre", spec.pre_tokenizer);
  writer.AddStrings("tokenizer.ggml.tokens", std::span<const std::string>(tokens));
  writer.AddI32s("tokenizer.ggml.token_type", types);
  if (!scores.empty()) writer.AddF32s("tokenizer.ggml.scores", scores);
  if (bytes || by_merges) {
    std::vector<std::string> merges;
    for (const auto& [left, right] : spec.merges) merges.push_back(left + " " + right);
    writer.AddStrings("tokenizer.ggml.merges", std::span<const std::string>(merges));
  }
  if (bytes) {
    writer.AddBool("tokenizer.ggml.add_space_prefix", spec.add_prefix_space);
  } else {
    writer.AddBool("tokenizer.ggml.add_space_prefix", spec.space_prefix != SpacePrefix::kNever);
    if (!spec.precompiled_charsmap.empty() || spec.remove_extra_whitespaces) {
      writer.AddBool("tokenizer.ggml.remove_extra_whitespaces", spec.remove_extra_whitespaces);
    }
  }
  const auto id = [&](const char* key, int32_t value) {
    if (value >= 0) {
      writer.AddU32(std::string("tokenizer.ggml.") + key, static_cast<uint32_t>(value));
    }
  };
  id("bos_token_id", spec.bos);
  id("eos_token_id", spec.eos);
  id("unknown_token_id", spec.unk);
  id("padding_token_id", spec.pad);
  int32_t eot = spec.eot;
  for (const int32_t end :
       spec.extra_eog) {  // GGUF has one more name for a token that ends an answer
    if (eot < 0 && end != spec.eos) eot = end;
  }
  id("eot_token_id", eot);
  id("eom_token_id", spec.eom);
  writer.AddBool("tokenizer.ggml.add_bos_token", spec.add_bos);
  writer.AddBool("tokenizer.ggml.add_eos_token", spec.add_eos);
}

}  // namespace bakestone
