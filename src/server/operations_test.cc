// Keys and their limits, metrics, request ids, the log of requests, health: what operators rely on.
#include <chrono>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/api/api_error.h"
#include "server/test_router.h"

namespace bakestone {
namespace {

using namespace std::chrono_literals;
using bakestone::testing::EnginePlug;
using bakestone::testing::Json;
using bakestone::testing::Recorder;
using bakestone::testing::RouterTest;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::Pair;

std::shared_ptr<const http::Key> KeyOf(http::Key key) {
  if (key.name.empty()) key.name = key.tenant;
  return std::make_shared<const http::Key>(std::move(key));
}

class OperationsTest : public RouterTest {
 protected:
  std::shared_ptr<Recorder> Post(const Router& router, std::shared_ptr<const http::Key> key,
                                 const Json& body,
                                 std::vector<std::pair<std::string, std::string>> headers = {}) {
    const auto recorder = std::make_shared<Recorder>();
    http::Request request;
    request.method = "POST";
    request.path = "/v1/chat/completions";
    request.headers = std::move(headers);
    request.body = body.dump();
    request.key = std::move(key);
    router.Handle(request, recorder);
    return recorder;
  }
  http::Response Ask(std::shared_ptr<const http::Key> key, const std::string& model) {
    Json body = ChatBody(2);
    body["model"] = model;
    return Post(router_, std::move(key), body)->Wait();
  }
};

TEST_F(OperationsTest, KeySeesOnlyItsModels) {
  const auto key = KeyOf({.tenant = "t", .models = {"tuned"}});
  EXPECT_EQ(Ask(key, "tuned").status, 200);
  EXPECT_EQ(Ask(key, "base").status, 404);
  EXPECT_EQ(Ask(nullptr, "base").status, 200);
  const auto recorder = std::make_shared<Recorder>();
  http::Request request;
  request.method = "GET";
  request.path = "/v1/models";
  request.key = key;
  router_.Handle(request, recorder);
  const Json listed = Json::parse(recorder->Wait().body)["data"];
  ASSERT_EQ(listed.size(), 1u);
  EXPECT_EQ(listed[0]["id"], "tuned");
}

TEST_F(OperationsTest, UnknownNamesGoToTheDefaultOfKeyOrServer) {
  EXPECT_EQ(
      Json::parse(Ask(KeyOf({.tenant = "t", .default_model = "tuned"}), "gpt-9").body)["model"],
      "tuned");
  const Router router({{"base", engine_, nullptr, ""}}, {.default_model = "base"});
  Json body = ChatBody(2);
  body["model"] = "claude-9";
  EXPECT_EQ(Json::parse(Post(router, nullptr, body)->Wait().body)["model"], "base");
  EXPECT_THROW(Router({{"base", engine_, nullptr, ""}}, {.default_model = "other"}), Error);
}

TEST_F(OperationsTest, KeyMayNotHaveMoreRequestsAtOnceThanItsLimit) {
  const auto key = KeyOf({.tenant = "t", .max_requests = 1});
  EnginePlug plug(*engine_);
  const auto first = Post(router_, key, ChatBody(2));
  const http::Response second = Post(router_, key, ChatBody(2))->Wait();
  EXPECT_EQ(second.status, 429);
  EXPECT_THAT(second.headers, Contains(Pair("Retry-After", "1")));
  EXPECT_EQ(Json::parse(second.body)["error"]["code"], "rate_limit_exceeded");
  plug.Pull();
  EXPECT_EQ(first->Wait().status, 200);
  EXPECT_EQ(Post(router_, key, ChatBody(2))->Wait().status, 200);
}

TEST(KeyLimits, BucketsFillByTheMinute) {
  const auto limits = std::make_shared<KeyLimits>();
  const http::Key key{.tenant = "t", .requests_per_minute = 2, .tokens_per_minute = 600};
  auto now = KeyLimits::Clock::now();
  limits->Admit(&key, now);
  limits->Admit(&key, now);
  EXPECT_THROW(limits->Admit(&key, now), api::ApiError);
  now += 31s;
  limits->Admit(&key, now);
  now += 60s;
  limits->Spend(&key, 1200, now);
  try {
    limits->Admit(&key, now);
    FAIL();
  } catch (const api::ApiError& error) {
    EXPECT_EQ(error.retry_after, 60);
  }
  now += 59s;
  EXPECT_THROW(limits->Admit(&key, now), api::ApiError);
  now += 2s;
  EXPECT_NO_THROW(limits->Admit(&key, now));
  EXPECT_NO_THROW(limits->Admit(nullptr, now));
}

TEST_F(OperationsTest, EveryAnswerHasAnId) {
  const http::Response own =
      Post(router_, nullptr, ChatBody(2), {{"x-request-id", "my-id.7"}})->Wait();
  EXPECT_THAT(own.headers, Contains(Pair("X-Request-Id", "my-id.7")));
  const http::Response forged =
      Post(router_, nullptr, ChatBody(2), {{"x-request-id", "a b\"<"}})->Wait();
  EXPECT_THAT(forged.headers, Contains(Pair("X-Request-Id", ::testing::StartsWith("req_"))));
  EXPECT_THAT(Call("POST", "/v1/messages", "{}").headers,
              Contains(Pair("Request-Id", ::testing::StartsWith("req_"))));
}

TEST_F(OperationsTest, MetricsCountByRouteModelAndKey) {
  Ask(KeyOf({.tenant = "t", .name = "te\"am"}), "tuned");
  Call("GET", "/made/up");
  const http::Response response = Call("GET", "/metrics");
  EXPECT_THAT(response.content_type, HasSubstr("version=0.0.4"));
  for (const char* line :
       {"bakestone_requests_total{route=\"/v1/chat/completions\",status=\"200\"} 1\n",
        "bakestone_requests_total{route=\"other\",status=\"404\"} 1\n",
        "bakestone_tokens_total{model=\"tuned\",key=\"te\\\"am\",kind=\"completion\"} 2\n",
        "bakestone_time_to_first_token_seconds_count 1\n",
        "bakestone_time_per_output_token_seconds_bucket{le=\"+Inf\"} 1\n",
        "# TYPE bakestone_kv_pages gauge\n", "# TYPE bakestone_kv_pages_used gauge\n"}) {
    EXPECT_THAT(response.body, HasSubstr(line));
  }
  EXPECT_THAT(response.body, Not(HasSubstr("/made/up")));
}

TEST_F(OperationsTest, LogOfRequestsNeverHoldsWhatWasSaid) {
  std::vector<std::string> lines;
  std::mutex mutex;
  const Router router({{"base", engine_, nullptr, ""}},
                      {.on_request = [&](const std::string& line) {
                        std::lock_guard lock(mutex);
                        lines.push_back(line);
                      }});
  Json body = ChatBody(3);
  body["messages"][0]["content"] = "a secret";
  Post(router, KeyOf({.tenant = "t", .name = "team"}), body)->Wait();
  {
    EnginePlug plug(*engine_);
    const auto gone = Post(router, nullptr, ChatBody(1900));
    gone->Leave();
  }
  while (engine_->Metrics().running + engine_->Metrics().waiting > 0) {
    std::this_thread::sleep_for(1ms);
  }
  std::lock_guard lock(mutex);
  ASSERT_EQ(lines.size(), 2u);
  const Json line = Json::parse(lines[0]);
  EXPECT_EQ(line["key"], "team");
  EXPECT_EQ(line["path"], "/v1/chat/completions");
  EXPECT_EQ(line["status"], 200);
  EXPECT_EQ(line["model"], "base");
  EXPECT_EQ(line["completion_tokens"], 3);
  EXPECT_THAT(lines[0], Not(HasSubstr("secret")));
  EXPECT_EQ(Json::parse(lines[1])["status"], 499);
}

TEST_F(OperationsTest, StalledEngineIsNeitherLiveNorReady) {
  const Router router({{"base", engine_, nullptr, ""}}, {.stuck_after = 0s});
  const auto status = [&](const char* path) {
    const auto recorder = std::make_shared<Recorder>();
    http::Request request;
    request.method = "GET";
    request.path = path;
    router.Handle(request, recorder);
    return recorder->Wait().status;
  };
  EXPECT_EQ(status("/health"), 200);
  EXPECT_EQ(status("/ready"), 200);
  EnginePlug plug(*engine_);  // the loop stands still in the middle of a step
  const auto waiting = Post(router, nullptr, ChatBody(2));
  std::this_thread::sleep_for(20ms);
  EXPECT_EQ(status("/health"), 503);
  EXPECT_EQ(status("/ready"), 503);
  plug.Pull();
  EXPECT_EQ(waiting->Wait().status, 200);
  // The answer left from within the loop's last step, which with no patience at all counts as one
  // that stands.
  const auto deadline = std::chrono::steady_clock::now() + 30s;
  while (status("/ready") != 200 && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(1ms);
  }
  EXPECT_EQ(status("/ready"), 200);
}

}  // namespace
}  // namespace bakestone
