#include "format/hf_tokenizer.h"

#include <algorithm>
#include <charconv>
#include <map>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json_depth.h"
#include "base/quote.h"
#include "format/hf_folder.h"
#include "format/rwkv_vocabulary.h"
#include "format/sentencepiece_model.h"
#include "format/tokenizer_json.h"
#include "text/pair_forms.h"

namespace bakestone {
namespace {

using Json = nlohmann::json;

constexpr const char* kConfigFile = "tokenizer_config.json";
constexpr const char* kFairseqModel = "sentencepiece.bpe.model";

std::string PathOf(const HfFolder& folder, const char* file) {
  return (folder.path() / file).string();
}

// A token that a config names, as a string or as {"content": ...}; empty where it names none.
std::string NamedToken(const Json* value) {
  if (value == nullptr) return "";
  if (value->is_string()) return value->get<std::string>();
  if (!value->is_object()) return "";
  const auto content = value->find("content");
  return content != value->end() && content->is_string() ? content->get<std::string>() : "";
}

// tokenizer_config.json, then special_tokens_map.json.
std::string NamedToken(const HfFolder& folder, const char* field) {
  std::string token = NamedToken(folder.Field(kConfigFile, field));
  return token.empty() ? NamedToken(folder.Field("special_tokens_map.json", field)) : token;
}

int32_t FindToken(const TokenizerSpec& spec, const std::string& text) {
  if (text.empty()) return -1;
  const auto found = std::find(spec.tokens.begin(), spec.tokens.end(), text);
  return found == spec.tokens.end() ? -1 : static_cast<int32_t>(found - spec.tokens.begin());
}

// The token that a config names, where the vocabulary has it.
void SetNamed(const HfFolder& folder, const char* field, const TokenizerSpec& spec, int32_t& id) {
  if (const int32_t found = FindToken(spec, NamedToken(folder, field)); found >= 0) id = found;
}

// tokenizer_config.json's added_tokens_decoder, {"32000": {"content", "special", ...}}: what a
// SentencePiece model does not hold.
void AddDecoderTokens(const HfFolder& folder, TokenizerSpec& spec) {
  const Json* added = folder.Field(kConfigFile, "added_tokens_decoder");
  if (added == nullptr || !added->is_object()) return;
  const auto fail = [&](const std::string& key) {
    Throw(ErrorCode::kCorrupt, "{}: added_tokens_decoder[{}]: expected a token and its id",
          PathOf(folder, kConfigFile), Quote(key));
  };
  std::map<int64_t, const Json*> by_id;
  for (const auto& [key, token] : added->items()) {
    int64_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc{} || end != key.data() + key.size() || id < 0 || !token.is_object()) {
      fail(key);
    }
    by_id[id] = &token;
  }
  for (const auto& [id, token] : by_id) {
    const std::string text = NamedToken(token);
    if (text.empty() || id > static_cast<int64_t>(spec.tokens.size()) + 4096) {
      fail(fmt::to_string(id));
    }
    const auto at = static_cast<size_t>(id);
    if (at >= spec.tokens.size()) {
      spec.tokens.resize(at + 1);
      spec.scores.resize(at + 1, 0);
      spec.types.resize(at + 1, TokenType::kUnused);
    }
    const auto flag = [&, token = token](const char* name) {
      return token->value(name, Json(false)) == true;
    };
    if (spec.types[at] != TokenType::kUnknown) {
      spec.types[at] = flag("special") ? TokenType::kControl : TokenType::kUserDefined;
    }
    spec.tokens[at] = text;
    spec.added.push_back({.id = static_cast<int32_t>(id),
                          .lstrip = flag("lstrip"),
                          .rstrip = flag("rstrip"),
                          .single_word = flag("single_word")});
  }
}

// XLM-R's ids are fairseq's: four tokens of its own, then the model's pieces but the first three
// (<unk>, <s>, </s>), then <mask>.
void UseFairseqIds(TokenizerSpec& spec) {
  const auto has = [&](size_t id, const char* text) {
    return id < spec.tokens.size() && spec.tokens[id] == text;
  };
  if (spec.kind != TokenizerKind::kUnigram || !has(0, "<unk>") || !has(1, "<s>") ||
      !has(2, "</s>")) {
    Throw(ErrorCode::kUnsupported,
          "{}: expected a unigram model whose first pieces are <unk>, <s> and </s>, as XLM-R's are",
          spec.source);
  }
  const auto shift = [](auto& list, auto first, auto last) {
    list.erase(list.begin(), list.begin() + 3);
    list.insert(list.begin(), first.begin(), first.end());
    list.push_back(last);
  };
  shift(spec.tokens, std::vector<std::string>{"<s>", "<pad>", "</s>", "<unk>"}, "<mask>");
  shift(spec.scores, std::vector<float>(4), 0.0f);
  const TokenType control = TokenType::kControl;
  shift(spec.types, std::vector<TokenType>{control, control, control, TokenType::kUnknown},
        control);
  spec.added.push_back({.id = static_cast<int32_t>(spec.tokens.size()) - 1, .lstrip = true});
  spec.bos = 0;
  spec.pad = 1;
  spec.eos = 2;
  spec.unk = 3;
  spec.add_bos = spec.add_eos = true;
  spec.pair = PairOfRoberta(spec.bos, spec.eos);
}

TokenizerSpec ReadModel(const HfFolder& folder) {
  if (const auto json = folder.Text("tokenizer.json")) {
    return FromTokenizerJson(*json, PathOf(folder, "tokenizer.json"));
  }
  if (const auto model = folder.Text("tokenizer.model")) {
    TokenizerSpec spec =
        FromSentencePieceModel({reinterpret_cast<const uint8_t*>(model->data()), model->size()},
                               PathOf(folder, "tokenizer.model"));
    AddDecoderTokens(folder, spec);
    return spec;
  }
  const Json* type = folder.Config("model_type");
  if (type != nullptr && *type == "xlm-roberta") {
    if (const auto model = folder.Text(kFairseqModel)) {
      TokenizerSpec spec =
          FromSentencePieceModel({reinterpret_cast<const uint8_t*>(model->data()), model->size()},
                                 PathOf(folder, kFairseqModel));
      UseFairseqIds(spec);
      return spec;
    }
  }
  if (const auto vocabulary = folder.Text(kRwkvVocabularyFile)) {
    return FromRwkvVocabulary(*vocabulary, PathOf(folder, kRwkvVocabularyFile));
  }
  Throw(ErrorCode::kNotFound,
        "{}: expected tokenizer.json, tokenizer.model or {}, found none of them", folder.name(),
        kRwkvVocabularyFile);
}

// generation_config.json's, or the model's own.
std::vector<int32_t> EndTokens(const HfFolder& folder, const TokenizerSpec& spec) {
  const Json* ends = folder.Field("generation_config.json", "eos_token_id");
  if (ends == nullptr) ends = folder.Config("eos_token_id");
  std::vector<int32_t> ids;
  const auto add = [&](const Json& id) {
    // One beyond the vocabulary is no token that could be drawn.
    if (id.is_number_unsigned() && id.get<uint64_t>() < spec.tokens.size()) {
      ids.push_back(id.get<int32_t>());
    }
  };
  if (ends != nullptr && ends->is_array()) {
    for (const Json& id : *ends) add(id);
  } else if (ends != nullptr) {
    add(*ends);
  }
  return ids;
}

std::optional<std::string> TemplateOf(const Json* value) {
  if (value == nullptr) return std::nullopt;
  if (value->is_string()) return value->get<std::string>();
  if (!value->is_array()) return std::nullopt;
  for (const Json& one : *value) {  // [{"name": "default", "template": ...}]
    if (!one.is_object() || one.value("name", Json()) != "default") continue;
    const auto text = one.find("template");
    if (text != one.end() && text->is_string()) return text->get<std::string>();
  }
  return std::nullopt;
}

}  // namespace

