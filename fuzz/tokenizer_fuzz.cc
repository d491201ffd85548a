// Tokenizers from hostile vocabularies, on hostile text. A constructor may refuse with
// bakestone::Error and nothing else. What it accepts must keep its promises on any text: ids in
// range, no control token from untrusted text, streaming equal to decoding, and bytes that come
// back.
#include <fuzzer/FuzzedDataProvider.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "text/text_model.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace {

using namespace bakestone;

std::string ByteLetter(int byte) {
  for (uint32_t codepoint = 0; codepoint < 400; ++codepoint) {
    std::string spelling, bytes;
    AppendUtf8(codepoint, &spelling);
    if (ByteLevelToBytes(spelling, &bytes) && bytes[0] == static_cast<char>(byte)) return spelling;
  }
  return "";
}

const std::vector<std::string>& ByteLetters() {
  static const auto letters = [] {
    std::vector<std::string> all;
    for (int byte = 0; byte < 256; ++byte) all.push_back(ByteLetter(byte));
    return all;
  }();
  return letters;
}

void AddBytes(TokenizerSpec* spec) {
  constexpr char kHex[] = "0123456789ABCDEF";
  const bool byte_level = spec->kind == TokenizerKind::kByteBpe;
  for (int byte = 0; byte < 256; ++byte) {
    const std::string name = std::string("<0x") + kHex[byte >> 4] + kHex[byte & 15] + ">";
    spec->tokens.push_back(byte_level ? ByteLetters()[static_cast<size_t>(byte)] : name);
    spec->types.push_back(byte_level ? TokenType::kNormal : TokenType::kByte);
    spec->scores.push_back(0);
  }
}

TokenizerSpec MakeSpec(FuzzedDataProvider* in) {
  TokenizerSpec spec;
  spec.kind = static_cast<TokenizerKind>(in->ConsumeIntegralInRange<int>(0, 3));
  const auto names = KnownPreTokenizers();
  spec.pre_tokenizer = names[in->ConsumeIntegralInRange<size_t>(0, names.size() - 1)];
  if (in->ConsumeBool()) AddBytes(&spec);
  for (int count = in->ConsumeIntegralInRange<int>(0, 24); count > 0; --count) {
    spec.tokens.push_back(in->ConsumeRandomLengthString(12));
    spec.types.push_back(static_cast<TokenType>(in->ConsumeIntegralInRange<int>(0, 7)));
    spec.scores.push_back(in->ConsumeFloatingPoint<float>());
  }
  for (int count = in->ConsumeIntegralInRange<int>(0, 12); count > 0; --count) {
    spec.merges.emplace_back(in->ConsumeRandomLengthString(6), in->ConsumeRandomLengthString(6));
  }
  for (int32_t* id : {&spec.bos, &spec.eos, &spec.unk}) {
    *id = in->ConsumeIntegralInRange<int>(-2, 300);
  }
  spec.add_bos = in->ConsumeBool();
  spec.add_eos = in->ConsumeBool();
  spec.ignore_merges = in->ConsumeBool();
  spec.nfc = in->ConsumeBool();
  spec.add_prefix_space = in->ConsumeBool();
  spec.space_prefix = static_cast<SpacePrefix>(in->ConsumeIntegralInRange(0, 4));
  spec.split_user_defined = in->ConsumeBool();
  spec.remove_extra_whitespaces = in->ConsumeBool();
  spec.byte_fallback = in->ConsumeBool();
  if (in->ConsumeBool()) {
    const std::string map = in->ConsumeRandomLengthString(256);
    spec.precompiled_charsmap.assign(map.begin(), map.end());
  }
  return spec;
}

void CheckText(const Tokenizer& tokenizer, const std::string& text, bool exact) {
  const auto plain = tokenizer.Encode(text, {.add_special = false});
  for (const int32_t id : plain) {
    BAKESTONE_CHECK(id >= 0 && id < tokenizer.vocab_size() && !tokenizer.IsControl(id));
  }
  if (exact) BAKESTONE_CHECK(tokenizer.DecodeBytes(plain) == text);
  const auto special = tokenizer.Encode(text, {.parse_special = true});
  for (const bool render : {false, true}) {
    const DecodeOptions options{.render_special = render};
    StreamDetokenizer stream(tokenizer, options);
    std::string streamed;
    for (const int32_t id : special) streamed += stream.Append(id);
    streamed += stream.Flush();
    BAKESTONE_CHECK(streamed == tokenizer.Decode(special, options));
    BAKESTONE_CHECK(streamed == ToValidUtf8(streamed));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzedDataProvider in(data, size);
  TokenizerSpec spec = MakeSpec(&in);
  const bool exact = spec.kind == TokenizerKind::kByteBpe && !spec.nfc && !spec.add_prefix_space;
  std::optional<Tokenizer> tokenizer;
  try {
    tokenizer.emplace(std::move(spec));
  } catch (const Error& error) {
    BAKESTONE_CHECK(error.code() != ErrorCode::kInternal);
    return 0;
  }
  CheckText(*tokenizer, in.ConsumeRemainingBytesAsString(), exact && tokenizer->EncodesAllBytes());
  return 0;
}
