// tokenizer_json.cc opens with the grammar of the file.
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/quote.h"
#include "format/tokenizer_json.h"
#include "format/tokenizer_json_parts.h"
#include "text/pair_forms.h"

namespace bakestone {
namespace {

using OrderedJson = nlohmann::ordered_json;

OrderedJson PreTokenizer(const TokenizerSpec& spec) {
  std::vector<std::string> patterns = spec.pre_patterns;
  if (patterns.empty()) patterns = PatternsOfPreTokenizer(spec.pre_tokenizer);
  if (patterns.empty()) {
    Throw(ErrorCode::kUnsupported,
          "{}: expected a pre-tokenizer whose patterns are known (gpt-2, smollm, llama-bpe, "
          "qwen2), found {}",
          spec.source, Quote(spec.pre_tokenizer));
  }
  OrderedJson steps = OrderedJson::array();
  for (const std::string& pattern : patterns) {
    steps.push_back({{"type", "Split"},
                     {"pattern", {{"Regex", pattern}}},
                     {"behavior", "Isolated"},
                     {"invert", false}});
  }
  steps.push_back({{"type", "ByteLevel"},
                   {"add_prefix_space", false},
                   {"trim_offsets", true},
                   {"use_regex", false}});
  return {{"type", "Sequence"}, {"pretokenizers", steps}};
}

OrderedJson PostProcessor(const TokenizerSpec& spec) {
  if (!spec.add_bos || spec.bos < 0) {
    return {{"type", "ByteLevel"},
            {"add_prefix_space", true},
            {"trim_offsets", false},
            {"use_regex", true}};
  }
  const std::string& bos = spec.tokens.at(static_cast<size_t>(spec.bos));
  const OrderedJson first = {{"SpecialToken", {{"id", bos}, {"type_id", 0}}}};
  const auto text = [](const char* id, int type) {
    return OrderedJson{{"Sequence", {{"id", id}, {"type_id", type}}}};
  };
  return {{"type", "TemplateProcessing"},
          {"single", OrderedJson::array({first, text("A", 0)})},
          {"pair", OrderedJson::array({first, text("A", 0), text("B", 1)})},
          {"special_tokens",
           {{bos,
             {{"id", bos},
              {"ids", OrderedJson::array({spec.bos})},
              {"tokens", OrderedJson::array({bos})}}}}}};
}

}  // namespace

OrderedJson AddedTokensJson(const TokenizerSpec& spec) {
  OrderedJson added = OrderedJson::array();
  for (size_t i = 0; i < spec.tokens.size(); ++i) {
    const TokenType type = spec.types.empty() ? TokenType::kNormal : spec.types[i];
    if (type != TokenType::kControl && type != TokenType::kUserDefined) continue;
    AddedTokenFlags flags;
    for (const AddedTokenFlags& one : spec.added) {
      if (one.id == static_cast<int32_t>(i)) flags = one;
    }
    added.push_back({{"id", i},
                     {"content", spec.tokens[i]},
                     {"single_word", flags.single_word},
                     {"lstrip", flags.lstrip},
                     {"rstrip", flags.rstrip},
                     {"normalized", flags.normalized},
                     {"special", type == TokenType::kControl}});
  }
  return added;
}

OrderedJson VocabularyJson(const TokenizerSpec& spec) {
  OrderedJson vocab = OrderedJson::object();
  for (size_t i = 0; i < spec.tokens.size(); ++i) {
    if (spec.types.empty() || spec.types[i] != TokenType::kUnused) vocab[spec.tokens[i]] = i;
  }
  return vocab;
}

// Each part is a token or a text, with the type of its rows.
OrderedJson TemplateJson(const TokenizerSpec& spec) {
  OrderedJson named = OrderedJson::object();
  const auto token = [&](int32_t id, int type) {
    const std::string& text = spec.tokens.at(static_cast<size_t>(id));
    named[text] = {
        {"id", text}, {"ids", OrderedJson::array({id})}, {"tokens", OrderedJson::array({text})}};
    return OrderedJson{{"SpecialToken", {{"id", text}, {"type_id", type}}}};
  };
  const auto text = [](const char* id, int type) {
    return OrderedJson{{"Sequence", {{"id", id}, {"type_id", type}}}};
  };
  const auto around = [&](OrderedJson& parts, const char* id, int type) {
    if (spec.add_bos) parts.push_back(token(spec.bos, type));
    parts.push_back(text(id, type));
    if (spec.add_eos) parts.push_back(token(spec.eos, type));
  };
  OrderedJson single = OrderedJson::array(), pair = OrderedJson::array();
  around(single, "A", 0);
  for (const PairPart& part : spec.pair) {
    const bool first = part.kind == PairPart::Kind::kFirst;
    pair.push_back(part.kind == PairPart::Kind::kToken ? token(part.token, part.type)
                                                       : text(first ? "A" : "B", part.type));
  }
  if (spec.pair.empty()) {
    around(pair, "A", 0);
    around(pair, "B", 1);
  }
  return {{"type", "TemplateProcessing"},
          {"single", single},
          {"pair", pair},
          {"special_tokens", named}};
}

std::string DumpedJson(const OrderedJson& json, const TokenizerSpec& spec) {
  try {
    return json.dump(1);
  } catch (const nlohmann::json::exception&) {
    Throw(ErrorCode::kUnsupported, "{}: expected tokens in UTF-8", spec.source);
  }
}

namespace {

// [CLS] text [SEP], whatever the file says of them, or two texts with a [SEP] after each.
TokenizerSpec WithEndsOfBert(TokenizerSpec spec) {
  spec.add_bos = spec.add_eos = true;
  spec.pair = PairOfBert(spec.bos, spec.eos);
  return spec;
}

std::string WordPieces(const TokenizerSpec& spec) {
  const auto count = static_cast<int32_t>(spec.tokens.size());
  for (const int32_t id : {spec.bos, spec.eos, spec.unk}) {
    if (id >= 0 && id < count) continue;
    Throw(ErrorCode::kCorrupt, "{}: expected ids of [CLS], [SEP] and [UNK] below {}, found {}",
          spec.source, count, id);
  }
  return DumpedJson({{"version", "1.0"},
                     {"truncation", nullptr},
                     {"padding", nullptr},
                     {"added_tokens", AddedTokensJson(spec)},
                     {"normalizer",
                      {{"type", "BertNormalizer"},
                       {"clean_text", true},
                       {"handle_chinese_chars", spec.space_around_han},
                       {"strip_accents", spec.strip_accents},
                       {"lowercase", spec.lowercase}}},
                     {"pre_tokenizer", {{"type", "BertPreTokenizer"}}},
                     {"post_processor", TemplateJson(WithEndsOfBert(spec))},
                     {"decoder", {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}}},
                     {"model",
                      {{"type", "WordPiece"},
                       {"unk_token", spec.tokens[static_cast<size_t>(spec.unk)]},
                       {"continuing_subword_prefix", "##"},
                       {"max_input_chars_per_word", 100},
                       {"vocab", VocabularyJson(spec)}}}},
                    spec);
}

}  // namespace

