// The grammar, as far as it is read (a Sequence nests steps of its kind):
//
//   { "added_tokens": [{"id", "content", "single_word", "lstrip", "rstrip", "normalized",
//     "special"}], "normalizer": NFC | Replace " " by "▁" | Prepend "▁",
//     "pre_tokenizer": Split | Digits | Punctuation | ByteLevel | Metaspace,
//     "post_processor": TemplateProcessing | BertProcessing | RobertaProcessing | ByteLevel,
//     "decoder": ByteLevel | Replace | ByteFallback | Fuse | Strip | Metaspace,
//     "model": {"type": "BPE", "vocab": {token: id}, "merges": ["a b"] or [["a", "b"]],
//               "unk_token", "byte_fallback", "ignore_merges"} }
//
// Models of the types WordPiece (here) and Unigram (unigram_json.cc) have normalizers and
// pre-tokenizers of their own.
#include "format/tokenizer_json.h"

#include <algorithm>
#include <array>
#include <map>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json_depth.h"
#include "base/quote.h"
#include "format/json_node.h"
#include "format/unigram_json.h"
#include "text/pair_forms.h"

namespace bakestone {
namespace {

using Json = nlohmann::json;

using Node = JsonNode;

constexpr std::string_view kSpaceMark = kJsonSpaceMark;
constexpr int64_t kMaxTokens = kMaxJsonTokens;

constexpr const char* kGpt2Pattern =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
constexpr const char* kLlama3Pattern =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr const char* kQwen2Pattern =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
// Characters that `tokenizers` calls punctuation.
constexpr const char* kPunctuation = "[\\p{P}!-/:-@\\[-`{-~]";

struct KnownPatterns {
  const char* name;
  std::vector<std::string> patterns;
};

std::array<KnownPatterns, 4> AllKnownPatterns() {
  return {{{"gpt-2", {kGpt2Pattern}},
           {"smollm", {"\\p{N}", kGpt2Pattern}},
           {"llama-bpe", {kLlama3Pattern}},
           {"qwen2", {kQwen2Pattern}}}};
}

class TokenizerJsonReader {
 public:
  TokenizerJsonReader(const Json& json, std::string source)
      : source_(std::move(source)), root_(source_, "", json) {}

  TokenizerSpec Read() {
    spec_.source = source_;
    const Json* model = root_.Find("model");
    if (model == nullptr) {
      Throw(ErrorCode::kCorrupt, "{}: field 'model': expected an object, found none", source_);
    }
    const Node bpe(source_, "model", *model);
    if (bpe.type() == "WordPiece") return ReadWordPiece(bpe);
    if (bpe.type() == "Unigram") return ReadUnigram(bpe);
    if (bpe.type() != "BPE" && !(bpe.type().empty() && bpe.Find("merges") != nullptr)) {
      bpe.Refuse("type", "BPE, WordPiece or Unigram", bpe.type());
    }
    const std::vector<Node> normalizers = Steps("normalizer", "normalizers");
    const std::vector<Node> pre_tokenizers = Steps("pre_tokenizer", "pretokenizers");
    spec_.kind =
        IsByteLevel(pre_tokenizers) ? TokenizerKind::kByteBpe : TokenizerKind::kSentencePieceBpe;
    ReadVocabulary(bpe);
    ReadAddedTokens();
    ReadMerges(bpe);
    if (spec_.kind == TokenizerKind::kByteBpe) {
      ReadByteLevel(normalizers, pre_tokenizers);
    } else {
      ReadSpaceMarks(bpe, normalizers, pre_tokenizers);
    }
    ReadPostProcessor();
    return std::move(spec_);
  }

 private:
  // ---- Unigram ----

