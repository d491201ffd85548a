// Every way of training against PyTorch and PEFT: gradients of each trained tensor, and ten steps
// with the optimizer. Goldens: tools/make_method_goldens.py.
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>

#include "kernels/isa.h"
#include "model/test_golden.h"
#include "model/train_engine.h"
#include "ops/train_ops.h"

namespace bakestone {
namespace {

using testing::RelativeError;
using testing::ValuesOf;
using testing::Widened;

std::string NameOf(LinearId id) {
  return "layers." + std::to_string(id.layer) + "." + std::string(SiteName(id.site));
}

// The model, pairs and batch of the generator.
class Golden {
 public:
  Golden()
      : file(
            SafetensorsFile::Open(std::string(BAKESTONE_TEST_DATA) + "/train/methods.safetensors")),
        tokens(ValuesOf<int32_t>(file, "tokens")),
        positions(ValuesOf<int32_t>(file, "positions")),
        begins(ValuesOf<int32_t>(file, "begins")),
        loss_rows(ValuesOf<int32_t>(file, "loss_rows")),
        targets(ValuesOf<int32_t>(file, "targets")),
        weights(ValuesOf<float>(file, "weights")) {
    config.num_layers = 2;
    config.hidden_dim = 32;
    config.ffn_dim = 48;
    config.num_heads = 4;
    config.num_kv_heads = 2;
    config.head_dim = 16;
    config.vocab_size = 61;
    config.tied_embedding = true;
    config.rope = {.theta = 10000, .dim = 16};
    for (const auto& tensor : file.tensors()) {
      if (tensor.name.starts_with("w.") || tensor.name.starts_with("p.")) {
        values_[tensor.name.substr(2)] = Widened(file, tensor.name);
      }
    }
    for (int layer = 0; layer < 2; ++layer) {
      for (const Site site : {Site::kQ, Site::kK, Site::kV}) biases.push_back({layer, site});
    }
  }

  float Number(const char* name) const { return std::stof(std::string(file.Metadata(name))); }
  TrainBatch batch() const { return {tokens, positions, begins, loss_rows, targets, weights}; }

  TrainSource source() const {
    const auto rows = [this](std::string name) {
      return [this, name = std::move(name)](Range range, MatrixView<float> out) {
        const std::vector<float>& values = values_.at(name);
        std::copy(values.begin() + range.begin * out.cols, values.begin() + range.end * out.cols,
                  out.data);
      };
    };
    TrainSource source;
    source.linear = [rows](LinearId id, Range range, MatrixView<float> out) {
      rows(NameOf(id) + ".weight")(range, out);
    };
    source.bias = [this](LinearId id) {
      const auto found = values_.find(NameOf(id) + ".bias");
      return found == values_.end() ? nullptr : found->second.data();
    };
    source.embedding = source.head = rows("embed_tokens.weight");
    source.attention_norm = [this](int64_t layer) {
      return values_.at("layers." + std::to_string(layer) + ".input_layernorm.weight").data();
    };
    source.mlp_norm = [this](int64_t layer) {
      return values_.at("layers." + std::to_string(layer) + ".post_attention_layernorm.weight")
          .data();
    };
    source.final_norm = [this] { return values_.at("norm.weight").data(); };
    return source;
  }

  // The model's own tensors, or the generator's pairs.
  std::vector<float> ValuesFor(const TrainLayout& layout) const {
    std::vector<float> values(static_cast<size_t>(layout.size));
    for (const TrainTensor& tensor : layout.tensors) {
      const std::vector<float>& from = values_.at(tensor.name);
      EXPECT_EQ(static_cast<int64_t>(from.size()), tensor.size()) << tensor.name;
      std::copy(from.begin(), from.end(), values.begin() + tensor.offset);
    }
    return values;
  }

  std::vector<float> Expected(const std::string& prefix, const TrainLayout& layout) const {
    std::vector<float> values;
    for (const TrainTensor& tensor : layout.tensors) {
      const auto part = ValuesOf<float>(file, prefix + "." + tensor.name);
      values.insert(values.end(), part.begin(), part.end());
    }
    return values;
  }

