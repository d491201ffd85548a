#include <cmath>
#include <filesystem>
#include <numeric>

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "engine/chat.h"
#include "kernels/isa.h"
#include "model/test_model.h"
#include "train/batches.h"
#include "train/checkpoint.h"
#include "train/dataset.h"
#include "train/export.h"
#include "train/recipe.h"
#include "train/trained.h"
#include "train/trainer.h"

namespace bakestone {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

std::filesystem::path TestFolder(const std::string& name) {
  const auto folder = std::filesystem::path(::testing::TempDir()) / "bakestone_train" / name;
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  return folder;
}

std::string MessageOf(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

constexpr char kRecipe[] = R"(
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
    WriteFileAtomically(folder / "text.md",
                        "# T\n\n## One\n\nThe mill opens at seven.\n\n## Two\n\nThe key is green.\n");
    std::string other;
    for (int i = 0; i < 12; ++i) other += "Rain fell on the hills for " + std::to_string(i) + " days.\n\n";
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
    ::bakestone::testing::WriteTestModel(path);
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
                      InitialValues(*model, layout, recipe.seed, *AvailableKernels().back(), pool), "key", *AvailableKernels().back(), on_pool,
                      options, observer);
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

TEST(Recipe, ReadsWhatItSays) {
  const Trial trial("recipe");
  const Recipe& recipe = trial.recipe;
  EXPECT_EQ(recipe.seed, 7u);
  EXPECT_THAT(recipe.lora.targets, ElementsAre("q_proj", "down_proj"));
  EXPECT_EQ(recipe.lora.alpha, 8);
  ASSERT_EQ(recipe.stages.size(), 2u);
  EXPECT_EQ(recipe.stages[0].replay->share, 0.3);
  EXPECT_EQ(recipe.stages[1].epochs, 3);
  EXPECT_EQ(recipe.stages[1].join, 1);
  EXPECT_EQ(recipe.Source("text").path, trial.folder / "text.md");
}

TEST(Recipe, NamesTheKeyThatIsWrong) {
  const auto folder = TestFolder("recipe_errors");
  const auto message = [&](const std::string& from, const std::string& to) {
    std::string text = kRecipe;
    text.replace(text.find(from), from.size(), to);
    WriteFileAtomically(folder / "r.toml", text);
    return MessageOf([&] { ReadRecipe(folder / "r.toml", folder); });
  };
  EXPECT_THAT(message("rank = 4", "rank = 0"), HasSubstr("'rank': expected a whole number from 1"));
  EXPECT_THAT(message("rank = 4", "ranks = 4"), HasSubstr("unknown key 'ranks'"));
  EXPECT_THAT(message("epochs = 3", "epochs = \"3\""), HasSubstr("'epochs'"));
  EXPECT_THAT(message("epochs = 3", "join = 0"), HasSubstr("'join': expected a whole number from 1"));
  EXPECT_THAT(message("\"pretrain\"", "\"pretrain\"\njoin = 2"),
              HasSubstr("'join': expected 1 with method \"pretrain\""));
  EXPECT_THAT(message("\"sft\"", "\"rlhf\""), HasSubstr("found 'rlhf'"));
  EXPECT_THAT(message("data = [\"chats\"]", "data = [\"chat\"]"), HasSubstr("found 'chat'"));
  EXPECT_THAT(message("name = \"trial\"", "name = \"../x\""), HasSubstr("'name'"));
  EXPECT_THAT(message("seed = 7", "seed = 7 7"), HasSubstr("line 4"));
  EXPECT_THAT(message("[lora]", "[eval]\ngeneral = [\"other\"]\n[lora]"), HasSubstr("forgotten"));
}

TEST(Dataset, TrainsWhatTheAssistantSaysAndTheEndOfItsTurn) {
  const Trial trial("mask");
  const Dataset data =
      ReadDataset(*trial.model, trial.encode, trial.recipe.Source("chats"), {.max_tokens = 512});
  ASSERT_EQ(data.size(), 3);
  const Tokenizer& tokenizer = trial.model->tokenizer;
  const auto trained_text = [&](const SampleView& sample) {
    std::vector<int32_t> ids;
    for (size_t i = 0; i < sample.tokens.size(); ++i) {
      if (sample.trained[i] != 0) ids.push_back(sample.tokens[i]);
    }
    return tokenizer.Decode(ids, {.render_special = true});
  };
  EXPECT_THAT(trained_text(data.At(0)), HasSubstr("Seven.<|im_end|>"));
  EXPECT_THAT(trained_text(data.At(0)), ::testing::Not(HasSubstr("When")));
  EXPECT_THAT(trained_text(data.At(1)), HasSubstr("The green one.<|im_end|>"));
  EXPECT_THAT(trained_text(data.At(2)), HasSubstr("Hello.<|im_end|>"));
  EXPECT_THAT(trained_text(data.At(2)), HasSubstr("Goodbye.<|im_end|>"));
  EXPECT_THAT(trained_text(data.At(2)), ::testing::Not(HasSubstr("Bye")));
}

TEST(Dataset, MarkdownSectionsAreDocumentsAndLongTextIsCutNotLost) {
  const Trial trial("text");
  const Dataset sections =
      ReadDataset(*trial.model, trial.encode, trial.recipe.Source("text"), {.max_tokens = 512});
  EXPECT_EQ(sections.size(), 3);  // the title, One, Two
  std::string text;
  for (int i = 0; i < 300; ++i) text += "word" + std::to_string(i) + (i % 7 == 6 ? "\n\n" : " ");
  const std::vector<Sample> pieces = CutText(trial.model->tokenizer, text, 64);
  std::string joined;
  for (const Sample& sample : pieces) {
    EXPECT_LE(sample.tokens.size(), 64u);
    EXPECT_EQ(sample.num_trained, static_cast<int64_t>(sample.tokens.size()) - 1);
    joined += trial.model->tokenizer.Decode(sample.tokens);
  }
  EXPECT_EQ(joined, text);
}

TEST(Dataset, BadLinesAreNamedAndNothingToLearnIsAnError) {
  Trial trial("bad");
  const auto message = [&](const std::string& contents) {
    WriteFileAtomically(trial.folder / "bad.jsonl", contents);
    return MessageOf([&] {
      ReadDataset(*trial.model, trial.encode, {"bad", trial.folder / "bad.jsonl", ""},
                  {.max_tokens = 64});
    });
  };
  EXPECT_THAT(message("{\"text\": \"a b\"}\n{oops"), HasSubstr("line 2"));
  EXPECT_THAT(message("[1]"), HasSubstr("expected a JSON object"));
  EXPECT_THAT(message("{\"question\": 1}"), HasSubstr("expected 'messages'"));
  EXPECT_THAT(message("{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}"),
              HasSubstr("at least one token to learn"));
  EXPECT_THAT(message("{\"messages\": [{\"role\": \"assistant\", \"content\": 3}]}"),
              HasSubstr("'content'"));
  EXPECT_THAT(message(""), HasSubstr("at least one token to learn"));
}

TEST(Batches, PackingKeepsBordersAndTargets) {
  Sample a{{10, 11, 12}, {0, 0, 1}, 1}, b{{20, 21}, {0, 1}, 1}, c{{30, 31, 32, 33}, {0, 1, 1, 1}, 3};
  const std::vector<SampleView> samples = {a.View(), b.View(), c.View()};
  const auto batches = Pack(samples, 5);
  ASSERT_EQ(batches.size(), 2u);
  EXPECT_THAT(batches[0].document_begins, ElementsAre(0, 3));
  EXPECT_THAT(batches[0].positions, ElementsAre(0, 1, 2, 0, 1));
  EXPECT_THAT(batches[0].loss_rows, ElementsAre(1, 3));
  EXPECT_THAT(batches[0].targets, ElementsAre(12, 21));
  EXPECT_THAT(batches[1].loss_rows, ElementsAre(0, 1, 2));
}

TEST(Dataset, AJoinedChatIsWhatTheTemplateWritesForTheLongOne) {
  const Trial trial("join");
  const auto read = [&](const std::string& lines) {
    WriteFileAtomically(trial.folder / "join.jsonl", lines);
    return ReadDataset(*trial.model, trial.encode, {"join", trial.folder / "join.jsonl", ""},
                       {.max_tokens = 512, .joinable = true});
  };
  const std::string system = R"({"role": "system", "content": "Be brief."}, )";
  const std::string a = R"({"role": "user", "content": "When?"}, {"role": "assistant", "content": "Seven."})";
  const std::string b = R"({"role": "user", "content": "Which?"}, {"role": "assistant", "content": "Two."})";
  for (const std::string& lead : {system, std::string()}) {
    const Dataset apart = read("{\"messages\": [" + lead + a + "]}\n{\"messages\": [" + lead + b + "]}\n");
    const Dataset whole = read("{\"messages\": [" + lead + a + ", " + b + "]}\n");
    const std::vector<SampleView> samples = {apart.At(0), apart.At(1)};
    const std::vector<Sample> joined = Join(samples, 2, 512);
    ASSERT_EQ(joined.size(), 1u);
    const SampleView expected = whole.At(0);
    EXPECT_THAT(joined[0].tokens, ElementsAreArray(expected.tokens));
    EXPECT_THAT(joined[0].trained, ElementsAreArray(expected.trained));
    EXPECT_EQ(joined[0].num_trained, expected.num_trained);
  }
  // Who ends with a question stands alone, and so does text.
  const Dataset open = read("{\"messages\": [" + a + R"(, {"role": "user", "content": "Why?"}]})" +
                            "\n{\"text\": \"The mill opens.\"}\n");
  ASSERT_EQ(open.size(), 2);
  EXPECT_EQ(open.At(0).lead, Sample::kStandsAlone);
  EXPECT_EQ(open.At(1).lead, Sample::kStandsAlone);
}

TEST(Dataset, ATemplateThatWritesALaterChatInAnotherWayIsRefused) {
  const nlohmann::ordered_json messages = {{{"role", "user"}, {"content", "a"}},
                                           {{"role", "assistant"}, {"content", "b"}}};
  // One token a message, and how many messages there are.
  const ChatEncoder counts = [](const nlohmann::ordered_json& chat, bool, const nlohmann::ordered_json*) {
    std::vector<int32_t> tokens(chat.size(), 1);
    tokens.push_back(static_cast<int32_t>(chat.size()));
    return tokens;
  };
  const Sample sample{counts(messages, false, nullptr), {0, 0, 1}, 1};
  EXPECT_THAT(MessageOf([&] { FindLead(counts, messages, sample, "x.jsonl, line 3"); }),
              HasSubstr("x.jsonl, line 3: the model's chat template"));
}

TEST(Batches, OnlyTheSameLeadIsJoinedUpToCountAndLength) {
  const auto chat = [](int32_t system, int32_t said) {
    return Sample{{system, 5, said}, {0, 0, 1}, 1, 2};
  };
  const Sample a = chat(1, 10), b = chat(2, 20), c = chat(1, 30), d = chat(1, 40), e = chat(2, 50);
  const Sample alone{{1, 5, 60}, {0, 1, 1}, 2};
  const std::vector<SampleView> samples = {a.View(),     b.View(), c.View(),
                                           alone.View(), d.View(), e.View()};
  const auto joined = Join(samples, 2, 512);
  ASSERT_EQ(joined.size(), 4u);
  EXPECT_THAT(joined[0].tokens, ElementsAre(1, 5, 10, 30));
  EXPECT_THAT(joined[0].trained, ElementsAre(0, 0, 1, 1));
  EXPECT_EQ(joined[0].num_trained, 2);
  EXPECT_THAT(joined[1].tokens, ElementsAre(2, 5, 20, 50));
  EXPECT_THAT(joined[2].tokens, ElementsAre(1, 5, 60));
  EXPECT_THAT(joined[3].tokens, ElementsAre(1, 5, 40));
  EXPECT_EQ(Join(samples, 3, 3).size(), 6u);  // no room for a second one
  const auto three = Join(samples, 3, 512);
  ASSERT_EQ(three.size(), 3u);
  EXPECT_THAT(three[0].tokens, ElementsAre(1, 5, 10, 30, 40));
}

TEST(Batches, OrderIsAPermutationEveryEpochAndTheSameFromAnyStart) {
  SampleOrder order(10, 3, 1), again(10, 3, 1);
  std::vector<int64_t> first;
  for (int64_t i = 0; i < 30; ++i) first.push_back(order.At(i));
  for (int epoch = 0; epoch < 3; ++epoch) {
    std::vector<int64_t> sorted(first.begin() + epoch * 10, first.begin() + epoch * 10 + 10);
    std::sort(sorted.begin(), sorted.end());
    for (int64_t i = 0; i < 10; ++i) EXPECT_EQ(sorted[static_cast<size_t>(i)], i);
  }
  EXPECT_EQ(again.At(25), first[25]);
  EXPECT_NE(std::vector<int64_t>(first.begin(), first.begin() + 10),
            std::vector<int64_t>(first.begin() + 10, first.begin() + 20));
}

TEST(Checkpoint, DamageIsFoundAtEveryByte) {
  const auto path = TestFolder("checkpoint") / "c.bin";
  Checkpoint written{.key = "k", .stage = 1, .step = 5, .tokens = 100, .seconds = 1.5,
                     .log_bytes = 40, .masters = {1, 2, 3}, .first_moments = {4, 5, 6},
                     .second_moments = {7, 8, 9}};
  WriteCheckpoint(path, written);
  const auto read = ReadCheckpoint(path);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->masters, written.masters);
  EXPECT_EQ(read->second_moments, written.second_moments);
  EXPECT_EQ(read->step, 5);
  const std::string whole = ReadFile(path);
  for (size_t i = 0; i < whole.size(); ++i) {
    std::string damaged = whole;
    damaged[i] = static_cast<char>(damaged[i] ^ 4);
    WriteFileAtomically(path, damaged);
    EXPECT_THROW(ReadCheckpoint(path), Error) << "byte " << i;
    WriteFileAtomically(path, whole.substr(0, i));
    EXPECT_THROW(ReadCheckpoint(path), Error) << "cut at " << i;
  }
  EXPECT_FALSE(ReadCheckpoint(path.string() + ".absent"));
}

