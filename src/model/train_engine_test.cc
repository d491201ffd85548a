// The whole training pass: against PyTorch autograd, against finite differences of its own loss,
// and what it promises about threads, packing, micro-batches, recomputation and caches.
#include "model/train_engine.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <string>

#include "base/rng.h"
#include "format/gguf.h"
#include "format/safetensors.h"
#include "kernels/isa.h"
#include "model/test_golden.h"
#include "model/test_model.h"
#include "tensor/half.h"

namespace bakestone {
namespace {

using testing::RelativeError;
using testing::ValuesOf;
using testing::Widened;

std::string KeyOf(const char* what, LinearId id) {
  const std::string site(SiteName(id.site));
  return fmt::format("{}.{}.{}", what, id.layer, site.substr(site.find('.') + 1));
}

// The model, pairs, batch and gradients of tools/make_gradient_goldens.py.
class Golden {
 public:
  Golden()
      : file_(SafetensorsFile::Open(std::string(BAKESTONE_TEST_DATA) +
                                    "/train/gradients.safetensors")),
        tokens(ValuesOf<int32_t>(file_, "tokens")),
        positions(ValuesOf<int32_t>(file_, "positions")),
        begins(ValuesOf<int32_t>(file_, "begins")),
        loss_rows(ValuesOf<int32_t>(file_, "loss_rows")),
        targets(ValuesOf<int32_t>(file_, "targets")),
        weights(ValuesOf<float>(file_, "weights")) {
    config.num_layers = 2;
    config.hidden_dim = 32;
    config.ffn_dim = 48;
    config.num_heads = 4;
    config.num_kv_heads = 2;
    config.head_dim = 16;
    config.vocab_size = 61;
    config.rope = {.theta = 10000, .dim = 16};
    layout = TrainLayout::Make(config, {.rank = 3});
    for (const auto& tensor : file_.tensors()) {
      if (tensor.name.starts_with("norm.")) {
        values_[tensor.name] = ValuesOf<float>(file_, tensor.name);
      } else if (tensor.dtype == "BF16") {
        values_[tensor.name] = Widened(file_, tensor.name);
      }
    }
    scale = std::stof(std::string(file_.Metadata("scale")));
    masters = ValuesOfPairs(layout);
  }

  TrainSource source() const {
    const auto rows = [](const std::vector<float>& values, Range range, MatrixView<float> out) {
      std::copy(values.begin() + range.begin * out.cols, values.begin() + range.end * out.cols,
                out.data);
    };
    TrainSource source;
    source.linear = [this, rows](LinearId id, Range range, MatrixView<float> out) {
      rows(values_.at(KeyOf("w", id)), range, out);
    };
    source.bias = [](LinearId) { return nullptr; };
    source.embedding = [this, rows](Range range, MatrixView<float> out) {
      rows(values_.at("embedding"), range, out);
    };
    source.head = [this, rows](Range range, MatrixView<float> out) {
      rows(values_.at("head"), range, out);
    };
    source.attention_norm = [this](int64_t layer) {
      return values_.at(fmt::format("norm.{}.attention", layer)).data();
    };
    source.mlp_norm = [this](int64_t layer) {
      return values_.at(fmt::format("norm.{}.mlp", layer)).data();
    };
    source.final_norm = [this] { return values_.at("norm.final").data(); };
    return source;
  }

  // The file's pairs where this layout has them.
  std::vector<float> ValuesOfPairs(const TrainLayout& of) const {
    std::vector<float> values(static_cast<size_t>(of.size));
    for (const LoraSlot& slot : of.slots) {
      std::copy_n(values_.at(KeyOf("a", slot.id)).data(), slot.rank * slot.in,
                  values.data() + slot.a_offset);
      std::copy_n(values_.at(KeyOf("b", slot.id)).data(), slot.rank * slot.out,
                  values.data() + slot.b_offset);
    }
    return values;
  }

