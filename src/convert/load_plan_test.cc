// Weights that are quantized while a model loads: those of the file that `quantize --fast` writes.
#include "convert/load_plan.h"

#include <gmock/gmock.h>

#include "base/source_dir.h"
#include "convert/hf_source.h"
#include "convert/test_source.h"
#include "model/model.h"
#include "model/model_file.h"

namespace bakestone {
namespace {

using ::testing::HasSubstr;

// Type, shape and bytes of every matrix, in order.
std::vector<std::string> MatricesOf(const Weights& weights) {
  std::vector<std::string> matrices;
  weights.ForEach([&](const Weight& weight) {
    matrices.push_back(
        fmt::format("{} {} {} ", DTypeName(weight.disk_type()), weight.n(), weight.k()) +
        std::string(reinterpret_cast<const char*>(weight.panel().data),
                    static_cast<size_t>(weight.bytes())));
  });
  return matrices;
}

class LoadPlanTest : public testing::ConvertTest {
 protected:
  std::vector<std::string> LoadedAs(const std::filesystem::path& path, const LoadTypes* types) {
    const ModelFile file = ModelFile::Open(path);
    return MatricesOf(
        *Weights::Load(file.Tensors(), file.Config(), kernels_, pool_, {.types = types}));
  }

  void ExpectTheFileOfQuantize(const std::filesystem::path& path, const char* mix_name) {
    const QuantMix& mix = *FindQuantMix(mix_name);
    const LoadPlan plan = PlanLoad(path, mix);
    const ModelSource source = OpenSource(path, {.tokenizer = false});
    const std::filesystem::path out = folder_ / "quantized.gguf";
    WriteQuantized(source, PlanQuantize(source, {.mix = &mix}), out, kernels_, pool_,
                   {.fast = true});
    const std::vector<std::string> loaded = LoadedAs(path, &plan.types),
                                   written = LoadedAs(out, nullptr);
    ASSERT_EQ(loaded.size(), written.size());
    for (size_t i = 0; i < loaded.size(); ++i) {
      if (written[i].starts_with("F32 1 ")) continue;  // a vector there, with the same values
      EXPECT_TRUE(loaded[i] == written[i]) << path << " " << mix.name << ", matrix " << i << ": "
                                           << loaded[i].substr(0, 20) << written[i].substr(0, 20);
    }
    EXPECT_NE(loaded, LoadedAs(path, nullptr));
  }
};

TEST_F(LoadPlanTest, AGgufFileBecomesWhatQuantizeWrites) {
  const std::filesystem::path path = Write("m.gguf", testing::WideModel(DType::kBF16));
  for (const QuantMix& mix : QuantMixes()) {
    if (!IsQuantized(mix.base)) continue;
    ExpectTheFileOfQuantize(path, std::string(mix.name).c_str());
  }
}

// Rows of 64 and the like: the types that fit them. Left out: Qwen3.5 and DeepSeek (load_plan.h),
// and gpt-oss, whose MXFP4 `quantize` writes with one zero in place of two.
TEST_F(LoadPlanTest, FoldersOfTheFamiliesBecomeWhatQuantizeWrites) {
  const std::filesystem::path families = std::filesystem::path(SourceDir()) / "tests/data/families";
  for (const char* family : {"llama",
                             "mistral",
                             "qwen2",
                             "qwen3",
                             "granite",
                             "smollm3",
                             "olmo2",
                             "starcoder2",
                             "mixtral",
                             "qwen2_moe",
                             "qwen3_moe",
                             "glm4_moe",
                             "gemma4_text",
                             "gemma4",
                             "lfm2",
                             "phi3",
                             "bert",
                             "modernbert",
                             "nomic_bert",
                             "roberta",
                             "xlm-roberta",
                             "rwkv7",
                             "gemma3_text+use_bidirectional_attention"}) {
    SCOPED_TRACE(family);
    ExpectTheFileOfQuantize(families / family, "Q4_K_M");
  }
}

TEST_F(LoadPlanTest, OtherFoldersAreQuantizedToo) {
  const std::filesystem::path families = std::filesystem::path(SourceDir()) / "tests/data/families";
  for (const char* family :
       {"deepseek_v3", "glm4_moe_lite", "qwen3_5_text", "gemma2", "gemma3", "gpt_oss"}) {
    SCOPED_TRACE(family);
    const LoadPlan plan = PlanLoad(families / family, *FindQuantMix("q8_0"));
    const auto loaded = LoadedAs(families / family, &plan.types),
               plain = LoadedAs(families / family, nullptr);
    size_t quantized = 0;
    for (const std::string& matrix : loaded) quantized += matrix.starts_with("Q8_0") ? 1 : 0;
    EXPECT_GT(quantized, plain.size() / 5);  // gpt-oss' experts are smaller already
  }
}

TEST_F(LoadPlanTest, SaysInOneLineWhatWasChosen) {
  auto narrow = testing::WideModel(DType::kBF16);
  narrow.hidden_dim = 64;
  narrow.head_dim = 16;
  const QuantMix& mix = *FindQuantMix("q4_k_s");
  const std::string line = LoadLine(PlanLoad(Write("m.gguf", narrow), mix), mix);
  EXPECT_THAT(line, HasSubstr("Q4_K_S"));
  EXPECT_THAT(line, HasSubstr("bits a weight"));
  EXPECT_THAT(line, HasSubstr("got Q5_0 instead of Q4_K"));
  EXPECT_EQ(line.find('\n'), std::string::npos);
}

TEST_F(LoadPlanTest, AModelThatIsSmallAlreadyIsRefusedAndALargerOneWarnedOf) {
  const std::filesystem::path small = Write("s.gguf", testing::WideModel(DType::kQ4_1));
  EXPECT_THAT(MessageOf([&] { PlanLoad(small, *FindQuantMix("q8_0")); }),
              HasSubstr("expected a model that Q8_0 makes smaller, found one of Q4_1 already"));
  const std::filesystem::path plain = Write("p.gguf", testing::WideModel(DType::kF16));
  EXPECT_THAT(MessageOf([&] { PlanLoad(plain, *FindQuantMix("bf16")); }), HasSubstr("smaller"));
  const std::filesystem::path eight = Write("e.gguf", testing::WideModel(DType::kQ8_0));
  const QuantMix& mix = *FindQuantMix("q4_k_m");
  EXPECT_THAT(LoadLine(PlanLoad(eight, mix), mix), HasSubstr("have the errors of both"));
}

}  // namespace
}  // namespace bakestone
