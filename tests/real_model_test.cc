// The decoder on a real model, against logits that an independent float32 forward pass made
// (tools/make_logits_goldens.py). Usage: real_model_test [MODEL.gguf [GOLDENS.logits]] [gtest
// flags]; the model is BAKESTONE_TEST_MODEL's where none is given, and without one the test is
// skipped (exit 77). Prints its figures; tools/llamacpp_kl.mjs prints llama.cpp's over the same
// positions.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "base/source_dir.h"
#include "format/gguf.h"
#include "model/model.h"
#include "model/test_logits.h"

namespace bakestone {
namespace {

std::filesystem::path g_model, g_goldens;

class RealModel : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    pool_ = new ThreadPool(UsableCores());
    model_ = new std::shared_ptr<const Model>(Model::Load(g_model, ChooseKernels(nullptr), *pool_));
  }
  static void TearDownTestSuite() {
    delete model_;
    delete pool_;
  }
  const Model& model() { return **model_; }
  testing::LogitDistance Measure(Precision precision, KvType type = KvType::kBf16) {
    Exec exec(ChooseKernels(nullptr), *pool_, precision);
    return testing::Measure(*model().decoder, exec, goldens_, 128, nullptr, type);
  }

  static inline ThreadPool* pool_ = nullptr;
  static inline std::shared_ptr<const Model>* model_ = nullptr;
  const testing::Goldens goldens_ = testing::ReadGoldens(g_goldens);
};

TEST_F(RealModel, IsTheOneThatTheGoldensAreOf) {
  EXPECT_EQ(ToHex(model().file_hash), ToHex(goldens_.model_hash));
}

TEST_F(RealModel, TokenizerGivesTheIdsOfTheGoldens) {
  const std::filesystem::path texts = g_goldens.parent_path() / "texts";
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(texts)) {
    paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  ASSERT_EQ(paths.size(), goldens_.texts.size());
  for (size_t i = 0; i < paths.size(); ++i) {
    const MappedFile file = MappedFile::Open(paths[i]);
    const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()),
                                file.bytes().size());
    EXPECT_EQ(model().tokenizer.Encode(text, {.add_special = false, .parse_special = true}),
              goldens_.texts[i].tokens)
        << paths[i];
  }
}

TEST_F(RealModel, ExactLogitsEqualTheReferenceWithin1e3) {
  const testing::LogitDistance distance = Measure(Precision::kExact);
  std::printf("exact: %ld positions, largest error of a logit %.2g, top-1 agreement %.2f %%\n",
              static_cast<long>(distance.positions), distance.max_error,
              100 * distance.top1_agreement());
  EXPECT_GE(distance.positions, 2000);
  EXPECT_LT(distance.max_error, 1e-3);
}

TEST_F(RealModel, ServedDistributionsAreCloseToTheReference) {
  const testing::LogitDistance distance = Measure(Precision::kServe);
  std::printf("serve: %ld positions, mean KL %.5f nats, largest %.4f, top-1 agreement %.2f %%\n",
              static_cast<long>(distance.positions), distance.mean_kl(), distance.max_kl,
              100 * distance.top1_agreement());
  EXPECT_LT(distance.mean_kl(), 1.05 * 0.00253);  // llama.cpp's over these positions
  EXPECT_GT(distance.top1_agreement(), 0.955);
}

TEST_F(RealModel, OtherTypesOfKeysAndValuesAreAboutAsClose) {
  const double bf16 = Measure(Precision::kServe).mean_kl();
  for (const KvType type : {KvType::kF16, KvType::kQ8_0}) {
    const testing::LogitDistance distance = Measure(Precision::kServe, type);
    std::printf(
        "serve, keys and values in %s: mean KL %.5f nats (bf16 %.5f), largest %.4f, top-1 "
        "agreement %.2f %%\n",
        KvTypeName(type), distance.mean_kl(), bf16, distance.max_kl,
        100 * distance.top1_agreement());
    EXPECT_LT(distance.mean_kl(), bf16 + (type == KvType::kF16 ? 2e-4 : 1e-3));
  }
}

}  // namespace
}  // namespace bakestone

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const char* model = argc > 1 ? argv[1] : std::getenv("BAKESTONE_TEST_MODEL");
  if (model == nullptr || *model == 0) {
    std::fprintf(stderr, "no model given and BAKESTONE_TEST_MODEL is not set: skipped\n");
    return 77;
  }
  bakestone::g_model = model;
  bakestone::g_goldens =
      argc > 2 ? argv[2] : std::string(bakestone::SourceDir()) + "/tests/data/model/smollm2.logits";
  return RUN_ALL_TESTS();
}
