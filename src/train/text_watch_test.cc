#include "train/text_watch.h"

#include <gmock/gmock.h>

#include "train/test_trial.h"

namespace bakestone {
namespace {

using ::bakestone::testing::kRecipe;
using ::bakestone::testing::MessageOf;
using ::bakestone::testing::StopAfter;
using ::bakestone::testing::Trial;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kWatch[] = R"(
[[data]]
name = "news"
path = "news.txt"
[watch]
general = ["news"]
domain = ["text"]
tokens = 40
steps = 2
)";

class Watcher : public TrainObserver {
 public:
  void OnStart(const StepReport& report) override { start = report.texts; }
  void OnStep(const StepReport& report) override {
    if (!report.texts.empty()) steps.push_back(report.step);
    if (!report.texts.empty()) last = report.texts;
  }
  std::vector<TextReading> start, last;
  std::vector<int64_t> steps;
};

void WriteNews(const Trial& trial) {
  WriteFileAtomically(
      trial.folder / "news.txt",
      "The council met on Monday and spoke of the bridge over the river, as it had before.\n");
}

TEST(TextWatch, CurvesBeginAtTheBaseAndChangeNoTrainedBit) {
  for (const char* kind : {"lora", "full", "dora"}) {
    std::string text = kRecipe;
    const std::string_view pairs = "rank = 4\n";
    text.replace(text.find(pairs), pairs.size(), std::string("kind = \"") + kind + "\"\n");
    Trial plain(std::string("unwatched_") + kind, text),
        watched(std::string("watched_") + kind, text + kWatch);
    WriteNews(watched);
    StopAfter none(1 << 20);
    Watcher watcher;
    const StageOutcome expected = plain.Train(1, "run", none, plain.pool, 1e9);
    const StageOutcome found = watched.Train(1, "run", watcher, watched.pool, 1e9);
    EXPECT_EQ(found.masters, expected.masters) << kind;
    ASSERT_EQ(watcher.start.size(), 2u);
    for (const TextReading& reading : watcher.start) {
      EXPECT_NEAR(reading.Change(), 0, 1e-3) << kind;
      EXPECT_LT(reading.kl, 1e-3) << kind;
    }
    EXPECT_FALSE(watcher.start[0].general);
    EXPECT_TRUE(watcher.last[1].general);
    EXPECT_GT(watcher.last[1].kl, 0) << kind;
    EXPECT_NE(watcher.last[1].bits_per_byte, watcher.start[1].bits_per_byte) << kind;
    const int64_t steps = found.last.num_steps;
    ASSERT_FALSE(watcher.steps.empty());
    EXPECT_EQ(watcher.steps.front(), 2);
    EXPECT_EQ(watcher.steps.back(), steps);
    const std::string log = ReadFile(watched.folder / "run" / "log.jsonl");
    EXPECT_THAT(log, HasSubstr("{\"step\":0,\"base_bits_per_byte/text\":"));
    EXPECT_THAT(log, HasSubstr("\"kl_to_base/news\":"));
  }
}

TEST(ForgettingWatch, ATextIsNamedOnceWithTheRemedy) {
  ForgettingWatch watch;
  const auto reading = [](const char* name, bool general, double bits) {
    return TextReading{
        .name = name, .general = general, .bits_per_byte = bits, .base_bits_per_byte = 1};
  };
  EXPECT_THAT(watch.Look(5, {reading("own", false, 2), reading("news", true, 1.04)}), IsEmpty());
  EXPECT_THAT(watch.Look(10, {reading("own", false, 2), reading("news", true, 1.08)}),
              ElementsAre(AllOf(
                  HasSubstr("step 10: the model forgets: general text 'news' costs 8.0 % more"),
                  HasSubstr("[stage.replay]"))));
  EXPECT_THAT(watch.Look(15, {reading("own", false, 2), reading("news", true, 1.2)}), IsEmpty());
}

TEST(TextWatch, RecipeErrorsNameTheKey) {
  Trial trial("watch_errors");
  const auto message = [&](const std::string& watch) {
    WriteFileAtomically(trial.folder / "r.toml", kRecipe + watch);
    return MessageOf([&] { ReadRecipe(trial.folder / "r.toml", trial.folder); });
  };
  EXPECT_THAT(message("[watch]\n"), HasSubstr("expected 'general' or 'domain'"));
  EXPECT_THAT(message("[watch]\ngeneral = [\"other\"]\n"), HasSubstr("forgotten"));
  EXPECT_THAT(message("[watch]\ngeneral = [\"news\"]\n"), HasSubstr("found 'news'"));
  EXPECT_THAT(message("[add_tokens]\n"), HasSubstr("expected 'list' with texts or 'learn'"));
  EXPECT_THAT(message("[add_tokens]\nlist = [\"mill\"]\nfrom = [\"text\"]\n"),
              HasSubstr("'from': expected only with 'learn'"));
  EXPECT_THAT(message("[add_tokens]\nlearn = 5\nfrom = [\"news\"]\n"), HasSubstr("found 'news'"));
  EXPECT_THAT(message("[watch]\ndomain = [\"text\"]\nsteps = 2\nseconds = 3\n"),
              HasSubstr("found both"));
}

}  // namespace
}  // namespace bakestone
