// A recipe with its data and a tiny model, for the tests of this folder.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "engine/chat.h"
#include "kernels/isa.h"
#include "model/test_model.h"
#include "train/recipe.h"
#include "train/trained.h"
#include "train/trainer.h"

namespace bakestone::testing {

inline std::filesystem::path TestFolder(const std::string& name) {
  const auto folder = std::filesystem::path(::testing::TempDir()) / "bakestone_train" / name;
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  return folder;
}

inline std::string MessageOf(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

inline constexpr char kRecipe[] = R"(
name = "trial"
base = "tiny"
seed = 7
[[data]]
name = "text"
path = "text.md"
licence = "CC0-1.0"
[[data]]
name = "chats"
path = "chats.jsonl"
[[data]]
name = "other"
path = "other.txt"
[lora]
rank = 4
targets = ["q_proj", "down_proj"]
[[stage]]
name = "read"
method = "pretrain"
data = ["text"]
batch = 2
sequence_length = 64
learning_rate = 0.01
[stage.replay]
data = "other"
share = 0.3
kl_weight = 1.0
length = 32
[[stage]]
name = "learn"
method = "sft"
data = ["chats"]
epochs = 3
batch = 2
)";

// A folder with the recipe, its data and a tiny model.
struct Trial {
  explicit Trial(const std::string& name, std::string recipe_text = kRecipe)
      : folder(TestFolder(name)), pool(2) {
    WriteFileAtomically(folder / "recipe.toml", recipe_text);
    WriteFileAtomically(
        folder / "text.md",
        "# T\n\n## One\n\nThe mill opens at seven.\n\n## Two\n\nThe key is green.\n");
    std::string other;
    for (int i = 0; i < 12; ++i) {
      other += "Rain fell on the hills for " + std::to_string(i) + " days.\n\n";
    }
    WriteFileAtomically(folder / "other.txt", other);
    WriteFileAtomically(
        folder / "chats.jsonl",
        R"({"messages": [{"role": "user", "content": "When?"}, {"role": "assistant", "content": "Seven."}]})"
        "\n"
        R"({"prompt": "Which key?", "completion": "The green one."})"
        "\n\n"
        R"({"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Bye"}, {"role": "assistant", "content": "Goodbye."}]})"
        "\n");
    const auto path = folder / "tiny.gguf";
    WriteTestModel(path);
    model = Model::Load(path, *AvailableKernels().back(), pool);
    recipe = ReadRecipe(folder / "recipe.toml", folder);
    encode = [this](const nlohmann::ordered_json& messages, bool prompt,
                    const nlohmann::ordered_json* tools) {
      return RenderChat(*model, messages, prompt, tools).tokens;
    };
  }

  StageOutcome Train(size_t stage, const std::string& sub, TrainObserver& observer,
                     ThreadPool& on_pool, double checkpoint_seconds = 0) {
    const TrainLayout layout = LayoutOf(*model, recipe);
    const StageData data = ReadStageData(*model, encode, recipe, recipe.stages[stage]);
    TrainOptions options;
    options.folder = folder / sub;
    options.checkpoint_seconds = checkpoint_seconds;
    options.batch_tokens = 128;
    return TrainStage(*model, recipe, recipe.stages[stage], data,
                      InitialValues(*model, layout, recipe.seed, *AvailableKernels().back(), pool),
                      "key", *AvailableKernels().back(), on_pool, options, observer);
  }

  std::filesystem::path folder;
  ThreadPool pool;
  std::shared_ptr<const Model> model;
  Recipe recipe;
  ChatEncoder encode;
};

class StopAfter : public TrainObserver {
 public:
  explicit StopAfter(int64_t steps) : steps_(steps) {}
  void OnStep(const StepReport& report) override { losses.push_back(report.loss); }
  bool Cancelled() override { return static_cast<int64_t>(losses.size()) >= steps_; }
  std::vector<double> losses;

 private:
  int64_t steps_;
};

}  // namespace bakestone::testing
