#include <set>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "load/plan.h"
#include "load/report.h"
#include "load/stream_reader.h"

namespace bakestone::load {
namespace {

using ::testing::HasSubstr;

PlanOptions Options() {
  PlanOptions options;
  options.seed = 7;
  options.rate = 50;
  options.seconds = 20;
  options.prompt_tokens = ParseLengths("prompt", "8,32=3", 1);
  options.answer_tokens = ParseLengths("answer", "16", 1);
  options.models = ParseNames("models", "base,tuned=3");
  return options;
}

int64_t WordsOf(const std::string& text) { return 1 + std::count(text.begin(), text.end(), ' '); }

TEST(LoadPlan, IsAFunctionOfItsSeed) {
  const auto one = MakePlan(Options()), two = MakePlan(Options());
  ASSERT_EQ(one.size(), two.size());
  for (size_t i = 0; i < one.size(); ++i) {
    EXPECT_TRUE(one[i].due == two[i].due && one[i].prompt == two[i].prompt &&
                one[i].model == two[i].model);
  }
  PlanOptions other = Options();
  other.seed = 8;
  EXPECT_NE(MakePlan(other).front().due, one.front().due);
}

TEST(LoadPlan, ArrivalsArePoissonAndMixesFollowTheirWeights) {
  const auto plan = MakePlan(Options());
  EXPECT_NEAR(static_cast<double>(plan.size()), 1000, 130);  // four standard deviations
  int64_t gaps = 0, tuned = 0, longer = 0;
  std::set<std::string> prompts;
  for (size_t i = 0; i < plan.size(); ++i) {
    if (i > 0) gaps += plan[i].due - plan[i - 1].due > 1.0 / 50;
    tuned += plan[i].model == "tuned";
    longer += WordsOf(plan[i].prompt) == 32;
    prompts.insert(plan[i].prompt);
    EXPECT_TRUE(i == 0 || plan[i].due >= plan[i - 1].due);
  }
  const auto all = static_cast<double>(plan.size());
  EXPECT_NEAR(static_cast<double>(gaps) / all, 0.368, 0.06);  // 1/e: exponential
  EXPECT_NEAR(static_cast<double>(tuned) / all, 0.75, 0.06);
  EXPECT_NEAR(static_cast<double>(longer) / all, 0.75, 0.06);
  EXPECT_EQ(prompts.size(), plan.size());
}

TEST(LoadPlan, AClosedLoopHasAsManyAsAsked) {
  PlanOptions options = Options();
  options.streams = 4;
  options.requests = 10;
  const std::vector<PlannedRequest> plan = MakePlan(options);
  ASSERT_EQ(plan.size(), 10u);
  for (const PlannedRequest& request : plan) EXPECT_EQ(request.due, 0);
  EXPECT_NE(plan[0].prompt, plan[1].prompt);
  options.requests = 3;
  EXPECT_THROW(MakePlan(options), Error);
}

TEST(LoadPlan, PromptsShareTheirPrefixes) {
  PlanOptions options = Options();
  options.prefixes = 2;
  options.prefix_tokens = 100;
  std::set<std::string> prefixes;
  for (const PlannedRequest& request : MakePlan(options)) {
    size_t end = 0;
    for (int i = 0; i < 100; ++i) end = request.prompt.find(' ', end) + 1;
    prefixes.insert(request.prompt.substr(0, end));
  }
  EXPECT_EQ(prefixes.size(), 2U);
}

TEST(LoadPlan, WrongMixesAreRefused) {
  for (const char* text : {"", "8,", "8=0", "8=x", "x", "0", "9999999", "8=inf", "=2"}) {
    EXPECT_THROW(ParseLengths("--prompt-tokens", text, 1), Error) << text;
  }
  try {
    ParseLengths("--prompt-tokens", "8,none", 1);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("--prompt-tokens"));
    EXPECT_THAT(error.what(), HasSubstr("none"));
  }
}

constexpr std::string_view kStream =
    ": ping\n\ndata: "
    "{\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}],"
    "\"usage\":null}\n\n"
    "data:{\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\r\n\r\n"
    "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"b\"}}]}\n\n"
    "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}]}\n\n"
    "data: "
    "{\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2,\"prompt_tokens_"
    "details\":{\"cached_tokens\":4}}}\n\n"
    "data: [DONE]\n\n";

TEST(StreamReader, ReadsAStreamCutAnywhere) {
  for (size_t piece = 1; piece <= kStream.size(); ++piece) {
    StreamReader reader;
    for (size_t at = 0; at < kStream.size(); at += piece) {
      reader.Feed(kStream.substr(at, piece), static_cast<double>(at));
    }
    const StreamResult& result = reader.result();
    EXPECT_EQ(result.error, "");
    EXPECT_EQ(result.text_times.size(), 2U);
    EXPECT_EQ(result.finish_reason, "length");
    EXPECT_TRUE(result.done);
    EXPECT_EQ(result.prompt_tokens, 5);
    EXPECT_EQ(result.cached_tokens, 4);
    EXPECT_EQ(result.completion_tokens, 2);
  }
}

TEST(StreamReader, SaysWhatIsWrong) {
  const auto error_of = [](const std::string& text) {
    StreamReader reader;
    reader.Feed(text, 0);
    return reader.result().error;
  };
  EXPECT_THAT(error_of("data: {\"error\":{\"message\":\"too much\"}}\n\n"), HasSubstr("too much"));
  EXPECT_THAT(error_of("data: {\"error\":7}\n"), HasSubstr("7"));
  EXPECT_THAT(error_of("data: nonsense\n"), HasSubstr("not a JSON object"));
  EXPECT_THAT(error_of(std::string(2 << 20, 'x')), HasSubstr("MiB"));
  for (const char* strange :
       {"data: {\"choices\":7}\n", "data: {\"choices\":[7]}\n",
        "data: {\"choices\":[{\"delta\":7}],\"usage\":\"x\"}\n", "data: {}\n"}) {
    EXPECT_EQ(error_of(strange), "") << strange;
  }
}

TEST(LoadReport, PercentilesAreValuesThatWereMeasured) {
  std::vector<double> values;
  for (int i = 100; i >= 1; --i) values.push_back(i);
  const Percentiles of = PercentilesOf(values);
  EXPECT_EQ(of.p50, 50);
  EXPECT_EQ(of.p95, 95);
  EXPECT_EQ(of.p99, 99);
  EXPECT_EQ(of.most, 100);
  EXPECT_EQ(PercentilesOf({3}).p99, 3);
  EXPECT_EQ(PercentilesOf({}).count, 0);
}

TEST(LoadReport, CountsFromWhenARequestWasDue) {
  const std::vector<PlannedRequest> plan = {{.due = 1, .model = "a"},
                                            {.due = 1, .model = "b"},
                                            {.due = 2, .model = "b"},
                                            {.due = 3, .model = "b"}};
  LoadRun run{.outcomes = {}, .seconds = 10, .cpu_seconds = 0.1};
  const auto answer = [](double due, std::vector<double> times) {
    Outcome outcome{.due = due, .sent = due + 0.25, .ended = times.back(), .status = 200};
    outcome.stream.text_times = std::move(times);
    outcome.stream.completion_tokens = 3;
    return outcome;
  };
  run.outcomes = {
      answer(1, {1.5, 1.55, 1.6}),
      answer(1, {3, 3.05, 3.1}),
      answer(2, {2.5, 3.5, 4.5}),
      {.due = 3, .sent = 3, .ended = 3, .status = 429, .stream = {}, .error = "HTTP 429"}};
  const LoadReport report = Summarize(plan, run, {.first_token = 1, .inter_token = 0.1});
  EXPECT_EQ(report.all.complete, 3);
  EXPECT_EQ(report.all.refused, 1);
  EXPECT_EQ(report.all.failed, 0);
  EXPECT_DOUBLE_EQ(report.all.first_token.p50, 0.5);
  EXPECT_DOUBLE_EQ(report.all.first_token.most, 2);
  EXPECT_DOUBLE_EQ(report.all.inter_token.most, 1);
  EXPECT_DOUBLE_EQ(report.all.good_per_second, 0.1);  // the second was late, the third slow
  EXPECT_DOUBLE_EQ(report.all.tokens_per_second, 0.9);
  EXPECT_DOUBLE_EQ(report.cpu_share, 0.01);
  EXPECT_DOUBLE_EQ(report.most_late, 0.25);
  EXPECT_EQ(report.models.at("b").requests, 3);
}

}  // namespace
}  // namespace bakestone::load
