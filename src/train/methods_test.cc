// Every method through the loop: resumed equals uninterrupted, gradient accumulation changes
// nothing, held-out losses choose what is kept. The gradients themselves are held against PyTorch
// in model/train_methods_test.cc.
#include <algorithm>
#include <cmath>
#include <sstream>
#include <tuple>

#include <gmock/gmock.h>

#include "format/gguf_adapter.h"
#include "format/peft.h"
#include "train/checkpoint.h"
#include "train/export.h"
#include "train/find_rate.h"
#include "train/memory_choice.h"
#include "train/references.h"
#include "train/step_source.h"
#include "train/test_trial.h"

namespace bakestone {
namespace {

using ::bakestone::testing::kRecipe;
using ::bakestone::testing::MessageOf;
using ::bakestone::testing::StopAfter;
using ::bakestone::testing::TestFolder;
using ::bakestone::testing::Trial;
using ::testing::HasSubstr;

std::string Replaced(std::string text, const std::string& from, const std::string& to) {
  text.replace(text.find(from), from.size(), to);
  return text;
}

// The trial's recipe with preferences as its second stage, and another kind of adapter.
std::string Preferences(const std::string& adapter, const std::string& more = "") {
  std::string text =
      Replaced(kRecipe, "[lora]\nrank = 4\ntargets = [\"q_proj\", \"down_proj\"]", adapter);
  text = Replaced(text, "method = \"sft\"", "method = \"dpo\"\nlearning_rate = 0.01\n" + more);
  return Replaced(text, "path = \"chats.jsonl\"", "path = \"pairs.jsonl\"");
}

void WritePairs(const Trial& trial) {
  std::string lines;
  for (int i = 0; i < 9; ++i) {
    lines += fmt::format(
        "{{\"prompt\": \"Question {}?\", \"chosen\": \"Yes, {} and so on.\", \"rejected\": \"No "
        "{}.\"}}\n",
        i, i * 3, i);
  }
  WriteFileAtomically(trial.folder / "pairs.jsonl", lines);
}

constexpr char kLora[] = "[adapter]\nkind = \"lora\"\nrank = 4";

TEST(Schedule, EachEndsWhereItsRecipeSays) {
  StageRecipe stage;
  stage.learning_rate = 1;
  stage.warmup = 0.1;
  stage.final_rate = 0.2;
  for (const Schedule schedule : {Schedule::kCosine, Schedule::kLinear, Schedule::kWsd}) {
    stage.schedule = schedule;
    EXPECT_NEAR(LearningRate(stage, 4, 100), 0.5, 1e-12);
    EXPECT_NEAR(LearningRate(stage, 99, 100), 0.2, 1e-12);
  }
  stage.schedule = Schedule::kLinear;
  EXPECT_NEAR(LearningRate(stage, 54, 100), 0.6, 1e-12);
  stage.schedule = Schedule::kWsd;
  EXPECT_EQ(LearningRate(stage, 79, 100), 1);
  EXPECT_NEAR(LearningRate(stage, 89, 100), 0.6, 1e-12);
  stage.schedule = Schedule::kConstant;
  EXPECT_EQ(LearningRate(stage, 99, 100), 1);
}

TEST(Recipe, MethodsBringTheirOwnDefaultsAndRefuseOthersKeys) {
  const auto folder = TestFolder("method_recipe");
  const auto read = [&](const std::string& text) {
    WriteFileAtomically(folder / "r.toml", text);
    return ReadRecipe(folder / "r.toml", folder);
  };
  const Recipe dpo = read(Preferences(kLora));
  EXPECT_EQ(dpo.stages[1].schedule, Schedule::kLinear);
  EXPECT_EQ(dpo.stages[1].beta, 0.1);
  EXPECT_THAT(dpo.stages[1].defaults, ::testing::Contains("warmup 0.1"));
  const Recipe full = read(Replaced(Preferences("[adapter]\nkind = \"full\""),
                                    "learning_rate = 0.01\n[stage.replay]", "[stage.replay]"));
  EXPECT_EQ(full.stages[0].learning_rate, 2e-5);
  EXPECT_EQ(full.stages[0].weight_decay, 0.1);
  EXPECT_EQ(dpo.stages[1].embedding_rate, 0.1);
  const std::string added = "[add_tokens]\nlist = [\"Ostrel\"]\n[lora]";
  const Recipe rows = read(Replaced(kRecipe, "[lora]", added));
  EXPECT_EQ(rows.stages[1].embedding_rate, 3);
  EXPECT_THAT(rows.stages[1].defaults, ::testing::Contains("embedding_rate 3"));
  // Nor do those that a chat template writes.
  const Recipe chat = read(Replaced(kRecipe, "[lora]", "[chat]\ntemplate = \"chatml\"\n[lora]"));
  EXPECT_EQ(chat.stages[1].embedding_rate, 3);
  EXPECT_EQ(
      read(Replaced(kRecipe, "[lora]", added + "\nembeddings = true")).stages[1].embedding_rate,
      0.1);
  EXPECT_EQ(read(Replaced(kRecipe, "rank = 4", "rank = 4\nrslora = true")).lora.kind,
            AdapterKind::kRsLora);
  const auto message = [&](const std::string& text) { return MessageOf([&] { read(text); }); };
  EXPECT_THAT(message(Preferences("[adapter]\nkind = \"lokr\"")),
              HasSubstr("'kind': expected one of \"lora\", \"rslora\""));
  EXPECT_THAT(message(Preferences("[adapter]\nkind = \"full\"\nrank = 4")),
              HasSubstr("'rank': expected only with pairs"));
  EXPECT_THAT(message(Replaced(kRecipe, "[lora]", "[adapter]\nkind = \"dora\"\n[lora]")),
              HasSubstr("found both"));
  EXPECT_THAT(message(Replaced(kRecipe, "epochs = 3", "beta = 0.2")),
              HasSubstr("'beta': expected only with method \"dpo\""));
  EXPECT_THAT(message(Preferences(kLora, "join = 2")),
              HasSubstr("'join': expected 1 with method \"dpo\""));
  EXPECT_THAT(message(Preferences(kLora, "decay = 0.5")),
              HasSubstr("'decay': expected only with schedule \"wsd\""));
  EXPECT_THAT(message(Replaced(kRecipe, "epochs = 3", "answers = \"chats\"")),
              HasSubstr("is judged by 'chats', which stage 'learn' trains on"));
  EXPECT_THAT(message(Replaced(kRecipe, "epochs = 3", "answers = \"none\"")),
              HasSubstr("found 'none'"));
}

TEST(Methods, ResumedEqualsUninterruptedForEach) {
  const std::pair<std::string, std::string> kinds[] = {
      {"lora", kLora},
      {"dora", "[adapter]\nkind = \"dora\"\nrank = 4"},
      {"full", "[adapter]\nkind = \"full\""}};
  for (const auto& [name, adapter] : kinds) {
    SCOPED_TRACE(name);
    Trial trial("method_" + name, Preferences(adapter));
    WritePairs(trial);
    for (const size_t stage : {0, 1}) {
      StopAfter whole(1 << 20), first(2), rest(1 << 20);
      const StageOutcome expected =
          trial.Train(stage, "whole" + std::to_string(stage), whole, trial.pool, 1e9);
      ThreadPool three(3);
      const std::string sub = "part" + std::to_string(stage);
      if (expected.last.num_steps > 2) {
        EXPECT_THROW(trial.Train(stage, sub, first, three), Error);
      }
      const StageOutcome outcome = trial.Train(stage, sub, rest, trial.pool);
      EXPECT_EQ(outcome.masters, expected.masters);
    }
  }
}

TEST(Methods, PreferencesBeginAtTheLossOfNoPreferenceAndAreLearned) {
  for (const std::string more : {"", "length_normalized = true\nbeta = 2.0"}) {
    Trial trial("dpo" + std::to_string(more.size()), Preferences(kLora, more));
    WritePairs(trial);
    trial.recipe.stages[1].epochs = 12;
    trial.recipe.stages[1].learning_rate = 0.02;
    StopAfter observer(1 << 20);
    const StageOutcome outcome = trial.Train(1, "run", observer, trial.pool, 1e9);
    EXPECT_NEAR(observer.losses.front(), std::log(2.0), 1e-3);
    EXPECT_LT(observer.losses.back(), 0.5);
    EXPECT_GT(outcome.last.reward_margin, 0);
    EXPECT_EQ(outcome.last.accuracy, 1);
  }
}

TEST(Methods, TheReferenceIsTheModelThatTheStageStartsFrom) {
  Trial trial("dpo_reference", Preferences(kLora));
  WritePairs(trial);
  StopAfter first(1 << 20), second(1 << 20);
  const StageOutcome trained = trial.Train(1, "first", first, trial.pool, 1e9);
  // On from there: the loss begins at log 2 again, which it would not against the bare base.
  const StageData data =
      ReadStageData(*trial.model, trial.encode, trial.recipe, trial.recipe.stages[1]);
  TrainOptions options;
  options.folder = trial.folder / "second";
  TrainStage(*trial.model, trial.recipe, trial.recipe.stages[1], data, trained.masters, "other key",
             *AvailableKernels().back(), trial.pool, options, second);
  EXPECT_NEAR(second.losses.front(), std::log(2.0), 1e-3);
  EXPECT_TRUE(ReadReferences(options.folder / "references.bin", "other key"));
  EXPECT_FALSE(ReadReferences(options.folder / "references.bin", "key"));
  std::string damaged = ReadFile(options.folder / "references.bin");
  damaged[damaged.size() / 2] = static_cast<char>(damaged[damaged.size() / 2] ^ 1);
  WriteFileAtomically(options.folder / "references.bin", damaged);
  EXPECT_FALSE(ReadReferences(options.folder / "references.bin", "other key"));
}

TEST(Methods, EightByOneEqualsOneByEight) {
  for (const size_t stage : {0, 1}) {
    Trial trial("accumulate" + std::to_string(stage), Preferences(kLora));
    WritePairs(trial);
    trial.recipe.stages[stage].batch = 8;
    trial.recipe.stages[stage].epochs = 3;
    const StageData data =
        ReadStageData(*trial.model, trial.encode, trial.recipe, trial.recipe.stages[stage]);
    const TrainLayout layout = LayoutOf(*trial.model, trial.recipe);
    const auto run = [&](int64_t batch_tokens) {
      TrainOptions options;
      options.folder = trial.folder / std::to_string(batch_tokens);
      options.batch_tokens = batch_tokens;
      StopAfter observer(1 << 20);
      TrainStage(*trial.model, trial.recipe, trial.recipe.stages[stage], data,
                 InitialValues(*trial.model, layout, 7, *AvailableKernels().back(), trial.pool),
                 "key", *AvailableKernels().back(), trial.pool, options, observer);
      return observer.losses;
    };
    const std::vector<double> apart = run(16), together = run(4096);
    ASSERT_EQ(apart.size(), together.size());
    for (size_t i = 0; i < apart.size(); ++i) {
      EXPECT_NEAR(apart[i], together[i], 2e-3 * together[i]) << "step " << i;
    }
  }
}

TEST(Methods, TheBestHeldOutValuesAreKeptAndTrainingStopsWhenTheyGetNoBetter) {
  Trial trial("heldout",
              Replaced(kRecipe, "path = \"chats.jsonl\"", "path = \"many.jsonl\"\nheldout = 0.4"));
  std::string lines;
  for (int i = 0; i < 12; ++i) {
    lines += fmt::format("{{\"prompt\": \"Which is number {}?\", \"completion\": \"Word{}.\"}}\n",
                         i * 31, i * 17);
  }
  WriteFileAtomically(trial.folder / "many.jsonl", lines);
  StageRecipe& stage = trial.recipe.stages[1];
  stage.epochs = 40;
  stage.learning_rate = 0.05;
  stage.schedule = Schedule::kConstant;
  stage.eval_steps = 1;
  stage.patience = 3;
  stage.keep = KeepPolicy::kBest;
  StopAfter whole(1 << 20);
  const StageOutcome outcome = trial.Train(1, "whole", whole, trial.pool, 1e9);
  EXPECT_TRUE(outcome.stopped_early);
  EXPECT_EQ(outcome.last.step, outcome.best_step + 3);
  EXPECT_THAT(ReadFile(trial.folder / "whole" / "log.jsonl"), HasSubstr("\"heldout_loss\""));
  // The same, cut short again and again.
  for (int stops = 0;; ++stops) {
    ASSERT_LT(stops, 200);
    StopAfter part(2);
    try {
      EXPECT_EQ(trial.Train(1, "part", part, trial.pool).masters, outcome.masters);
      break;
    } catch (const Error& error) {
      ASSERT_EQ(error.code(), ErrorCode::kCancelled) << error.what();
    }
  }
  // A run that ends at the best step has its values.
  stage.patience = 0;
  stage.keep = KeepPolicy::kLast;
  StopAfter until(outcome.best_step);
  EXPECT_THROW(trial.Train(1, "until", until, trial.pool), Error);
  EXPECT_EQ(ReadCheckpoint(trial.folder / "until" / "checkpoint.bin")->masters, outcome.masters);
}

// What the best look had is what the stage ends with, and a question is right only as a whole.
TEST(Methods, AnswersDecideWhatIsKeptAndWhenItStops) {
  Trial trial("answers",
              Replaced(kRecipe, "[lora]",
                       "[[data]]\nname = \"questions\"\npath = \"questions.jsonl\"\n[lora]"));
  std::string lines;
  for (int i = 0; i < 4; ++i) {
    lines += fmt::format("{{\"prompt\": \"Number {}?\", \"completion\": \"W{}.\"}}\n", i * 31, i);
  }
  WriteFileAtomically(trial.folder / "questions.jsonl", lines);
  WriteFileAtomically(trial.folder / "chats.jsonl", lines);
  StageRecipe& stage = trial.recipe.stages[1];
  stage.answers = "questions";
  stage.epochs = 400;
  stage.learning_rate = 0.03;
  stage.warmup = 0;
  stage.schedule = Schedule::kConstant;
  stage.eval_steps = 5;
  stage.patience = 3;
  stage.keep = KeepPolicy::kBest;
  trial.recipe.lora.rank = 8;
  trial.recipe.lora.targets = {"all"};
  StopAfter whole(1 << 20);
  const StageOutcome outcome = trial.Train(1, "whole", whole, trial.pool, 1e9);
  EXPECT_TRUE(outcome.stopped_early);
  EXPECT_EQ(outcome.last.step, outcome.best_step + 3 * stage.eval_steps);
  // The best of all looks: most answers, and of as many the likelier ones.
  std::istringstream log(ReadFile(trial.folder / "whole" / "log.jsonl"));
  std::vector<std::tuple<double, double, int64_t>> looks;
  for (std::string line; std::getline(log, line);) {
    const auto step = nlohmann::json::parse(line);
    if (!step.contains("answers_right")) continue;
    looks.emplace_back(-step["answers_right"].get<double>(), step["answers_loss"].get<double>(),
                       step["step"].get<int64_t>());
  }
  const auto [right, loss, step] = *std::min_element(looks.begin(), looks.end());
  EXPECT_GT(outcome.best_answers, 0);
  EXPECT_EQ(outcome.best_answers, -right);
  EXPECT_EQ(outcome.best_loss, loss);
  EXPECT_EQ(outcome.best_step, step);
  // Cut short again and again it ends with the same.
  for (int stops = 0;; ++stops) {
    ASSERT_LT(stops, 200);
    StopAfter part(20);
    try {
      EXPECT_EQ(trial.Train(1, "part", part, trial.pool).masters, outcome.masters);
      break;
    } catch (const Error& error) {
      ASSERT_EQ(error.code(), ErrorCode::kCancelled) << error.what();
    }
  }
}

class KeepsValues : public StopAfter {
 public:
  using StopAfter::StopAfter;
  void OnKeep(const KeptValues& values) override {
    step = values.step;
    kept.assign(values.masters.begin(), values.masters.end());
  }
  int64_t step = -1;
  AlignedVector<float> kept;
};

TEST(Methods, ALossThatIsNoNumberEndsTheStageAndKeepsTheCheckpointBefore) {
  for (const bool later : {false, true}) {
    Trial trial(later ? "nan_later" : "nan");
    StageRecipe& stage = trial.recipe.stages[1];
    stage.epochs = 20;
    stage.schedule = Schedule::kConstant;
    KeepsValues first(later ? 3 : 1 << 20), observer(1 << 20);
    if (later) {
      EXPECT_THROW(trial.Train(1, "run", first, trial.pool, 1e9), Error);  // stopped, and saved
    }
    const auto path = trial.folder / "run" / "checkpoint.bin";
    const auto before = ReadCheckpoint(path);
    stage.learning_rate = 3e38;
    const std::string said = MessageOf([&] { trial.Train(1, "run", observer, trial.pool, 1e9); });
    EXPECT_THAT(said, HasSubstr("the loss is no longer a finite number; lower 'learning_rate'"));
    EXPECT_LT(observer.losses.size(), 10u);
    EXPECT_EQ(observer.step, later ? 3 : -1);
    ASSERT_EQ(ReadCheckpoint(path).has_value(), later);
    if (!later) continue;
    EXPECT_EQ(observer.kept, before->masters);
    EXPECT_EQ(ReadCheckpoint(path)->masters, before->masters);
  }
}

// Looks at what is on disk after each step.
class CheckpointSteps : public StopAfter {
 public:
  CheckpointSteps(std::filesystem::path path) : StopAfter(1 << 20), path_(std::move(path)) {}
  void OnStep(const StepReport& report) override {
    StopAfter::OnStep(report);
    const auto saved = ReadCheckpoint(path_);
    found.push_back(saved ? saved->step : -1);
  }
  std::vector<int64_t> found;

