// Folders that cannot be read: what is missing, what lies, and what is refused is named before
// memory is spent.
#include "format/hf_folder.h"

#include <gmock/gmock.h>

#include <functional>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "format/hf_tokenizer.h"

namespace bakestone {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// A folder with a config and one or two shards of one tensor each.
class HfFolderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    Write("config.json", R"({"model_type": "llama"})");
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void Write(const std::string& name, const std::string& text) {
    WriteFileAtomically(folder_ / name, text);
  }
  void WriteTensor(const std::string& name, const std::string& tensor) {
    SafetensorsWriter writer;
    static const std::vector<uint8_t> zeros(8 * 4);
    writer.AddTensor(tensor, DType::kF32, std::array<int64_t, 2>{2, 4}, zeros);
    writer.Write(folder_ / name);
  }
  void ExpectError(ErrorCode code, const ::testing::Matcher<std::string>& message) {
    try {
      HfFolder::Open(folder_);
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      EXPECT_THAT(std::string(error.what()), AllOf(HasSubstr(folder_.string()), message));
    }
  }

  const std::filesystem::path folder_ =
      std::filesystem::temp_directory_path() / ("bakestone_hf_" + std::to_string(::getpid()));
};

TEST_F(HfFolderTest, FindsTensorsUnderTheNamesOfTextModels) {
  for (const char* prefix : {"model.", "", "model.language_model.", "language_model.model."}) {
    WriteTensor("a.safetensors", std::string(prefix) + "embed_tokens.weight");
    WriteTensor("b.safetensors", std::string(prefix) + "layers.0.mlp.up_proj.weight");
    Write(
        "model.safetensors.index.json",
        nlohmann::json({{"weight_map",
                         {{std::string(prefix) + "embed_tokens.weight", "a.safetensors"},
                          {std::string(prefix) + "layers.0.mlp.up_proj.weight", "b.safetensors"}}}})
            .dump());
    const HfFolder folder = HfFolder::Open(folder_);
    EXPECT_NE(folder.Find("model.embed_tokens.weight"), nullptr) << prefix;
    EXPECT_NE(folder.Find("model.layers.0.mlp.up_proj.weight"), nullptr) << prefix;
    EXPECT_EQ(folder.Find("model.layers.1.mlp.up_proj.weight"), nullptr) << prefix;
  }
}

TEST_F(HfFolderTest, FindsEncodersBelowAHead) {
  for (const char* prefix : {"roberta.", "bert.", "model."}) {
    const std::string inner = std::string(prefix) + "embeddings.word_embeddings.weight";
    WriteTensor("a.safetensors", inner);
    WriteTensor("b.safetensors", "classifier.out_proj.weight");
    Write("model.safetensors.index.json",
          nlohmann::json(
              {{"weight_map",
                {{inner, "a.safetensors"}, {"classifier.out_proj.weight", "b.safetensors"}}}})
              .dump());
    const HfFolder folder = HfFolder::Open(folder_);
    EXPECT_NE(folder.Find("model.embeddings.word_embeddings.weight"), nullptr) << prefix;
    EXPECT_NE(folder.Find("classifier.out_proj.weight"), nullptr) << prefix;
  }
}

TEST_F(HfFolderTest, ANestedConfigWinsOverTheWhole) {
  WriteTensor("model.safetensors", "model.norm.weight");
  Write("config.json",
        R"({"model_type": "mistral3", "tie_word_embeddings": true, "sliding_window": 3,
                           "text_config": {"model_type": "ministral3", "sliding_window": null}})");
  const HfFolder folder = HfFolder::Open(folder_);
  EXPECT_EQ(*folder.Config("model_type"), "ministral3");
  EXPECT_EQ(*folder.Config("tie_word_embeddings"), true);
  EXPECT_EQ(folder.Config("absent"), nullptr);
  EXPECT_TRUE(folder.Mentions("sliding_window"));
  EXPECT_FALSE(folder.Mentions("absent"));
}

