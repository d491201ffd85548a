#include "model/weights.h"

#include <gmock/gmock.h>

#include "format/gguf.h"
#include "format/q_k_permute.h"
#include "model/test_model.h"

namespace bakestone {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::TestModelOptions;

struct Loaded {
  explicit Loaded(const TestModelOptions& options)
      : bytes(testing::MakeTestModel(options)),
        file(GgufFile::Parse({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()},
                             "m.gguf")),
        config(ReadConfig(file)) {}

  std::unique_ptr<Weights> Load(int threads = 2) const {
    ThreadPool pool(threads);
    return Weights::Load(file, config, ChooseKernels("reference"), pool);
  }

  std::string bytes;
  GgufFile file;
  ModelConfig config;
};

// The rows of a tensor as the file has them.
std::vector<float> FileRows(const GgufFile& file, const char* name) {
  const GgufTensor& tensor = file.Tensor(name);
  std::vector<float> values(static_cast<size_t>(tensor.elements()));
  const auto row_bytes = static_cast<size_t>(RowBytes(tensor.type, tensor.cols()));
  for (int64_t row = 0; row < tensor.rows(); ++row) {
    DequantizeRow(tensor.type, tensor.data.data() + static_cast<size_t>(row) * row_bytes,
                  values.data() + row * tensor.cols(), tensor.cols());
  }
  return values;
}

std::vector<float> Rows(const Weight& weight) {
  std::vector<float> values(static_cast<size_t>(weight.n() * weight.k()));
  weight.DequantizeRows(ChooseKernels("reference"), {0, weight.n()},
                        DenseView(values.data(), weight.n(), weight.k()));
  return values;
}

TEST(Weights, HoldTheFilesValuesInHuggingFaceOrder) {
  const Loaded loaded({.bias = true});
  const auto weights = loaded.Load();
  const LayerWeights& layer = weights->layers[1];
  EXPECT_EQ(Rows(layer.v), FileRows(loaded.file, "blk.1.attn_v.weight"));
  EXPECT_EQ(Rows(layer.down), FileRows(loaded.file, "blk.1.ffn_down.weight"));
  EXPECT_EQ(Rows(weights->embedding), FileRows(loaded.file, "token_embd.weight"));
  for (const char* site : {"attn_q", "attn_k"}) {
    const Weight& weight = site[5] == 'q' ? layer.q : layer.k;
    const std::string name = std::string("blk.1.") + site;
    const std::vector<float> in_file = FileRows(loaded.file, (name + ".weight").c_str());
    const std::vector<float> bias = FileRows(loaded.file, (name + ".bias").c_str());
    std::vector<float> expected(in_file.size()), expected_bias(bias.size());
    QueryKeyRowsFromGguf(in_file.data(), expected.data(), weight.n(), weight.k() * 4, 16);
    QueryKeyRowsFromGguf(bias.data(), expected_bias.data(), weight.n(), 4, 16);
    EXPECT_EQ(Rows(weight), expected);
    EXPECT_EQ(std::vector<float>(weight.bias(), weight.bias() + weight.n()), expected_bias);
  }
  EXPECT_EQ(layer.o.bias(), nullptr);
}

TEST(Weights, LeaveTheRowsOfOtherArchitecturesAsTheyAre) {
  const Loaded loaded({.architecture = "qwen2"});
  EXPECT_EQ(Rows(loaded.Load()->layers[0].q), FileRows(loaded.file, "blk.0.attn_q.weight"));
}

TEST(Weights, DoNotDependOnTheNumberOfThreads) {
  const Loaded loaded({});
  EXPECT_EQ(Rows(loaded.Load(1)->layers[1].gate), Rows(loaded.Load(4)->layers[1].gate));
}

TEST(Weights, TakeTheHeadFromTheEmbeddingOrFromOutputWeight) {
  const Loaded tied({}), untied({.tied = false});
  const auto tied_weights = tied.Load(), untied_weights = untied.Load();
  EXPECT_EQ(&tied_weights->head(), &tied_weights->embedding);
  EXPECT_EQ(Rows(untied_weights->head()), FileRows(untied.file, "output.weight"));
  EXPECT_GT(untied_weights->bytes(), tied_weights->bytes());
}

// A file of the options with one tensor renamed or reshaped in its header.
void ExpectLoadError(const TestModelOptions& options,
                     const std::function<void(ModelConfig&)>& change, ErrorCode code,
                     const ::testing::Matcher<const std::string&>& message) {
  Loaded loaded(options);
  change(loaded.config);
  try {
    loaded.Load();
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code);
    EXPECT_THAT(std::string(error.what()), AllOf(HasSubstr("m.gguf"), message));
  }
}

TEST(Weights, NameTheTensorThatDoesNotFit) {
  ExpectLoadError(
      {}, [](ModelConfig& config) { config.ffn_dim = 1 << 20; }, ErrorCode::kCorrupt,
      AllOf(HasSubstr("blk.0.ffn_gate.weight"), HasSubstr("64 x 1048576"), HasSubstr("64 x 128")));
  ExpectLoadError(
      {}, [](ModelConfig& config) { config.num_layers = 3; }, ErrorCode::kCorrupt,
      HasSubstr("blk.2.attn_norm.weight"));
  ExpectLoadError(
      {}, [](ModelConfig& config) { config.num_kv_heads = 4; }, ErrorCode::kCorrupt,
      HasSubstr("blk.0.attn_k.weight"));
  ExpectLoadError(
      {.embedding_type = DType::kF32}, [](ModelConfig& config) { config.vocab_size += 1; },
      ErrorCode::kCorrupt, HasSubstr("token_embd.weight"));
}

TEST(Weights, RefuseATensorThatWouldBeIgnored) {
  ExpectLoadError(
      {}, [](ModelConfig& config) { config.num_layers = 1; }, ErrorCode::kUnsupported,
      HasSubstr("'blk.1."));
  ExpectLoadError(
      {.tied = false}, [](ModelConfig& config) { config.tied_embedding = true; },
      ErrorCode::kUnsupported, HasSubstr("output.weight"));
}

}  // namespace
}  // namespace bakestone
