// Pairs on the experts of a mixture: served as peft computes them, and trained the same whatever
// the circumstances. What a step computes is held against autograd in families_test.cc.
#include <gmock/gmock.h>

#include <algorithm>

#include "base/error.h"
#include "base/rng.h"
#include "format/peft.h"
#include "kernels/isa.h"
#include "model/adapter.h"
#include "model/decoder.h"
#include "model/model_file.h"
#include "model/test_golden.h"
#include "model/train_engine.h"
#include "model/train_memory.h"

namespace bakestone {
namespace {

using ::testing::HasSubstr;

std::filesystem::path DataFolder(const std::string& name) {
  return std::filesystem::path(BAKESTONE_TEST_DATA) / name;
}

// A tiny mixture of tests/data/families.
struct Mixture {
  explicit Mixture(const std::string& type)
      : file(ModelFile::Open(DataFolder("families/" + type))),
        config(file.Config()),
        weights(Weights::Load(file.Tensors(), config, ChooseKernels(nullptr), pool)),
        decoder(config, *weights) {}
  ThreadPool pool{2};
  ModelFile file;
  ModelConfig config;
  std::unique_ptr<Weights> weights;
  Decoder decoder;

  struct Options {
    const KernelTable* kernels = &ChooseKernels(nullptr);
    Precision precision = Precision::kExact;
    int64_t chunk = 1000;
  };
  // Logits of all tokens of texts that are computed side by side, each with its adapter, in steps
  // of `chunk` tokens.
  std::vector<std::vector<float>> Logits(const std::vector<std::vector<int32_t>>& texts,
                                         const std::vector<const Adapter*>& adapters,
                                         const Options& options) {
    Exec exec(*options.kernels, pool, options.precision);
    const KvType type = options.precision == Precision::kExact ? KvType::kF32 : KvType::kBf16;
    const auto allocator = MakeHeapAllocator(config, type, int64_t{1} << 28);
    std::vector<SequenceState> states;
    for (size_t i = 0; i < texts.size(); ++i) states.emplace_back(config, type, *allocator);
    std::vector<std::vector<float>> logits(texts.size());
    for (size_t begin = 0;; begin += static_cast<size_t>(options.chunk)) {
      std::vector<int32_t> tokens, positions, rows;
      std::vector<SequenceRun> runs;
      std::vector<AdapterRun> adapted;
      std::vector<size_t> owners;
      for (size_t i = 0; i < texts.size(); ++i) {
        const auto first = static_cast<int32_t>(tokens.size());
        for (size_t at = begin;
             at < std::min(texts[i].size(), begin + static_cast<size_t>(options.chunk)); ++at) {
          rows.push_back(static_cast<int32_t>(tokens.size()));
          tokens.push_back(texts[i][at]);
          positions.push_back(static_cast<int32_t>(at));
          owners.push_back(i);
        }
        const auto end = static_cast<int32_t>(tokens.size());
        if (end == first) continue;
        states[i].Reserve(end - first);
        runs.push_back({first, end, &states[i]});
        adapted.push_back({first, end, adapters[i]});
      }
      if (tokens.empty()) return logits;
      std::vector<float> hidden(rows.size() * static_cast<size_t>(config.hidden_dim)),
          out(rows.size() * static_cast<size_t>(config.vocab_size));
      const auto count = static_cast<int64_t>(rows.size());
      const auto h = DenseView(hidden.data(), count, config.hidden_dim);
      decoder.Forward(exec, {tokens, positions, runs, adapted, rows}, h);
      for (const SequenceRun& run : runs) run.state->Commit(run.end - run.begin);
      decoder.Logits(exec, h, DenseView(out.data(), count, config.vocab_size));
      for (size_t row = 0; row < owners.size(); ++row) {
        const auto at = out.begin() + static_cast<int64_t>(row) * config.vocab_size;
        logits[owners[row]].insert(logits[owners[row]].end(), at, at + config.vocab_size);
      }
    }
  }
};

class ExpertPairs : public ::testing::TestWithParam<std::string> {
 protected:
  Mixture mixture_{GetParam()};
  std::filesystem::path folder_ = DataFolder("peft/experts_" + GetParam());
};

TEST_P(ExpertPairs, OfPeftGiveItsLogitsInEveryTable) {
  const SafetensorsFile golden = SafetensorsFile::Open(folder_ / "golden.safetensors");
  const auto tokens = testing::ValuesOf<int32_t>(golden, "tokens");
  const auto expected = testing::ValuesOf<float>(golden, "logits");
  const auto adapter = Adapter::Load(ReadPeftAdapter(folder_), mixture_.config);
  for (const KernelTable* table : AvailableKernels()) {
    const auto logits = mixture_.Logits({tokens}, {adapter.get()}, {.kernels = table})[0];
    ASSERT_EQ(logits.size(), expected.size());
    float most = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
      most = std::max(most, std::abs(logits[i] - expected[i]));
    }
    EXPECT_LT(most, 1e-4f) << IsaName(table->isa);
  }
}

TEST_P(ExpertPairs, ChangeNoBitOfNeighboursChunksAndTables) {
  const auto adapter = Adapter::Load(ReadPeftAdapter(folder_), mixture_.config);
  const auto tokens =
      testing::ValuesOf<int32_t>(SafetensorsFile::Open(folder_ / "golden.safetensors"), "tokens");
  const std::vector<int32_t> other(tokens.rbegin(), tokens.rend());
  const std::vector<std::vector<int32_t>> texts = {other, tokens, tokens};
  const std::vector<const Adapter*> adapters = {nullptr, adapter.get(), nullptr};
  for (const Precision precision : {Precision::kServe, Precision::kExact}) {
    std::vector<std::vector<float>> alone;
    for (size_t i = 0; i < texts.size(); ++i) {
      alone.push_back(mixture_.Logits({texts[i]}, {adapters[i]}, {.precision = precision})[0]);
    }
    EXPECT_NE(alone[1], alone[2]);
    for (const KernelTable* table : AvailableKernels()) {
      for (const int64_t chunk : {1, 7, 1000}) {
        EXPECT_EQ(mixture_.Logits(texts, adapters,
                                  {.kernels = table, .precision = precision, .chunk = chunk}),
                  alone)
            << IsaName(table->isa);
      }
    }
  }
}

// Random pairs, a batch of two documents, and gradients by one engine.
struct TrainingStep {
  explicit TrainingStep(const Mixture& mixture, const std::vector<std::string>& targets = {"all"})
      : layout(TrainLayout::Make(mixture.config, {.targets = targets, .rank = 4})),
        values(static_cast<size_t>(layout.size)) {
    for (const TrainTensor& tensor : layout.tensors) {  // by name: the same pairs for any targets
      Rng rng(3, std::hash<std::string>()(tensor.name));
      for (int64_t i = 0; i < tensor.size(); ++i) {
        values[static_cast<size_t>(tensor.offset + i)] = 0.2f * rng.Normal();
      }
    }
    Rng rng(4, 0);
    for (int32_t i = 0; i < 44; ++i) {
      tokens.push_back(
          static_cast<int32_t>(rng.Below(static_cast<uint64_t>(mixture.config.vocab_size))));
      targets_of_rows.push_back(
          static_cast<int32_t>(rng.Below(static_cast<uint64_t>(mixture.config.vocab_size))));
      positions.push_back(i < 21 ? i : i - 21);
      rows.push_back(i);
    }
  }
  std::vector<float> Gradients(const Mixture& mixture, int threads, PassOptions options = {},
                               int64_t* peak = nullptr) const {
    ThreadPool pool(threads);
    const KernelTable& kernels = ChooseKernels(nullptr);
    TrainEngine engine(mixture.config, SourceOf(*mixture.weights, kernels), layout, 0.5f,
                       kernels.train, pool, options);
    engine.SetValues(values);
    std::vector<float> gradients(values.size());
    engine.ForwardBackward({tokens, positions, begins, rows, targets_of_rows, weights}, {},
                           gradients);
    if (peak != nullptr) *peak = engine.peak_bytes();
    return gradients;
  }
  TrainLayout layout;
  std::vector<float> values, weights = std::vector<float>(44, 1.0f);
  std::vector<int32_t> tokens, positions, rows, targets_of_rows, begins = {0, 21};
};

class ExpertTraining : public ::testing::TestWithParam<std::string> {
 protected:
  Mixture mixture_{GetParam()};
};

TEST_P(ExpertTraining, AreTrainedWithTheSameBitsForAnyThreadsRecomputationAndCache) {
  const TrainingStep step(mixture_);
  const std::vector<float> one = step.Gradients(mixture_, 1);
  for (const int threads : {2, 3, 5}) EXPECT_EQ(step.Gradients(mixture_, threads), one) << threads;
  EXPECT_EQ(step.Gradients(mixture_, 2, {.activation = ActivationPolicy::kRecompute}), one);
  EXPECT_EQ(step.Gradients(mixture_, 2, {.weight_cache_bytes = 0}), one);
}

TEST_P(ExpertTraining, TakeNoMoreMemoryThanWasEstimated) {
  const TrainingStep step(mixture_);
  for (const PassOptions options :
       {PassOptions{},
        PassOptions{.activation = ActivationPolicy::kRecompute, .weight_cache_bytes = 0}}) {
    int64_t peak = 0;
    step.Gradients(mixture_, 2, options, &peak);
    const TrainMemory memory =
        EstimateTrainMemory(mixture_.config, step.layout, 44, false, options);
    const int64_t estimated = memory.values + memory.weights + memory.activations + memory.loss;
    EXPECT_LT(peak, estimated * 3 / 2);
    EXPECT_GT(peak, estimated / 3);
  }
}

TEST_P(ExpertTraining, AFewOfThemGetTheGradientsThatTheyGetAmongAll) {
  for (const std::string target :
       {"layers.2.mlp.experts.*.down_proj", "experts.3.up_proj", "mlp.experts.*", "self_attn.*"}) {
    SCOPED_TRACE(target);
    const TrainingStep few(mixture_, {target});
    const std::vector<float> found = few.Gradients(mixture_, 2);
    // Among all of which the others are 0, as the base is.
    TrainingStep all(mixture_);
    for (const TrainTensor& tensor : all.layout.tensors) {
      const bool trained =
          std::any_of(few.layout.tensors.begin(), few.layout.tensors.end(),
                      [&](const TrainTensor& other) { return other.name == tensor.name; });
      if (!trained) std::fill_n(all.values.begin() + tensor.offset, tensor.size(), 0.0f);
    }
    const std::vector<float> expected = all.Gradients(mixture_, 2);
    std::vector<float> part;
    for (const TrainTensor& tensor : few.layout.tensors) {
      const auto same =
          std::find_if(all.layout.tensors.begin(), all.layout.tensors.end(),
                       [&](const TrainTensor& other) { return other.name == tensor.name; });
      ASSERT_NE(same, all.layout.tensors.end());
      part.insert(part.end(), expected.begin() + same->offset,
                  expected.begin() + same->offset + same->size());
    }
    EXPECT_LT(testing::RelativeError(found, part), 0.01);
  }
}

INSTANTIATE_TEST_SUITE_P(Types, ExpertPairs, ::testing::Values("mixtral", "qwen3_moe"),
                         [](const auto& info) { return info.param; });
INSTANTIATE_TEST_SUITE_P(Types, ExpertTraining,
                         ::testing::Values("mixtral", "qwen3_moe", "qwen2_moe"),
                         [](const auto& info) { return info.param; });

TEST(ExpertPairs, WhatCannotBeTrainedOrServedIsNamed) {
  const Mixture mixture("mixtral");
  const auto message = [](const auto& call) -> std::string {
    try {
      call();
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(message([&] { TrainLayout::Make(mixture.config, {.rank = 4, .dora = true}); }),
              HasSubstr("layers.0.mlp.experts.0.gate_proj"));
  EXPECT_EQ(message([&] {
              TrainLayout::Make(mixture.config,
                                {.targets = {"self_attn.*"}, .rank = 4, .dora = true});
            }),
            "");
  EXPECT_THAT(message([&] { TrainLayout::Make(mixture.config, {.rank = 0}); }), HasSubstr("pairs"));
  EXPECT_THAT(
      message([&] { TrainLayout::Make(mixture.config, {.targets = {"mlp.gate"}, .rank = 4}); }),
      HasSubstr("mlp.gate"));
  AdapterFile file = ReadPeftAdapter(DataFolder("peft/experts_mixtral"));
  for (AdapterEntry& entry : file.entries) {
    if (entry.expert == 4) entry.expert = 5;
  }
  EXPECT_THAT(message([&] { Adapter::Load(file, mixture.config); }),
              HasSubstr("layers.0.mlp.experts.5."));
  const ModelConfig interleaved = ModelFile::Open(DataFolder("families/gpt_oss")).Config();
  file.architecture.clear();
  EXPECT_NE(message([&] { Adapter::Load(file, interleaved); }), "");
}

}  // namespace
}  // namespace bakestone
