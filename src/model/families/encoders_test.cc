// Encoders against the hidden states and vectors that transformers and sentence-transformers
// compute.
#include <algorithm>
#include <functional>

#include "model/families/test_families.h"
#include "model/pooled_heads.h"

namespace bakestone {
namespace {

using namespace testing;

class EncoderProof : public FamilyProof {};

TEST_P(EncoderProof, HiddenStatesAreThoseOfTransformers) {
  const Golden golden = ReadGolden(type());
  for (const auto& path : {FolderOf(type()), FolderOf(type()) / "model.gguf"}) {
    const ModelFile file = ModelFile::Open(path);
    for (const KernelTable* table : AvailableKernels()) {
      EXPECT_LT(
          MaxDifference(StatesOf(file, *table, golden.tokens, Precision::kExact)[0], golden.logits),
          kTolerance)
          << path << " " << IsaName(table->isa);
    }
    for (const int64_t window : file.Config().windows) {
      EXPECT_LT(2 * window, static_cast<int64_t>(golden.tokens.size()))
          << "no row sees a whole window and no end of the text";
    }
  }
}

// Where the golden has it: mean, dense layers, length 1.
TEST_P(EncoderProof, VectorsAreThoseOfSentenceTransformers) {
  const SafetensorsFile golden_file =
      SafetensorsFile::Open(FolderOf(type()) / "golden.safetensors");
  EXPECT_EQ(golden_file.Find("embedding") != nullptr,
            !ModelFile::Open(FolderOf(type())).Config().encoder.dense.empty());
  if (golden_file.Find("embedding") == nullptr) return;
  const Golden golden = ReadGolden(type());
  const auto expected = testing::ValuesOf<float>(golden_file, "embedding");
  for (const auto& path : {FolderOf(type()), FolderOf(type()) / "model.gguf"}) {
    const ModelFile file = ModelFile::Open(path);
    const ModelConfig config = file.Config();
    EXPECT_EQ(config.encoder.pooling, Pooling::kMean);
    ASSERT_EQ(config.embedding_width(), std::ssize(expected));
    const auto weights = LoadFrom(file, config);
    const auto states =
        StatesOf(config, *weights, ChooseKernels(nullptr), golden.tokens, Precision::kExact)[0];
    const auto width = static_cast<size_t>(config.hidden_dim);
    std::vector<float> mean(width), vector(expected.size());
    for (size_t i = 0; i < states.size(); ++i) {
      mean[i % width] += states[i] / static_cast<float>(golden.tokens.size());
    }
    Exec exec(ChooseKernels(nullptr), Pool(), Precision::kExact);
    ApplyDense(exec, config, *weights, DenseView<const float>(mean.data(), 1, config.hidden_dim),
               DenseView(vector.data(), 1, std::ssize(vector)));
    double length = 0;
    for (const float value : vector) {
      length += static_cast<double>(value) * static_cast<double>(value);
    }
    for (float& value : vector) value /= static_cast<float>(std::sqrt(length));
    EXPECT_LT(MaxDifference(vector, expected), kTolerance) << path;
  }
}

TEST_P(EncoderProof, SomeRowsAloneAreTheSameBits) {
  const Golden golden = ReadGolden(type());
  const ModelFile file = ModelFile::Open(FolderOf(type()));
  const ModelConfig config = file.Config();
  const auto weights = LoadFrom(file, config);
  const auto whole =
      StatesOf(config, *weights, ChooseKernels(nullptr), golden.tokens, Precision::kServe)[0];
  Exec exec(ChooseKernels(nullptr), Pool(), Precision::kServe);
  const auto length = static_cast<int32_t>(golden.tokens.size());
  std::vector<int32_t> positions(golden.tokens.size());
  for (int32_t i = 0; i < length; ++i) positions[static_cast<size_t>(i)] = i;
  const SequenceRun run = {0, length, nullptr};
  const std::vector<int32_t> rows = {0, 1, 9, length - 2, length - 1};
  std::vector<float> some(rows.size() * static_cast<size_t>(config.hidden_dim));
  Decoder(config, *weights)
      .Forward(exec,
               {.tokens = golden.tokens,
                .positions = positions,
                .sequences = {&run, 1},
                .output_rows = rows},
               DenseView(some.data(), std::ssize(rows), config.hidden_dim));
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto width = static_cast<size_t>(config.hidden_dim);
    const auto row = static_cast<size_t>(rows[i]);
    EXPECT_EQ(MaxDifference(std::span(some).subspan(i * width, width),
                            std::span(whole).subspan(row * width, width)),
              0);
  }
}

TEST_P(EncoderProof, ATextDoesNotDependOnItsNeighboursNorOnTheTable) {
  const Golden golden = ReadGolden(type());
  const ModelFile file = ModelFile::Open(FolderOf(type()));
  const auto both = StatesOf(file, ChooseKernels(nullptr), golden.tokens, Precision::kServe);
  const auto alone =
      StatesOf(file, ChooseKernels(nullptr), std::span(golden.tokens).first(7), Precision::kServe);
  EXPECT_EQ(MaxDifference(both[1], alone[0]), 0);
  for (const KernelTable* table : AvailableKernels()) {
    EXPECT_EQ(MaxDifference(StatesOf(file, *table, golden.tokens, Precision::kServe)[0], both[0]),
              0)
        << IsaName(table->isa);
  }
}

TEST_P(EncoderProof, WhatAnEncoderHasMatters) {
  const Golden golden = ReadGolden(type());
  const ModelFile file = ModelFile::Open(FolderOf(type()));
  const auto moves = [&](const char* what,
                         const std::function<void(ModelConfig&, Weights&)>& change) {
    const auto states =
        StatesOf(file, ChooseKernels(nullptr), golden.tokens, Precision::kExact, change);
    EXPECT_GT(MaxDifference(states[0], golden.logits), 100 * kTolerance) << what;
  };
  const ModelConfig config = file.Config();
  const auto weights = LoadFrom(file, config);
  moves("both ways", [](ModelConfig& changed, Weights&) { changed.encoder.both_ways = false; });
  if (config.encoder.token_types) {
    moves("token types",
          [](ModelConfig& changed, Weights&) { changed.encoder.token_types = false; });
  }
  if (!weights->layers[0].mlp_norm_bias.empty()) {
    moves("bias of a norm", [](ModelConfig&, Weights& w) { w.layers[0].mlp_norm_bias.clear(); });
  }
  if (config.encoder.embedding_norm) {
    moves("norm of the embedding",
          [](ModelConfig& changed, Weights&) { changed.encoder.embedding_norm = false; });
  }
  if (!weights->embedding_norm_bias.empty()) {
    moves("bias of the embedding's norm",
          [](ModelConfig&, Weights& w) { w.embedding_norm_bias.clear(); });
  }
  if (config.encoder.bare_first) {
    moves("no norm before the first attention", [](ModelConfig&, Weights& w) {
      w.layers[0].attention_norm = w.layers[1].attention_norm;
    });
  }
  if (config.encoder.positions > 0) {
    moves("positions", [](ModelConfig& changed, Weights&) { changed.encoder.positions = 0; });
  } else {
    moves("rope", [](ModelConfig& changed, Weights&) { changed.rope.theta = 10; });
  }
  if (config.encoder.first_position > 0) {
    ModelConfig from_zero = config;
    from_zero.encoder.first_position = 0;
    from_zero.encoder.positions += config.encoder.first_position;
    const auto states = StatesOf(from_zero, *LoadFrom(file, from_zero), ChooseKernels(nullptr),
                                 golden.tokens, Precision::kExact);
    EXPECT_GT(MaxDifference(states[0], golden.logits), 100 * kTolerance) << "first position";
  }
  if (!config.windows.empty()) {
    moves("width of the window", [](ModelConfig& changed, Weights&) {
      for (int64_t& window : changed.windows) window = window > 0 ? window + 2 : 0;
    });
  }
  if (config.mlp == MlpKind::kErfGelu ||
      config.mlp == MlpKind::kErfGeGlu) {  // the tanh form is within 5e-4
    const auto tanh = [](ModelConfig& changed, Weights&) {
      changed.mlp = changed.mlp == MlpKind::kErfGelu ? MlpKind::kGelu : MlpKind::kGeGlu;
    };
    const auto states =
        StatesOf(file, ChooseKernels(nullptr), golden.tokens, Precision::kExact, tanh);
    EXPECT_GT(MaxDifference(states[0], golden.logits), kTolerance);
  }
  if (config.norm_placement == NormPlacement::kSum) return;
  for (const Axis& axis : Axes()) {
    if (axis.declared(config)) moves(axis.name, axis.flip);
  }
}

INSTANTIATE_TEST_SUITE_P(Types, EncoderProof, ::testing::ValuesIn(AllTypes(true)),
                         [](const auto& info) { return TestName(info.param); });

}  // namespace
}  // namespace bakestone