TokenizerSpec FromHfFolder(const HfFolder& folder) {
  TokenizerSpec spec = ReadModel(folder);
  // Where the config says it, it is said for both, and what the tokenizer's own post-processor does
  // is dropped.
  const Json *add_bos = folder.Field(kConfigFile, "add_bos_token"),
             *add_eos = folder.Field(kConfigFile, "add_eos_token");
  const bool explicit_ends = add_bos != nullptr || add_eos != nullptr;
  if (explicit_ends || spec.bos < 0 || !spec.add_bos) SetNamed(folder, "bos_token", spec, spec.bos);
  if (explicit_ends || spec.eos < 0 || !spec.add_eos) SetNamed(folder, "eos_token", spec, spec.eos);
  SetNamed(folder, "unk_token", spec, spec.unk);
  SetNamed(folder, "pad_token", spec, spec.pad);
  if (explicit_ends) {
    spec.add_bos = add_bos != nullptr && *add_bos == true && spec.bos >= 0;
    spec.add_eos = add_eos != nullptr && *add_eos == true && spec.eos >= 0;
  }
  spec.extra_eog = EndTokens(folder, spec);
  return spec;
}

std::optional<std::string> HfChatTemplate(const HfFolder& folder) {
  if (auto text = folder.Text("chat_template.jinja", 16 << 20)) return text;
  if (const auto text = folder.Text("chat_template.json", 16 << 20)) {
    CheckJsonLevels(*text, "chat_template.json");
    const Json json = Json::parse(*text, nullptr, /*allow_exceptions=*/false);
    if (json.is_object() && json.contains("chat_template")) {
      return TemplateOf(&json["chat_template"]);
    }
  }
  return TemplateOf(folder.Field(kConfigFile, "chat_template"));
}

}  // namespace bakestone
