#include "engine/engine.h"

#include <algorithm>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/rng.h"
#include "engine/test_engine.h"
#include "engine/test_requests.h"

namespace bakestone {
namespace {

using testing::Ask;
using testing::CodeOf;
using testing::Collector;
using testing::EngineBrake;
using testing::EnginePlug;
using ::testing::HasSubstr;
using testing::Ids;
using testing::MakeTestAdapter;
using testing::RunAll;
using testing::SharedTestModel;
using testing::TestEngine;
using testing::TextTokens;

// Prompts of many lengths that share beginnings, greedy and sampled, on the base and two adapters.
std::vector<GenerationRequest> MixedRequests() {
  const ModelConfig& config = SharedTestModel()->config;
  const std::shared_ptr<const Adapter> adapters[] = {
      nullptr, MakeTestAdapter(config, {Site::kQ, Site::kV}, 4, 5),
      MakeTestAdapter(config, {Site::kO, Site::kDown, Site::kGate}, 8, 6)};
  std::vector<GenerationRequest> requests;
  const std::string shared(70, 'a');
  for (int i = 0; i < 12; ++i) {
    GenerationRequest request =
        Ask(i % 3 == 0 ? shared + std::string(i, 'b') : std::string(1 + 13 * i, 'c'), 4 + 2 * i);
    request.adapter = adapters[i % 3 == 2 ? 2 : i % 2];
    if (i % 4 != 0) {
      request.sampling = {.temperature = 1.1,
                          .top_p = 0.95,
                          .repetition_penalty = i % 4 == 1 ? 1.2 : 1.0,
                          .seed = static_cast<uint64_t>(i)};
    }
    request.logprobs = i % 2 == 0;
    request.top_logprobs = 3;
    request.prompt_logprobs = i % 5 == 0;
    requests.push_back(std::move(request));
  }
  return requests;
}

void ExpectSame(const TokenInfo& a, const TokenInfo& b) {
  EXPECT_EQ(a.token, b.token);
  ASSERT_EQ(a.logprobs.has_value(), b.logprobs.has_value());
  if (!a.logprobs) return;
  EXPECT_EQ(a.logprobs->logprob, b.logprobs->logprob);  // the same bits
  ASSERT_EQ(a.logprobs->top.size(), b.logprobs->top.size());
  for (size_t i = 0; i < a.logprobs->top.size(); ++i) {
    EXPECT_EQ(a.logprobs->top[i].token, b.logprobs->top[i].token);
    EXPECT_EQ(a.logprobs->top[i].logprob, b.logprobs->top[i].logprob);
  }
}

TEST(Engine, AnswerDependsOnNothingButTheRequest) {
  std::vector<Event> alone;
  for (GenerationRequest& request : MixedRequests()) {
    TestEngine fresh({.prefix_cache = false, .speculation = {.mode = Speculation::kOff}}, 1);
    alone.push_back(Generate(fresh.engine, std::move(request)));
  }
  struct Case {
    int64_t chunk;
    int threads, rounds;
    size_t requests;
    Speculation mode;
  };
  // Several threads on a busy machine wait for each other: fewer requests there.
  const Case cases[] = {{1, 1, 1, 12, Speculation::kOff},
                        {7, 1, 2, 12, Speculation::kAuto},
                        {0, 1, 2, 12, Speculation::kAlways},
                        {50, 2, 1, 6, Speculation::kAuto}};
  for (const auto& [chunk, threads, rounds, count, mode] : cases) {
    TestEngine together({.fixed_chunk = chunk, .speculation = {.mode = mode}}, threads);
    for (int round = 0; round < rounds; ++round) {  // the second finds prompts in the cache
      std::vector<GenerationRequest> requests = MixedRequests();
      requests.resize(count);
      const std::vector<Event> events = RunAll(together.engine, std::move(requests));
      for (size_t i = 0; i < events.size(); ++i) {
        SCOPED_TRACE(
            fmt::format("chunk {} threads {} round {} request {}", chunk, threads, round, i));
        ASSERT_EQ(Ids(events[i]), Ids(alone[i]));
        EXPECT_EQ(events[i].text, alone[i].text);
        for (size_t k = 0; k < events[i].tokens.size(); ++k) {
          ExpectSame(events[i].tokens[k], alone[i].tokens[k]);
        }
        ASSERT_EQ(events[i].prompt.size(), alone[i].prompt.size());
        for (size_t k = 0; k < events[i].prompt.size(); ++k) {
          ExpectSame(events[i].prompt[k], alone[i].prompt[k]);
        }
      }
    }
    const EngineMetrics metrics = together.engine.Metrics();
    EXPECT_TRUE(rounds == 1 || metrics.cached_tokens > 0);
    if (mode == Speculation::kAlways) {
      EXPECT_GT(metrics.accepted_tokens, 0);
      EXPECT_GT(metrics.proposed_tokens, metrics.accepted_tokens);
    }
  }
}

TEST(Engine, PromptLogprobsCoverEveryTokenButTheFirst) {
  TestEngine test;
  GenerationRequest request = Ask("the cat sat on the mat", 1);
  request.logprobs = request.prompt_logprobs = true;
  request.top_logprobs = 1;
  const size_t n = request.prompt.size();
  const Event event = Generate(test.engine, std::move(request));
  ASSERT_EQ(event.prompt.size(), n);
  EXPECT_FALSE(event.prompt[0].logprobs);
  for (size_t i = 1; i < n; ++i) {
    ASSERT_TRUE(event.prompt[i].logprobs);
    EXPECT_LE(event.prompt[i].logprobs->logprob, event.prompt[i].logprobs->top.at(0).logprob);
  }
  ASSERT_EQ(event.tokens.size(), 1u);
  EXPECT_EQ(event.tokens[0].logprobs->top[0].token, event.tokens[0].token);  // greedy
}

TEST(Engine, NoTokensAskedForGivesPromptLogprobsOnly) {
  TestEngine test;
  GenerationRequest request = Ask("abc", 0);
  request.prompt_logprobs = true;
  const Event event = Generate(test.engine, std::move(request));
  EXPECT_EQ(event.finish, FinishReason::kLength);
  EXPECT_TRUE(event.tokens.empty());
  EXPECT_EQ(event.prompt.size(), 3u);
}

TEST(Engine, EndOfGenerationStopsUnlessIgnored) {
  TestEngine test;
  GenerationRequest request = Ask("abc", 5);
  request.sampling.logit_bias = {{testing::kTestImEnd, 100.0f}};
  GenerationRequest stubborn = request;
  request.ignore_eos = false;
  const Event event = Generate(test.engine, std::move(request));
  EXPECT_EQ(event.finish, FinishReason::kStop);
  EXPECT_EQ(event.text, "");
  ASSERT_EQ(event.tokens.size(), 1u);
  EXPECT_TRUE(event.tokens[0].end_of_generation);
  const Event ignored = Generate(test.engine, std::move(stubborn));
  EXPECT_EQ(ignored.finish, FinishReason::kLength);
  EXPECT_EQ(ignored.tokens.size(), 5u);
}

TEST(Engine, StopStringCutsTheTextWhereverTokensEnd) {
  TestEngine test;
  GenerationRequest request = Ask("abc", 40);
  const auto x = static_cast<int32_t>(testing::kTestFirstByte + 'x');
  request.sampling.logit_bias = {{x, 100.0f}};
  request.sampling.frequency_penalty = 0;
  request.stop = {"xxxxx"};
  const Event event = Generate(test.engine, std::move(request));
  EXPECT_EQ(event.finish, FinishReason::kStop);
  EXPECT_EQ(event.stop_string, "xxxxx");
  EXPECT_EQ(event.text, "");
  EXPECT_EQ(event.tokens.size(), 5u);
}

TEST(Engine, NothingEndsTheAnswerBeforeMinTokens) {
  TestEngine test;
  GenerationRequest request = Ask("abc", 12);
  request.ignore_eos = false;
  request.min_tokens = 4;
  request.sampling.logit_bias = {{testing::kTestImEnd, 100.0f},
                                 {testing::kTestFirstByte + 'x', 50.0f}};
  const Event ended = Generate(test.engine, request);
  EXPECT_EQ(ended.finish, FinishReason::kStop);
  EXPECT_EQ(ended.tokens.size(), 5u);
  EXPECT_EQ(ended.text, "xxxx");
  request.sampling.logit_bias = {{testing::kTestFirstByte + 'x', 100.0f}};
  request.stop = {"x"};
  const Event stopped = Generate(test.engine, request);
  EXPECT_EQ(stopped.tokens.size(), 5u);
  EXPECT_EQ(stopped.text, "xxxx");
}

TEST(Engine, ControlTokensShowWhereAskedTo) {
  TestEngine test;
  GenerationRequest request = Ask("abc", 2);
  request.sampling.logit_bias = {{testing::kTestImStart, 100.0f}};
  EXPECT_EQ(Generate(test.engine, request).text, "");
  request.shown_control = {testing::kTestImStart};
  EXPECT_EQ(Generate(test.engine, request).text, "<|im_start|><|im_start|>");
}

TEST(Engine, ChoicesOfOneRequestShareThePromptAndDiffer) {
  TestEngine test({.fixed_chunk = 16});
  GenerationRequest request = Ask(std::string(200, 'q'), 12);
  request.sampling = {.temperature = 2, .seed = 3};
  std::vector<GenerationRequest> choices(4, request);
  for (size_t i = 0; i < choices.size(); ++i) choices[i].sampling.stream = i;
  const std::vector<Event> events = RunAll(test.engine, std::move(choices));
  EXPECT_EQ(events[0].usage.cached_tokens, 0);
  for (size_t i = 1; i < events.size(); ++i) {
    EXPECT_EQ(events[i].usage.cached_tokens, 192);
    EXPECT_NE(Ids(events[i]), Ids(events[0]));
  }
}

TEST(Engine, SaltAndAdapterSeparateThePrefixCache) {
  TestEngine test;
  const auto cached = [&](const std::string& salt, std::shared_ptr<const Adapter> adapter) {
    GenerationRequest request = Ask(std::string(100, 'z'), 1);
    request.tenant = salt;
    request.adapter = std::move(adapter);
    return Generate(test.engine, std::move(request)).usage.cached_tokens;
  };
  EXPECT_EQ(cached("", nullptr), 0);
  EXPECT_EQ(cached("", nullptr), 96);
  EXPECT_EQ(cached("other", nullptr), 0);
  EXPECT_EQ(cached("", MakeTestAdapter(SharedTestModel()->config, {Site::kK}, 4, 9)), 0);
}

TEST(Engine, MoreRequestsThanMemoryAreAnsweredOneAfterAnother) {
  const int64_t page = KvPageBytes(SharedTestModel()->config, KvType::kBf16);
  TestEngine test({.kv_bytes = 5 * page});
  std::vector<GenerationRequest> requests;
  for (int i = 0; i < 12; ++i) {
    requests.push_back(Ask(std::string(60, static_cast<char>('a' + i)), 20));  // 3 pages each
  }
  for (const Event& event : RunAll(test.engine, std::move(requests))) {
    EXPECT_EQ(event.finish, FinishReason::kLength);
    EXPECT_EQ(event.tokens.size(), 20u);
  }
  EXPECT_LE(test.engine.Metrics().pool.allocated_pages, 5);
}

TEST(Engine, ProbeKeepsTheAnswers) {
  TestEngine probed({.target_step_seconds = 0, .probe = true}), plain;
  EXPECT_GT(probed.engine.ProbedStepSeconds(1), 0);
  EXPECT_EQ(plain.engine.ProbedStepSeconds(1), 0);
  EXPECT_EQ(Ids(Generate(probed.engine, Ask(std::string(300, 'q'), 20))),
            Ids(Generate(plain.engine, Ask(std::string(300, 'q'), 20))));
}

TEST(Engine, FailingStepFailsOnlyTheRequestsConcerned) {
  const ModelConfig& config = SharedTestModel()->config;
  auto broken = std::make_shared<Adapter>(config, "broken");
  const LinearShape shape = ShapeOf(config, {0, Site::kQ});
  const std::vector<float> huge(static_cast<size_t>(std::max(shape.k, shape.n)) * 4, 3e38f);
  broken->Set({0, Site::kQ}, DenseView<const float>(huge.data(), 4, shape.k),
              DenseView<const float>(huge.data(), shape.n, 4), 1.0f);
  broken->Publish();
  TestEngine test;
  std::vector<GenerationRequest> requests(3, Ask("hello", 10));
  requests[1].adapter = broken;
  const std::vector<Event> events = RunAll(test.engine, requests);
  EXPECT_EQ(events[1].finish, FinishReason::kError);
  EXPECT_TRUE(events[1].error);
  const Event good = Generate(test.engine, Ask("hello", 10));
  EXPECT_EQ(Ids(events[0]), Ids(good));
  EXPECT_EQ(Ids(events[2]), Ids(good));
}

TEST(Engine, RequestsThatCannotBeAreRefusedByName) {
  TestEngine test({.max_context = 64});
  const auto message = [&](GenerationRequest request) -> std::string {
    try {
      test.engine.Submit(std::move(request));
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(test.engine.max_context(), 64);
  EXPECT_THAT(message(Ask("", 1)), HasSubstr("prompt"));
  EXPECT_THAT(message(Ask(std::string(65, 'x'), 1)), HasSubstr("64 tokens"));
  EXPECT_THAT(message(Ask(std::string(60, 'x'), 5)), HasSubstr("64 tokens"));
  EXPECT_THAT(message(Ask("x", INT64_MAX)), HasSubstr("64 tokens"));
  EXPECT_THAT(message(Ask("x", -1)), HasSubstr("max_tokens"));
  GenerationRequest request = Ask("x", 1);
  request.prompt = {99999};
  EXPECT_THAT(message(request), HasSubstr("99999"));
  request = Ask("x", 1);
  request.stop = {""};
  EXPECT_THAT(message(request), HasSubstr("stop"));
  request = Ask("x", 1);
  request.sampling.temperature = -1;
  EXPECT_THAT(message(request), HasSubstr("temperature"));
  EXPECT_EQ(message(Ask(std::string(60, 'x'), 4)), "");
}

TEST(Engine, RequestWithoutMaxTokensEndsAtTheDefaultOrTheContext) {
  TestEngine test({.max_context = 64, .default_max_tokens = 20});
  GenerationRequest request = Ask("abc", 0);
  request.max_tokens.reset();
  EXPECT_EQ(Generate(test.engine, request).tokens.size(), 20u);
  request.prompt.resize(60, request.prompt[0]);
  EXPECT_EQ(Generate(test.engine, request).tokens.size(), 4u);
}

TEST(Engine, DestroyedWhileBusyTellsEverySink) {
  std::vector<Collector> collectors(5);
  {
    TestEngine test({.max_running = 2});
    for (Collector& collector : collectors) {
      GenerationRequest request = Ask("a", 2000);
      request.sink = collector.Sink();
      test.engine.Submit(request);
    }
  }
  for (Collector& collector : collectors) EXPECT_TRUE(collector.Wait().finish);
}

TEST(Engine, ManyThreadsSubmitAndCancelAtRandom) {
  TestEngine test(
      {.kv_bytes = 40 * KvPageBytes(SharedTestModel()->config, KvType::kBf16), .max_running = 6});
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      Rng rng(t, 1);
      for (int i = 0; i < 12; ++i) {
        Collector collector;
        GenerationRequest request =
            Ask(std::string(1 + rng.Below(150), 'k'), 1 + static_cast<int64_t>(rng.Below(40)));
        request.sink = collector.Sink();
        const RequestId id = test.engine.Submit(request);
        if (rng.Below(3) == 0) test.engine.Cancel(id);
        const Event event = collector.Wait();
        EXPECT_FALSE(event.error);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(test.engine.Drain(
      std::chrono::seconds(300)));  // the last one's event comes before its books are closed
  const EngineMetrics metrics = test.engine.Metrics();
  EXPECT_EQ(metrics.submitted, 48);
  EXPECT_EQ(metrics.finished + metrics.cancelled, 48);
  EXPECT_EQ(metrics.running + metrics.waiting, 0);
}

TEST(Generate, ReceiverCanStopTheAnswer) {
  TestEngine test;
  const EngineBrake brake(test.engine);
  GenerationRequest request = Ask("a", 2000);
  request.sampling.logit_bias = {{testing::kTestFirstByte + 'x', 100.0f}};
  int pieces = 0;
  const Event event =
      Generate(test.engine, std::move(request), [&](const std::string&) { return ++pieces < 3; });
  EXPECT_EQ(event.finish, FinishReason::kCancelled);
  EXPECT_LT(event.tokens.size(), 2000u);
}

}  // namespace
}  // namespace bakestone
