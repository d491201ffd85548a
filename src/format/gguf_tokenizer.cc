#include "format/gguf_tokenizer.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "base/error.h"
#include "format/rwkv_vocabulary.h"
#include "text/pair_forms.h"

namespace bakestone {
namespace {

constexpr std::string_view kPrefix = "tokenizer.ggml.";

std::string Key(std::string_view name) { return std::string(kPrefix).append(name); }

int32_t OptionalId(const GgufFile& file, std::string_view name, int32_t fallback) {
  return file.GetI32(Key(name), fallback);
}

TokenizerKind KindOf(const GgufFile& file) {
  const std::string_view model = file.GetString(Key("model"));
  if (model == "gpt2") return TokenizerKind::kByteBpe;
  if (model == "llama" || model == "gemma4") return TokenizerKind::kSentencePieceBpe;
  if (model == "rwkv") return TokenizerKind::kGreedy;
  if (model == "t5") return TokenizerKind::kUnigram;
  if (model == "bert") return TokenizerKind::kWordPiece;
  Throw(ErrorCode::kUnsupported,
        "{}: tokenizer.ggml.model: expected gpt2 (byte-level BPE), llama (SentencePiece BPE), "
        "gemma4 (the same by "
        "merges), t5 (unigram), bert (word pieces) or rwkv (the longest token first), found '{}'",
        file.name(), model);
}

void ReadTokens(const GgufFile& file, TokenizerSpec* spec) {
  for (const std::string_view token : file.GetStrings(Key("tokens"))) {
    spec->tokens.emplace_back(token);
  }
  if (file.Has(Key("scores"))) spec->scores = file.GetF32s(Key("scores"));
  if (!file.Has(Key("token_type"))) return;
  for (const int32_t type : file.GetI32s(Key("token_type"))) {
    if (type < 1 || type > 6) {
      Throw(ErrorCode::kCorrupt, "{}: tokenizer.ggml.token_type[{}]: expected 1 to 6, found {}",
            file.name(), spec->types.size(), type);
    }
    spec->types.push_back(static_cast<TokenType>(type));
  }
}

// "left right": the parts of a byte-level merge hold no space; the first one is never empty.
void ReadMerges(const GgufFile& file, TokenizerSpec* spec) {
  for (const std::string_view merge : file.GetStrings(Key("merges"))) {
    const size_t space = merge.find(' ', 1);
    if (merge.empty() || space == std::string_view::npos || space + 1 == merge.size()) {
      Throw(ErrorCode::kCorrupt,
            "{}: tokenizer.ggml.merges[{}]: expected two parts with a space between, found '{}'",
            file.name(), spec->merges.size(), merge);
    }
    spec->merges.emplace_back(merge.substr(0, space), merge.substr(space + 1));
  }
}

void ReadCharsmap(const GgufFile& file, TokenizerSpec* spec) {
  const GgufValue* map = file.Find(Key("precompiled_charsmap"));
  if (!map) return;
  if (map->type != GgufType::kArray ||
      (map->element != GgufType::kUint8 && map->element != GgufType::kInt8)) {
    Throw(ErrorCode::kCorrupt,
          "{}: tokenizer.ggml.precompiled_charsmap: expected an array of bytes, found {}",
          file.name(), GgufTypeName(map->type == GgufType::kArray ? map->element : map->type));
  }
  spec->precompiled_charsmap.assign(map->bytes.begin(), map->bytes.end());
}

void ReadByteBpe(const GgufFile& file, TokenizerSpec* spec) {
  ReadMerges(file, spec);
  if (!file.Has(Key("pre"))) {
    Throw(
        ErrorCode::kUnsupported,
        "{}: tokenizer.ggml.pre is absent: how text is cut into words cannot be told; convert the "
        "model again with a current converter",
        file.name());
  }
  spec->pre_tokenizer = file.GetString(Key("pre"));
  const std::string& pre = spec->pre_tokenizer;
  const bool llama3 = pre == "llama-bpe" || pre == "llama3";
  spec->ignore_merges = llama3 || pre == "tekken";
  spec->nfc = pre == "qwen2" || pre == "modern-bert";
  spec->add_bos = spec->ignore_merges;
  spec->add_prefix_space = file.GetBool(Key("add_space_prefix"), false);
}

// As the tokenizer.json of the model: BPE by its merges over characters, spaces as U+2581.
void ReadMarkedMerges(const GgufFile& file, TokenizerSpec* spec) {
  ReadMerges(file, spec);
  spec->scores.resize(spec->tokens.size());
  spec->space_prefix = SpacePrefix::kNever;
  spec->strips_space = false;
  spec->split_user_defined = true;
  spec->add_bos = true;
  // A tool's answer would follow: the model has ended its own.
  const auto answer = std::find(spec->tokens.begin(), spec->tokens.end(), "<|tool_response>");
  if (answer != spec->tokens.end()) {
    spec->extra_eog.push_back(static_cast<int32_t>(answer - spec->tokens.begin()));
  }
}

// A word's first piece is marked there with U+2581, the others not at all.
void ReadWordPieces(TokenizerSpec* spec) {
  constexpr std::string_view kMark = "\xE2\x96\x81";
  for (size_t i = 0; i < spec->tokens.size(); ++i) {
    std::string& token = spec->tokens[i];
    const TokenType type = i < spec->types.size() ? spec->types[i] : TokenType::kNormal;
    if (token.starts_with(kMark)) {
      token.erase(0, kMark.size());
    } else if (type == TokenType::kNormal && !(token.starts_with("[") && token.ends_with("]"))) {
      token.insert(0, "##");
    }
  }
  spec->scores.clear();
  spec->add_bos = spec->add_eos = true;
}

// What encoders put around a text, which may have other names there.
void UseEndsOfEncoders(const GgufFile& file, std::array<int32_t, 4>& bos_eos_unk_pad) {
  bos_eos_unk_pad[0] = OptionalId(file, "cls_token_id", bos_eos_unk_pad[0]);
  bos_eos_unk_pad[1] = OptionalId(file, "seperator_token_id", bos_eos_unk_pad[1]);
}

}  // namespace

TokenizerSpec FromGguf(const GgufFile& file) {
  TokenizerSpec spec;
  spec.source = file.name();
  spec.kind = KindOf(file);
  ReadTokens(file, &spec);
  // The ids that SentencePiece's trainer gives by default, for files that state none.
  std::array<int32_t, 4> bos_eos_unk_pad = {-1, -1, -1, -1};
  if (spec.kind == TokenizerKind::kByteBpe) {
    ReadByteBpe(file, &spec);
    if (file.GetString("general.architecture", "").ends_with("bert")) {
      UseEndsOfEncoders(file, bos_eos_unk_pad);
    }
  } else if (spec.kind == TokenizerKind::kGreedy) {
    for (size_t id = 0; id < spec.tokens.size(); ++id) {
      const bool normal =
          spec.types.empty() || (id < spec.types.size() && spec.types[id] == TokenType::kNormal);
      if (normal) spec.tokens[id] = UnescapeRwkvToken(spec.tokens[id]);
    }
    spec.scores.clear();
    spec.space_prefix = SpacePrefix::kNever;
    spec.strips_space = false;
    bos_eos_unk_pad = {0, 0, -1, -1};
  } else if (file.GetString(Key("model")) == "gemma4") {
    ReadMarkedMerges(file, &spec);
  } else if (spec.kind == TokenizerKind::kWordPiece) {
    ReadWordPieces(&spec);
    bos_eos_unk_pad = {101, 102, 100, 0};
    UseEndsOfEncoders(file, bos_eos_unk_pad);
  } else {
    const bool unigram = spec.kind == TokenizerKind::kUnigram;
    bos_eos_unk_pad = unigram ? std::array{-1, 1, 2, 0} : std::array{1, 2, 0, -1};
    spec.add_bos = !unigram;
    spec.add_eos = unigram;
    spec.space_prefix = file.GetBool(Key("add_space_prefix"), true) ? SpacePrefix::kAfterSpecial
                                                                    : SpacePrefix::kNever;
    spec.remove_extra_whitespaces = file.GetBool(Key("remove_extra_whitespaces"), false);
    ReadCharsmap(file, &spec);
  }
  spec.bos = OptionalId(file, "bos_token_id", bos_eos_unk_pad[0]);
  spec.eos = OptionalId(file, "eos_token_id", bos_eos_unk_pad[1]);
  spec.unk = OptionalId(file, "unknown_token_id", bos_eos_unk_pad[2]);
  spec.pad = OptionalId(file, "padding_token_id", bos_eos_unk_pad[3]);
  spec.eot = OptionalId(file, "eot_token_id", -1);
  spec.eom = OptionalId(file, "eom_token_id", -1);
  spec.add_bos = file.GetBool(Key("add_bos_token"), spec.add_bos && spec.bos >= 0);
  spec.add_eos = file.GetBool(Key("add_eos_token"), spec.add_eos && spec.eos >= 0);
  const std::string_view architecture = file.GetString("general.architecture", "");
  if (architecture.ends_with("bert") && spec.add_bos && spec.add_eos) {
    const auto mask = std::find(spec.tokens.begin(), spec.tokens.end(), "<mask>");
    if (spec.kind == TokenizerKind::kUnigram && mask != spec.tokens.end()) {  // as XLM-R has it
      const auto id = static_cast<int32_t>(mask - spec.tokens.begin());
      spec.added.push_back({.id = id, .lstrip = true});
    }
    const bool one = spec.kind == TokenizerKind::kWordPiece || architecture == "modern-bert";
    spec.pair = one ? PairOfBert(spec.bos, spec.eos) : PairOfRoberta(spec.bos, spec.eos);
  }
  return spec;
}

}  // namespace bakestone