std::string ToTokenizerJson(const TokenizerSpec& spec) {
  if (spec.kind == TokenizerKind::kWordPiece) return WordPieces(spec);
  if (spec.kind == TokenizerKind::kSentencePieceBpe || spec.kind == TokenizerKind::kUnigram) {
    return SentencePieceToJson(spec);
  }
  if (spec.kind != TokenizerKind::kByteBpe || spec.add_prefix_space) {
    Throw(ErrorCode::kUnsupported,
          "{}: expected word pieces, SentencePiece's kinds or a byte-level BPE tokenizer without a "
          "space before texts; no other is written as tokenizer.json",
          spec.source);
  }
  OrderedJson merges = OrderedJson::array();
  for (const auto& [left, right] : spec.merges) merges.push_back(OrderedJson::array({left, right}));
  const OrderedJson model = {{"type", "BPE"},
                             {"dropout", nullptr},
                             {"unk_token", nullptr},
                             {"continuing_subword_prefix", nullptr},
                             {"end_of_word_suffix", nullptr},
                             {"fuse_unk", false},
                             {"byte_fallback", false},
                             {"ignore_merges", spec.ignore_merges},
                             {"vocab", VocabularyJson(spec)},
                             {"merges", merges}};
  const OrderedJson json = {{"version", "1.0"},
                            {"truncation", nullptr},
                            {"padding", nullptr},
                            {"added_tokens", AddedTokensJson(spec)},
                            {"normalizer", spec.nfc ? OrderedJson{{"type", "NFC"}} : OrderedJson()},
                            {"pre_tokenizer", PreTokenizer(spec)},
                            {"post_processor", PostProcessor(spec)},
                            {"decoder",
                             {{"type", "ByteLevel"},
                              {"add_prefix_space", true},
                              {"trim_offsets", true},
                              {"use_regex", true}}},
                            {"model", model}};
  return DumpedJson(json, spec);
}

}  // namespace bakestone
