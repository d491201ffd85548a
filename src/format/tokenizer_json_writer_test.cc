// What is written as tokenizer.json gives the ids of SentencePiece, by
// tools/make_tokenizer_goldens.py and tools/make_hf_tokenizer_goldens.py. tools/check_export.py
// holds it against PyPI's tokenizers.
#include <gmock/gmock.h>

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/source_dir.h"
#include "format/gguf_tokenizer.h"
#include "format/sentencepiece_model.h"
#include "format/tokenizer_json.h"
#include "text/tokenizer_goldens.h"

namespace bakestone {
namespace {

const std::filesystem::path kWriterRoot = SourceDir();

TokenizerSpec Written(const TokenizerSpec& spec) {
  return FromTokenizerJson(ToTokenizerJson(spec), "written.json");
}

std::string WhyNotWritten(const TokenizerSpec& spec) {
  try {
    ToTokenizerJson(spec);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    return error.what();
  }
  return "no error";
}

class WrittenBpe : public ::testing::TestWithParam<const char*> {};

TEST_P(WrittenBpe, GivesTheIdsOfSentencePiece) {
  const std::string name = GetParam();
  const Tokenizer tokenizer(Written(goldens::Spec(kWriterRoot, name)));
  for (const std::string& line : goldens::Differences(kWriterRoot, name, tokenizer)) {
    ADD_FAILURE() << line;
  }
}

INSTANTIATE_TEST_SUITE_P(Names, WrittenBpe, ::testing::Values("spm_llama", "spm_gemma"),
                         [](const auto& info) { return std::string(info.param); });

const std::filesystem::path kHfGoldens = kWriterRoot / "tests/data/hf_tokenizer";

TokenizerSpec SpecOfModel(const char* name) {
  const std::string model = ReadFile(kHfGoldens / name);
  return FromSentencePieceModel({reinterpret_cast<const uint8_t*>(model.data()), model.size()},
                                "tokenizer.model");
}

// And what it decodes to, but for unknown tokens, which each shows as it spells them, and for marks
// in the text.
TEST(WrittenSentencePiece, GivesTheIdsOfSentencePiece) {
  constexpr size_t kStepOfGoldens = 8;
  const TokenizerSpec specs[] = {FromGguf(GgufFile::Open(kHfGoldens / "fairseq.gguf")),
                                 SpecOfModel("sp_unigram.model"), SpecOfModel("sp_bpe.model")};
  const char* names[] = {"fairseq.ids", "sp_unigram.ids", "sp_bpe.ids"};
  for (size_t which = 0; which < 3; ++which) {
    const Tokenizer before(specs[which]), tokenizer(Written(specs[which]));
    const std::vector<std::string> lines = goldens::Lines(kHfGoldens / names[which]);
    size_t index = 0;
    for (const goldens::Text& text : goldens::Corpus(kWriterRoot)) {
      if (!text.valid_utf8) continue;
      const auto ids = tokenizer.Encode(text.bytes, {.add_special = which == 0});
      EXPECT_EQ(before.Encode(text.bytes, {.add_special = which == 0}), ids) << text.bytes;
      const bool unknown = std::find(ids.begin(), ids.end(), specs[which].unk) != ids.end();
      if (!unknown && text.bytes.find("\xE2\x96\x81") == std::string::npos) {
        EXPECT_EQ(before.Decode(ids), tokenizer.Decode(ids)) << text.bytes;
      }
      if (index++ % kStepOfGoldens != 0) continue;
      const goldens::Expected expected(lines[(index - 1) / kStepOfGoldens]);
      EXPECT_EQ(expected.Render(ids), expected.text()) << text.bytes;
    }
    EXPECT_GT(index, 2000u);
  }
  const Tokenizer fairseq(Written(specs[0]));
  const auto pair = fairseq.EncodePair("a", "b").ids;
  EXPECT_EQ(pair, Tokenizer(specs[0]).EncodePair("a", "b").ids);
  EXPECT_EQ(std::count(pair.begin(), pair.end(), 2), 3);
}

TEST(ToTokenizerJson, RefusesWhatItCannotSay) {
  using ::testing::HasSubstr;
  EXPECT_THAT(WhyNotWritten(goldens::Spec(kWriterRoot, "unigram_nfkc")), HasSubstr("user-defined"));
  EXPECT_THAT(WhyNotWritten(goldens::Spec(kWriterRoot, "unigram_bytes")), HasSubstr("is a byte"));
  TokenizerSpec spec = goldens::Spec(kWriterRoot, "spm_llama");
  spec.types.back() = TokenType::kUserDefined;
  EXPECT_THAT(WhyNotWritten(spec), HasSubstr("follows a user-defined token"));
  spec.types.back() = TokenType::kNormal;
  spec.remove_extra_whitespaces = true;
  EXPECT_THAT(WhyNotWritten(spec), HasSubstr("drop spaces"));
}

// Of equal scores the leftmost pair is merged first: no order of merges says that.
TEST(ToTokenizerJson, WritesNoFileThatCutsOtherwise) {
  TokenizerSpec spec;
  spec.source = "m.gguf";
  spec.kind = TokenizerKind::kSentencePieceBpe;
  spec.tokens = {"<unk>", "a", "b", "c", "bc", "ab"};
  spec.scores = {0, 0, 0, 0, -1, -1};
  spec.types.assign(6, TokenType::kNormal);
  spec.unk = 0;
  EXPECT_THAT(WhyNotWritten(spec), ::testing::HasSubstr("how this tokenizer cuts"));
  spec.scores[5] = -0.5f;
  EXPECT_EQ(Tokenizer(Written(spec)).Encode("abc bcab"), Tokenizer(spec).Encode("abc bcab"));
}

}  // namespace
}  // namespace bakestone
