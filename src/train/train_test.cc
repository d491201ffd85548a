#include <cmath>
#include <filesystem>

#include <gmock/gmock.h>

#include "train/batches.h"
#include "train/checkpoint.h"
#include "train/export.h"
#include "train/test_trial.h"

namespace bakestone {
namespace {

using ::bakestone::testing::kRecipe;
using ::bakestone::testing::MessageOf;
using ::bakestone::testing::StopAfter;
using ::bakestone::testing::TestFolder;
using ::bakestone::testing::Trial;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

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
  EXPECT_THAT(message("rank = 4", "ranks = 4"),
              HasSubstr("unknown key 'ranks' (did you mean 'rank'?)"));
  EXPECT_THAT(message("path = \"text.md\"", "path = \"text.md\"\nformat = \"gpt\""),
              HasSubstr("'format': expected one of \"auto\""));
  EXPECT_THAT(message("path = \"text.md\"", "path = \"text.md\"\ndedupe = \"all\""),
              HasSubstr("'dedupe': expected one of \"off\", \"exact\", \"near\", found 'all'"));
  EXPECT_THAT(message("path = \"text.md\"", "path = \"text.md\"\ncolumns = 3"),
              HasSubstr("'columns': expected a table of texts"));
  EXPECT_THAT(message("epochs = 3", "epochs = \"3\""), HasSubstr("'epochs'"));
  EXPECT_THAT(message("epochs = 3", "join = 0"),
              HasSubstr("'join': expected a whole number from 1"));
  EXPECT_THAT(message("\"pretrain\"", "\"pretrain\"\njoin = 2"),
              HasSubstr("'join': expected 1 with method \"pretrain\""));
  EXPECT_THAT(message("\"sft\"", "\"rlhf\""), HasSubstr("found 'rlhf'"));
  EXPECT_THAT(message("data = [\"chats\"]", "data = [\"chat\"]"), HasSubstr("found 'chat'"));
  EXPECT_THAT(message("name = \"trial\"", "name = \"../x\""), HasSubstr("'name'"));
  for (const char* name : {"a/../../x", "..", "a b", "export", "licence"}) {
    EXPECT_THAT(message("name = \"read\"", "name = \"" + std::string(name) + "\""),
                HasSubstr("[[stage]] 1: 'name': expected letters, digits"))
        << name;
  }
  EXPECT_THAT(message("seed = 7", "seed = 7 7"), HasSubstr("line 4"));
  EXPECT_THAT(message("targets = [\"q_proj\", \"down_proj\"]", "targets = []"),
              HasSubstr("'targets': expected [\"all\"] or patterns of names"));
  EXPECT_THAT(message("path = \"text.md\"", "path = \"text.md\"\ncolumns = { promt = \"q\" }"),
              HasSubstr("'columns': expected fields that formats know (text, messages"));
  EXPECT_THAT(message("learning_rate = 0.01", "learning_rate = 0"),
              HasSubstr("'learning_rate': expected a number above 0"));
  EXPECT_THAT(message("epochs = 3", "keep = \"best\""),
              HasSubstr("stage 'learn': keep = \"best\": expected something to judge by"));
  EXPECT_THAT(message("epochs = 3", "patience = 2"), HasSubstr("'patience': expected something"));
  EXPECT_THAT(message("epochs = 3", "embedding_rate = 1"),
              HasSubstr("'embedding_rate': expected only where the embedding is trained"));
  EXPECT_THAT(message("[lora]", "[chat]\ntemplate = \"chatmll\"\n[lora]"),
              HasSubstr("'template': expected \"chatml\" or a file"));
  EXPECT_THAT(message("[lora]", "[eval]\ngeneral = [\"other\"]\n[lora]"), HasSubstr("forgotten"));
}

TEST(Recipe, KnowsWhatItLeavesOut) {
  EXPECT_THAT(Trial("left_out").recipe.lora.defaults,
              ElementsAre("kind lora", "alpha 8 (2 x rank)", "embeddings false"));
  std::string text = kRecipe;
  const std::string adapter = "[lora]\nrank = 4\ntargets = [\"q_proj\", \"down_proj\"]\n";
  text.replace(text.find(adapter), adapter.size(), "");
  const std::string share = "share = 0.3\n";
  text.replace(text.find(share), share.size(), "");
  const auto folder = TestFolder("all_left_out");
  WriteFileAtomically(folder / "r.toml", text);
  const Recipe recipe = ReadRecipe(folder / "r.toml", folder);
  EXPECT_THAT(recipe.lora.defaults, ElementsAre("kind lora", "rank 16", "alpha 32 (2 x rank)",
                                                "embeddings false", "targets all"));
  EXPECT_THAT(recipe.lora.targets, ElementsAre("all"));
  EXPECT_THAT(recipe.stages[0].defaults, ::testing::Contains("replay's share 0.2"));
}

TEST(Batches, PackingKeepsBordersAndTargets) {
  Sample a{{10, 11, 12}, {0, 0, 1}, 1}, b{{20, 21}, {0, 1}, 1},
      c{{30, 31, 32, 33}, {0, 1, 1, 1}, 3};
  const std::vector<SampleView> samples = {a.View(), b.View(), c.View()};
  const auto batches = Pack(samples, 5);
  ASSERT_EQ(batches.size(), 2u);
  EXPECT_THAT(batches[0].document_begins, ElementsAre(0, 3));
  EXPECT_THAT(batches[0].positions, ElementsAre(0, 1, 2, 0, 1));
  EXPECT_THAT(batches[0].loss_rows, ElementsAre(1, 3));
  EXPECT_THAT(batches[0].targets, ElementsAre(12, 21));
  EXPECT_THAT(batches[1].loss_rows, ElementsAre(0, 1, 2));
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
  Checkpoint written{.key = "k",
                     .stage = 1,
                     .step = 5,
                     .tokens = 100,
                     .seconds = 1.5,
                     .log_bytes = 40,
                     .masters = {1, 2, 3},
                     .first_moments = {4, 5, 6},
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

TEST(Checkpoint, IsWrittenBesideTheWorkThatGoesOn) {
  const auto folder = std::filesystem::temp_directory_path() / "bakestone_checkpoint_writer_test";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  const auto path = folder / "checkpoint.bin";
  Checkpoint state{.key = "k", .step = 1};
  state.masters = state.first_moments = state.second_moments = AlignedVector<float>(100'000, 1.0f);
  CheckpointWriter writer(path);
  for (; state.step <= 5; ++state.step) {
    state.masters.assign(state.masters.size(), static_cast<float>(state.step));
    writer.Write(state);
    state.masters.assign(state.masters.size(), -1.0f);  // what goes on is not what is written
  }
  writer.Wait();
  const auto last = ReadCheckpoint(path);
  ASSERT_TRUE(last);
  EXPECT_EQ(last->step, 5);
  EXPECT_EQ(last->masters, AlignedVector<float>(100'000, 5.0f));

  CheckpointWriter lost(path / "checkpoint.bin");  // a file is no folder
  lost.Write(state);
  EXPECT_THROW(lost.Wait(), Error);
  lost.Write(state);
  EXPECT_THROW(lost.Write(state), Error);
  std::filesystem::remove_all(folder);
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
  const auto layout = LayoutOf(*trial.model, trial.recipe);
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
