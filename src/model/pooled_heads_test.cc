// Heads that score, against the logits of transformers (tools/make_classifier_goldens.py), as
// folder and as GGUF; and dense layers against double arithmetic.
#include "model/pooled_heads.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <functional>

#include <fmt/format.h>

#include "base/error.h"
#include "format/gguf_writer.h"
#include "format/safetensors.h"
#include "kernels/isa.h"
#include "model/decoder.h"
#include "model/model_file.h"
#include "model/test_golden.h"

namespace bakestone {
namespace {

constexpr double kTolerance = 1e-4;

std::filesystem::path HeadFolder(std::string_view name) {
  return std::filesystem::path(BAKESTONE_TEST_DATA) / "classifiers" / name;
}

ThreadPool& HeadPool() {
  static ThreadPool pool{2};
  return pool;
}

struct PairGolden {
  std::vector<int32_t> tokens;
  std::vector<uint8_t> types;
  std::vector<float> logits;
};

PairGolden ReadPair(std::string_view name) {
  const SafetensorsFile file = SafetensorsFile::Open(HeadFolder(name) / "golden.safetensors");
  return {testing::ValuesOf<int32_t>(file, "tokens"), testing::ValuesOf<uint8_t>(file, "types"),
          testing::ValuesOf<float>(file, "logits")};
}

std::vector<float> LogitsOfHead(const ModelConfig& config, const Weights& weights,
                                const KernelTable& kernels, const PairGolden& pair) {
  Exec exec(kernels, HeadPool(), Precision::kExact);
  const auto length = static_cast<int32_t>(pair.tokens.size());
  std::vector<int32_t> positions;
  for (int32_t i = 0; i < length; ++i) positions.push_back(i);
  const SequenceRun run = {0, length, nullptr};
  const auto width = static_cast<size_t>(config.hidden_dim);
  std::vector<float> hidden(pair.tokens.size() * width), pooled(width);
  Decoder(config, weights)
      .Forward(exec,
               {.tokens = pair.tokens,
                .positions = positions,
                .sequences = {&run, 1},
                .output_rows = positions,
                .token_types = pair.types},
               DenseView(hidden.data(), length, config.hidden_dim));
  const size_t rows = config.classifier.pooling == Pooling::kMean ? pair.tokens.size() : 1;
  for (size_t i = 0; i < rows * width; ++i) {
    pooled[i % width] += hidden[i] / static_cast<float>(rows);
  }
  std::vector<float> logits(static_cast<size_t>(config.classifier.labels));
  Classify(exec, config, weights, DenseView<const float>(pooled.data(), 1, config.hidden_dim),
           DenseView(logits.data(), 1, config.classifier.labels));
  return logits;
}

double Farthest(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return INFINITY;
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    most = std::max(most, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  }
  return most;
}

class ClassifierProof : public ::testing::TestWithParam<const char*> {};

TEST_P(ClassifierProof, LogitsAreThoseOfTransformers) {
  const PairGolden golden = ReadPair(GetParam());
  for (const auto& path : {HeadFolder(GetParam()), HeadFolder(GetParam()) / "model.gguf"}) {
    if (!std::filesystem::exists(path)) continue;  // a mean that is none, which GGUF cannot say
    const ModelFile file = ModelFile::Open(path);
    const ModelConfig config = file.Config();
    ASSERT_EQ(config.classifier.labels, std::ssize(golden.logits)) << path;
    const auto weights = Weights::Load(file.Tensors(), config, ChooseKernels(nullptr), HeadPool());
    for (const KernelTable* table : AvailableKernels()) {
      EXPECT_LT(Farthest(LogitsOfHead(config, *weights, *table, golden), golden.logits), kTolerance)
          << path << " " << IsaName(table->isa);
    }
  }
}

TEST_P(ClassifierProof, WhatAHeadHasMatters) {
  PairGolden golden = ReadPair(GetParam());
  const ModelFile file = ModelFile::Open(HeadFolder(GetParam()));
  const auto moves = [&](const char* what,
                         const std::function<void(ModelConfig&, Weights&)>& change) {
    ModelConfig config = file.Config();
    const auto weights = Weights::Load(file.Tensors(), config, ChooseKernels(nullptr), HeadPool());
    change(config, *weights);
    const auto logits = LogitsOfHead(config, *weights, ChooseKernels(nullptr), golden);
    EXPECT_GT(Farthest(logits, golden.logits), 100 * kTolerance) << what;
  };
  const ClassifierConfig head = file.Config().classifier;
  moves("pooling", [](ModelConfig& config, Weights&) {
    config.classifier.pooling =
        config.classifier.pooling == Pooling::kMean ? Pooling::kFirst : Pooling::kMean;
  });
  moves("activation", [](ModelConfig& config, Weights&) {
    using Activation = ClassifierConfig::Activation;
    config.classifier.activation =
        config.classifier.activation == Activation::kTanh ? Activation::kGelu : Activation::kTanh;
  });
  if (!head.norm.empty()) {
    moves("norm", [](ModelConfig&, Weights& weights) { weights.classifier.norm.clear(); });
  }
  const ModelConfig plain = file.Config();
  const auto loaded = Weights::Load(file.Tensors(), plain, ChooseKernels(nullptr), HeadPool());
  if (loaded->classifier.dense.bias() != nullptr) {
    moves("bias", [](ModelConfig&, Weights& weights) { weights.classifier.dense.ClearBias(); });
  }
  moves("bias of the labels",
        [](ModelConfig&, Weights& weights) { weights.classifier.out.ClearBias(); });
  if (std::string_view(GetParam()) != "bert") return;
  golden.types.clear();
  moves("types of the second text", [](ModelConfig&, Weights&) {});
}

INSTANTIATE_TEST_SUITE_P(Heads, ClassifierProof,
                         ::testing::Values("bert", "xlm-roberta", "modernbert", "modernbert_cls"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

// A type that the table does not have; and a file whose pooler was left out, as converters do.
TEST(Classifier, RefusesWhatWouldBeAnotherModelsScores) {
  PairGolden golden = ReadPair("xlm-roberta");
  const ModelFile file = ModelFile::Open(HeadFolder("xlm-roberta"));
  const ModelConfig config = file.Config();
  const auto weights = Weights::Load(file.Tensors(), config, ChooseKernels(nullptr), HeadPool());
  golden.types.back() = 1;
  EXPECT_THROW(LogitsOfHead(config, *weights, ChooseKernels(nullptr), golden), Error);

  const GgufFile whole = GgufFile::Open(HeadFolder("bert") / "model.gguf");
  GgufWriter writer;
  for (const auto& [key, value] : whole.metadata()) writer.AddValue(key, value);
  for (const GgufTensor& tensor : whole.tensors()) {
    if (tensor.name == "cls.weight" || tensor.name == "cls.bias") continue;
    writer.AddTensor(tensor.name, tensor.type,
                     std::span(tensor.ne).first(static_cast<size_t>(tensor.num_dims)), tensor.data);
  }
  const auto path =
      std::filesystem::path(::testing::TempDir()) / fmt::format("no_pooler_{}.gguf", ::getpid());
  writer.Write(path);
  try {
    ModelFile::Open(path).Config();
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_THAT(std::string(error.what()), ::testing::HasSubstr("cls.weight"));
  }
  std::filesystem::remove(path);
}

TEST(DenseLayers, AreProductsThroughTanhWhereTheySaySo) {
  const auto families = std::filesystem::path(BAKESTONE_TEST_DATA) / "families";
  const ModelFile file = ModelFile::Open(families / "gemma3_text+use_bidirectional_attention");
  ModelConfig config = file.Config();
  ASSERT_EQ(config.encoder.dense.size(), 2u);
  config.encoder.dense[0].tanh = true;
  const auto weights = Weights::Load(file.Tensors(), config, ChooseKernels(nullptr), HeadPool());
  std::vector<float> pooled(static_cast<size_t>(config.hidden_dim)),
      out(static_cast<size_t>(config.embedding_width()));
  for (size_t i = 0; i < pooled.size(); ++i) pooled[i] = static_cast<float>(i % 7) * 0.2f - 0.5f;
  Exec exec(ChooseKernels(nullptr), HeadPool(), Precision::kExact);
  ApplyDense(exec, config, *weights, DenseView<const float>(pooled.data(), 1, config.hidden_dim),
             DenseView(out.data(), 1, config.embedding_width()));
  std::vector<double> x(pooled.begin(), pooled.end());
  for (size_t layer = 0; layer < 2; ++layer) {
    const Weight& weight = weights->dense[layer];
    std::vector<float> rows(static_cast<size_t>(weight.n() * weight.k()));
    weight.DequantizeRows(ChooseKernels(nullptr), {0, weight.n()},
                          DenseView(rows.data(), weight.n(), weight.k()));
    std::vector<double> y(static_cast<size_t>(weight.n()));
    for (size_t i = 0; i < rows.size(); ++i) {
      y[i / x.size()] += static_cast<double>(rows[i]) * x[i % x.size()];
    }
    if (layer == 0) {
      std::transform(y.begin(), y.end(), y.begin(), [](double value) { return std::tanh(value); });
    }
    x = y;
  }
  for (size_t i = 0; i < out.size(); ++i) EXPECT_NEAR(static_cast<double>(out[i]), x[i], 1e-5) << i;
}

}  // namespace
}  // namespace bakestone
