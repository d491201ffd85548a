#include "format/gguf_tokenizer.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "base/error.h"
#include "format/gguf.h"

namespace bakestone {
namespace {

constexpr const char* kModel = "tokenizer.ggml.model";
constexpr const char* kTokens = "tokenizer.ggml.tokens";
constexpr const char* kScores = "tokenizer.ggml.scores";
constexpr const char* kTypes = "tokenizer.ggml.token_type";
constexpr const char* kMerges = "tokenizer.ggml.merges";
constexpr const char* kCharsmap = "tokenizer.ggml.precompiled_charsmap";

struct Kind {
  std::string_view name;
  TokenizerKind kind;
  bool add_bos, add_eos;  // where the file does not say
};
constexpr std::array<Kind, 3> kKinds = {{
    {"gpt2", TokenizerKind::kByteBpe, false, false},
    {"llama", TokenizerKind::kSentencePieceBpe, true, false},
    {"t5", TokenizerKind::kUnigram, false, true},
}};

// What a pre-tokenizer's name implies beyond the splitting; GGUF has no keys for it.
bool IsLlama3(std::string_view pre) {
  return pre == "llama3" || pre == "llama-v3" || pre == "llama-bpe" || pre == "falcon3";
}
bool IsQwen(std::string_view pre) {
  return pre == "qwen2" || pre == "deepseek-r1-qwen";
}

void CheckLength(const GgufFile& file, const char* key, size_t found, size_t expected) {
  if (found == expected) return;
  Throw(ErrorCode::kCorrupt, "{}: {}: expected {} elements (one for each token), found {}",
        file.name(), key, expected, found);
}

void ReadTypes(const GgufFile& file, TokenizerSpec& spec) {
  if (!file.Has(kTypes)) return;
  const std::vector<int32_t> types = file.GetI32s(kTypes);
  CheckLength(file, kTypes, types.size(), spec.tokens.size());
  spec.types.reserve(types.size());
  for (size_t i = 0; i < types.size(); ++i) {
    // 0 is "undefined": some converters leave it on padding tokens.
    const int32_t type = types[i] == 0 ? static_cast<int32_t>(TokenType::kUnused) : types[i];
    if (type < 1 || type > 6) {
      Throw(ErrorCode::kCorrupt, "{}: {}[{}]: expected a number from 0 to 6, found {}", file.name(),
            kTypes, i, type);
    }
    spec.types.push_back(static_cast<TokenType>(type));
  }
}

// "left right", where a symbol may itself begin with a space.
void ReadMerges(const GgufFile& file, TokenizerSpec& spec) {
  const std::vector<std::string_view> merges = file.GetStrings(kMerges);
  spec.merges.reserve(merges.size());
  for (size_t i = 0; i < merges.size(); ++i) {
    const size_t space = merges[i].find(' ', 1);
    if (space == std::string_view::npos || space + 1 == merges[i].size()) {
      Throw(ErrorCode::kCorrupt, "{}: {}[{}]: expected two symbols and a space between, found '{}'",
            file.name(), kMerges, i, merges[i]);
    }
    spec.merges.emplace_back(merges[i].substr(0, space), merges[i].substr(space + 1));
  }
}

// The file's id of a special token, or -1. Converters write 2^32 - 1 for "none".
int32_t ReadId(const GgufFile& file, const char* key) {
  if (!file.Has(key)) return -1;
  const int64_t id = file.GetI64(key);
  if (id < 0 || id == UINT32_MAX) return -1;
  if (id > INT32_MAX) {
    Throw(ErrorCode::kCorrupt, "{}: {}: expected a token id, found {}", file.name(), key, id);
  }
  return static_cast<int32_t>(id);
}

const Kind& ReadKind(const GgufFile& file) {
  const std::string_view model = file.GetString(kModel);
  const auto* kind = std::find_if(kKinds.begin(), kKinds.end(),
                                  [&](const Kind& known) { return known.name == model; });
  if (kind == kKinds.end()) {
    Throw(ErrorCode::kUnsupported, "{}: {}: expected gpt2, llama or t5, found '{}'", file.name(),
          kModel, model);
  }
  return *kind;
}

}  // namespace

TokenizerSpec ReadTokenizerSpec(const GgufFile& file) {
  const Kind& kind = ReadKind(file);
  TokenizerSpec spec;
  spec.source = file.name();
  spec.kind = kind.kind;
  for (const std::string_view token : file.GetStrings(kTokens)) spec.tokens.emplace_back(token);
  ReadTypes(file, spec);
  if (kind.kind == TokenizerKind::kByteBpe) {
    spec.pre_tokenizer = file.GetString("tokenizer.ggml.pre", "gpt-2");
    spec.ignore_merges = IsLlama3(spec.pre_tokenizer);
    spec.nfc = IsQwen(spec.pre_tokenizer);
    ReadMerges(file, spec);
  } else {
    spec.scores = file.GetF32s(kScores);
    CheckLength(file, kScores, spec.scores.size(), spec.tokens.size());
    spec.add_space_prefix = file.GetBool("tokenizer.ggml.add_space_prefix", true);
    spec.remove_extra_whitespaces = file.GetBool("tokenizer.ggml.remove_extra_whitespaces", false);
    if (const GgufValue* map = file.Find(kCharsmap)) {
      if (map->type != GgufType::kArray || map->bytes.size() != map->count) {
        Throw(ErrorCode::kCorrupt, "{}: {}: expected an array of bytes, found {}", file.name(),
              kCharsmap, GgufTypeName(map->type));
      }
      spec.precompiled_charsmap.assign(map->bytes.begin(), map->bytes.end());
    }
  }
  spec.bos = ReadId(file, "tokenizer.ggml.bos_token_id");
  spec.eos = ReadId(file, "tokenizer.ggml.eos_token_id");
  spec.eot = ReadId(file, "tokenizer.ggml.eot_token_id");
  spec.eom = ReadId(file, "tokenizer.ggml.eom_token_id");
  spec.unk = ReadId(file, "tokenizer.ggml.unknown_token_id");
  spec.pad = ReadId(file, "tokenizer.ggml.padding_token_id");
  const bool add_bos = kind.add_bos || IsLlama3(spec.pre_tokenizer);
  spec.add_bos = file.GetBool("tokenizer.ggml.add_bos_token", add_bos) && spec.bos >= 0;
  spec.add_eos = file.GetBool("tokenizer.ggml.add_eos_token", kind.add_eos) && spec.eos >= 0;
  return spec;
}

}  // namespace bakestone
