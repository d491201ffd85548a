#include "pipeline/trained_source.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <optional>

#include "base/error.h"
#include "base/rng.h"
#include "kernels/isa.h"
#include "model/test_model.h"
#include "model/trainer_pass.h"
#include "train/trained.h"

namespace bakestone {
namespace {

struct Tiny {
  // path: of a model; empty: a tiny Llama.
  explicit Tiny(const std::string& name, std::filesystem::path path = {})
      : folder(std::filesystem::path(::testing::TempDir()) / "bakestone_trained" / name), pool(2) {
    std::filesystem::create_directories(folder);
    if (path.empty()) testing::WriteTestModel(path = folder / "tiny.gguf");
    model = Model::Load(path, kernels, pool);
    for (int32_t i = 0; i < 40; ++i) {
      tokens.push_back(i * 7 % static_cast<int32_t>(model->config.vocab_size));
      positions.push_back(i);
      if (i == 39) break;
      rows.push_back(i);
      targets.push_back((i * 7 + 7) % static_cast<int32_t>(model->config.vocab_size));
    }
    weights.assign(rows.size(), 1.0f);
  }

  double Loss(const Model& of, const TrainLayout& layout, std::span<const float> values,
              const LoraRecipe& lora) {
    TrainerPass pass(*of.decoder, layout, PairScale(lora), kernels, pool);
    pass.SetValues(values);
    const std::vector<int32_t> begins = {0};
    return pass.Evaluate({tokens, positions, begins, rows, targets, weights}).nll;
  }

  const KernelTable& kernels = *AvailableKernels().back();
  std::filesystem::path folder;
  ThreadPool pool;
  std::shared_ptr<const Model> model;
  std::vector<int32_t> tokens, positions, rows, targets;
  std::vector<float> weights;
};

struct Kind {
  AdapterKind kind;
  bool embeddings;

