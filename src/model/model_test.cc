#include "model/model.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "model/test_model.h"

namespace bakestone {
namespace {

class ModelTest : public ::testing::Test {
 protected:
  std::shared_ptr<const Model> Load() { return Model::Load(path_, ChooseKernels(nullptr), pool_); }

  ThreadPool pool_{2};
  const std::filesystem::path path_ =
      std::filesystem::path(::testing::TempDir()) / "bakestone_model_test.gguf";
  void TearDown() override { std::filesystem::remove(path_); }
};

TEST_F(ModelTest, LoadsEverythingThatAFileHolds) {
  testing::WriteTestModel(path_);
  const auto model = Load();
  EXPECT_EQ(model->path, path_);
  EXPECT_EQ(ToHex(model->file_hash), ToHex(HashOfFile(path_)));
  EXPECT_EQ(model->licence, "apache-2.0");
  EXPECT_EQ(model->config.num_layers, 2);
  EXPECT_EQ(&model->decoder->config(), &model->config);
  EXPECT_EQ(model->tokenizer.vocab_size(), testing::kTestVocabSize);
  EXPECT_EQ(model->tokenizer.Encode("<|im_end|> the", {.add_special = true, .parse_special = true}),
            (std::vector<int32_t>{testing::kTestImEnd, 261}));
  ASSERT_TRUE(model->chat_template.has_value());
  const auto context = nlohmann::ordered_json::parse(
      R"({"messages": [{"role": "user", "content": "Hi"}], "add_generation_prompt": true})");
  EXPECT_EQ(model->chat_template->Render(context, {}).text,
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
}

TEST_F(ModelTest, NamesTheFileThatIsNoModel) {
  std::ofstream(path_) << "GGUF, but not really";
  try {
    Load();
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported) << error.what();
    EXPECT_THAT(std::string(error.what()), ::testing::HasSubstr("bakestone_model_test.gguf"));
  }
  std::filesystem::remove(path_);
  EXPECT_THROW(Load(), Error);
}

}  // namespace
}  // namespace bakestone