TEST(LearningRate, WarmsUpAndEndsAtItsShare) {
  StageRecipe stage;
  stage.learning_rate = 1;
  stage.warmup = 0.1;
  stage.final_rate = 0.2;
  EXPECT_NEAR(LearningRate(stage, 0, 100), 0.1, 1e-12);
  EXPECT_NEAR(LearningRate(stage, 9, 100), 1, 1e-12);
  EXPECT_NEAR(LearningRate(stage, 99, 100), 0.2, 1e-12);
  for (int64_t step = 10; step < 99; ++step) {
    EXPECT_GT(LearningRate(stage, step, 100), LearningRate(stage, step + 1, 100));
  }
}

TEST(Trainer, LossFallsOnASmallSet) {
  Trial trial("learns");
  trial.recipe.stages[1].epochs = 30;
  trial.recipe.stages[1].learning_rate = 0.02;
  trial.recipe.lora.rank = 8;
  StopAfter observer(1 << 20);
  trial.Train(1, "run", observer, trial.pool, 1e9);
  EXPECT_LT(observer.losses.back(), 0.6 * observer.losses.front());
}

TEST(Trainer, ResumedRunEqualsAnUninterruptedOneBitForBit) {
  Trial trial("resume");
  trial.recipe.stages[1].join = 2;
  for (const size_t stage : {0, 1}) {
    trial.recipe.stages[stage].epochs = 4;
    const std::string name = "stage" + std::to_string(stage);
    StopAfter whole(1 << 20);
    const StageOutcome expected = trial.Train(stage, name + "a", whole, trial.pool, 1e9);
    int stops = 0;
    while (true) {
      StopAfter part(2);
      try {
        ThreadPool threads(1 + stops % 3);
        const StageOutcome outcome = trial.Train(stage, name + "b", part, threads);
        EXPECT_TRUE(outcome.resumed || outcome.last.num_steps <= 2);
        EXPECT_EQ(outcome.masters, expected.masters);
        break;
      } catch (const Error& error) {
        ASSERT_EQ(error.code(), ErrorCode::kCancelled) << error.what();
        ASSERT_LT(++stops, 50);
      }
    }
    EXPECT_GT(stops, 0);
    const auto lines = [&](const std::string& sub) {
      const std::string log = ReadFile(trial.folder / (name + sub) / "log.jsonl");
      return std::count(log.begin(), log.end(), '\n');
    };
    EXPECT_EQ(lines("a"), lines("b"));
    StopAfter none(1 << 20);
    const StageOutcome reused = trial.Train(stage, name + "b", none, trial.pool);
    EXPECT_TRUE(reused.reused);
    EXPECT_EQ(reused.masters, expected.masters);
  }
}