  TokenizerSpec ReadUnigram(const Node& model) {
    ReadUnigramModel(model, spec_);
    model_size_ = spec_.tokens.size();
    const Json* added = root_.Find("added_tokens");
    max_tokens_ = 2 * (model_size_ + (added != nullptr ? added->size() : 0)) + 4096;
    ReadAddedTokens();
    spec_.scores.resize(spec_.tokens.size(), 0);
    ReadUnigramText(Steps("normalizer", "normalizers"), Steps("pre_tokenizer", "pretokenizers"),
                    spec_);
    for (AddedTokenFlags& flags : spec_.added) flags.normalized = false;
    ReadSpaceDecoder();
    ReadPostProcessor();
    return std::move(spec_);
  }

  // ---- Word pieces ----

  TokenizerSpec ReadWordPiece(const Node& model) {
    spec_.kind = TokenizerKind::kWordPiece;
    if (const std::string prefix = model.Text("continuing_subword_prefix", "##"); prefix != "##") {
      model.Refuse("continuing_subword_prefix", "##", prefix);
    }
    if (model.Find("max_input_chars_per_word") != nullptr &&
        model.Id("max_input_chars_per_word") != 100) {
      model.Refuse("max_input_chars_per_word", "100", "another number");
    }
    ReadVocabulary(model, true);
    ReadAddedTokens();
    const std::string unknown = model.Text("unk_token", "[UNK]");
    const auto found = std::find(spec_.tokens.begin(), spec_.tokens.end(), unknown);
    if (found == spec_.tokens.end()) model.Fail("unk_token", "a token of the vocabulary", unknown);
    spec_.unk = static_cast<int32_t>(found - spec_.tokens.begin());
    spec_.lowercase = spec_.strip_accents = spec_.space_around_han = false;
    for (const Node& step : Steps("normalizer", "normalizers")) {
      if (step.type() != "BertNormalizer") step.Refuse("type", "BertNormalizer", step.type());
      if (!step.Bool("clean_text", true)) step.Refuse("clean_text", "true", "false");
      spec_.lowercase = step.Bool("lowercase", true);
      spec_.strip_accents = step.Bool("strip_accents", spec_.lowercase);
      spec_.space_around_han = step.Bool("handle_chinese_chars", true);
    }
    for (const Node& step : Steps("pre_tokenizer", "pretokenizers")) {
      if (step.type() != "BertPreTokenizer") step.Refuse("type", "BertPreTokenizer", step.type());
    }
    ReadPostProcessor();
    return std::move(spec_);
  }

  std::vector<Node> Steps(const char* field, const char* nested) const {
    return StepsOf(root_, field, nested);
  }

  bool IsByteLevel(const std::vector<Node>& pre_tokenizers) const {
    const auto is = [](const Node& node) { return node.type() == "ByteLevel"; };
    if (std::any_of(pre_tokenizers.begin(), pre_tokenizers.end(), is)) return true;
    const std::vector<Node> decoders = Steps("decoder", "decoders");
    return std::any_of(decoders.begin(), decoders.end(), is);
  }

  void ReadVocabulary(const Node& bpe, bool affixed = false) {
    for (const char* field : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      if (affixed) continue;
      if (const std::string affix = bpe.Text(field, ""); !affix.empty()) {
        bpe.Refuse(field, "none", affix);
      }
    }
    if (const Json* dropout = bpe.Find("dropout"); dropout != nullptr && *dropout != 0.0) {
      bpe.Refuse("dropout", "none", dropout->dump());
    }
    const Json* vocab = bpe.Find("vocab");
    if (vocab == nullptr || !vocab->is_object() || vocab->empty()) {
      bpe.Fail("vocab", "an object of token ids", vocab ? *vocab : Json());
    }
    const Json* added = root_.Find("added_tokens");
    max_tokens_ = 2 * (vocab->size() + (added != nullptr ? added->size() : 0)) + 4096;
    for (const auto& [token, id] : vocab->items()) {
      if (!id.is_number_unsigned() || id.get<uint64_t>() >= static_cast<uint64_t>(kMaxTokens)) {
        bpe.Fail(fmt::format("vocab[{}]", Quote(token)),
                 fmt::format("a number below {}", kMaxTokens), id);
      }
      SetToken(id.get<int64_t>(), token, TokenType::kNormal);
    }
    model_size_ = spec_.tokens.size();
    spec_.ignore_merges = bpe.Bool("ignore_merges", false);
  }

