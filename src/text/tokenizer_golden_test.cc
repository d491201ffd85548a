// Our ids against those of PyPI's tokenizers and sentencepiece, for small vocabularies that were
// trained for this; src/format/gguf_tokenizer_test.cc does the same for a real model's vocabulary.
#include <gmock/gmock.h>

#include "base/source_dir.h"
#include "text/tokenizer_goldens.h"
#include "text/utf8.h"

namespace bakestone {
namespace {

const std::filesystem::path kRoot = SourceDir();

class Goldens : public testing::TestWithParam<const char*> {
 protected:
  Tokenizer tokenizer_{goldens::Spec(kRoot, GetParam())};
};

TEST_P(Goldens, IdsEqualTheReference) {
  EXPECT_THAT(goldens::Differences(kRoot, GetParam(), tokenizer_), testing::IsEmpty());
}

TEST_P(Goldens, ByteLevelTextRoundTripsEvenIfItIsNotUtf8) {
  const bool byte_level = tokenizer_.kind() == TokenizerKind::kByteBpe;
  const TokenizerSpec spec = goldens::Spec(kRoot, GetParam());
  if (spec.nfc || !byte_level) return;  // what NFC and SentencePiece change is in the ids' goldens
  EXPECT_TRUE(tokenizer_.EncodesAllBytes());
  for (const auto& text : goldens::Corpus(kRoot)) {
    const auto ids = tokenizer_.Encode(text.bytes, {.add_special = false});
    EXPECT_EQ(tokenizer_.DecodeBytes(ids), text.bytes);
    EXPECT_EQ(tokenizer_.Decode(ids), ToValidUtf8(text.bytes));
    const auto special =
        tokenizer_.Encode(text.bytes, {.add_special = false, .parse_special = true});
    EXPECT_EQ(tokenizer_.DecodeBytes(special, {.render_special = true}), text.bytes);
  }
}

TEST_P(Goldens, SentencePieceTextWithByteTokensRoundTrips) {
  const TokenizerSpec spec = goldens::Spec(kRoot, GetParam());
  if (spec.kind == TokenizerKind::kByteBpe || !spec.byte_fallback) return;
  for (const auto& text : goldens::Corpus(kRoot)) {
    if (!text.valid_utf8 || text.bytes.find("\xE2\x96\x81") != std::string::npos) continue;
    EXPECT_EQ(tokenizer_.Decode(tokenizer_.Encode(text.bytes)), text.bytes);
  }
}

TEST_P(Goldens, StreamEqualsWholeAndIsAlwaysUtf8) {
  for (const auto& text : goldens::Corpus(kRoot)) {
    for (const bool render : {false, true}) {
      const DecodeOptions options{.render_special = render};
      const auto ids = tokenizer_.Encode(text.bytes, {.parse_special = true});
      StreamDetokenizer stream(tokenizer_, options);
      std::string streamed;
      for (const int32_t id : ids) {
        const std::string part = stream.Append(id);
        EXPECT_EQ(part, ToValidUtf8(part));
        streamed += part;
      }
      streamed += stream.Flush();
      EXPECT_EQ(streamed, tokenizer_.Decode(ids, options)) << text.bytes;
    }
  }
}

TEST_P(Goldens, AnyCutIntoSegmentsGivesTheSameIds) {
  size_t cut = 0;
  for (const auto& text : goldens::Corpus(kRoot)) {
    cut = text.bytes.empty() ? 0 : (cut * 31 + 7) % text.bytes.size();
    const std::string_view bytes = text.bytes;
    const TextSegment segments[] = {{bytes.substr(0, cut)}, {""}, {bytes.substr(cut)}};
    EXPECT_EQ(tokenizer_.Encode(segments, true), tokenizer_.Encode(bytes));
  }
}

INSTANTIATE_TEST_SUITE_P(Vocabularies, Goldens,
                         testing::Values("gpt2", "llama3", "qwen2", "gpt4o", "spm_llama",
                                         "spm_gemma", "unigram_nfkc", "unigram_bytes"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace bakestone
