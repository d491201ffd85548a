// The tokenizer of a real model's GGUF against PyPI's tokenizers, and hostile metadata.
#include "format/gguf_tokenizer.h"

#include <gmock/gmock.h>

#include <cstdlib>

#include "base/sha256.h"
#include "base/source_dir.h"
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

}  // namespace
}  // namespace bakestone