  // Ids that nothing names keep an empty text; a lone large one must not cost its size in memory.
  void SetToken(int64_t id, const std::string& text, TokenType type) {
    const auto at = static_cast<size_t>(id);
    if (at >= max_tokens_) {
      Throw(ErrorCode::kCorrupt, "{}: token {}: expected an id below {}, found {}", source_,
            Quote(text), max_tokens_, id);
    }
    if (at >= spec_.tokens.size()) {
      spec_.tokens.resize(at + 1);
      spec_.types.resize(at + 1, TokenType::kUnused);
    } else if (!spec_.tokens[at].empty() && spec_.tokens[at] != text) {
      Throw(ErrorCode::kCorrupt, "{}: token {}: expected one text, found {} and {}", source_, id,
            Quote(spec_.tokens[at]), Quote(text));
    }
    spec_.tokens[at] = text;
    spec_.types[at] = type;
  }

  void ReadAddedTokens() {
    const Json* list = root_.Find("added_tokens");
    if (list == nullptr) return;
    if (!list->is_array()) root_.Fail("added_tokens", "a list", *list);
    for (size_t i = 0; i < list->size(); ++i) {
      const Node token(source_, fmt::format("added_tokens[{}]", i), (*list)[i]);
      const bool special = token.Bool("special", false);
      const int64_t id = token.Id("id");
      const std::string text = token.Text("content", "");
      if (text.empty()) token.Fail("content", "a text", "");
      SetToken(id, text, special ? TokenType::kControl : TokenType::kUserDefined);
      const AddedTokenFlags flags = {.id = static_cast<int32_t>(id),
                                     .lstrip = token.Bool("lstrip", false),
                                     .rstrip = token.Bool("rstrip", false),
                                     .single_word = token.Bool("single_word", false),
                                     .normalized = !special && token.Bool("normalized", !special)};
      spec_.added.push_back(flags);
    }
  }

  void ReadMerges(const Node& bpe) {
    const Json* merges = bpe.Find("merges");
    if (merges == nullptr || !merges->is_array()) {
      bpe.Fail("merges", "a list", merges ? *merges : Json());
    }
    spec_.merges.reserve(merges->size());
    for (size_t i = 0; i < merges->size(); ++i) {
      const Json& merge = (*merges)[i];
      if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
        spec_.merges.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
        continue;
      }
      const std::string text = merge.is_string() ? merge.get<std::string>() : "";
      const size_t space = text.find(' ', 1);
      if (text.empty() || space == std::string::npos || space + 1 == text.size()) {
        bpe.Fail(fmt::format("merges[{}]", i), "two parts with a space between", merge);
      }
      spec_.merges.emplace_back(text.substr(0, space), text.substr(space + 1));
    }
  }

  // ---- Byte-level BPE ----

  void ReadByteLevel(const std::vector<Node>& normalizers,
                     const std::vector<Node>& pre_tokenizers) {
    for (const Node& step : normalizers) {
      if (step.type() != "NFC") step.Refuse("type", "NFC", step.type());
      spec_.nfc = true;
    }
    std::vector<std::string> patterns;
    bool bytes = false;
    for (const Node& step : pre_tokenizers) {
      if (bytes) step.Refuse("type", "ByteLevel to be the last step", step.type());
      if (step.type() == "ByteLevel") {
        bytes = true;
        if (step.Bool("use_regex", true)) patterns.push_back(kGpt2Pattern);
        spec_.add_prefix_space = step.Bool("add_prefix_space", false);
        if (spec_.add_prefix_space && pre_tokenizers.size() > 1) {
          step.Refuse("add_prefix_space", "false after other steps", "true");
        }
      } else {
        patterns.push_back(PatternOf(step));
      }
    }
    NamePatterns(std::move(patterns));
  }

