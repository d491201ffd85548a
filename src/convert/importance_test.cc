#include "convert/importance.h"

#include <gmock/gmock.h>

#include <cmath>
#include <numeric>

#include "convert/calibrate.h"
#include "convert/test_source.h"
#include "model/model.h"

namespace bakestone {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ImportanceTest : public testing::ConvertTest {};

TEST_F(ImportanceTest, SumsAreThoseOfTheInputsOfTheFirstLayer) {
  const auto path = Write("m.gguf", testing::WideModel(DType::kF32));
  const auto model = Model::Load(path, kernels_, pool_);
  Exec exec(kernels_, pool_, Precision::kExact);
  const std::string text = "the other hen thought";
  const ImportanceMatrix matrix = Calibrate(*model, exec, {{"hens", text}}, {.window = 5});
  const auto tokens = model->tokenizer.Encode(text, {.add_special = false});
  const GgufFile file = GgufFile::Open(path);
  const auto rows = [&](const char* name, int64_t row, float* out) {
    const GgufTensor& tensor = file.Tensor(name);
    ops::RowsOf(tensor.type, tensor.data.data(), tensor.cols())(row, 1, out);
  };
  std::vector<float> x(256), norm(256);
  std::vector<double> expected(256);
  rows("blk.0.attn_norm.weight", 0, norm.data());
  for (const int32_t token : tokens) {
    rows("token_embd.weight", token, x.data());
    double square = 0;
    for (const float value : x) square += static_cast<double>(value) * value;
    const double scale = 1 / std::sqrt(square / 256 + 1e-5);
    for (size_t k = 0; k < 256; ++k) expected[k] += std::pow(scale * x[k] * norm[k], 2);
  }
  for (const char* name : {"blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight"}) {
    const ImportanceEntry& entry = matrix.entries.at(name);
    EXPECT_THAT(entry.counts, ElementsAre(static_cast<double>(tokens.size())));
    for (size_t k = 0; k < 256; ++k) {
      EXPECT_NEAR(entry.sums[k], expected[k], 1e-4 * expected[k] + 1e-6);
    }
  }
  EXPECT_EQ(matrix.entries.size(), 4u * kNumSites);
  EXPECT_EQ(matrix.entries.at("blk.3.ffn_down.weight").counts[0],
            static_cast<double>(tokens.size()));
  EXPECT_EQ(matrix.entries.at("blk.1.ffn_up.weight").sums,
            matrix.entries.at("blk.1.ffn_gate.weight").sums);
  EXPECT_EQ(matrix.num_chunks, (tokens.size() + 4) / 5);
}

TEST_F(ImportanceTest, IsReadAsItWasWritten) {
  ImportanceMatrix matrix;
  matrix.datasets = {"a.txt", "b.txt"};
  matrix.num_chunks = 7;
  matrix.chunk_size = 512;
  matrix.entries["blk.0.attn_q.weight"] = {{1, 2, 3, 4}, {9}};
  matrix.entries["blk.0.ffn_up_exps.weight"] = {{1, 2, 0, 0}, {3, 0}};
  matrix.Write(folder_ / "i.gguf");
  const ImportanceMatrix read = ImportanceMatrix::Read(folder_ / "i.gguf");
  EXPECT_EQ(read.datasets, matrix.datasets);
  EXPECT_EQ(read.num_chunks, 7u);
  EXPECT_EQ(read.chunk_size, 512u);
  EXPECT_EQ(read.entries.at("blk.0.attn_q.weight").sums,
            matrix.entries.at("blk.0.attn_q.weight").sums);
  EXPECT_THAT(read.entries.at("blk.0.ffn_up_exps.weight").counts, ElementsAre(3, 0));
  EXPECT_THAT(
      MessageOf([&] { ImportanceMatrix::Read(Write("m.gguf", testing::WideModel(DType::kF32))); }),
      HasSubstr("expected 'imatrix', found 'model'"));
}

// Two experts of 2 x 32 weights; the second is never chosen.
TEST_F(ImportanceTest, AnExpertThatNoTokenReachedCountsAllColumnsAlike) {
  GgufWriter writer;
  writer.AddString("general.architecture", "llama");
  const std::vector<float> weights(128, 1.0f);
  const int64_t ne[] = {32, 2, 2};
  writer.AddTensor("blk.0.ffn_up_exps.weight", DType::kF32, ne,
                   std::span(reinterpret_cast<const uint8_t*>(weights.data()), 512));
  writer.Write(folder_ / "m.gguf");
  const ModelSource source = OpenGgufSource(folder_ / "m.gguf");
  ImportanceMatrix matrix;
  ImportanceEntry& entry = matrix.entries["blk.0.ffn_up_exps.weight"];
  entry.sums.assign(64, 0);
  std::iota(entry.sums.begin(), entry.sums.begin() + 32, 0.0);
  entry.counts = {5, 0};
  const ImportanceWeights ready(matrix, source);
  EXPECT_EQ(ready.num_matrices(), 2);
  EXPECT_EQ(ready.num_unreached(), 1);
  const auto of = ready.Of(source.tensors[0]);
  ASSERT_EQ(of.size(), 64u);
  EXPECT_GT(of[0], 0.0f);
  EXPECT_NEAR(std::accumulate(of.begin(), of.begin() + 32, 0.0), 32, 0.01);
  EXPECT_EQ(of[32], 1.0f);
  EXPECT_EQ(of[63], 1.0f);
  const auto scales = ready.ScalesOf(source.tensors[0]);  // 0 + 1 + ... + 31 of 5 tokens
  ASSERT_EQ(scales.size(), 2u);
  EXPECT_FLOAT_EQ(scales[0], 496.0f / 5 / 32);
  EXPECT_EQ(scales[1], 0.0f);
  entry.sums.resize(32);
  EXPECT_THAT(MessageOf([&] { ImportanceWeights(matrix, source); }),
              HasSubstr("it is of another model"));
  matrix.entries = {{"blk.9.attn_q.weight", {{1}, {1}}}};
  EXPECT_THAT(MessageOf([&] { ImportanceWeights(matrix, source); }), HasSubstr("found none"));
}

TEST_F(ImportanceTest, ColumnsWithLargeInputsAreEncodedMoreExactly) {
  const ModelSource source = OpenGgufSource(Write("m.gguf", testing::WideModel(DType::kF32)));
  ImportanceMatrix matrix;
  for (const SourceTensor& tensor : source.tensors) {
    if (!tensor.name.starts_with("blk.") || !IsQuantizable(tensor)) continue;
    ImportanceEntry& entry = matrix.entries[tensor.name];
    entry.counts = {1};
    for (int64_t k = 0; k < 256; ++k) entry.sums.push_back(k % 8 == 0 ? 100 : 0.01);
  }
  const ImportanceWeights ready(matrix, source);
  const QuantizePlan plan =
      PlanQuantize(source, {.mix = FindQuantMix("Q4_K_S"), .has_importance = true});
  WriteQuantized(source, plan, folder_ / "plain.gguf", kernels_, pool_);
  WriteQuantized(source, plan, folder_ / "weighted.gguf", kernels_, pool_,
                 {.importance = ready.AsSource(), .notes = ready.Notes(matrix, "i.gguf")});
  const auto error = [&](const char* file) {
    const ModelSource out = OpenGgufSource(folder_ / file);
    const std::vector<float> a = Values(*source.Find("blk.3.attn_q.weight")),
                             b = Values(*out.Find("blk.3.attn_q.weight"));
    double sum = 0;
    for (size_t i = 0; i < a.size(); i += 8) sum += std::pow(a[i] - b[i], 2);
    return sum;
  };
  EXPECT_LT(error("weighted.gguf"), 0.7 * error("plain.gguf"));
  EXPECT_EQ(GgufFile::Open(folder_ / "weighted.gguf").GetString("quantize.imatrix.file"), "i.gguf");
}

}  // namespace
}  // namespace bakestone