 private:
  std::filesystem::path path_;
};

TEST(Methods, ACheckpointComesAfterSoManySteps) {
  Trial trial("checkpoint_steps");
  trial.recipe.stages[1].epochs = 9;
  const TrainLayout layout = LayoutOf(*trial.model, trial.recipe);
  const StageData data =
      ReadStageData(*trial.model, trial.encode, trial.recipe, trial.recipe.stages[1]);
  TrainOptions options;
  options.folder = trial.folder / "run";
  options.checkpoint_seconds = 1e9;
  options.checkpoint_steps = 2;
  CheckpointSteps observer(options.folder / "checkpoint.bin");
  TrainStage(*trial.model, trial.recipe, trial.recipe.stages[1], data,
             InitialValues(*trial.model, layout, 7, *AvailableKernels().back(), trial.pool), "key",
             *AvailableKernels().back(), trial.pool, options, observer);
  ASSERT_GE(observer.found.size(), 5u);
  // Seen after step i + 1, before its own: the last one, or while that is written the one before.
  const auto or_none = [](int64_t step) { return step <= 0 ? -1 : step; };
  for (size_t i = 0; i < observer.found.size(); ++i) {
    const auto last = static_cast<int64_t>(i / 2 * 2);
    EXPECT_THAT(observer.found[i], ::testing::AnyOf(or_none(last), or_none(last - 2))) << i;
  }
}

TEST(Methods, AStageGoesOnFromAnAdapterOfThisBaseAndShape) {
  for (const char* kind : {"lora", "dora"}) {
    Trial trial(std::string("start_") + kind,
                Replaced(kRecipe, "[lora]", fmt::format("[adapter]\nkind = \"{}\"", kind)));
    StopAfter whole(1 << 20);
    const StageOutcome outcome = trial.Train(1, "run", whole, trial.pool, 1e9);
    const TrainLayout layout = LayoutOf(*trial.model, trial.recipe);
    AdapterFile file =
        MakeAdapterFile(*trial.model, layout, outcome.masters, trial.recipe.lora, "trial");
    WritePeftAdapter(file, trial.folder / "adapter");
    LoraRecipe lora = trial.recipe.lora;
    lora.start = trial.folder / "adapter";
    std::vector<float> values(outcome.masters.size());
    StartFrom(*trial.model, layout, lora, values);
    const AdapterFile again = MakeAdapterFile(*trial.model, layout, values, lora, "trial");
    for (size_t i = 0; i < file.entries.size(); ++i) {
      EXPECT_EQ(again.entries[i].a, file.entries[i].a);
      EXPECT_EQ(again.entries[i].b, file.entries[i].b);
      EXPECT_EQ(again.entries[i].magnitude, file.entries[i].magnitude);
    }
    lora.alpha = 3;
    EXPECT_THAT(MessageOf([&] { StartFrom(*trial.model, layout, lora, values); }),
                HasSubstr("rank 4 and alpha 3"));
    lora.alpha = trial.recipe.lora.alpha;
    file.base_hash = std::string(64, 'a');
    file.base_name = "other";
    std::filesystem::remove_all(lora.start);
    WritePeftAdapter(file, lora.start);
    EXPECT_THAT(MessageOf([&] { StartFrom(*trial.model, layout, lora, values); }),
                HasSubstr("found one of another base"));
  }
}

TEST(FindRate, LiesWhereTheLossFallsAndBelowWhereItRises) {
  std::vector<double> rates, losses;
  for (int i = 0; i < 80; ++i) {
    rates.push_back(1e-6 * std::pow(1e5, i / 79.0));
    const double x = std::log10(rates.back());
    losses.push_back(x < -4     ? 4.0
                     : x < -2.5 ? 4.0 - (x + 4)
                                : 2.5 + 8 * (x + 2.5));  // falls to 10^-2.5, then rises
  }
  const RateFinding finding = JudgeRates(rates, losses);
  EXPECT_GT(finding.fastest, 1e-4);
  EXPECT_LT(finding.fastest, 4e-3);
  EXPECT_NEAR(std::log10(finding.lowest), -2.4, 0.25);
  EXPECT_LT(finding.suggested, finding.lowest);
  EXPECT_LT(finding.rates.back(), 0.05);  // what ran away is cut
  EXPECT_THAT(MessageOf([&] { JudgeRates(rates, std::vector<double>(80, 2.0)); }),
              HasSubstr("lowered the loss"));
}

TEST(FindRate, FindsOneForAStageAndKeepsNothing) {
  Trial trial("find_rate", kRecipe);
  const StageRecipe& stage = trial.recipe.stages[1];
  const StageData data = ReadStageData(*trial.model, trial.encode, trial.recipe, stage);
  const TrainLayout layout = LayoutOf(*trial.model, trial.recipe);
  StopAfter observer(1 << 20);
  const RateFinding finding =
      FindRate(*trial.model, trial.recipe, stage, data,
               InitialValues(*trial.model, layout, 7, *AvailableKernels().back(), trial.pool),
               *AvailableKernels().back(), trial.pool, {}, observer);
  EXPECT_GT(finding.suggested, 1e-5);
  EXPECT_LT(finding.suggested, 0.1);
  EXPECT_LE(finding.rates.size(), observer.losses.size());
}

TEST(Memory, TheEstimateIsWhatThePassTakesAndTooMuchIsRefusedWithTheRemedy) {
  for (const char* kind : {"lora", "dora", "full"}) {
    Trial trial(
        std::string("memory_") + kind,
        Replaced(kRecipe, "[lora]\nrank = 4\n", fmt::format("[adapter]\nkind = \"{}\"\n", kind)));
    const TrainLayout layout = LayoutOf(*trial.model, trial.recipe);
    const StageRecipe& stage = trial.recipe.stages[0];
    const StageData data = ReadStageData(*trial.model, trial.encode, trial.recipe, stage);
    TrainOptions options;
    options.batch_tokens = 128;
    const auto choose = [&](int64_t available) {
      return ChooseMemory(trial.model->config, layout, stage, data, options, available);
    };
    const MemoryChoice choice = choose(int64_t{1} << 40);
    EXPECT_EQ(choice.options.activation, Activation::kStash);
    EXPECT_EQ(choice.options.weight_cache_bytes, int64_t{1} << 38);
    StopAfter observer(1 << 20);
    const StageOutcome outcome = trial.Train(0, "run", observer, trial.pool, 1e9);
    const double pass = static_cast<double>(choice.memory.total() - choice.memory.values);
    EXPECT_LT(static_cast<double>(outcome.peak_bytes), 1.1 * pass + 1e6) << kind;
    EXPECT_GT(static_cast<double>(outcome.peak_bytes), 0.3 * pass) << kind;
    options.batch_tokens = 8192;
    const int64_t large = choose(int64_t{1} << 40).memory.total();
    EXPECT_EQ(choose(large * 21 / 20).options.activation, Activation::kRecompute) << kind;
    options.batch_tokens = 128;
    const std::string refused = MessageOf([&] { choose(100'000); });
    EXPECT_THAT(refused, HasSubstr("stage 'read' needs"));
    EXPECT_THAT(refused,
                HasSubstr(std::string(kind) == "full" ? "kind = \"lora\"" : "lower 'rank'"));
  }
}

}  // namespace
}  // namespace bakestone