  std::string PatternOf(const Node& step) const {
    const std::string type = step.type();
    if (type == "Digits") return step.Bool("individual_digits", false) ? "\\p{N}" : "\\p{N}+";
    if (type == "Punctuation") {
      const std::string behavior = step.Text("behavior", "Isolated");
      if (behavior == "Isolated") return kPunctuation;
      if (behavior == "Contiguous") return std::string(kPunctuation) + "+";
      step.Refuse("behavior", "Isolated or Contiguous", behavior);
    }
    if (type != "Split") step.Refuse("type", "Split, Digits, Punctuation or ByteLevel", type);
    const Json* value = step.Find("pattern");
    if (value == nullptr) step.Fail("pattern", "an object", Json());
    const Node pattern(source_, step.where() + ".pattern", *value);
    std::string regex = pattern.Text("Regex", "");
    if (regex.empty()) {
      const std::string text = pattern.Text("String", "");
      if (text.empty() || text.find("\\E") != std::string::npos) {
        pattern.Fail("", "Regex or String", *value);
      }
      regex = "\\Q" + text + "\\E";
    }
    const std::string behavior = step.Text("behavior", "Isolated");
    const bool invert = step.Bool("invert", false);
    // Removing what the pattern does not match is the same where it matches everything.
    const bool same = behavior == "Isolated" || (behavior == "Removed" && invert);
    if (!same) step.Refuse("behavior", "Isolated", behavior);
    return regex;
  }

  // The common patterns have scanners of their own, which are faster.
  void NamePatterns(std::vector<std::string> patterns) {
    for (const KnownPatterns& one : AllKnownPatterns()) {
      if (patterns != one.patterns) continue;
      spec_.pre_tokenizer = one.name;
      return;
    }
    if (patterns.empty()) patterns.push_back("(?s).+");  // one word
    spec_.pre_patterns = std::move(patterns);
  }

  // ---- BPE over characters, spaces as U+2581 ----

  void ReadSpaceMarks(const Node& bpe, const std::vector<Node>& normalizers,
                      const std::vector<Node>& pre_tokenizers) {
    spec_.byte_fallback = bpe.Bool("byte_fallback", false);
    spec_.space_prefix = SpacePrefix::kNever;
    spec_.split_user_defined = true;
    bool marked = false;
    for (const Node& step : normalizers) {
      if (step.type() == "Prepend" && step.Text("prepend", "") == kSpaceMark) {
        spec_.space_prefix = SpacePrefix::kEveryPiece;
      } else if (step.type() == "Replace" && IsSpaceToMark(step)) {
        marked = true;
      } else {
        step.Refuse("type", "Prepend or Replace with U+2581", step.type());
      }
    }
    for (const Node& step : pre_tokenizers) {
      if (step.type() == "Metaspace") {
        ReadMetaspace(step);
        marked = true;
      } else if (!(step.type() == "Split" && marked && SplitsAtSpaces(step))) {
        step.Refuse("type", "Metaspace", step.type());
      }
    }
    if (!marked) {
      Throw(ErrorCode::kUnsupported,
            "{}: expected a normalizer or pre-tokenizer for bytes or U+2581, found neither",
            source_);
    }
    ReadSpaceDecoder();
    // What is matched after normalization finds spaces marked there, but not where that step or a
    // later one puts a mark before each piece of text.
    const bool by_normalizer = !normalizers.empty() && spec_.space_prefix == SpacePrefix::kNever;
    for (AddedTokenFlags& flags : spec_.added) flags.normalized &= by_normalizer;
    const std::string unknown = bpe.Text("unk_token", "");
    for (size_t i = 0; i < spec_.tokens.size(); ++i) {
      if (!unknown.empty() && spec_.tokens[i] == unknown) spec_.unk = static_cast<int32_t>(i);
      if (spec_.byte_fallback && i < model_size_ && IsByteToken(spec_.tokens[i])) {
        spec_.types[i] = TokenType::kByte;
      }
    }
    SetScores();
  }

  static bool IsByteToken(std::string_view text) {
    const auto hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F'); };
    return text.size() == 6 && text.starts_with("<0x") && text[5] == '>' && hex(text[3]) &&
           hex(text[4]);
  }