 private:
  std::map<std::string, std::vector<float>> values_;

 public:
  SafetensorsFile file;
  ModelConfig config;
  std::vector<LinearId> biases;
  std::vector<int32_t> tokens, positions, begins, loss_rows, targets;
  std::vector<float> weights;
};

// A layout of the golden model, with an engine that has its values.
struct Workbench {
  Workbench(const Golden& golden, const TrainShape& shape, const KernelTable& kernels,
            int threads = 2, PassOptions options = {})
      : kernels(kernels),
        pool(threads),
        layout(TrainLayout::Make(golden.config, shape, golden.biases)),
        values(golden.ValuesFor(layout)),
        engine(golden.config, golden.source(), layout, golden.Number("scale"), kernels.train, pool,
               options) {
    engine.SetValues(values);
  }

  std::vector<float> Gradients(const TrainBatch& batch, const Objective& objective,
                               LossSums* sums) {
    std::vector<float> gradients(values.size());
    *sums = engine.ForwardBackward(batch, objective, gradients);
    return gradients;
  }

  const KernelTable& kernels;
  ThreadPool pool;
  TrainLayout layout;
  std::vector<float> values;
  TrainEngine engine;
};

constexpr int64_t kRank = 3;

// bf16 operands through two layers: 1 to 4 % of the norm; a wrong formula is off by tens of it.
// bound: of all tensors together, single ones may be off by twice as much.
void ExpectLikePyTorch(const Golden& golden, const std::string& prefix, const Workbench& setup,
                       const std::vector<float>& gradients, double bound = 0.03) {
  const std::vector<float> expected = golden.Expected(prefix, setup.layout);
  for (const TrainTensor& tensor : setup.layout.tensors) {
    const auto part = [&](const std::vector<float>& all) {
      return std::span<const float>(all).subspan(static_cast<size_t>(tensor.offset),
                                                 static_cast<size_t>(tensor.size()));
    };
    EXPECT_LT(RelativeError(part(gradients), part(expected)), 2 * bound)
        << prefix << " " << tensor.name;
  }
  EXPECT_LT(RelativeError(gradients, expected), bound) << prefix;
}

double LossOf(const Golden& golden, const std::string& prefix) {
  return ValuesOf<double>(golden.file, prefix + ".loss").at(0);
}

TEST(TrainMethods, GradientsOfTheWholeModelMatchPyTorchInEveryTable) {
  const Golden golden;
  for (const KernelTable* kernels : AvailableKernels()) {
    SCOPED_TRACE(IsaName(kernels->isa));
    Workbench setup(golden, {}, *kernels);
    LossSums sums;
    const auto gradients = setup.Gradients(golden.batch(), {}, &sums);
    ExpectLikePyTorch(golden, "full", setup, gradients);
    EXPECT_NEAR(sums.nll, LossOf(golden, "full"), 0.004 * LossOf(golden, "full"));
  }
}

TEST(TrainMethods, DoraGradientsMatchPeftInEveryTable) {
  const Golden golden;
  for (const KernelTable* kernels : AvailableKernels()) {
    SCOPED_TRACE(IsaName(kernels->isa));
    Workbench setup(golden, {.rank = kRank, .dora = true}, *kernels);
    LossSums sums;
    const auto gradients = setup.Gradients(golden.batch(), {}, &sums);
    ExpectLikePyTorch(golden, "dora", setup, gradients);
    EXPECT_NEAR(sums.nll, LossOf(golden, "dora"), 0.004 * LossOf(golden, "dora"));
  }
}

TEST(TrainMethods, PreferenceGradientsMatchPyTorchInEveryTable) {
  const Golden golden;
  const auto reference = ValuesOf<double>(golden.file, "dpo.reference");
  for (const KernelTable* kernels : AvailableKernels()) {
    for (const bool mean : {false, true}) {
      const std::string prefix = mean ? "dpo.mean" : "dpo.sum";
      SCOPED_TRACE(IsaName(kernels->isa));
      Workbench setup(golden, {.rank = kRank}, *kernels);
      const auto second =
          std::lower_bound(golden.loss_rows.begin(), golden.loss_rows.end(), golden.begins[1]) -
          golden.loss_rows.begin();
      const auto rows = static_cast<std::ptrdiff_t>(golden.loss_rows.size());
      const PreferencePair pair = {
          .chosen = 0,
          .rejected = 1,
          .reference_chosen = mean ? reference[0] / static_cast<double>(second) : reference[0],
          .reference_rejected =
              mean ? reference[1] / static_cast<double>(rows - second) : reference[1]};
      LossSums sums;
      const auto gradients = setup.Gradients(golden.batch(),
                                             {.pairs = {&pair, 1},
                                              .beta = static_cast<double>(golden.Number("beta")),
                                              .length_normalized = mean},
                                             &sums);
      // The rounding of some 30 log-probabilities adds up in the loss, and scales all gradients
      // alike.
      ExpectLikePyTorch(golden, prefix, setup, gradients, 0.06);
      EXPECT_NEAR(sums.preference, LossOf(golden, prefix), 0.03);
      EXPECT_EQ(sums.pairs, 1);
      const LossSums again =
          setup.engine.Evaluate(golden.batch(), {.pairs = {&pair, 1},
                                                 .beta = static_cast<double>(golden.Number("beta")),
                                                 .length_normalized = mean});
      EXPECT_EQ(again.preference, sums.preference);
      EXPECT_EQ(again.documents, 2);
    }
  }
}

TEST(TrainMethods, RowsOfNewTokensGetTheirShareOfTheTablesGradient) {
  const Golden golden;
  const KernelTable& kernels = *AvailableKernels().back();
  Workbench full(golden, {.targets = {"embed_tokens"}}, kernels);
  LossSums sums;
  const auto whole = full.Gradients(golden.batch(), {}, &sums);
  // With B zero the pairs leave the model as it is.
  const TrainLayout layout = TrainLayout::Make(
      golden.config, {.rank = kRank, .rows = TrainedRows::kNew, .first_new_row = 50});
  std::vector<float> values(static_cast<size_t>(layout.size), 0.0f);
  const std::vector<float> table = Widened(golden.file, "w.embed_tokens.weight");
  std::copy(table.begin() + 50 * 32, table.end(), values.begin() + layout.embedding.offset);
  TrainEngine engine(golden.config, golden.source(), layout, 1, kernels.train, full.pool, {});
  engine.SetValues(values);
  std::vector<float> gradients(values.size());
  engine.ForwardBackward(golden.batch(), {}, gradients);
  const auto rows = static_cast<size_t>(11 * 32);
  const std::span<const float> expected = std::span<const float>(whole).last(rows);
  const std::span<const float> found =
      std::span<const float>(gradients).subspan(static_cast<size_t>(layout.embedding.offset), rows);
  EXPECT_LT(RelativeError(found, expected), 1e-5);
}

TEST(TrainMethods, ThreadsRecomputingAndCachesDoNotChangeABit) {
  const Golden golden;
  const KernelTable& kernels = *AvailableKernels().back();
  const TrainShape shapes[] = {{}, {.rank = kRank, .dora = true}};
  for (const TrainShape& shape : shapes) {
    const auto run = [&](int threads, PassOptions options) {
      Workbench setup(golden, shape, kernels, threads, options);
      LossSums sums;
      return setup.Gradients(golden.batch(), {}, &sums);
    };
    const auto plain = run(1, {});
    EXPECT_EQ(plain, run(3, {}));
    EXPECT_EQ(plain, run(2, {.activation = ActivationPolicy::kRecompute}));
    EXPECT_EQ(plain, run(2, {.weight_cache_bytes = 0}));
  }
}

TEST(TrainMethods, TheBaseStaysTheBaseWhileTheWholeModelIsTrained) {
  const Golden golden;
  Workbench setup(golden, {}, *AvailableKernels().back());
  const double base = setup.engine.EvaluateBase(golden.batch()).nll;
  EXPECT_EQ(base, setup.engine.Evaluate(golden.batch()).nll);
  for (float& value : setup.values) value *= 1.1f;
  setup.engine.SetValues(setup.values);
  EXPECT_EQ(base, setup.engine.EvaluateBase(golden.batch()).nll);
  EXPECT_NE(base, setup.engine.Evaluate(golden.batch()).nll);
  std::vector<float> gradients(setup.values.size());
  const LossSums sums =
      setup.engine.ForwardBackward(golden.batch(), {.kl_to_base = true}, gradients);
  EXPECT_GT(sums.kl, 0);
  const LossSums scored = setup.engine.Evaluate(golden.batch(), {.kl_to_base = true});
  EXPECT_EQ(scored.kl, sums.kl);
  EXPECT_EQ(scored.nll, setup.engine.Evaluate(golden.batch()).nll);
}

// Ten steps as the loop makes them: gradients, clipping by the global norm, AdamW.
class TenSteps {
 public:
  TenSteps(const Golden& golden, const TrainShape& shape)
      : setup(golden, shape, *AvailableKernels().back()), start(setup.values) {
    std::vector<float> m(setup.values.size()), v(setup.values.size());
    const auto targets = ValuesOf<int32_t>(golden.file, "run.targets");
    const size_t rows = golden.loss_rows.size();
    const std::vector<float> ones(rows, 1.0f);
    for (int64_t step = 1; step <= 10; ++step) {
      TrainBatch batch = golden.batch();
      batch.targets =
          std::span<const int32_t>(targets).subspan(static_cast<size_t>(step - 1) * rows, rows);
      batch.weights = ones;
      LossSums sums;
      const auto gradients =
          setup.Gradients(batch, {.gradient_scale = 1.0f / static_cast<float>(rows)}, &sums);
      losses.push_back(sums.nll / static_cast<double>(rows));
      const double norm = ops::GradientNorm(setup.kernels.train, setup.pool, gradients);
      for (const TrainTensor& tensor : setup.layout.tensors) {
        const auto part = [&](auto& all) {
          return std::span(all).subspan(static_cast<size_t>(tensor.offset),
                                        static_cast<size_t>(tensor.size()));
        };
        ops::AdamW(
            setup.kernels.train, setup.pool,
            {.learning_rate = static_cast<double>(golden.Number("rate")),
             .beta1 = static_cast<double>(golden.Number("beta1")),
             .beta2 = static_cast<double>(golden.Number("beta2")),
             .weight_decay = tensor.decays ? static_cast<double>(golden.Number("decay")) : 0,
             .gradient_scale = ops::ClipScale(norm, static_cast<double>(golden.Number("clip"))),
             .step = step},
            part(setup.values), part(m), part(v), part(gradients));
      }
      setup.engine.SetValues(setup.values);
    }
  }

  Workbench setup;
  std::vector<float> start;
  std::vector<double> losses;
};

TEST(TrainMethods, TenStepsEndWherePyTorchEnds) {
  const Golden golden;
  const std::pair<std::string, TrainShape> methods[] = {
      {"full", {}}, {"lora", {.rank = kRank}}, {"dora", {.rank = kRank, .dora = true}}};
  for (const auto& [name, shape] : methods) {
    SCOPED_TRACE(name);
    const TenSteps run(golden, shape);
    const auto expected = ValuesOf<double>(golden.file, "run." + name + ".losses");
    for (size_t i = 0; i < 10; ++i) {
      EXPECT_NEAR(run.losses[i], expected[i], 0.01 * expected[i]) << "step " << i + 1;
    }
    // How far the values moved, and that they moved there: AdamW turns the rounding of small
    // gradients into whole steps, so single values differ.
    std::vector<float> moved = run.setup.values,
                       goal = golden.Expected("run." + name, run.setup.layout);
    for (size_t i = 0; i < moved.size(); ++i) {
      moved[i] -= run.start[i];
      goal[i] -= run.start[i];
    }
    EXPECT_LT(RelativeError(moved, goal), 0.2);
  }
}

}  // namespace
}  // namespace bakestone
