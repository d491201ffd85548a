#include "engine/speed.h"

#include <gmock/gmock.h>

#include "base/error.h"
#include "base/source_dir.h"
#include "engine/test_engine.h"
#include "model/model_file.h"

namespace bakestone {
namespace {

using ::testing::AllOf;
using ::testing::Gt;
using ::testing::Le;
using testing::SharedTestModel;
using testing::TestKernels;

// Its golden has no tokenizer: that of the test model stands in, which nothing here asks.
std::unique_ptr<const Model> OfFamily(const std::string& family, ThreadPool& pool) {
  const std::filesystem::path folder =
      std::filesystem::path(SourceDir()) / "tests/data/families" / family;
  const ModelFile file = ModelFile::Open(folder);
  const auto other =
      std::filesystem::temp_directory_path() / fmt::format("bakestone-speed-{}.gguf", ::getpid());
  testing::WriteTestModel(other, {});
  auto model = std::make_unique<Model>(ModelFile::Open(other).Tokenizer());
  std::filesystem::remove(other);
  model->config = file.Config();
  model->weights = Weights::Load(file.Tensors(), model->config, TestKernels(), pool);
  model->decoder = std::make_unique<const Decoder>(model->config, *model->weights);
  return model;
}

constexpr SpeedOptions kQuick = {.repetitions = 3, .decode_tokens = 4, .probe_bytes = 1 << 20};

TEST(SpreadOf, IsMedianLeastAndMost) {
  const Spread odd = SpreadOf({3, 1, 2});
  EXPECT_EQ(odd.median, 2);
  EXPECT_EQ(odd.least, 1);
  EXPECT_EQ(odd.most, 3);
  EXPECT_EQ(odd.count, 3);
  EXPECT_EQ(SpreadOf({4, 1, 2, 9}).median, 3);
}

TEST(WorkOf, CountsTheProductsOfOneToken) {
  const auto model = SharedTestModel();
  const TokenWork work = WorkOf(*model);
  // Two layers: q, o 64 x 64; k, v 32 x 64; gate, up 128 x 64; down 64 x 128. All types are integer
  // ones.
  EXPECT_EQ(work.layers.int8, 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 128 * 64));
  EXPECT_EQ(work.layers.bf16 + work.layers.f32, 0);
  EXPECT_EQ(work.head.int8, testing::kTestVocabSize * 64);
  EXPECT_EQ(work.weight_bytes, model->weights->bytes());
  EXPECT_EQ(work.context_macs, 2 * 2 * 64);
  EXPECT_EQ(work.context_bytes, 2 * 2 * 32 * 2);
}

TEST(SpeedBench, MeasuresEachFigureAsOftenAsAsked) {
  ThreadPool pool(2);
  SpeedBench bench(*SharedTestModel(), TestKernels(), pool, kQuick);
  for (const SpeedFigure& figure : {bench.Prefill(600), bench.Decode(100), bench.Batch(3)}) {
    EXPECT_EQ(figure.tokens_per_second.count, 3) << figure.name;
    EXPECT_THAT(figure.tokens_per_second.least, AllOf(Gt(0), Le(figure.tokens_per_second.median)));
    EXPECT_GT(figure.limit, 0);
    EXPECT_GT(figure.bandwidth_share, 0);
    EXPECT_GT(figure.integer_share, 0);
  }
  EXPECT_EQ(bench.Batch(2).name, "batch-2");
}

TEST(SpeedBench, MeasuresModelsWhoseStateCannotGoBack) {
  for (const char* family : {"lfm2", "qwen3_5_text", "rwkv7", "deepseek_v3"}) {
    ThreadPool pool(2);
    const auto model = OfFamily(family, pool);
    EXPECT_EQ(WorkOf(*model).state_bytes > 0, model->config.has_state()) << family;
    SpeedBench bench(*model, TestKernels(), pool, kQuick);
    EXPECT_EQ(bench.Decode(40).tokens_per_second.count, 3) << family;
    EXPECT_EQ(bench.Batch(2).tokens_per_second.count, 3) << family;
    EXPECT_EQ(bench.Prefill(50).tokens_per_second.count, 3) << family;
  }
}

TEST(WorkOf, CountsEveryMatrixOfALayerOfAnyKind) {
  for (const char* family : {"lfm2", "qwen3_5_text", "rwkv7"}) {
    ThreadPool pool(1);
    const auto model = OfFamily(family, pool);
    const int64_t all = model->weights->bytes();
    EXPECT_GT(WorkOf(*model).weight_bytes, all * 9 / 10) << family;
    EXPECT_LE(WorkOf(*model).weight_bytes, all) << family;
  }
}

TEST(SpeedBench, EndsAtTheModelsContext) {
  ThreadPool pool(1);
  const int64_t context = SharedTestModel()->config.context_length;
  SpeedBench bench(*SharedTestModel(), TestKernels(), pool, kQuick);
  EXPECT_GT(bench.Decode(context).tokens_per_second.median, 0);
  EXPECT_THROW(bench.Decode(context + 1), Error);
  EXPECT_THROW(bench.Prefill(context + 1), Error);
}

TEST(SpeedBench, MeasuresEveryKindOfMatrixOnce) {
  ThreadPool pool(1);
  SpeedBench bench(*SharedTestModel(), TestKernels(), pool, kQuick);
  const std::vector<ShapeFigure> shapes = bench.Shapes(8);
  // q Q4_1; k Q4_1; v Q8_0; o Q4_0; gate, up Q4_1; down Q5_1; head: seven kinds, with 1 and with 8
  // rows.
  ASSERT_EQ(shapes.size(), 14u);
  EXPECT_EQ(shapes[8].sites, "gate up");
  for (const ShapeFigure& shape : shapes) {
    EXPECT_EQ(shape.macs, shape.n * shape.k * shape.rows);
    EXPECT_GT(shape.limit_seconds, 0);
    EXPECT_GT(shape.seconds.median, 0);
  }
}

}  // namespace
}  // namespace bakestone