  // After marking there is no space left to split at.
  static bool SplitsAtSpaces(const Node& step) {
    const Json* pattern = step.Find("pattern");
    return pattern != nullptr && *pattern == Json{{"String", " "}};
  }

  static bool IsSpaceToMark(const Node& step) {
    const Json* pattern = step.Find("pattern");
    return pattern != nullptr && *pattern == Json{{"String", " "}} &&
           step.Text("content", "") == kSpaceMark;
  }

  void ReadMetaspace(const Node& step) {
    if (const std::string mark = step.Text("replacement", std::string(kSpaceMark));
        mark != kSpaceMark) {
      step.Refuse("replacement", "U+2581", mark);
    }
    if (step.Bool("split", true)) step.Refuse("split", "false", "true");
    const std::string scheme =
        step.Text("prepend_scheme", step.Bool("add_prefix_space", true) ? "always" : "never");
    if (scheme == "first") {
      spec_.space_prefix = SpacePrefix::kFirst;
    } else if (scheme == "always") {
      spec_.space_prefix = SpacePrefix::kEveryUnspacedPiece;
    } else if (scheme != "never") {
      step.Refuse("prepend_scheme", "first, always or never", scheme);
    }
  }

  // Whether the space that was put first is taken away again.
  void ReadSpaceDecoder() {
    spec_.strips_space = false;
    for (const Node& step : Steps("decoder", "decoders")) {
      const std::string type = step.type();
      if (type == "Strip") {
        const Json *start = step.Find("start"), *stop = step.Find("stop");
        const bool one = step.Text("content", " ") == " " && start != nullptr && *start == 1 &&
                         (stop == nullptr || *stop == 0);
        if (!one) step.Refuse("", "one leading space", "another rule");
        spec_.strips_space = true;
      } else if (type == "Metaspace") {
        spec_.strips_space =
            step.Text("prepend_scheme", step.Bool("add_prefix_space", true) ? "always" : "never") !=
            "never";
      } else if (type != "Replace" && type != "ByteFallback" && type != "Fuse") {
        step.Refuse("type", "Replace, ByteFallback, Fuse, Strip or Metaspace", type);
      }
    }
  }

  // What SentencePiece would have scored the pieces for these merges: for those who write other
  // formats.
  void SetScores() {
    const auto lowest = -static_cast<float>(spec_.merges.size() + 1);
    spec_.scores.assign(spec_.tokens.size(), lowest);
    std::map<std::string_view, size_t> ids;
    for (size_t i = 0; i < model_size_; ++i) ids.emplace(spec_.tokens[i], i);
    for (size_t rank = spec_.merges.size(); rank-- > 0;) {
      const auto found = ids.find(spec_.merges[rank].first + spec_.merges[rank].second);
      if (found != ids.end()) spec_.scores[found->second] = -static_cast<float>(rank + 1);
    }
  }

  // ---- What is put around a text ----

  void ReadPostProcessor() {
    for (const Node& step : Steps("post_processor", "processors")) {
      const std::string type = step.type();
      if (type == "TemplateProcessing") {
        ReadTemplate(step);
        ReadPair(step);
      } else if (type == "BertProcessing" || type == "RobertaProcessing") {
        spec_.bos = PairId(step, "cls");
        spec_.eos = PairId(step, "sep");
        spec_.add_bos = spec_.add_eos = true;
        spec_.pair = type == "BertProcessing" ? PairOfBert(spec_.bos, spec_.eos)
                                              : PairOfRoberta(spec_.bos, spec_.eos);
      } else if (type != "ByteLevel") {
        step.Refuse("type", "TemplateProcessing, BertProcessing, RobertaProcessing or ByteLevel",
                    type);
      }
    }
  }

