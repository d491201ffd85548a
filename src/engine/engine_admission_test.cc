// Who is let in, in which order, and how requests leave: queues, tenants, deadlines, the drain.
#include "engine/engine.h"

#include <algorithm>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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
using testing::SharedTestModel;
using testing::TestEngine;

TEST(Engine, FullQueueRefusesAllOrNone) {
  TestEngine test({.max_running = 1, .max_queued_requests = 3, .max_step_tokens = 8});
  EnginePlug plug(test.engine);
  test.engine.Submit(std::vector<GenerationRequest>(2, Ask("b", 1)));
  EXPECT_FALSE(test.engine.QueueFull());
  EXPECT_EQ(CodeOf([&] { test.engine.Submit(std::vector<GenerationRequest>(2, Ask("c", 1))); }),
            ErrorCode::kUnavailable);
  test.engine.Submit(Ask("d", 1));
  EXPECT_TRUE(test.engine.QueueFull());
  EXPECT_EQ(test.engine.Metrics().waiting, 3);
  EXPECT_EQ(test.engine.Metrics().refused, 2);
  plug.Pull();
  EXPECT_TRUE(test.engine.Drain(std::chrono::seconds(300)));
  EXPECT_EQ(test.engine.Metrics().finished, 4);
}

TEST(Engine, QueueIsBoundedByPromptTokensToo) {
  TestEngine test({.max_running = 1, .max_queued_tokens = 100});
  EnginePlug plug(test.engine);
  test.engine.Submit(Ask(std::string(90, 'a'), 1));
  EXPECT_EQ(CodeOf([&] { test.engine.Submit(Ask(std::string(11, 'b'), 1)); }),
            ErrorCode::kUnavailable);
  test.engine.Submit(Ask(std::string(10, 'c'), 1));
}

TEST(Engine, CancellingOneLeavesTheOthersAlone) {
  TestEngine test({.max_running = 3});
  const EngineBrake brake(test.engine);
  Collector running, waiting, other;
  GenerationRequest a = Ask("a", 2000), b = Ask("b", 2000), c = Ask("c", 30);
  a.sink = running.Sink();
  b.sink = waiting.Sink();
  c.sink = other.Sink();
  RequestId a_id = 0, b_id = 0;
  {
    EnginePlug plug(test.engine);
    a_id = test.engine.Submit(a);
    test.engine.Submit(c);
    b_id = test.engine.Submit(b);
    test.engine.Cancel(b_id);
  }
  running.WaitForTokens(2);
  test.engine.Cancel(a_id);
  EXPECT_EQ(running.Wait().finish, FinishReason::kCancelled);
  EXPECT_EQ(waiting.Wait().finish, FinishReason::kCancelled);
  const Event undisturbed = other.Wait();
  EXPECT_EQ(undisturbed.finish, FinishReason::kLength);
  EXPECT_EQ(Ids(Generate(test.engine, Ask("c", 30))), Ids(undisturbed));
  test.engine.Cancel(a_id);  // long gone: ignored
}

// One key floods the engine; another's single request does not wait for it.
TEST(Engine, NewTenantIsAnsweredWhileAnotherFloods) {
  const int64_t page = KvPageBytes(SharedTestModel()->config, KvType::kBf16);
  for (const int64_t pages : {100, 8}) {  // short of places, and of memory
    TestEngine test({.kv_bytes = pages * page, .max_running = 4});
    std::vector<GenerationRequest> flood;
    std::vector<Collector> collectors(30);
    for (size_t i = 0; i < collectors.size(); ++i) {
      flood.push_back(Ask(std::string(40 + i % 3, static_cast<char>('a' + i % 20)), 20));
      flood.back().tenant = "a";
      flood.back().sampling = {.temperature = 1, .seed = i};
      flood.back().sink = [sink = collectors[i].Sink()](Event&& event) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        sink(std::move(event));
      };
    }
    std::vector<GenerationRequest> again = flood;
    test.engine.Submit(std::move(flood));
    collectors[0].WaitForTokens(3);
    GenerationRequest one = Ask("hello", 3);
    one.tenant = "b";
    Generate(test.engine, one);
    EXPECT_LT(test.engine.Metrics().finished, 8);
    EXPECT_GT(test.engine.Metrics().suspended, 0);
    for (size_t i = 0; i < collectors.size();
         ++i) {  // those that made room say what they would have said
      const Event event = collectors[i].Wait();
      if (i > 5) continue;
      TestEngine alone;
      again[i].sink = nullptr;
      EXPECT_EQ(Ids(event), Ids(Generate(alone.engine, again[i])));
    }
  }
}

