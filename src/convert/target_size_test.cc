#include "convert/target_size.h"

#include <gmock/gmock.h>

#include "convert/compare.h"
#include "convert/test_source.h"

namespace bakestone {
namespace {

using ::testing::HasSubstr;

class TargetSizeTest : public testing::ConvertTest {};

TEST_F(TargetSizeTest, FitsAndBeatsTheMixOfTheSameSize) {
  auto options = testing::WideModel(DType::kF32);
  options.num_layers = 3;
  const auto path = Write("m.gguf", options);
  const ModelSource source = OpenGgufSource(path);
  WriteQuantized(source, PlanQuantize(source, {.mix = FindQuantMix("Q4_K_M")}),
                 folder_ / "mix.gguf", kernels_, pool_);
  const auto size = static_cast<int64_t>(std::filesystem::file_size(folder_ / "mix.gguf"));
  const std::vector<std::string> texts = {
      "the other hen thought of the weather, and then of the corn"};
  const TargetPlan target =
      PlanForSize(source, path, kernels_, pool_,
                  {.max_bytes = size, .texts = texts, .scratch = folder_ / "trial"});
  EXPECT_FALSE(std::filesystem::exists(folder_ / "trial"));
  WriteQuantized(source, target.plan, folder_ / "out.gguf", kernels_, pool_);
  const auto written = static_cast<int64_t>(std::filesystem::file_size(folder_ / "out.gguf"));
  EXPECT_LE(written, size);
  EXPECT_GT(written, size * 9 / 10);
  const auto scores = CompareModels(
      {.path = path}, {{"out", folder_ / "out.gguf"}, {"mix", folder_ / "mix.gguf"}},
      {"a longer text that was not measured on: there, the hens"}, kernels_, pool_, {});
  EXPECT_LT(scores[0].score.MeanKl(), scores[1].score.MeanKl());
  EXPECT_GT(target.kl, 0);
}

TEST_F(TargetSizeTest, TooSmallASizeNamesTheLeast) {
  const auto path = Write("m.gguf", testing::WideModel(DType::kF32));
  const ModelSource source = OpenGgufSource(path);
  EXPECT_THAT(MessageOf([&] {
                PlanForSize(source, path, kernels_, pool_,
                            {.max_bytes = 1000, .texts = {"hens"}, .scratch = folder_ / "trial"});
              }),
              HasSubstr("expected at least"));
}

TEST_F(TargetSizeTest, SizesAreReadWithTheirUnits) {
  EXPECT_EQ(ParseSize("90MB"), 90000000);
  EXPECT_EQ(ParseSize("1.5GiB"), 1610612736);
  EXPECT_EQ(ParseSize("1234"), 1234);
  for (const char* bad : {"", "MB", "-3MB", "4 parsecs", "1e30GB"}) {
    EXPECT_THAT(MessageOf([&] { ParseSize(bad); }), HasSubstr("expected a size")) << bad;
  }
}

}  // namespace
}  // namespace bakestone