  int32_t PairId(const Node& step, const char* field) const {
    const Json* pair = step.Find(field);
    const bool fits = pair != nullptr && pair->is_array() && pair->size() == 2 &&
                      (*pair)[1].is_number_unsigned() &&
                      (*pair)[1].get<uint64_t>() < spec_.tokens.size();
    if (!fits) step.Fail(field, "a token and its id", pair ? *pair : Json());
    return (*pair)[1].get<int32_t>();
  }

  // {"single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}]}: at most one token on
  // each side.
  void ReadTemplate(const Node& step) {
    const Json* single = step.Find("single");
    if (single == nullptr || !single->is_array()) {
      step.Fail("single", "a list", single ? *single : Json());
    }
    bool after = false;
    for (size_t i = 0; i < single->size(); ++i) {
      const Node part(source_, fmt::format("{}.single[{}]", step.where(), i), (*single)[i]);
      if (part.Find("Sequence") != nullptr) {
        if (after) part.Refuse("", "the text once", "twice");
        after = true;
        continue;
      }
      const Json* token = part.Find("SpecialToken");
      if (token == nullptr) part.Fail("", "SpecialToken or Sequence", (*single)[i]);
      const std::string text = Node(source_, part.where(), *token).Text("id", "");
      const auto found = std::find(spec_.tokens.begin(), spec_.tokens.end(), text);
      if (text.empty() || found == spec_.tokens.end()) {
        part.Fail("SpecialToken.id", "a token", *token);
      }
      bool& adds = after ? spec_.add_eos : spec_.add_bos;
      if (adds) part.Refuse("", "one token on each side of the text", text);
      adds = true;
      (after ? spec_.eos : spec_.bos) = static_cast<int32_t>(found - spec_.tokens.begin());
    }
  }

  // {"pair": [..., {"Sequence": {"id": "B", "type_id": 1}}, ...]}
  void ReadPair(const Node& step) {
    const Json* pair = step.Find("pair");
    if (pair == nullptr) return;
    if (!pair->is_array()) step.Fail("pair", "a list", *pair);
    for (size_t i = 0; i < pair->size(); ++i) {
      const Node part(source_, fmt::format("{}.pair[{}]", step.where(), i), (*pair)[i]);
      const bool is_text = part.Find("Sequence") != nullptr;
      const Json* what = part.Find(is_text ? "Sequence" : "SpecialToken");
      if (what == nullptr) part.Fail("", "SpecialToken or Sequence", (*pair)[i]);
      const Node piece(source_, part.where(), *what);
      const std::string id = piece.Text("id", "");
      const int64_t type = piece.Find("type_id") != nullptr ? piece.Id("type_id") : 0;
      if (type > 1) piece.Refuse("type_id", "0 or 1", std::to_string(type));
      PairPart read{.type = static_cast<uint8_t>(type)};
      if (is_text) {
        if (id != "A" && id != "B") piece.Fail("id", "A or B", id);
        read.kind = id == "A" ? PairPart::Kind::kFirst : PairPart::Kind::kSecond;
      } else {
        const auto found = std::find(spec_.tokens.begin(), spec_.tokens.end(), id);
        if (id.empty() || found == spec_.tokens.end()) {
          part.Fail("SpecialToken.id", "a token", *what);
        }
        read.token = static_cast<int32_t>(found - spec_.tokens.begin());
      }
      spec_.pair.push_back(read);
    }
  }

  std::string source_;
  Node root_;
  TokenizerSpec spec_;
  size_t model_size_ = 0, max_tokens_ = 0;
};

}  // namespace

TokenizerSpec FromTokenizerJson(std::string_view json, std::string source) {
  CheckJsonLevels(json, source);
  const Json parsed = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_object()) {
    Throw(ErrorCode::kCorrupt, "{}: expected a JSON object, found {}", source,
          parsed.is_discarded() ? "text that is no JSON" : parsed.type_name());
  }
  return TokenizerJsonReader(parsed, std::move(source)).Read();
}

std::vector<std::string> PatternsOfPreTokenizer(std::string_view name) {
  for (const KnownPatterns& one : AllKnownPatterns()) {
    if (name == one.name) return one.patterns;
  }
  return {};
}

}  // namespace bakestone
