// Where a family can be trained, a step of it is autograd's; and each says what training lacks.
#include <algorithm>
#include <numeric>
#include <optional>

#include <fmt/format.h>

#include "base/error.h"
#include "model/families/test_families.h"
#include "model/train_engine.h"
#include "model/train_memory.h"

namespace bakestone {
namespace {

using namespace testing;

class FamilyTraining : public FamilyProof {};

// One row's position in its document, of two documents.
std::vector<int32_t> PositionsOf(size_t rows, int32_t second) {
  std::vector<int32_t> positions;
  for (int32_t row = 0; row < static_cast<int32_t>(rows); ++row) {
    positions.push_back(row >= second ? row - second : row);
  }
  return positions;
}

// Where a family can be trained: loss and gradients of random pairs on every matrix against
// autograd's, with the layers' matrices made smaller. The products are bf16's: some percent of the
// norm.
void ExpectTrainingStepOfAutograd(const ModelFile& model, const Golden& golden,
                                  const std::filesystem::path& path) {
  const ModelConfig config = model.Config();
  const SafetensorsFile file = SafetensorsFile::Open(path);
  const auto weights = LoadFrom(model, config);
  const TrainLayout layout = TrainLayout::Make(config, {.rank = 4});
  std::vector<float> pairs(static_cast<size_t>(layout.size)), expected(pairs.size()),
      found(pairs.size());
  for (const LoraSlot& slot : layout.slots) {
    const std::string_view site = SiteName(slot.id.site);
    const std::string expert = slot.id.expert < 0 ? "" : fmt::format("experts.{}.", slot.id.expert);
    const std::string key =
        fmt::format("{}.{}{}", slot.id.layer, expert, site.substr(site.find('.') + 1));
    const auto copy = [](const std::vector<float>& from, std::vector<float>& to, int64_t at) {
      std::copy(from.begin(), from.end(), to.begin() + at);
    };
    copy(testing::Widened(file, "a." + key), pairs, slot.a_offset);
    copy(testing::Widened(file, "b." + key), pairs, slot.b_offset);
    copy(testing::ValuesOf<float>(file, "d.a." + key), expected, slot.a_offset);
    copy(testing::ValuesOf<float>(file, "d.b." + key), expected, slot.b_offset);
  }
  const auto targets = testing::ValuesOf<int32_t>(file, "targets"),
             begins = testing::ValuesOf<int32_t>(file, "begins");
  std::vector<int32_t> rows(golden.tokens.size());
  std::iota(rows.begin(), rows.end(), 0);
  const std::vector<int32_t> positions = PositionsOf(rows.size(), begins[1]);
  const std::vector<float> ones(rows.size(), 1.0f);
  const KernelTable& kernels = ChooseKernels(nullptr);
  TrainSource source = SourceOf(*weights, kernels);
  const auto factor_of = [&](const char* name) {
    const std::string_view text = file.Metadata(name);
    return text.empty() ? 0.5f : std::stof(std::string(text));
  };
  const float factor = factor_of("factor"), expert_factor = factor_of("expert_factor"),
              told_factor = factor_of("told_factor");
  source.linear = [whole = source.linear, factor, expert_factor](LinearId id, Range range,
                                                                 MatrixView<float> out) {
    whole(id, range, out);
    for (int64_t row = 0; row < out.rows; ++row) {
      for (int64_t i = 0; i < out.cols; ++i) {
        out.Row(row)[i] *= id.expert >= 0 ? expert_factor : factor;
      }
    }
  };
  source.frozen = [whole = source.frozen, factor, told_factor](int64_t layer, FrozenSite site,
                                                               Range range, MatrixView<float> out) {
    whole(layer, site, range, out);
    if (site == FrozenSite::kRouter || site == FrozenSite::kSharedShare) return;
    const bool told = site == FrozenSite::kLayerGate || site == FrozenSite::kLayerOut;
    for (int64_t i = 0; i < out.rows * out.cols; ++i) out.data[i] *= told ? told_factor : factor;
  };
  TrainEngine engine(config, source, layout, 0.5f, kernels.train, Pool(), {});
  engine.SetValues(pairs);
  const LossSums sums =
      engine.ForwardBackward({golden.tokens, positions, begins, rows, targets, ones}, {}, found);
  const double loss = testing::ValuesOf<double>(file, "loss").at(0);
  EXPECT_NEAR(sums.nll, loss, 0.01 * loss);
  EXPECT_LT(testing::RelativeError(found, expected), 0.05);
  ::testing::Test::RecordProperty("relative_error",
                                  std::to_string(testing::RelativeError(found, expected)));
}

// The gradient of the embedding of a model cut to its first layer, embeddings divided by 8: what
// goes through the layer's state or latent is most of it.
TEST(Families, GradientsGoThroughMixers) {
  for (const char* type : {"qwen3_5_text", "lfm2", "deepseek_v2", "deepseek_v3"}) {
    const SafetensorsFile file = SafetensorsFile::Open(FolderOf(type) / "train_first.safetensors");
    const ModelFile model = ModelFile::Open(FolderOf(type));
    const auto weights = LoadFrom(model, model.Config());
    ModelConfig config = model.Config();
    config.num_layers = 1;
    const TrainLayout layout = TrainLayout::Make(config, {.rank = 1, .rows = TrainedRows::kAll});
    const KernelTable& kernels = ChooseKernels(nullptr);
    const TrainSource source = SourceOf(*weights, kernels);
    std::vector<float> values(static_cast<size_t>(layout.size)), found(values.size());
    const RowsSlot* tables[] = {&layout.embedding, &layout.head};
    for (size_t i = 0; i < 2; ++i) {
      if (tables[i]->rows == 0) continue;
      (i == 0 ? source.embedding : source.head)(
          {0, config.vocab_size},
          DenseView(values.data() + tables[i]->offset, config.vocab_size, config.hidden_dim));
    }
    const auto size = static_cast<size_t>(config.vocab_size * config.hidden_dim);
    const auto first = static_cast<size_t>(layout.embedding.offset);
    for (size_t i = first; i < first + size; ++i) values[i] /= 8;
    TrainEngine engine(config, source, layout, 1, kernels.train, Pool(), {});
    engine.SetValues(values);
    const auto tokens = ReadGolden(type).tokens;
    const auto targets = testing::ValuesOf<int32_t>(file, "targets"),
               begins = testing::ValuesOf<int32_t>(file, "begins");
    std::vector<int32_t> rows(tokens.size());
    std::iota(rows.begin(), rows.end(), 0);
    const std::vector<float> ones(rows.size(), 1.0f);
    const std::vector<int32_t> positions = PositionsOf(rows.size(), begins[1]);
    const LossSums sums =
        engine.ForwardBackward({tokens, positions, begins, rows, targets, ones}, {}, found);
    const double loss = testing::ValuesOf<double>(file, "loss").at(0);
    EXPECT_NEAR(sums.nll, loss, 0.01 * loss);
    const std::vector<float> gradient(
        found.begin() + layout.embedding.offset,
        found.begin() + layout.embedding.offset + static_cast<int64_t>(size));
    const double error =
        testing::RelativeError(gradient, testing::ValuesOf<float>(file, "d.embedding"));
    EXPECT_LT(error, 0.03) << type;
    ::testing::Test::RecordProperty(type, std::to_string(error));
  }
}

// Of enough rows that activations are most of it, kept or made again.
TEST_P(FamilyTraining, MemoryIsWhatWasEstimated) {
  const ModelFile model = ModelFile::Open(FolderOf(type()));
  const ModelConfig config = model.Config();
  if (!TrainingLacks(config).empty()) return;
  constexpr int32_t kRows = 1200, kDocument = 40;
  const auto weights = LoadFrom(model, config);
  const TrainLayout layout = TrainLayout::Make(config, {.rank = 4});
  const std::vector<float> pairs(static_cast<size_t>(layout.size), 0.01f);
  std::vector<int32_t> tokens, positions, begins, loss_rows = {kRows - 1}, targets = {3};
  for (int32_t row = 0; row < kRows; ++row) {
    tokens.push_back(row % 90);
    positions.push_back(row % kDocument);
    if (row % kDocument == 0) begins.push_back(row);
  }
  const std::vector<float> ones = {1};
  const KernelTable& kernels = ChooseKernels(nullptr);
  for (const ActivationPolicy policy : {ActivationPolicy::kStash, ActivationPolicy::kRecompute}) {
    const PassOptions options = {.activation = policy};
    TrainEngine engine(config, SourceOf(*weights, kernels), layout, 0.5f, kernels.train, Pool(),
                       options);
    engine.SetValues(pairs);
    std::vector<float> gradients(pairs.size());
    engine.ForwardBackward({tokens, positions, begins, loss_rows, targets, ones}, {}, gradients);
    const TrainMemory estimate = EstimateTrainMemory(config, layout, kRows, false, options);
    const double found = static_cast<double>(engine.peak_bytes()),
                 expected = static_cast<double>(estimate.total() - estimate.values);
    EXPECT_GE(expected / found, 1);
    EXPECT_LE(expected / found, 1.2);
  }
}

TEST_P(FamilyTraining, TrainingStepIsThatOfAutograd) {
  const std::filesystem::path path = FolderOf(type()) / "train.safetensors";
  const ModelFile model = ModelFile::Open(FolderOf(type()));
  if (!TrainingLacks(model.Config()).empty()) {
    EXPECT_FALSE(std::filesystem::exists(path));
    return;
  }
  if (type() == "gemma3") return;  // the same model as gemma3_text's
  ASSERT_TRUE(std::filesystem::exists(path))
      << "this family can be trained, but has no proof of it";
  ExpectTrainingStepOfAutograd(model, ReadGolden(type()), path);
}

// Beyond its original context Phi-3 has other factors, for all of a sequence; a document that is
// shorter keeps its own.
TEST(Families, Phi3ChoosesItsFactorsByTheSequence) {
  const Golden far = ReadGolden("phi3", "golden_far.safetensors"), near = ReadGolden("phi3");
  for (const char* name : {".", "model.gguf"}) {
    const ModelFile file = ModelFile::Open(FolderOf("phi3") / name);
    const ModelConfig config = file.Config();
    EXPECT_EQ(config.rope.near_context, 64);
    ASSERT_GT(far.tokens.size(), 64u);
    const auto weights = LoadFrom(file, config);
    const auto whole = LogitsOf(config, *weights, far.tokens);
    EXPECT_LT(MaxDifference(whole, far.logits), kTolerance) << name;
    for (const int64_t chunk : {1, 7}) {
      EXPECT_EQ(MaxDifference(LogitsOf(config, *weights, far.tokens, {.chunk = chunk}), whole), 0);
    }
    ModelConfig flipped = config;
    flipped.rope.far_factors = flipped.rope.frequency_factors;
    EXPECT_GT(MaxDifference(LogitsOf(flipped, *weights, far.tokens), far.logits), 100 * kTolerance);
    // Both kinds in one step, without states.
    const Decoder decoder(config, *weights);
    Exec exec(ChooseKernels(nullptr), Pool(), Precision::kExact);
    std::vector<int32_t> tokens = near.tokens, positions, rows;
    tokens.insert(tokens.end(), far.tokens.begin(), far.tokens.end());
    const auto border = static_cast<int32_t>(near.tokens.size()),
               end = static_cast<int32_t>(tokens.size());
    for (int32_t i = 0; i < end; ++i) positions.push_back(i < border ? i : i - border);
    rows = {border - 1, end - 1};
    const std::array<SequenceRun, 2> runs = {{{0, border, nullptr}, {border, end, nullptr}}};
    std::vector<float> hidden(static_cast<size_t>(2 * config.hidden_dim)),
        logits(static_cast<size_t>(2 * config.vocab_size));
    const auto h = DenseView(hidden.data(), 2, config.hidden_dim);
    decoder.Forward(exec, {tokens, positions, runs, {}, rows}, h);
    decoder.Logits(exec, h, DenseView(logits.data(), 2, config.vocab_size));
    const auto last = [&](const Golden& golden) {
      return std::span(golden.logits).last(static_cast<size_t>(config.vocab_size));
    };
    EXPECT_LT(MaxDifference(std::span(logits).first(last(near).size()), last(near)), kTolerance);
    EXPECT_LT(MaxDifference(std::span(logits).last(last(far).size()), last(far)), kTolerance);
  }
  ExpectTrainingStepOfAutograd(ModelFile::Open(FolderOf("phi3")), far,
                               FolderOf("phi3") / "train_far.safetensors");
}

TEST(Families, SayWhatTrainingLacks) {
  constexpr std::string_view kUntrained[] = {"rwkv7"};
  for (const Family& family : Families()) {
    const std::string lacks = TrainingLacks(TypicalConfig(family));
    const bool lacking = family.encoder || std::find(std::begin(kUntrained), std::end(kUntrained),
                                                     family.architecture) != std::end(kUntrained);
    EXPECT_EQ(!lacks.empty(), lacking) << family.architecture << ": " << lacks;
  }
}

INSTANTIATE_TEST_SUITE_P(Types, FamilyTraining, ::testing::ValuesIn(AllTypes()),
                         [](const auto& info) { return TestName(info.param); });

}  // namespace
}  // namespace bakestone
