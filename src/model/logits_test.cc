// The decoder against an independent forward pass (tools/make_logits_goldens.py) on tiny.gguf, a
// random model of four layers in which 13 tensor types occur. The same on a real model:
// tests/real_model_test.cc.
#include <gtest/gtest.h>

#include <vector>

#include "format/gguf.h"
#include "kernels/isa.h"
#include "model/test_logits.h"

namespace bakestone {
namespace {

using testing::LogitDistance;

class TinyGoldens : public ::testing::Test {
 protected:
  LogitDistance Measure(const KernelTable& kernels, Precision precision, int64_t chunk) {
    Exec exec(kernels, pool_, precision);
    return testing::Measure(decoder_, exec, goldens_, chunk);
  }

  const std::filesystem::path folder_ = std::filesystem::path(BAKESTONE_TEST_DATA) / "model";
  ThreadPool pool_{2};
  GgufFile file_ = GgufFile::Open(folder_ / "tiny.gguf");
  ModelConfig config_ = ReadConfig(file_);
  std::unique_ptr<Weights> weights_ =
      Weights::Load(file_, config_, ChooseKernels("reference"), pool_);
  Decoder decoder_{config_, *weights_};
  testing::Goldens goldens_ = testing::ReadGoldens(folder_ / "tiny.logits");
};

TEST_F(TinyGoldens, AreOfTheCommittedModel) {
  EXPECT_EQ(ToHex(HashOfFile(folder_ / "tiny.gguf")), ToHex(goldens_.model_hash));
}

TEST_F(TinyGoldens, ExactLogitsEqualTheReferenceWithin1e3) {
  for (const KernelTable* table : AvailableKernels()) {
    const LogitDistance distance = Measure(*table, Precision::kExact, 64);
    EXPECT_EQ(distance.positions, 138);
    EXPECT_LT(distance.max_error, 1e-3) << IsaName(table->isa);
    EXPECT_EQ(distance.same_top, distance.positions);
  }
}

TEST_F(TinyGoldens, ServedDistributionsAreCloseToTheReference) {
  const LogitDistance distance = Measure(ChooseKernels(nullptr), Precision::kServe, 64);
  RecordProperty("mean_kl_nats", std::to_string(distance.mean_kl()));
  EXPECT_LT(distance.mean_kl(),
            0.008);  // 0.0047: a narrow random model, whose errors do not average out
  EXPECT_GT(distance.mean_kl(), 1e-5);  // or it is not the served arithmetic
  EXPECT_GT(distance.top1_agreement(), 0.93);
}

}  // namespace
}  // namespace bakestone
