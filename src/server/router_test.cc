// The routes over a real engine with a tiny model, first without sockets, then through the whole
// server.
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/chat.h"
#include "engine/test_engine.h"
#include "server/server.h"
#include "server/test_client.h"
#include "server/test_router.h"

namespace bakestone {
namespace {

using namespace std::chrono_literals;
using bakestone::testing::BodyOf;
using bakestone::testing::EnginePlug;
using bakestone::testing::Get;
using bakestone::testing::Json;
using bakestone::testing::MakeTestEngine;
using bakestone::testing::Post;
using bakestone::testing::RawClient;
using bakestone::testing::Recorder;
using bakestone::testing::RouterTest;
using bakestone::testing::StatusOf;
using ::testing::HasSubstr;

TEST_F(RouterTest, ModelsListsBaseAndAdapters) {
  const Json json = Json::parse(Call("GET", "/v1/models").body);
  EXPECT_EQ(json["object"], "list");
  ASSERT_EQ(json["data"].size(), 2u);
  EXPECT_EQ(json["data"][0]["id"], "base");
  EXPECT_EQ(json["data"][1]["parent"], "base");
  EXPECT_NE(json["data"][0]["fingerprint"], json["data"][1]["fingerprint"]);
  EXPECT_EQ(Json::parse(Call("GET", "/v1/models/tuned").body)["id"], "tuned");
  EXPECT_EQ(Call("GET", "/v1/models/none").status, 404);
}

TEST_F(RouterTest, ChatAnswersWithMessageAndUsage) {
  const Json json = Ok("/v1/chat/completions", ChatBody());
  EXPECT_EQ(json["object"], "chat.completion");
  EXPECT_EQ(json["model"], "base");
  const Json& choice = json["choices"].at(0);
  EXPECT_EQ(choice["finish_reason"], "length");
  EXPECT_EQ(choice["message"]["role"], "assistant");
  EXPECT_TRUE(choice["message"]["refusal"].is_null());
  EXPECT_TRUE(choice["logprobs"].is_null());
  EXPECT_EQ(json["usage"]["completion_tokens"], 8);
  EXPECT_EQ(json["usage"]["total_tokens"], json["usage"]["prompt_tokens"].get<int>() + 8);
}

TEST_F(RouterTest, PredictionChangesTheUsageAndNothingElse) {
  Json body = ChatBody(24);
  const Json plain = Ok("/v1/chat/completions", body);
  EXPECT_FALSE(plain["usage"].contains("completion_tokens_details"));
  body["prediction"] = {{"type", "content"},
                        {"content", plain["choices"][0]["message"]["content"]}};
  const Json predicted = Ok("/v1/chat/completions", body);
  EXPECT_EQ(predicted["choices"], plain["choices"]);
  EXPECT_TRUE(
      predicted["usage"]["completion_tokens_details"]["accepted_prediction_tokens"].is_number());
  body["speculate"] = false;
  const Json off = Ok("/v1/chat/completions", body);
  EXPECT_EQ(off["choices"], plain["choices"]);
  EXPECT_EQ(off["usage"]["completion_tokens_details"]["accepted_prediction_tokens"], 0);
  EXPECT_EQ(off["usage"]["completion_tokens_details"]["rejected_prediction_tokens"], 0);
}

TEST_F(RouterTest, AdapterIsChosenByModelName) {
  Json body = ChatBody(24);
  const Json base = Ok("/v1/chat/completions", body);
  body["model"] = "tuned";
  const Json tuned = Ok("/v1/chat/completions", body);
  EXPECT_NE(base["choices"][0]["message"]["content"], tuned["choices"][0]["message"]["content"]);
  EXPECT_NE(base["system_fingerprint"], tuned["system_fingerprint"]);
  EXPECT_EQ(Refused(404, "/v1/chat/completions", R"({"model": "other", "messages": []})")["code"],
            "model_not_found");
}

TEST_F(RouterTest, StreamHasTheFramesThatClientsDependOn) {
  Json body = ChatBody(20);
  const Json whole = Ok("/v1/chat/completions", body);
  body["stream"] = true;
  body["n"] = 2;
  body["stream_options"] = {{"include_usage", true}};
  const http::Response response = Call("POST", "/v1/chat/completions", body.dump());
  EXPECT_EQ(response.content_type, "text/event-stream");
  const auto frames = Frames(response.body);
  ASSERT_GE(frames.size(), 6u);
  EXPECT_EQ(frames.back(), "[DONE]");
  const Json usage = Json::parse(frames[frames.size() - 2]);
  EXPECT_EQ(usage["choices"], Json::array());
  EXPECT_EQ(usage["usage"]["completion_tokens"], 40);
  std::string text[2];
  bool finished[2] = {false, false};
  std::set<std::string> ids;
  for (size_t i = 0; i + 2 < frames.size(); ++i) {
    const Json chunk = Json::parse(frames[i]);
    ids.insert(chunk["id"].get<std::string>() + std::to_string(chunk["created"].get<int64_t>()));
    EXPECT_EQ(chunk["object"], "chat.completion.chunk");
    EXPECT_TRUE(chunk.contains("usage") && chunk["usage"].is_null());
    const Json& choice = chunk["choices"].at(0);
    const auto index = choice["index"].get<size_t>();
    if (i < 2) {
      EXPECT_EQ(choice["delta"]["role"], "assistant");
    }
    EXPECT_FALSE(finished[index]);
    finished[index] = !choice["finish_reason"].is_null();
    if (choice["delta"].contains("content")) {
      text[index] += choice["delta"]["content"].get<std::string>();
    }
  }
  EXPECT_EQ(ids.size(), 1u);
  EXPECT_TRUE(finished[0] && finished[1]);
  EXPECT_EQ(text[0], whole["choices"][0]["message"]["content"].get<std::string>());
  EXPECT_EQ(text[1], text[0]);  // greedy
}

TEST_F(RouterTest, SeedMakesSamplingRepeatAndChoicesDiffer) {
  Json body = ChatBody(16);
  body["temperature"] = 2;
  body["n"] = 3;
  body["seed"] = 42;
  const Json first = Ok("/v1/chat/completions", body), second = Ok("/v1/chat/completions", body);
  EXPECT_EQ(first["choices"], second["choices"]);
  EXPECT_NE(first["choices"][0]["message"], first["choices"][1]["message"]);
  EXPECT_EQ(first["choices"][2]["index"], 2);
}

TEST_F(RouterTest, ChatLogprobsCarryBytes) {
  Json body = ChatBody(4);
  body["logprobs"] = true;
  body["top_logprobs"] = 3;
  const Json json = Ok("/v1/chat/completions", body);
  const Json& content = json["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(content.size(), 4u);
  EXPECT_EQ(content[0]["top_logprobs"].size(), 3u);
  EXPECT_EQ(content[0]["top_logprobs"][0]["token"], content[0]["token"]);
  EXPECT_EQ(content[0]["top_logprobs"][0]["logprob"], content[0]["logprob"]);
  EXPECT_TRUE(content[0]["bytes"].is_array());
}

TEST_F(RouterTest, StopStringsEndTheAnswer) {
  Json body = ChatBody(30);
  body["logit_bias"] = {{std::to_string(bakestone::testing::kTestFirstByte + 'x'), 100}};
  body["stop"] = Json::array({"never", "xxx"});
  const Json json = Ok("/v1/chat/completions", body);
  EXPECT_EQ(json["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(json["choices"][0]["message"]["content"], "");
}

TEST_F(RouterTest, ContentPartsAndDeveloperRoleAreRead) {
  Json body = ChatBody();
  body["messages"] = Json::array(
      {{{"role", "developer"}, {"content", "be short"}},
       {{"role", "user"},
        {"content",
         Json::array({{{"type", "text"}, {"text", "hel"}}, {{"type", "text"}, {"text", "lo"}}})}}});
  Json plain = ChatBody();
  plain["messages"] = Json::array(
      {{{"role", "system"}, {"content", "be short"}}, {{"role", "user"}, {"content", "hello"}}});
  EXPECT_EQ(Ok("/v1/chat/completions", body)["choices"],
            Ok("/v1/chat/completions", plain)["choices"]);
}

TEST_F(RouterTest, HarnessGetsLogprobsOfPromptAndOneToken) {
  const std::vector<int32_t> ids = bakestone::testing::TextTokens("the cat sat");
  const Json json = Ok("/v1/completions", {{"model", "base"},
                                           {"prompt", Json::array({ids, ids})},
                                           {"echo", true},
                                           {"logprobs", 1},
                                           {"max_tokens", 1},
                                           {"temperature", 0},
                                           {"seed", 1234}});
  ASSERT_EQ(json["choices"].size(), 2u);
  const Json& choice = json["choices"][1];
  EXPECT_EQ(choice["index"], 1);
  EXPECT_TRUE(choice["text"].get<std::string>().starts_with("the cat sat"));
  const Json& logprobs = choice["logprobs"];
  for (const char* key : {"tokens", "token_logprobs", "top_logprobs", "text_offset"}) {
    EXPECT_EQ(logprobs[key].size(), ids.size() + 1) << key;
  }
  EXPECT_TRUE(logprobs["token_logprobs"][0].is_null() && logprobs["top_logprobs"][0].is_null());
  for (size_t i = 1; i <= ids.size(); ++i) {
    const std::string token = logprobs["tokens"][i].get<std::string>();
    const Json& top = logprobs["top_logprobs"][i];
    ASSERT_TRUE(top.contains(token));
    EXPECT_EQ(top[token], logprobs["token_logprobs"][i]);
    for (const auto& entry : top.items()) EXPECT_GE(top.begin().value(), entry.value());
  }
  const Json& last = logprobs["top_logprobs"][ids.size()];
  EXPECT_EQ(last.size(), 1u);  // the greedy token is the argmax
}

TEST_F(RouterTest, CompletionPromptsComeInFourForms) {
  const auto ids = bakestone::testing::TextTokens("hello");
  const auto texts = [&](const Json& prompt) {
    std::vector<std::string> result;
    const Json json =
        Ok("/v1/completions",
           {{"model", "base"}, {"prompt", prompt}, {"temperature", 0}, {"ignore_eos", true}});
    for (const Json& choice : json["choices"]) result.push_back(choice["text"].get<std::string>());
    EXPECT_EQ(json["usage"]["completion_tokens"], 16 * result.size());
    return result;
  };
  const auto one = texts("hello");
  ASSERT_EQ(one.size(), 1u);
  EXPECT_EQ(texts(ids), one);
  EXPECT_EQ(texts(Json::array({"hello", "hello"})), (std::vector<std::string>{one[0], one[0]}));
  EXPECT_EQ(texts(Json::array({ids})), one);
}

TEST_F(RouterTest, CompletionStreamAddsUpToTheWhole) {
  Json body = {{"model", "base"},
               {"prompt", "hello"},
               {"temperature", 0},
               {"echo", true},
               {"ignore_eos", true}};
  const Json whole = Ok("/v1/completions", body);
  body["stream"] = true;
  std::string text;
  for (const std::string& frame : Frames(Call("POST", "/v1/completions", body.dump()).body)) {
    if (frame != "[DONE]") text += Json::parse(frame)["choices"][0]["text"].get<std::string>();
  }
  EXPECT_EQ(text, whole["choices"][0]["text"].get<std::string>());
}

TEST_F(RouterTest, FieldsOutOfRangeAreNamed) {
  const std::pair<const char*, Json> cases[] = {
      {"temperature", -0.1},
      {"temperature", 2.1},
      {"temperature", "hot"},
      {"top_p", 1.5},
      {"top_k", -2},
      {"min_p", 2},
      {"n", 0},
      {"n", 17},
      {"n", 1.5},
      {"max_tokens", 0},
      {"max_tokens", -1},
      {"max_completion_tokens", 1e30},
      {"presence_penalty", 3},
      {"frequency_penalty", -3},
      {"stop", 5},
      {"stop", Json::array({""})},
      {"stop", Json::array({1})},
      {"logit_bias", {{"x", 1}}},
      {"logit_bias", {{"1", 101}}},
      {"logit_bias", {{"999999", 1}}},
      {"logit_bias", {{"-1", 1}}},
      {"seed", "x"},
      {"seed", 1e300},
      {"stream", 1},
      {"top_logprobs", 5},
      {"stream_options", {{"include_usage", true}}},
      {"messages", Json::array()},
      {"messages", "hi"},
      {"messages", Json::array({1})},
      {"model", 5},
      {"logprobs", "yes"},
      {"speculate", 1},
      {"prediction", "hi"},
      {"prediction", {{"type", "text"}, {"content", "hi"}}},
      {"prediction", {{"type", "content"}}},
      {"prediction", {{"type", "content"}, {"content", Json::array({1})}}}};
  for (const auto& [name, value] : cases) {
    Json body = ChatBody();
    body[name] = value;
    EXPECT_EQ(Refused(400, "/v1/chat/completions", body.dump())["param"], name) << value.dump();
  }
  for (const auto& [name, value] :
       std::initializer_list<std::pair<const char*, Json>>{{"prompt", 5},
                                                           {"prompt", Json::array()},
                                                           {"prompt", Json::array({-1})},
                                                           {"prompt", Json::array({1, "a"})},
                                                           {"prompt", ""},
                                                           {"prompt", Json::array({Json::array()})},
                                                           {"logprobs", 21},
                                                           {"best_of", 2},
                                                           {"suffix", "x"}}) {
    Json body = {{"model", "base"}, {"prompt", "x"}};
    body[name] = value;
    EXPECT_EQ(Refused(400, "/v1/completions", body.dump())["param"], name) << value.dump();
  }
}

TEST_F(RouterTest, TooLongForTheContextSaysSo) {
  Json body = ChatBody();
  body["max_tokens"] = 100'000;
  EXPECT_EQ(Refused(400, "/v1/chat/completions", body.dump())["code"], "context_length_exceeded");
  body = ChatBody();
  body["messages"][0]["content"] = std::string(5000, 'x');
  EXPECT_EQ(Refused(400, "/v1/chat/completions", body.dump())["code"], "context_length_exceeded");
}

TEST_F(RouterTest, BodiesThatAreNotJsonAreRefused) {
  std::string deep(100'000, '[');
  const std::string cases[] = {"",
                               "{",
                               "[]",
                               "null",
                               "\"x\"",
                               "{\"model\": \"\xff\xfe\"}",
                               "{\"a\": 1e999}",
                               "{\"a\": NaN}",
                               deep,
                               "{\"a\": " + deep,
                               "{\"model\": \"\\ud800\"}",
                               "{} {}",
                               std::string("{\0}", 3)};
  for (const std::string& body : cases) {
    for (const char* path :
         {"/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize"}) {
      Refused(400, path, body);
    }
  }
}

TEST_F(RouterTest, UnknownPathsAndMethods) {
  EXPECT_EQ(Call("GET", "/").status, 404);
  EXPECT_EQ(Call("GET", "/v1/chat/completions").status, 405);
  EXPECT_EQ(Call("DELETE", "/v1/models").status, 405);
  EXPECT_EQ(Call("OPTIONS", "/v1/chat/completions").status, 405);
  EXPECT_THAT(Call("PUT", "/v1/responses/x").headers,
              ::testing::Contains(::testing::Pair("Allow", "GET, DELETE")));
}

TEST_F(RouterTest, TokenizerRoutesInvertEachOther) {
  const Json tokens =
      Ok("/tokenize", {{"prompt", "the h\xC3\xA9 \xE2\x82\xAC"}, {"add_special_tokens", false}});
  EXPECT_EQ(tokens["count"], tokens["tokens"].size());
  EXPECT_EQ(Ok("/detokenize", {{"tokens", tokens["tokens"]}})["prompt"],
            "the h\xC3\xA9 \xE2\x82\xAC");
  const Json info = Json::parse(Call("GET", "/tokenizer_info").body);
  EXPECT_EQ(info["eos_token"], "<|im_end|>");
  EXPECT_THAT(info["chat_template"].get<std::string>(), HasSubstr("<|im_start|>"));
}

TEST_F(RouterTest, HealthFollowsTheEngine) {
  EXPECT_EQ(Call("GET", "/health").status, 200);
  engine_->Drain(0s);
  const http::Response response = Call("GET", "/health");
  EXPECT_EQ(response.status, 503);
  EXPECT_THAT(response.body, HasSubstr("draining"));
  const http::Response refused = Call("POST", "/v1/chat/completions", ChatBody().dump());
  EXPECT_EQ(refused.status, 503);
  EXPECT_THAT(refused.headers, ::testing::Contains(::testing::Pair("Retry-After", ::testing::_)));
}

class SmallQueueTest : public RouterTest {
 protected:
  SmallQueueTest() : RouterTest({.max_running = 1, .max_queued_requests = 1}) {}
};

TEST_F(SmallQueueTest, FullQueueGets429AndDepartedClientsMakeRoom) {
  std::vector<std::shared_ptr<Recorder>> recorders;
  const auto post = [&](const Json& body) {
    recorders.push_back(std::make_shared<Recorder>());
    http::Request request;
    request.method = "POST";
    request.path = "/v1/chat/completions";
    request.body = body.dump();
    router_.Handle(request, recorders.back());
  };
  EnginePlug plug(*engine_);
  post(ChatBody(1900));
  const http::Response refused = Call("POST", "/v1/chat/completions", ChatBody().dump());
  EXPECT_EQ(refused.status, 429);
  EXPECT_THAT(refused.headers, ::testing::Contains(::testing::Pair("Retry-After", ::testing::_)));
  recorders[0]->Leave();
  plug.Pull();
  while (engine_->Metrics().running + engine_->Metrics().waiting > 0) {
    std::this_thread::sleep_for(1ms);
  }
  EXPECT_EQ(engine_->Metrics().cancelled, 1);
  EXPECT_EQ(Call("POST", "/v1/chat/completions", ChatBody().dump()).status, 200);
}

class ServerTest : public RouterTest {
 protected:
  std::unique_ptr<Server> Start() {
    return std::make_unique<Server>(ServerOptions{.port = 0},
                                    std::vector<ServedModel>{{"base", engine_, nullptr, ""}});
  }
};

TEST_F(ServerTest, AnswersOverTheWire) {
  const auto server = Start();
  RawClient client(server->port());
  client.Send(Post("/v1/chat/completions", ChatBody().dump()));
  const std::string response = client.ReadResponse();
  EXPECT_EQ(StatusOf(response), 200);
  EXPECT_EQ(Json::parse(BodyOf(response))["object"], "chat.completion");
  client.Send(Get("/nothing"));
  EXPECT_EQ(Json::parse(BodyOf(client.ReadResponse()))["error"]["code"], "not_found");
  client.Send("BAD\r\n\r\n");
  EXPECT_EQ(Json::parse(BodyOf(client.ReadResponse()))["error"]["type"], "invalid_request_error");
}

TEST_F(ServerTest, ClientThatLeavesEndsItsGeneration) {
  const auto server = Start();
  RawClient client(server->port());
  Json body = ChatBody(1900);
  body["stream"] = true;
  EnginePlug plug(*engine_);
  client.Send(Post("/v1/chat/completions", body.dump()));
  ASSERT_TRUE(client.ReadUntil("data: "));
  client.Close();
  std::this_thread::sleep_for(
      200ms);  // the departure reaches the engine before, or while, it generates
  plug.Pull();
  while (engine_->Metrics().running + engine_->Metrics().waiting > 0) {
    std::this_thread::sleep_for(1ms);
  }
  EXPECT_EQ(engine_->Metrics().cancelled, 1);
}

TEST_F(ServerTest, StopLetsStreamsFinish) {
  const auto server = Start();
  RawClient client(server->port());
  Json body = ChatBody(300);
  body["stream"] = true;
  client.Send(Post("/v1/chat/completions", body.dump()));
  ASSERT_TRUE(client.ReadUntil("data: "));
  EXPECT_TRUE(server->Stop(300s));
  EXPECT_THAT(client.ReadAll(), HasSubstr("data: [DONE]"));
}

TEST_F(ServerTest, StopPastItsDeadlineSendsAnErrorEvent) {
  const auto server = Start();
  RawClient client(server->port());
  Json body = ChatBody(1900);
  body["stream"] = true;
  EnginePlug plug(*engine_);
  client.Send(Post("/v1/chat/completions", body.dump()));
  ASSERT_TRUE(client.ReadUntil("data: "));
  std::thread pull([&] {
    while (!engine_->Draining()) std::this_thread::sleep_for(1ms);
    plug.Pull();
  });
  EXPECT_FALSE(server->Stop(0s));
  pull.join();
  const std::string all = client.ReadAll();
  EXPECT_THAT(all, HasSubstr("\"error\":{\"message\""));
  EXPECT_TRUE(all.ends_with("0\r\n\r\n"));
}

TEST_F(ServerTest, ManyClientsSomeOfWhomLeave) {
  const auto server = Start();
  Json body = ChatBody(20);
  const std::string expected = Ok("/v1/chat/completions", body)["choices"].dump();
  std::vector<std::thread> threads;
  std::atomic<int> same{0};
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 4; ++i) {
        RawClient client(server->port());
        client.Send(Post("/v1/chat/completions", body.dump()));
        if ((t + i) % 4 == 0) continue;  // leaves at once
        const Json json = Json::parse(BodyOf(client.ReadResponse()), nullptr, false);
        same += json.is_object() && json["choices"].dump() == expected;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(same, 24);
}

TEST(Server, NeedsModelsWithDifferentNames) {
  const auto engine = MakeTestEngine();
  EXPECT_THROW(Server({.port = 0}, {}), Error);
  EXPECT_THROW(Server({.port = 0}, {{"a", engine, nullptr, ""}, {"a", engine, nullptr, ""}}),
               Error);
  EXPECT_THROW(Server({.address = "0.0.0.0", .port = 0}, {{"a", engine, nullptr, ""}}), Error);
}

}  // namespace
}  // namespace bakestone