  Recipe AsRecipe() const {
    Recipe recipe;
    recipe.lora.kind = kind;
    recipe.lora.embeddings = embeddings;
    recipe.lora.rank = 4;
    recipe.lora.alpha = 8;
    return recipe;
  }
  std::string Name() const {
    return std::string(AdapterKindName(kind)) + (embeddings ? "-embeddings" : "");
  }
};

// Trained values far enough from the base that a wrong merge shows, written and loaded again.
void ExpectWrittenAsTrained(Tiny& tiny, const Kind& kind) {
  const Recipe recipe = kind.AsRecipe();
  const TrainLayout layout = LayoutOf(*tiny.model, recipe);
  AlignedVector<float> values = InitialValues(*tiny.model, layout, 1, tiny.kernels, tiny.pool);
  const double base = tiny.Loss(*tiny.model, layout, values, recipe.lora);
  const AlignedVector<float> initial = values;
  double trained = base;
  // Until it is well above what rounding does to random models, some of which amplify it.
  for (float factor = 1; std::abs(trained - base) < 0.012 * base && factor < 20; factor *= 2) {
    values = initial;
    Rng rng(5, 1);
    for (const TrainTensor& tensor : layout.tensors) {
      const float noise = factor * (tensor.name.ends_with("lora_B") ? 0.4f : 0.1f);
      for (int64_t i = 0; i < tensor.size(); ++i) {
        values[static_cast<size_t>(tensor.offset + i)] += noise * rng.Normal();
      }
    }
    trained = tiny.Loss(*tiny.model, layout, values, recipe.lora);
  }
  const ModelSource source = OpenTrainedSource(*tiny.model, layout, values, recipe.lora);
  ASSERT_GT(std::abs(trained - base), 0.001 * base);
  const auto path = tiny.folder / "model.gguf";
  WriteQuantized(source, PlanAsIs(source), path, tiny.kernels, tiny.pool,
                 {.notes = {{"general.name", "tuned"}}});
  const auto written = Model::Load(path, tiny.kernels, tiny.pool);
  EXPECT_EQ(written->config.name, "tuned");
  // Scored as it is: pairs whose B is zero.
  const TrainLayout plain = TrainLayout::Make(written->config, {.rank = 1});
  const std::vector<float> none(static_cast<size_t>(plain.size), 0.0f);
  const double loss = tiny.Loss(*written, plain, none, recipe.lora);
  if (kind.kind == AdapterKind::kFull) {
    EXPECT_EQ(loss, trained);  // bf16 matrices and f32 vectors, as training multiplies with them
  } else {
    EXPECT_NEAR(loss, trained, 0.3 * std::abs(trained - base));  // W + s B A is rounded once more
  }
}

TEST(TrainedSource, AWrittenModelSaysWhatTheTrainedOneSays) {
  const Kind kinds[] = {{AdapterKind::kLora, false}, {AdapterKind::kRsLora, false},
                        {AdapterKind::kDora, false}, {AdapterKind::kFull, false},
                        {AdapterKind::kLora, true},  {AdapterKind::kDora, true}};
  for (const Kind& kind : kinds) {
    SCOPED_TRACE(kind.Name());
    Tiny tiny(kind.Name());
    ExpectWrittenAsTrained(tiny, kind);
  }
}

// The goldens of families hold no tokenizer.
std::filesystem::path WithTokenizer(const std::filesystem::path& model, const std::string& name) {
  const auto path = std::filesystem::path(::testing::TempDir()) / (name + ".gguf");
  const ModelSource source = OpenGgufSource(model);
  std::vector<std::string> tokens = {"t", "h", "th"};
  for (int64_t i = 3; i < source.Find("token_embd.weight")->num_rows(); ++i) {
    tokens.push_back("t" + std::to_string(i));
  }
  ThreadPool pool(1);
  WriteQuantized(source, PlanAsIs(source), path, *AvailableKernels().back(), pool,
                 {.notes = {{"tokenizer.ggml.model", "gpt2"},
                            {"tokenizer.ggml.pre", "gpt-2"},
                            {"tokenizer.ggml.token_type", std::vector<int32_t>(tokens.size(), 1)},
                            {"tokenizer.ggml.merges", std::vector<std::string>{"t h"}},
                            {"tokenizer.ggml.tokens", std::move(tokens)}}});
  return path;
}

// Whatever cannot be written in the end is refused before anything is trained, with what to do.
TEST(TrainedSource, EveryFamilyIsWrittenAsTrainedOrRefusedWithTheRemedy) {
  const Kind kinds[] = {
      {AdapterKind::kDora, false}, {AdapterKind::kFull, false}, {AdapterKind::kLora, true}};
  std::map<std::string, int> written, refused;
  for (const auto& entry : std::filesystem::directory_iterator(BAKESTONE_TEST_DATA "/families")) {
    const auto path = entry.path() / "model.gguf";
    // Those that have goldens of a training step.
    if (!std::filesystem::exists(entry.path() / "train.safetensors")) continue;
    const std::string family = entry.path().filename().string();
    const auto model = WithTokenizer(path, family);
    for (const Kind& kind : kinds) {
      SCOPED_TRACE(family + " " + kind.Name());
      Tiny tiny(family + "-" + kind.Name(), model);
      std::optional<Error> error;
      try {
        ExpectWrittenAsTrained(tiny, kind);
        ++written[kind.Name()];
      } catch (const Error& thrown) {
        error = thrown;
        ++refused[family];
      }
      if (!error) continue;
      EXPECT_EQ(error->code(), ErrorCode::kUnsupported) << error->what();
      EXPECT_THAT(error->what(), ::testing::HasSubstr("kind \"lora\"")) << family;
    }
  }
  for (const Kind& kind : kinds) EXPECT_GT(written[kind.Name()], 3) << kind.Name();
  EXPECT_EQ(refused["phi3"], 1);  // as a whole: q, k and v are one tensor of its files
  EXPECT_EQ(refused["llama"], 0);
}

TEST(TrainedSource, NewRowsAreWrittenAndOldOnesStay) {
  Tiny tiny("rows");
  Recipe recipe;
  recipe.lora = {.rank = 4, .alpha = 8, .new_tokens = true, .first_new = 200};
  EXPECT_FALSE(recipe.lora.served_as_adapter());
  const TrainLayout layout = LayoutOf(*tiny.model, recipe);
  ASSERT_EQ(layout.embedding.rows, tiny.model->config.vocab_size - 200);
  AlignedVector<float> values = InitialValues(*tiny.model, layout, 1, tiny.kernels, tiny.pool);
  const auto begin = values.begin() + layout.embedding.offset;
  std::fill(begin, begin + layout.embedding.rows * tiny.model->config.hidden_dim, 0.5f);
  const ModelSource base = OpenGgufSource(tiny.model->path);
  const ModelSource source = OpenTrainedSource(*tiny.model, layout, values, recipe.lora);
  std::vector<float> row(static_cast<size_t>(tiny.model->config.hidden_dim)), old(row.size());
  const SourceTensor *table = source.Find("token_embd.weight"),
                     *before = base.Find("token_embd.weight");
  table->rows(199, 1, row.data());
  before->rows(199, 1, old.data());
  EXPECT_EQ(row, old);
  table->rows(200, 1, row.data());
  EXPECT_EQ(row, std::vector<float>(row.size(), 0.5f));
}

}  // namespace
}  // namespace bakestone