TEST_F(HfFolderTest, NamesWhatIsMissing) {
  ExpectError(ErrorCode::kNotFound, HasSubstr("model.safetensors"));
  WriteTensor("model-00001-of-00002.safetensors", "a");
  Write(
      "model.safetensors.index.json",
      R"({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}})");
  ExpectError(ErrorCode::kNotFound,
              AllOf(HasSubstr("model-00002-of-00002.safetensors"), HasSubstr("1 of 2")));
  WriteTensor("model-00002-of-00002.safetensors", "c");
  ExpectError(ErrorCode::kCorrupt, HasSubstr("weight_map['b']"));
  std::filesystem::remove(folder_ / "config.json");
  ExpectError(ErrorCode::kNotFound, HasSubstr("config.json"));
}

TEST_F(HfFolderTest, ConfigurationsThatNestDeeplyAreRefused) {
  WriteTensor("model.safetensors", "a");
  Write("config.json",
        "{\"rope_scaling\": " + std::string(200'000, '[') + std::string(200'000, ']') + "}");
  ExpectError(ErrorCode::kCorrupt, HasSubstr("config.json: expected JSON of at most 200 levels"));
}

TEST_F(HfFolderTest, RefusesPicklesAndForeignQuantizationsByName) {
  Write("pytorch_model.bin", "x");
  ExpectError(ErrorCode::kUnsupported,
              AllOf(HasSubstr("pytorch_model.bin"), HasSubstr("safe_serialization")));
  WriteTensor("model.safetensors", "a");
  Write("config.json",
        R"({"model_type": "llama", "quantization_config": {"quant_method": "awq", "bits": 4}})");
  ExpectError(ErrorCode::kUnsupported, AllOf(HasSubstr("awq"), HasSubstr("unquantized")));
  Write("config.json", R"({"text_config": {"quantization_config": {"quant_method": "fp8"}}})");
  ExpectError(ErrorCode::kUnsupported, HasSubstr("fp8"));
}

TEST_F(HfFolderTest, DoesNotFollowNamesOutOfTheFolder) {
  for (const char* name : {"../a.safetensors", "/etc/passwd", "", "x/y"}) {
    Write("model.safetensors.index.json", nlohmann::json({{"weight_map", {{"a", name}}}}).dump());
    ExpectError(ErrorCode::kCorrupt, HasSubstr("weight_map"));
  }
}

TEST_F(HfFolderTest, NamesADamagedFile) {
  for (const char* text : {"", "{", "[1]", "null", "{\"text_config\": 3}"}) {
    Write("config.json", text);
    ExpectError(ErrorCode::kCorrupt, HasSubstr("config.json"));
  }
  Write("config.json", "{}");
  Write("model.safetensors.index.json", R"({"weight_map": {"a": 3}})");
  ExpectError(ErrorCode::kCorrupt, HasSubstr("weight_map"));
}

TEST_F(HfFolderTest, ATokenizerIsCompletedByItsConfig) {
  WriteTensor("model.safetensors", "a");
  Write("tokenizer.json", R"({"pre_tokenizer": {"type": "ByteLevel"}, "added_tokens": [
      {"id": 3, "content": "<s>", "special": true}, {"id": 4, "content": "</s>", "special": true}],
      "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}})");
  Write("tokenizer_config.json",
        R"({"add_bos_token": true, "bos_token": "<s>", "eos_token": {"content": "</s>"},
                                     "chat_template": [{"name": "tools", "template": "t"},
                                                       {"name": "default", "template": "d"}]})");
  Write("generation_config.json", R"({"eos_token_id": [4, 2, 99]})");
  const HfFolder folder = HfFolder::Open(folder_);
  const TokenizerSpec spec = FromHfFolder(folder);
  EXPECT_EQ(spec.bos, 3);
  EXPECT_EQ(spec.eos, 4);
  EXPECT_TRUE(spec.add_bos);
  EXPECT_FALSE(spec.add_eos);
  EXPECT_EQ(spec.extra_eog, (std::vector<int32_t>{4, 2}));
  EXPECT_EQ(HfChatTemplate(folder), "d");
  Write("chat_template.jinja", "file");
  EXPECT_EQ(HfChatTemplate(HfFolder::Open(folder_)), "file");
}

}  // namespace
}  // namespace bakestone
