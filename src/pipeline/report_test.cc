#include "pipeline/report.h"

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "pipeline/step_history.h"
#include "pipeline/svg_plot.h"

namespace bakestone {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

Evaluation Scored(double general_nats) {
  Evaluation evaluation;
  evaluation.texts = {{"own | text", false, {100, 400, 200}},
                      {"history", true, {100, 400, general_nats}}};
  return evaluation;
}

BakeReport Tuned(double general_nats) {
  BakeReport report;
  report.name = "trial";
  report.before = Scored(250);
  report.after = Scored(general_nats);
  report.trained = {{.name = "learn",
                     .method = "supervised fine-tuning",
                     .steps = 3,
                     .tokens = 90,
                     .seconds = 3}};
  return report;
}

TEST(Report, ForgettingIsNamedWithTheRemedy) {
  EXPECT_THAT(ForgettingWarnings(Tuned(260)), IsEmpty());
  EXPECT_THAT(ForgettingWarnings(Tuned(275)),
              ElementsAre(::testing::AllOf(HasSubstr("'history' costs 10.0 % more"),
                                           HasSubstr("[stage.replay]"))));
}

TEST(Report, LeavesMarkdownJsonAndPlots) {
  BakeReport report = Tuned(275);
  report.folder = std::filesystem::path(::testing::TempDir()) / "bakestone_report";
  WriteFileAtomically(
      report.folder / "train-learn" / "log.jsonl",
      "{\"step\":1,\"loss\":3.0,\"tokens\":30,\"seconds\":1.0}\n"
      "{\"step\":2,\"loss\":2.0,\"tokens\":60,\"seconds\":2.0,\"heldout_loss\":2.5}\nnot JSON\n");
  const StepHistory history = ReadStepHistory(report.folder / "train-learn" / "log.jsonl");
  EXPECT_THAT(history.loss, ElementsAre(3.0, 2.0));
  EXPECT_THAT(history.tokens_per_second, ElementsAre(30, 30));
  EXPECT_THAT(history.heldout_step, ElementsAre(2));
  WriteReport(report, Recipe());
  const std::string markdown = ReadFile(report.folder / "report.md");
  EXPECT_THAT(markdown, HasSubstr("| own \\| text (domain) | 0.721 | 0.721 | +0.0 % |"));
  EXPECT_THAT(markdown,
              HasSubstr("| learn | supervised fine-tuning | 3 | 90 | 30 | not measured |"));
  EXPECT_THAT(markdown, HasSubstr("(plots/learn.svg)"));
  EXPECT_THAT(markdown, HasSubstr("**Warning:** the model forgot"));
  const auto json = nlohmann::json::parse(ReadFile(report.folder / "report.json"));
  EXPECT_EQ(json["train"][0]["steps"], 3);
  EXPECT_THAT(json["warnings"], SizeIs(1));
  EXPECT_THAT(ReadFile(report.folder / "plots" / "learn.svg"), HasSubstr("held out"));
}

TEST(Report, CurvesOfWatchedTextsAreShownAndWarnWhereNothingElseWasMeasured) {
  BakeReport report = Tuned(250);
  report.before.reset();
  report.after.reset();
  report.folder = std::filesystem::path(::testing::TempDir()) / "bakestone_report_watch";
  const auto log = report.folder / "train-learn" / "log.jsonl";
  WriteFileAtomically(
      log,
      R"({"step":0,"base_bits_per_byte/own":2.0,"base_bits_per_byte/news":1.0,"bits_per_byte/own":2.0,"bits_per_byte/news":1.0,"kl_to_base/news":0.0,"tokens":0,"seconds":0.0}
{"step":1,"loss":3.0,"tokens":30,"seconds":1.0}
{"step":2,"loss":2.0,"bits_per_byte/own":1.5,"bits_per_byte/news":1.2,"kl_to_base/news":0.25,"tokens":60,"seconds":2.0}
)");
  const StepHistory history = ReadStepHistory(log);
  EXPECT_THAT(history.step, ElementsAre(1, 2));
  ASSERT_THAT(history.texts, SizeIs(2));
  EXPECT_FALSE(history.texts[0].general());
  EXPECT_THAT(history.texts[1].step, ElementsAre(0, 2));
  EXPECT_THAT(history.texts[1].kl, ElementsAre(0.0, 0.25));
  report.trained[0].texts = history.texts;
  WriteReport(report, Recipe());
  const std::string markdown = ReadFile(report.folder / "report.md");
  EXPECT_THAT(markdown,
              HasSubstr("| learn | own (domain) | 2.000 | 2.000 | 2.000 | 1.500 | -25.0 % |  |"));
  EXPECT_THAT(
      markdown,
      HasSubstr("| learn | news (general) | 1.000 | 1.000 | 1.200 | 1.200 | +20.0 % | 0.2500 |"));
  EXPECT_THAT(markdown,
              HasSubstr("**Warning:** the model forgot: general text 'news' costs 20.0 % more"));
  const auto json = nlohmann::json::parse(ReadFile(report.folder / "report.json"));
  EXPECT_EQ(json["train"][0]["texts"][1]["kl_to_base"][1], 0.25);
  EXPECT_THAT(ReadFile(report.folder / "plots" / "learn.svg"), HasSubstr("KL to the base"));
}

TEST(SvgPlot, AnyValuesGiveAPlotAndNamesDoNotLeaveTheirPlace) {
  const std::string plot =
      SvgPlot("a <b> & \"c\"", {{"loss", {{"x", {1, 2, 3}, {2, NAN, 2}}}}, {"empty", {}}});
  EXPECT_THAT(plot, HasSubstr("a &lt;b&gt; &amp; &quot;c&quot;"));
  EXPECT_THAT(plot, ::testing::Not(HasSubstr("nan")));
  EXPECT_THAT(plot, ::testing::EndsWith("</svg>\n"));
}

}  // namespace
}  // namespace bakestone