  std::vector<float> Expected(const std::string& loss) const {
    std::vector<float> out(static_cast<size_t>(layout.size));
    for (const LoraSlot& slot : layout.slots) {
      const auto a = ValuesOf<float>(file_, loss + "." + KeyOf("a", slot.id));
      const auto b = ValuesOf<float>(file_, loss + "." + KeyOf("b", slot.id));
      std::copy(a.begin(), a.end(), out.begin() + slot.a_offset);
      std::copy(b.begin(), b.end(), out.begin() + slot.b_offset);
    }
    return out;
  }
  double ExpectedLoss(const std::string& loss) const {
    return ValuesOf<double>(file_, loss + ".loss").at(0);
  }
  TrainBatch batch() const { return {tokens, positions, begins, loss_rows, targets, weights}; }
  // With the file's pairs.
  std::unique_ptr<TrainEngine> Engine(const KernelTable& kernels, ThreadPool& pool,
                                      PassOptions options = {}) const {
    auto engine = std::make_unique<TrainEngine>(config, source(), layout, scale, kernels.train,
                                                pool, options);
    engine->SetValues(masters);
    return engine;
  }

 private:
  SafetensorsFile file_;
  std::map<std::string, std::vector<float>> values_;

 public:
  ModelConfig config;
  TrainLayout layout;
  std::vector<int32_t> tokens, positions, begins, loss_rows, targets;
  std::vector<float> weights;
  float scale = 0;
  std::vector<float> masters;  // [layout.size] the file's pairs
};

struct Result {
  LossSums sums;
  std::vector<float> gradients;
};

Result Train(const Golden& golden, const KernelTable& kernels, int threads, bool kl = false,
             PassOptions options = {}) {
  ThreadPool pool(threads);
  const auto engine = golden.Engine(kernels, pool, options);
  Result result;
  result.gradients.resize(static_cast<size_t>(golden.layout.size));
  result.sums = engine->ForwardBackward(golden.batch(), {.kl_to_base = kl}, result.gradients);
  return result;
}

void ExpectLikePyTorch(const Golden& golden, const Result& result, const std::string& loss) {
  const std::vector<float> expected = golden.Expected(loss);
  for (const LoraSlot& slot : golden.layout.slots) {
    // bf16 operands through two layers: 1 to 4 % of the norm; a wrong formula is off by tens of it.
    const auto part = [&](const std::vector<float>& all, int64_t offset, int64_t size) {
      return std::span<const float>(all).subspan(static_cast<size_t>(offset),
                                                 static_cast<size_t>(size));
    };
    EXPECT_LT(RelativeError(part(result.gradients, slot.a_offset, slot.rank * slot.in),
                            part(expected, slot.a_offset, slot.rank * slot.in)),
              0.06)
        << loss << " " << KeyOf("a", slot.id);
    EXPECT_LT(RelativeError(part(result.gradients, slot.b_offset, slot.rank * slot.out),
                            part(expected, slot.b_offset, slot.rank * slot.out)),
              0.06)
        << loss << " " << KeyOf("b", slot.id);
  }
  EXPECT_LT(RelativeError(result.gradients, expected), 0.025) << loss;
}

TEST(TrainEngine, GradientsMatchPyTorchInEveryTable) {
  const Golden golden;
  for (const KernelTable* kernels : AvailableKernels()) {
    SCOPED_TRACE(IsaName(kernels->isa));
    const Result result = Train(golden, *kernels, 2);
    ExpectLikePyTorch(golden, result, "nll");
    EXPECT_NEAR(result.sums.nll, golden.ExpectedLoss("nll"), 0.004 * golden.ExpectedLoss("nll"));
    EXPECT_EQ(result.sums.rows, static_cast<int64_t>(golden.loss_rows.size()));
  }
}

TEST(TrainEngine, KlToBaseMatchesPyTorch) {
  const Golden golden;
  for (const KernelTable* kernels : AvailableKernels()) {
    SCOPED_TRACE(IsaName(kernels->isa));
    const Result result = Train(golden, *kernels, 1, true);
    ExpectLikePyTorch(golden, result, "kl");
    EXPECT_NEAR(result.sums.kl, golden.ExpectedLoss("kl"), 0.02 * golden.ExpectedLoss("kl"));
  }
}

// Moves each pair's A and B along its own gradient: the loss must change by what the gradient says.
TEST(TrainEngine, GradientsMatchFiniteDifferenceOfTheLoss) {
  const Golden golden;
  const KernelTable& kernels = *AvailableKernels().back();
  ThreadPool pool(2);
  const auto engine = golden.Engine(kernels, pool);
  const std::vector<float>& masters = golden.masters;
  const Result at = Train(golden, kernels, 2);
  const auto loss_at = [&](const std::vector<float>& moved) {
    engine->SetValues(moved);
    return engine->Evaluate(golden.batch()).nll;
  };
  for (const LoraSlot& slot : golden.layout.slots) {
    for (const auto& [offset, size] : {std::pair{slot.a_offset, slot.rank * slot.in},
                                       std::pair{slot.b_offset, slot.rank * slot.out}}) {
      double norm = 0;
      for (int64_t i = offset; i < offset + size; ++i) {
        const auto g = static_cast<double>(at.gradients[static_cast<size_t>(i)]);
        norm += g * g;
      }
      // A step that changes the loss by 1.5 of 200: far above the rounding of bf16, nearly linear
      // when taken to both sides.
      const double step = 1.5 / norm;
      std::vector<float> up = masters, down = masters;
      double predicted = 0;
      for (int64_t i = offset; i < offset + size; ++i) {
        const auto at_i = static_cast<size_t>(i);
        const double g = static_cast<double>(at.gradients[at_i]), move = step * g;
        up[at_i] = BF16ToFloat(FloatToBF16(masters[at_i] + static_cast<float>(move)));
        down[at_i] = BF16ToFloat(FloatToBF16(masters[at_i] - static_cast<float>(move)));
        predicted += g * static_cast<double>(up[at_i] - down[at_i]);
      }
      EXPECT_NEAR(loss_at(up) - loss_at(down), predicted, 0.12 * predicted)
          << KeyOf(offset == slot.a_offset ? "a" : "b", slot.id);
    }
  }
}

TEST(TrainEngine, TheNumberOfThreadsDoesNotChangeABit) {
  const Golden golden;
  for (const KernelTable* kernels : AvailableKernels()) {
    for (const bool kl : {false, true}) {
      const Result one = Train(golden, *kernels, 1, kl);
      for (const int threads : {2, 3}) {
        const Result more = Train(golden, *kernels, threads, kl);
        EXPECT_EQ(one.gradients, more.gradients) << IsaName(kernels->isa) << " " << threads;
        EXPECT_EQ(one.sums.nll, more.sums.nll);
        EXPECT_EQ(one.sums.kl, more.sums.kl);
      }
    }
  }
}

TEST(TrainEngine, RecomputingAndCachingNothingGivesTheSameBits) {
  const Golden golden;
  const KernelTable& kernels = *AvailableKernels().back();
  const Result plain = Train(golden, kernels, 2);
  EXPECT_EQ(
      plain.gradients,
      Train(golden, kernels, 2, false, {.activation = ActivationPolicy::kRecompute}).gradients);
  EXPECT_EQ(plain.gradients, Train(golden, kernels, 2, false, {.weight_cache_bytes = 0}).gradients);
}

// Splits the batch into one micro-batch a document.
struct Part {
  std::vector<int32_t> tokens, positions, begins{0}, loss_rows, targets;
  std::vector<float> weights;
  TrainBatch batch() const { return {tokens, positions, begins, loss_rows, targets, weights}; }
};

std::vector<Part> Documents(const Golden& golden) {
  std::vector<Part> parts;
  for (size_t i = 0; i < golden.begins.size(); ++i) {
    const int32_t begin = golden.begins[i];
    const int32_t end = i + 1 < golden.begins.size() ? golden.begins[i + 1]
                                                     : static_cast<int32_t>(golden.tokens.size());
    Part part;
    part.tokens.assign(golden.tokens.begin() + begin, golden.tokens.begin() + end);
    part.positions.assign(golden.positions.begin() + begin, golden.positions.begin() + end);
    for (size_t row = 0; row < golden.loss_rows.size(); ++row) {
      if (golden.loss_rows[row] < begin || golden.loss_rows[row] >= end) continue;
      part.loss_rows.push_back(golden.loss_rows[row] - begin);
      part.targets.push_back(golden.targets[row]);
      part.weights.push_back(golden.weights[row]);
    }
    parts.push_back(part);
  }
  return parts;
}

TEST(TrainEngine, PackedDocumentsEqualSeparateOnesAccumulated) {
  const Golden golden;
  for (const KernelTable* kernels : AvailableKernels()) {
    ThreadPool pool(2);
    const auto engine = golden.Engine(*kernels, pool);
    std::vector<float> gradients(static_cast<size_t>(golden.layout.size));
    double nll = 0;
    for (const Part& part : Documents(golden)) {
      nll += engine->ForwardBackward(part.batch(), {}, gradients).nll;
    }
    const Result packed = Train(golden, *kernels, 2);
    EXPECT_NEAR(packed.sums.nll, nll, 1e-6 * nll) << IsaName(kernels->isa);
    EXPECT_LT(RelativeError(gradients, packed.gradients), 1e-4) << IsaName(kernels->isa);
  }
}

TEST(TrainEngine, ARowDoesNotDependOnOtherDocuments) {
  Golden golden;
  const KernelTable& kernels = *AvailableKernels().back();
  ThreadPool pool(1);
  const auto engine = golden.Engine(kernels, pool);
  // Loss rows of the first document only; then another document's tokens change.
  const auto keep = static_cast<size_t>(
      std::lower_bound(golden.loss_rows.begin(), golden.loss_rows.end(), golden.begins[1]) -
      golden.loss_rows.begin());
  golden.loss_rows.resize(keep);
  golden.targets.resize(keep);
  golden.weights.resize(keep);
  const double before = engine->EvaluateBase(golden.batch()).nll;
  golden.tokens.back() = (golden.tokens.back() + 1) % 61;
  golden.tokens[static_cast<size_t>(golden.begins[1])] ^= 1;
  EXPECT_EQ(before, engine->EvaluateBase(golden.batch()).nll);
}

TEST(TrainEngine, AFewTargetsGetTheSameGradientsAsAllOfThem) {
  const Golden golden;
  const KernelTable& kernels = *AvailableKernels().back();
  ThreadPool pool(1);
  // The other pairs are there, but their gradients are not asked for: with B zero they add nothing.
  for (const std::vector<std::string>& targets :
       {std::vector<std::string>{"layers.1.mlp.down_proj"},
        {"layers.1.mlp.up_proj", "layers.1.mlp.gate_proj"},
        {"layers.1.*.o_proj"},
        {"layers.1.*.k_proj"}}) {
    const TrainLayout some = TrainLayout::Make(golden.config, {.targets = targets, .rank = 3});
    std::vector<float> values = golden.masters;
    for (const LoraSlot& slot : golden.layout.slots) {
      if (some.Find(slot.id) != nullptr) continue;
      std::fill_n(values.begin() + slot.b_offset, slot.rank * slot.out, 0.0f);
    }
    const auto all = golden.Engine(kernels, pool);
    all->SetValues(values);
    std::vector<float> expected(values.size());
    all->ForwardBackward(golden.batch(), {}, expected);

    TrainEngine engine(golden.config, golden.source(), some, golden.scale, kernels.train, pool, {});
    const std::vector<float> own = golden.ValuesOfPairs(some);
    engine.SetValues(own);
    std::vector<float> gradients(own.size());
    engine.ForwardBackward(golden.batch(), {}, gradients);
    for (const LoraSlot& slot : some.slots) {
      ASSERT_EQ(slot.id.layer, 1);
      const LoraSlot& other = *golden.layout.Find(slot.id);
      for (int64_t i = 0; i < slot.rank * (slot.in + slot.out); ++i) {
        ASSERT_EQ(gradients[static_cast<size_t>(slot.a_offset + i)],
                  expected[static_cast<size_t>(other.a_offset + i)]);
      }
    }
  }
}

TEST(TrainEngine, GradientScaleScalesAndAccumulates) {
  const Golden golden;
  const KernelTable& kernels = *AvailableKernels().back();
  ThreadPool pool(2);
  const auto engine = golden.Engine(kernels, pool);
  std::vector<float> gradients(static_cast<size_t>(golden.layout.size), 1.0f);
  engine->ForwardBackward(golden.batch(), {.gradient_scale = 0.5f}, gradients);
  const Result whole = Train(golden, kernels, 2);
  for (size_t i = 0; i < gradients.size(); ++i) {
    EXPECT_NEAR(gradients[i], 1 + 0.5f * whole.gradients[i],
                2e-6 * (1 + std::fabs(static_cast<double>(whole.gradients[i]))));
  }
}

TEST(TrainEngine, RefusesABatchThatDoesNotFit) {
  Golden golden;
  ThreadPool pool(1);
  const auto engine = golden.Engine(*AvailableKernels().front(), pool);
  golden.tokens[5] = 61;
  EXPECT_THROW(engine->Evaluate(golden.batch()), Error);
  golden.tokens[5] = 0;
  golden.targets[0] = -1;
  EXPECT_THROW(engine->Evaluate(golden.batch()), Error);
  golden.targets[0] = 0;
  std::swap(golden.loss_rows[0], golden.loss_rows[1]);
  EXPECT_THROW(engine->Evaluate(golden.batch()), Error);
  std::swap(golden.loss_rows[0], golden.loss_rows[1]);
  golden.positions.pop_back();
  EXPECT_THROW(engine->Evaluate(golden.batch()), Error);
}

TEST(TrainEngine, RefusesDimensionsThatPanelsCannotHold) {
  Golden golden;
  ThreadPool pool(1);
  golden.config.ffn_dim = 40;
  EXPECT_THROW(golden.Engine(*AvailableKernels().front(), pool), Error);
}

// A model file with quantized blocks, biases and an untied head, through TrainerPass: serving and
// training compute the same function up to their arithmetic.
TEST(TrainerPass, LossIsCloseToServing) {
  for (const bool qwen : {false, true}) {
    const std::string bytes = testing::MakeTestModel(
        {.architecture = qwen ? "qwen2" : "llama", .tied = !qwen, .bias = qwen});
    const GgufFile file = GgufFile::Parse(
        {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, "tiny.gguf");
    const ModelConfig config = ReadConfig(file);
    const KernelTable& kernels = *AvailableKernels().back();
    ThreadPool pool(2);
    const auto weights = Weights::Load(file, config, kernels, pool);
    const Decoder decoder(config, *weights);
    const auto adapter = testing::MakeTestAdapter(config, {Site::kQ, Site::kUp, Site::kDown}, 4, 9);
    const TrainLayout layout =
        TrainLayout::Make(config, {.targets = {"q_proj", "up_proj", "down_proj"}, .rank = 4});
    Part part;
    Rng rng(4, 0);
    for (int32_t row = 0; row < 65; ++row) {
      part.tokens.push_back(static_cast<int32_t>(rng.Below(testing::kTestVocabSize)));
      part.positions.push_back(row);
    }
    for (int32_t row = 0; row < 64; ++row) {
      part.loss_rows.push_back(row);
      part.targets.push_back(part.tokens[static_cast<size_t>(row) + 1]);
      part.weights.push_back(1);
    }
    std::vector<float> values(static_cast<size_t>(layout.size));
    float scale = 0;
    for (const LoraSlot& slot : layout.slots) {
      const LoraPair& pair = *adapter->Find(slot.id);
      scale = pair.scale;
      const auto widen = [](MatrixView<const uint16_t> from, float* to) {
        for (int64_t i = 0; i < from.rows * from.cols; ++i) to[i] = BF16ToFloat(from.data[i]);
      };
      widen(pair.a, values.data() + slot.a_offset);
      widen(pair.b, values.data() + slot.b_offset);
    }
    TrainerPass pass(decoder, layout, scale, kernels, pool);
    pass.SetValues(values);
    const double trained = pass.Evaluate(part.batch()).nll;

    Exec exec(kernels, pool, Precision::kExact);
    const SequenceRun run = {0, 65, nullptr};
    const AdapterRun adapted = {0, 65, adapter.get()};
    std::vector<float> hidden(64 * static_cast<size_t>(config.hidden_dim));
    std::vector<float> logits(64 * static_cast<size_t>(config.vocab_size));
    const auto hidden_view = DenseView(hidden.data(), 64, config.hidden_dim);
    const auto logits_view = DenseView(logits.data(), 64, config.vocab_size);
    decoder.Forward(exec, {part.tokens, part.positions, {&run, 1}, {&adapted, 1}, part.loss_rows},
                    hidden_view);
    decoder.Logits(exec, hidden_view, logits_view);
    double served = 0;
    for (int64_t row = 0; row < 64; ++row) {
      double sum = 0;
      for (int64_t i = 0; i < config.vocab_size; ++i) {
        sum += std::exp(static_cast<double>(logits_view(row, i)));
      }
      served += std::log(sum) -
                static_cast<double>(logits_view(row, part.targets[static_cast<size_t>(row)]));
    }
    EXPECT_NEAR(trained, served, 0.004 * served) << (qwen ? "qwen2" : "llama");
    EXPECT_GT(pass.peak_bytes(), 0);
  }
}

}  // namespace
}  // namespace bakestone