// A batch in the background fills the engine; a request of the same key that is not waits for none
// of it.
TEST(Engine, BackgroundMakesRoomAndGoesOn) {
  const int64_t page = KvPageBytes(SharedTestModel()->config, KvType::kBf16);
  for (const int64_t pages : {100, 8}) {  // short of places, and of memory
    TestEngine test({.kv_bytes = pages * page, .max_running = 4});
    std::vector<GenerationRequest> batch;
    std::vector<Collector> collectors(12);
    for (size_t i = 0; i < collectors.size(); ++i) {
      batch.push_back(Ask(std::string(40 + i % 3, static_cast<char>('a' + i)), 20));
      batch.back().background = true;
      batch.back().sink = [sink = collectors[i].Sink()](Event&& event) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        sink(std::move(event));
      };
    }
    std::vector<GenerationRequest> again = batch;
    test.engine.Submit(std::move(batch));
    collectors[0].WaitForTokens(3);
    for (int i = 0; i < 3; ++i) Generate(test.engine, Ask("hello", 3));
    EXPECT_LT(test.engine.Metrics().finished, 9);
    EXPECT_GT(test.engine.Metrics().suspended, 0);
    for (size_t i = 0; i < collectors.size(); ++i) {
      const Event event = collectors[i].Wait();
      EXPECT_EQ(event.finish, FinishReason::kLength);
      if (i > 5) continue;
      TestEngine alone;
      again[i].sink = nullptr;
      EXPECT_EQ(Ids(event), Ids(Generate(alone.engine, again[i])));
    }
  }
}

TEST(Engine, LateRequestsEndWaitingAndRunning) {
  TestEngine test({.max_running = 2, .max_request_seconds = 0.2});
  const EngineBrake brake(test.engine);
  std::vector<GenerationRequest> requests(2, Ask("a", 2000));
  std::vector<Collector> collectors(2);
  for (size_t i = 0; i < 2; ++i) requests[i].sink = collectors[i].Sink();
  test.engine.Submit(std::move(requests));
  for (Collector& collector : collectors) {
    const Event event = collector.Wait();
    ASSERT_TRUE(event.error);
    EXPECT_EQ(event.error->code(), ErrorCode::kUnavailable);
    EXPECT_THAT(event.error->what(), HasSubstr("0.2 s"));
  }
}

TEST(Engine, DepartureIsNoticedWhileAPromptIsRead) {
  TestEngine test({.fixed_chunk = 1});
  const EngineBrake brake(test.engine);  // 2 ms or more a token: the prompt would take seconds
  Collector collector;
  GenerationRequest request = Ask(std::string(1500, 'p'), 1);
  request.sink = collector.Sink();
  const RequestId id = test.engine.Submit(request);
  while (test.engine.Metrics().steps < 5) std::this_thread::yield();
  test.engine.Cancel(id);
  const Event event = collector.Wait();
  EXPECT_EQ(event.finish, FinishReason::kCancelled);
  EXPECT_TRUE(event.tokens.empty());
  EXPECT_LT(test.engine.Metrics().steps, 1000);
}

TEST(Engine, DrainRefusesTheNewAndFinishesTheOld) {
  TestEngine test;
  Collector collector;
  GenerationRequest request = Ask("a", 100);
  request.sink = collector.Sink();
  test.engine.Submit(request);
  EXPECT_TRUE(test.engine.Drain(std::chrono::seconds(300)));
  EXPECT_EQ(collector.Wait().finish, FinishReason::kLength);
  EXPECT_EQ(CodeOf([&] { test.engine.Submit(Ask("b", 1)); }), ErrorCode::kUnavailable);
}

TEST(Engine, DrainPastItsDeadlineEndsAnswersWithAnError) {
  TestEngine test;
  const EngineBrake brake(test.engine);
  Collector collector;
  GenerationRequest request = Ask("a", 2000);
  request.sink = collector.Sink();
  test.engine.Submit(request);
  EXPECT_FALSE(test.engine.Drain(std::chrono::seconds(0)));
  const Event event = collector.Wait();
  ASSERT_TRUE(event.error);
  EXPECT_EQ(event.error->code(), ErrorCode::kUnavailable);
}

}  // namespace
}  // namespace bakestone