TEST(Trainer, RefusesAnotherRunsCheckpoint) {
  Trial trial("wrong_key");
  StopAfter part(1);
  EXPECT_THROW(trial.Train(1, "run", part, trial.pool), Error);
  auto saved = *ReadCheckpoint(trial.folder / "run" / "checkpoint.bin");
  saved.key = "another";
  WriteCheckpoint(trial.folder / "run" / "checkpoint.bin", saved);
  StopAfter whole(1 << 20);
  EXPECT_THAT(MessageOf([&] { trial.Train(1, "run", whole, trial.pool); }),
              HasSubstr("belongs to another base, recipe or data"));
}

TEST(Export, AdapterHoldsWhatIsServed) {
  Trial trial("export");
  StopAfter whole(1 << 20);
  const StageOutcome outcome = trial.Train(1, "run", whole, trial.pool, 1e9);
  const auto layout =
      LayoutOf(*trial.model, trial.recipe);
  const AdapterFile file =
      MakeAdapterFile(*trial.model, layout, outcome.masters, trial.recipe.lora, "trial");
  const auto loaded = Adapter::Load(file, trial.model->config);
  Adapter trained(trial.model->config, "trial");
  SetAdapter(layout, outcome.masters, trial.recipe.lora, &trained);
  trained.Publish();
  EXPECT_EQ(loaded->hash(), trained.hash());
}

}  // namespace
}  // namespace bakestone
