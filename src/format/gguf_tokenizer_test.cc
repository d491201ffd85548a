// The tokenizer of a real model's GGUF against PyPI's tokenizers, and hostile metadata.
#include "format/gguf_tokenizer.h"

#include <gmock/gmock.h>

#include <cstdlib>

#include "base/file.h"
#include "base/sha256.h"
#include "base/source_dir.h"
#include "format/gguf_writer.h"
#include "format/tokenizer_json.h"
#include "text/tokenizer_goldens.h"

namespace bakestone {
namespace {

const std::filesystem::path kRoot = SourceDir();

TEST(GgufTokenizer, RealVocabularyEqualsTheReference) {
  const char* path = std::getenv("BAKESTONE_TEST_MODEL");
  if (!path || !*path) {
    GTEST_SKIP() << "BAKESTONE_TEST_MODEL is not set: expected the path of SmolLM2-135M-Instruct's "
                    "GGUF (./test sets it)";
  }
  const Tokenizer tokenizer(FromGguf(GgufFile::Open(path)));
  EXPECT_EQ(tokenizer.vocab_size(), 49152);
  EXPECT_EQ(tokenizer.pre_tokenizer(), "smollm");
  Sha256 hash;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    hash.Update(id ? "\n" : "").Update(tokenizer.TokenText(id));
  }
  ASSERT_EQ(ToHex(hash.Finish()), goldens::Lines(goldens::Folder(kRoot) / "smollm2.sha256").at(0))
      << path << " has another vocabulary than the goldens were made with";
  EXPECT_THAT(goldens::Differences(kRoot, "smollm2", tokenizer), testing::IsEmpty());

  EXPECT_EQ(tokenizer.Find("<|im_end|>"), tokenizer.eos());
  EXPECT_TRUE(tokenizer.IsEndOfGeneration(*tokenizer.Find("<|im_end|>")));
  EXPECT_TRUE(tokenizer.IsEndOfGeneration(*tokenizer.Find("<|endoftext|>")));
  EXPECT_FALSE(tokenizer.add_bos());
}

// Gemma 4's files have the merges of its tokenizer.json: the same ids.
TEST(GgufTokenizer, MergesOverMarkedTextAreThoseOfTokenizerJson) {
  const TokenizerSpec spec =
      FromTokenizerJson(ReadFile(kRoot / "tests/data/hf_tokenizer/gemma.json"), "gemma.json");
  std::vector<int32_t> types;
  std::vector<std::string> merges;
  for (const TokenType type : spec.types) types.push_back(static_cast<int32_t>(type));
  for (const auto& [left, right] : spec.merges) merges.push_back(left + " " + right);
  std::vector<std::string> tokens = spec.tokens;
  tokens.insert(tokens.end(), {"<turn|>", "<|tool_response>"});
  types.insert(types.end(), 2, static_cast<int32_t>(TokenType::kControl));
  GgufWriter writer;
  writer.AddString("tokenizer.ggml.model", "gemma4");
  writer.AddStrings("tokenizer.ggml.tokens", std::span<const std::string>(tokens));
  writer.AddI32s("tokenizer.ggml.token_type", types);
  writer.AddStrings("tokenizer.ggml.merges", std::span<const std::string>(merges));
  if (spec.bos >= 0) writer.AddU32("tokenizer.ggml.bos_token_id", static_cast<uint32_t>(spec.bos));
  const std::string file = writer.Serialize();
  const std::span<const uint8_t> bytes(reinterpret_cast<const uint8_t*>(file.data()), file.size());
  const Tokenizer from_gguf(FromGguf(GgufFile::Parse(bytes, "t.gguf")));
  const Tokenizer from_json(spec);
  size_t compared = 0;
  for (const goldens::Text& text : goldens::Corpus(kRoot)) {
    if (!text.valid_utf8) continue;
    const std::vector<int32_t> ids = from_json.Encode(text.bytes, {.add_special = false});
    ASSERT_EQ(from_gguf.Encode(text.bytes, {.add_special = false}), ids) << text.bytes;
    EXPECT_EQ(from_gguf.Decode(ids), from_json.Decode(ids));
    ++compared;
  }
  EXPECT_GT(compared, 100u);
  EXPECT_TRUE(from_gguf.IsEndOfGeneration(static_cast<int32_t>(tokens.size()) - 1));
  EXPECT_TRUE(from_gguf.IsEndOfGeneration(static_cast<int32_t>(tokens.size()) - 2));
}

}  // namespace
}  // namespace bakestone
