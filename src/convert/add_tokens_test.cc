#include "convert/add_tokens.h"

#include <gmock/gmock.h>

#include "convert/hf_folder_writer.h"
#include "convert/test_source.h"
#include "format/gguf_tokenizer.h"
#include "model/model.h"

namespace bakestone {
namespace {

using ::testing::HasSubstr;

class AddTokensTest : public testing::ConvertTest {
 protected:
  // The words of a text in a model's language, learned, and a name of the trade.
  NewTokens Tokens(const ModelSource& base) const {
    MergeLearner learner(FromGguf(*base.header));
    for (int i = 0; i < 20; ++i) learner.Add("o moinho abre; o moinho fecha\n");
    return {{"Ostrel"}, learner.Learn(6, 10).merges};
  }
};

TEST_F(AddTokensTest, TextTakesFewerTokensAndRowsStartAtTheMeanOfTheirPieces) {
  for (const bool tied : {true, false}) {
    testing::TestModelOptions options = testing::WideModel(DType::kQ8_0);
    options.tied = tied;
    const auto path = Write("base.gguf", options), grown_path = folder_ / "grown.gguf";
    const ModelSource base = OpenGgufSource(path);
    const NewTokens tokens = Tokens(base);
    ASSERT_EQ(tokens.learned.size(), 6u);
    const GrownModel grown = AddTokens(base, tokens, kernels_, pool_);
    WriteQuantized(grown.source, PlanLike(grown.source, base), grown_path, kernels_, pool_,
                   {.notes = grown.notes});

    const auto before = Model::Load(path, kernels_, pool_),
               after = Model::Load(grown_path, kernels_, pool_);
    EXPECT_EQ(grown.first_new, testing::kTestVocabSize);
    EXPECT_EQ(after->tokenizer.vocab_size(), testing::kTestVocabSize + 7);
    EXPECT_EQ(after->config.vocab_size, testing::kTestVocabSize + 7);
    const std::string text = "o moinho da Ostrel abre; o moinho fecha";
    const auto old_ids = before->tokenizer.Encode(text), ids = after->tokenizer.Encode(text);
    EXPECT_LT(ids.size() + 10, old_ids.size());
    EXPECT_NE(std::find(ids.begin(), ids.end(), testing::kTestVocabSize), ids.end());
    EXPECT_EQ(after->tokenizer.Decode(ids), text);

    const ModelSource written = OpenGgufSource(grown_path);
    for (const char* name : {"token_embd.weight", "output.weight"}) {
      const SourceTensor *old_table = base.Find(name), *table = written.Find(name);
      ASSERT_EQ(table == nullptr, old_table == nullptr);
      if (table == nullptr) continue;
      EXPECT_EQ(table->type, DType::kQ8_0);
      EXPECT_TRUE(
          std::equal(old_table->bytes.begin(), old_table->bytes.end(), table->bytes.begin()));
      const std::vector<float> rows = Values(*table), old_rows = Values(*old_table);
      const auto cols = static_cast<size_t>(table->cols());
      const LearnedMerge& merge = tokens.learned.back();
      for (size_t i = 0; i < cols; ++i) {
        double mean = 0;
        for (const int32_t piece : merge.pieces) {
          mean += static_cast<double>(old_rows[static_cast<size_t>(piece) * cols + i]) /
                  static_cast<double>(merge.pieces.size());
        }
        EXPECT_NEAR(rows[(table->num_rows() - 1) * cols + i], mean, 5e-3);  // half a step of Q8_0
      }
    }
  }
}

TEST_F(AddTokensTest, AHuggingFaceFolderOfItCutsTextAlike) {
  const ModelSource base = OpenGgufSource(Write("base.gguf", testing::WideModel(DType::kQ8_0)));
  const GrownModel grown = AddTokens(base, Tokens(base), kernels_, pool_);
  const auto path = folder_ / "grown.gguf";
  WriteQuantized(grown.source, PlanLike(grown.source, base), path, kernels_, pool_,
                 {.notes = grown.notes});
  WriteHfFolder(path, folder_ / "hf", DType::kF32, kernels_, pool_);
  const auto file = Model::Load(path, kernels_, pool_),
             folder = Model::Load(folder_ / "hf", kernels_, pool_);
  const std::string text = "o moinho da Ostrel abre; o moinho fecha, amoinho";
  EXPECT_EQ(folder->tokenizer.Encode(text), file->tokenizer.Encode(text));
  EXPECT_EQ(folder->config.vocab_size, file->config.vocab_size);
}

TEST_F(AddTokensTest, WrongTextsAreNamed) {
  const ModelSource base = OpenGgufSource(Write("base.gguf", testing::WideModel(DType::kQ8_0)));
  const auto message = [&](std::vector<std::string> given) {
    return MessageOf([&] { AddTokens(base, {std::move(given), {}}, kernels_, pool_); });
  };
  EXPECT_THAT(message({""}), HasSubstr("expected 1 to 1,024 bytes"));
  EXPECT_THAT(message({"mill\xFF"}), HasSubstr("expected UTF-8"));
  EXPECT_THAT(message({"mill", "mill"}), HasSubstr("'mill': given twice"));
  EXPECT_THAT(message({"<|im_end|>"}), HasSubstr("a token of this model already"));
  EXPECT_THAT(message({"a"}), HasSubstr("a token of this model already"));
}

}  // namespace
}  // namespace bakestone
