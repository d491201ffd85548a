// Embeddings by OpenAI's and Ollama's routes: their forms, every field, limits, hostile input,
// keys, metrics, departures.
#include <cstring>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/embedder.h"
#include "engine/test_encoder.h"
#include "server/api/embedding_answer.h"
#include "server/server.h"
#include "server/test_client.h"
#include "server/test_router.h"

namespace bakestone {
namespace {

using namespace std::chrono_literals;
using bakestone::testing::EmbeddingPlug;
using bakestone::testing::EnginePlug;
using bakestone::testing::Json;
using bakestone::testing::kTestCls;
using bakestone::testing::kTestLetterA;
using bakestone::testing::kTestSep;
using bakestone::testing::MakeTestEmbeddingLoop;
using bakestone::testing::Recorder;
using bakestone::testing::RouterTest;
using bakestone::testing::SharedTestEncoder;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::Pair;

constexpr const char* kOpenAi = "/v1/embeddings";

// As `bakestone embed` computes it.
std::vector<float> VectorOf(const std::string& text) {
  ThreadPool pool(2);
  return Embedder(SharedTestEncoder(), ChooseKernels(nullptr), pool)
      .Embed(std::span(&text, 1))
      .front();
}

std::vector<float> FromBase64(const std::string& text) {
  const std::string_view digits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  uint32_t group = 0;
  int bits = 0;
  for (const char c : text) {
    if (c == '=') break;
    group = group << 6 | static_cast<uint32_t>(digits.find(c));
    bits += 6;
    if (bits < 8) continue;
    bits -= 8;
    bytes += static_cast<char>(group >> bits & 0xFF);
  }
  std::vector<float> vector(bytes.size() / sizeof(float));
  if (!vector.empty()) {
    std::memcpy(vector.data(), bytes.data(), vector.size() * sizeof(float));
  }
  return vector;
}

class EmbeddingsTest : public RouterTest {
 protected:
  explicit EmbeddingsTest(EmbeddingLoopOptions options = {})
      : RouterTest({}, MakeTestEmbeddingLoop(options)) {}

  Json Embed(const Json& input, Json more = Json::object()) {
    more["model"] = "encoder";
    more["input"] = input;
    return Ok(kOpenAi, more);
  }
  std::string RefusedInput(const Json& input, int status = 400) {
    const Json error =
        Refused(status, kOpenAi, Json{{"model", "encoder"}, {"input", input}}.dump());
    EXPECT_EQ(error["param"], "input") << error;
    return error["message"].get<std::string>();
  }
};

TEST_F(EmbeddingsTest, OpenAisAnswerHasTheBitsOfTheVerb) {
  const Json json = Embed(Json::array({"abc d", "ab", std::string(90, 'x')}));
  EXPECT_EQ(json["object"], "list");
  EXPECT_EQ(json["model"], "encoder");
  EXPECT_EQ(json["usage"], (Json{{"prompt_tokens", 6 + 4 + 92}, {"total_tokens", 6 + 4 + 92}}));
  ASSERT_EQ(json["data"].size(), 3u);
  const std::string texts[] = {"abc d", "ab", std::string(90, 'x')};
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(json["data"][i]["object"], "embedding");
    EXPECT_EQ(json["data"][i]["index"], i);
    for (const Json& number : json["data"][i]["embedding"]) EXPECT_TRUE(number.is_number_float());
    EXPECT_EQ(json["data"][i]["embedding"].get<std::vector<float>>(), VectorOf(texts[i]));
  }
}

TEST_F(EmbeddingsTest, Base64IsTheSameNumbers) {
  const Json numbers = Embed(Json::array({"abc d", "ab"})),
             text = Embed(Json::array({"abc d", "ab"}), {{"encoding_format", "base64"}});
  for (size_t i = 0; i < 2; ++i) {
    const std::vector<float> vector = FromBase64(text["data"][i]["embedding"].get<std::string>());
    EXPECT_EQ(vector, VectorOf(i == 0 ? "abc d" : "ab"));
    EXPECT_EQ(numbers["data"][i]["embedding"].get<std::vector<double>>(),
              std::vector<double>(vector.begin(), vector.end()));
  }
}

TEST(Base64, EndsAreFilledUp) {
  for (size_t count : {0, 1, 2, 3, 4}) {  // 0 to 16 bytes: every rest of 3
    const std::vector<float> vector(count, -1.5f);
    std::string body;
    api::AppendBase64(vector, &body);
    const std::string text = Json::parse(body).get<std::string>();
    EXPECT_EQ(text.size(), (count * 4 + 2) / 3 * 4);
    EXPECT_EQ(FromBase64(text), vector);
  }
}

TEST(Numbers, AreJsonNumbersWithAFraction) {
  std::string body;
  api::AppendNumbers(std::vector<float>{1, -0.0f, 0.1f, 1e-30f, -0.25f}, &body);
  EXPECT_EQ(body, "[1.0,-0.0,0.10000000149011612,1.0000000031710769e-30,-0.25]");
}

TEST_F(EmbeddingsTest, InputComesInFourForms) {
  const std::vector<int32_t> ids = SharedTestEncoder()->tokenizer.Encode("abc d");
  ASSERT_EQ(ids.front(), kTestCls);
  ASSERT_EQ(ids.back(), kTestSep);
  const Json one = Embed("abc d")["data"];
  EXPECT_EQ(Embed(ids)["data"], one);
  EXPECT_EQ(Embed(Json::array({"abc d"}))["data"], one);
  EXPECT_EQ(Embed(Json::array({ids}))["data"], one);
  EXPECT_EQ(Embed(Json::array({"ab", ids}))["data"][1]["embedding"], one[0]["embedding"]);
  EXPECT_EQ(Embed("ABC  d")["data"], one);  // the tokenizer's own rules
}

enum Outcome { kTaken, kRefused };

TEST_F(EmbeddingsTest, EveryOfficialFieldIsHonouredRefusedByNameOrWithoutEffect) {
  const Json plain = Embed("ab");
  const std::tuple<const char*, Json, Outcome> fields[] = {{"encoding_format", "float", kTaken},
                                                           {"encoding_format", "base32", kRefused},
                                                           {"encoding_format", 5, kRefused},
                                                           {"dimensions", 32, kTaken},
                                                           {"dimensions", 16, kRefused},
                                                           {"dimensions", 64, kRefused},
                                                           {"dimensions", "32", kRefused},
                                                           {"dimensions", 0, kRefused},
                                                           {"user", "u", kTaken},
                                                           {"user", 5, kRefused},
                                                           {"made_up", 1, kRefused},
                                                           {"stream", true, kRefused}};
  for (const auto& [name, value, outcome] : fields) {
    Json body = {{"model", "encoder"}, {"input", "ab"}, {name, value}};
    if (outcome == kTaken) {
      EXPECT_EQ(Ok(kOpenAi, body), plain) << name << value;
    } else {
      EXPECT_EQ(Refused(400, kOpenAi, body.dump())["param"], name) << value;
    }
  }
}

TEST_F(EmbeddingsTest, HostileInputIsNamed) {
  const std::pair<Json, const char*> cases[] = {
      {nullptr, "expected a string"},
      {5, "expected a string"},
      {true, "expected a string"},
      {Json::object(), "expected a string"},
      {"", "input: expected a text that is not empty"},
      {Json::array(), "expected a string"},
      {Json::array({"a", ""}), "input[1]: expected a text that is not empty"},
      {Json::array({Json::array()}), "at least one token"},
      {Json::array({"a", 5}), "found number"},
      {Json::array({"a", nullptr}), "found null"},
      {Json::array({4, "a"}), "from 0 to 55, found string"},
      {Json::array({-1}), "from 0 to 55, found -1"},
      {Json::array({56}), "from 0 to 55, found 56"},
      {Json::array({4.0}), "from 0 to 55, found 4.0"},
      {Json::array({UINT64_MAX}), "found 18446744073709551615"},
      {Json::array({4, 1e308}), "from 0 to 55"},
      {Json::array({Json::array({4}), Json::array({4, 99})}), "from 0 to 55, found 99"},
      {Json::array({Json::array({Json::array({4})})}), "from 0 to 55, found array"}};
  for (const auto& [input, message] : cases) {
    EXPECT_THAT(RefusedInput(input), HasSubstr(message)) << input;
  }
  EXPECT_EQ(Refused(400, kOpenAi, R"({"model": "encoder"})")["param"], "input");
  for (const char* body :
       {R"({"model": "encoder", "input": NaN})", R"({"model": "encoder", "input": [NaN]})",
        "{\"model\": \"encoder\", \"input\": \"\xff\"}",
        R"({"model": "encoder", "input": [1e999]})", R"({"model": "encoder", "input": "\ud800"})",
        "[]", ""}) {
    const Json error = Refused(400, kOpenAi, body);
    EXPECT_EQ(error["code"], "invalid_json") << body;
    EXPECT_THAT(error["message"], Not(HasSubstr("json.exception"))) << body;
  }
  EXPECT_EQ(Embed("NaN")["data"][0]["embedding"].size(), 32u);
  EXPECT_EQ(Embed(std::string("a\0b \xE2\x82\xAC", 7))["data"][0]["embedding"].size(), 32u);
}

TEST_F(EmbeddingsTest, LimitsNameBothNumbers) {
  std::string million = R"({"model": "encoder", "input": ["a")";
  for (int i = 1; i < 1'000'000; ++i) million += ",\"a\"";
  EXPECT_THAT(Refused(400, kOpenAi, million + "]}")["message"].get<std::string>(),
              HasSubstr("at most 2048 texts, found 1000000"));
  EXPECT_EQ(Embed(Json(std::vector<std::string>(2048, "a")))["data"].size(), 2048u);
  EXPECT_THAT(RefusedInput(Json(std::vector<std::string>(2049, "a"))),
              HasSubstr("at most 2048 texts, found 2049"));

  std::string fits, longer;  // a word is a token here
  for (int i = 0; i < 126; ++i) fits += "a ";
  longer = fits + "a";
  EXPECT_EQ(Embed(fits)["usage"]["prompt_tokens"], 128);
  EXPECT_EQ(Embed(std::vector<int32_t>(128, kTestLetterA))["usage"]["prompt_tokens"], 128);
  const Json error = Refused(
      400, kOpenAi, Json{{"model", "encoder"}, {"input", Json::array({"a", longer})}}.dump());
  EXPECT_THAT(error["message"].get<std::string>(),
              HasSubstr("input[1]: expected at most 128 tokens, the longest text, found 129"));
  EXPECT_EQ(error["code"], "context_length_exceeded");
  EXPECT_EQ(error["param"], "input");
  EXPECT_THAT(RefusedInput(Json(std::vector<std::vector<int32_t>>(
                  2048, std::vector<int32_t>(128 + 20, kTestLetterA)))),
              HasSubstr("at most 128 tokens"));
}

class ShortRequestsTest : public EmbeddingsTest {
 protected:
  ShortRequestsTest() : EmbeddingsTest({.max_request_tokens = 100, .max_requests = 2}) {}
};

TEST_F(ShortRequestsTest, TokensOfAllTextsAreLimited) {
  EXPECT_THAT(RefusedInput(Json(
                  std::vector<std::vector<int32_t>>(2, std::vector<int32_t>(51, kTestLetterA)))),
              HasSubstr("at most 100 tokens in all texts together, found 102"));
}

TEST_F(ShortRequestsTest, FullQueueGets429AndDepartedClientsMakeRoom) {
  const std::string body = R"({"model": "encoder", "input": ["ab", "c"]})";
  EmbeddingPlug plug(*embedder_);
  const auto left = Begin("POST", kOpenAi, body);
  for (const char* path : {kOpenAi, "/api/embed", "/api/embeddings"}) {
    const http::Response refused = Call("POST", path, body);
    EXPECT_EQ(refused.status, 429) << path;
    EXPECT_THAT(refused.headers, Contains(Pair("Retry-After", ::testing::_)));
  }
  EXPECT_EQ(Call("GET", "/ready").status, 503);
  EXPECT_EQ(Call("GET", "/health").status, 200);
  EXPECT_EQ(Call("POST", "/v1/chat/completions", ChatBody(2).dump()).status,
            200);  // has a queue of its own
  left->Leave();
  plug.Pull();
  while (embedder_->Load().running + embedder_->Load().waiting > 0) {
    std::this_thread::sleep_for(1ms);
  }
  EXPECT_EQ(embedder_->Load().cancelled, 1);
  EXPECT_EQ(Call("GET", "/ready").status, 200);
  EXPECT_EQ(Call("POST", kOpenAi, body).status, 200);
  EXPECT_THAT(Call("GET", "/metrics").body,
              HasSubstr("bakestone_requests_total{route=\"/v1/embeddings\",status=\"499\"} 1\n"));
}

TEST_F(EmbeddingsTest, ModelsDoWhatTheyCan) {
  const Json listed = Json::parse(Call("GET", "/v1/models").body)["data"];
  ASSERT_EQ(listed.size(), 3u);
  EXPECT_EQ(listed[2]["id"], "encoder");
  EXPECT_EQ(listed[2]["max_model_len"], 128);
  EXPECT_EQ(Json::parse(Call("GET", "/v1/models/encoder").body)["id"], "encoder");
  const Json writes = Refused(400, kOpenAi, R"({"model": "tuned", "input": "x"})");
  EXPECT_EQ(writes["code"], "unsupported_operation");
  EXPECT_EQ(writes["param"], "model");
  EXPECT_THAT(writes["message"].get<std::string>(), HasSubstr("--embeddings"));
  EXPECT_EQ(Refused(404, kOpenAi, R"({"model": "nobody", "input": "x"})")["code"],
            "model_not_found");
  Json chat = ChatBody();
  chat["model"] = "encoder";
  for (const char* path : {"/v1/chat/completions", "/v1/completions", "/v1/responses"}) {
    const Json error = Refused(400, path, chat.dump());
    EXPECT_EQ(error["code"], "unsupported_operation");
    EXPECT_THAT(error["message"].get<std::string>(),
                HasSubstr("'encoder' computes embeddings and does not write"));
  }
  for (const char* path : {"/v1/messages", "/v1/messages/count_tokens"}) {
    EXPECT_EQ(Json::parse(Call("POST", path, chat.dump()).body)["error"]["type"],
              "invalid_request_error");
  }
  for (const char* path : {"/api/chat", "/api/generate"}) {
    EXPECT_THAT(Json::parse(Call("POST", path, R"({"model": "encoder:latest"})").body)["error"]
                    .get<std::string>(),
                HasSubstr("does not write"));
  }
  const Json tokens = Ok("/tokenize", {{"model", "encoder"}, {"prompt", "ab"}});
  EXPECT_EQ(tokens["max_model_len"], 128);
  EXPECT_EQ(tokens["count"], 4);
  EXPECT_EQ(Call("PUT", "/admin/adapters/x", R"({"file": "y", "base": "encoder"})").status, 400);
}

TEST_F(EmbeddingsTest, AloneItIsAServerToo) {
  const Router router({{.id = "encoder", .embedder = embedder_}});
  const auto call = [&](const char* method, const char* path, const std::string& body) {
    const auto recorder = std::make_shared<Recorder>();
    http::Request request;
    request.method = method;
    request.path = path;
    request.body = body;
    router.Handle(request, recorder);
    return recorder->Wait();
  };
  EXPECT_EQ(call("POST", kOpenAi, R"({"model": "encoder", "input": "ab"})").status, 200);
  EXPECT_EQ(call("GET", "/ready", "").status, 200);
  EXPECT_THAT(call("GET", "/metrics", "").body, HasSubstr("bakestone_waiting_requests{"));
  EXPECT_EQ(call("GET", "/tokenizer_info", "").status, 200);
  Json chat = ChatBody();
  EXPECT_EQ(call("POST", "/v1/chat/completions", chat.dump()).status, 404);
  chat["model"] = "encoder";
  EXPECT_EQ(call("POST", "/v1/chat/completions", chat.dump()).status, 400);
  EXPECT_THROW(router.models().Put("x", "y"), Error);
  EXPECT_EQ(embedder_->Drain(0s), true);
  EXPECT_EQ(call("POST", kOpenAi, R"({"model": "encoder", "input": "ab"})").status, 503);
  EXPECT_EQ(call("GET", "/health", "").status, 503);
}

TEST_F(EmbeddingsTest, DefaultsAreOfTheRightKind) {
  const auto status = [&](const std::string& default_model, const char* path, Json body) {
    const Router router(Served(), {.default_model = default_model});
    const auto recorder = std::make_shared<Recorder>();
    http::Request request;
    request.method = "POST";
    request.path = path;
    body["model"] = "text-embedding-9";
    request.body = body.dump();
    router.Handle(request, recorder);
    return recorder->Wait().status;
  };
  EXPECT_EQ(status("encoder", kOpenAi, {{"input", "ab"}}), 200);
  EXPECT_EQ(status("encoder", "/v1/chat/completions", ChatBody(2)), 404);
  EXPECT_EQ(status("base", kOpenAi, {{"input", "ab"}}), 404);
  EXPECT_EQ(status("base", "/v1/chat/completions", ChatBody(2)), 200);
}

TEST_F(EmbeddingsTest, KeysLimitsAndMetricsAreThoseOfTheOtherRoutes) {
  const auto key = [](http::Key key) { return std::make_shared<const http::Key>(std::move(key)); };
  const std::string body = R"({"model": "encoder", "input": ["ab", "c"]})";
  const auto status = [&](std::shared_ptr<const http::Key> of, const char* path = kOpenAi) {
    return Begin("POST", path, body, std::move(of))->Wait().status;
  };
  EXPECT_EQ(status(key({.tenant = "a", .models = {"base"}})), 404);
  EXPECT_EQ(status(key({.tenant = "a", .models = {"base"}}), "/api/embed"), 404);
  EXPECT_EQ(status(key({.tenant = "b", .name = "team", .models = {"encoder"}})), 200);
  const auto alias = Begin("POST", kOpenAi, R"({"model": "text-embedding-3-small", "input": "ab"})",
                           key({.tenant = "c", .aliases = {{"text-embedding-3-small", "encoder"}}}))
                         ->Wait();
  EXPECT_EQ(alias.status, 200);
  EXPECT_THAT(alias.headers, Contains(Pair("X-Request-Id", ::testing::StartsWith("req_"))));
  const auto few = key({.tenant = "d", .tokens_per_minute = 5});  // of which the request takes 7
  EXPECT_EQ(status(few), 200);
  EXPECT_EQ(status(few), 429);
  EXPECT_EQ(status(few, "/api/embed"), 429);
  const auto one = key({.tenant = "e", .max_requests = 1});
  {
    EmbeddingPlug plug(*embedder_);
    const auto first = Begin("POST", kOpenAi, body, one);
    EXPECT_EQ(status(one), 429);
    plug.Pull();
    EXPECT_EQ(first->Wait().status, 200);
  }
  const std::string metrics = Call("GET", "/metrics").body;
  EXPECT_THAT(
      metrics,
      HasSubstr("bakestone_tokens_total{model=\"encoder\",key=\"team\",kind=\"prompt\"} 7\n"));
  EXPECT_THAT(metrics,
              HasSubstr("bakestone_requests_total{route=\"/v1/embeddings\",status=\"200\"} 4\n"));
  EXPECT_THAT(metrics, HasSubstr("bakestone_steps_total{engine=\"encoder\"}"));
  EXPECT_THAT(metrics, HasSubstr("bakestone_kv_pages{engine=\"base\"}"));
  EXPECT_THAT(metrics, Not(HasSubstr("bakestone_kv_pages{engine=\"encoder\"}")));
}

class OllamaEmbedTest : public EmbeddingsTest {
 protected:
  static constexpr const char* kPath = "/api/embed";
  std::string Refusal(const char* path, const Json& body) {
    const http::Response response = Call("POST", path, body.dump());
    EXPECT_EQ(response.status, 400) << response.body;
    return Json::parse(response.body)["error"].get<std::string>();
  }
};

TEST_F(OllamaEmbedTest, AnswersInOllamasForm) {
  const Json json =
      Ok(kPath, {{"model", "encoder:latest"}, {"input", Json::array({"abc d", "ab"})}});
  EXPECT_EQ(json["model"], "encoder:latest");
  EXPECT_EQ(json["embeddings"].get<std::vector<std::vector<float>>>(),
            (std::vector<std::vector<float>>{VectorOf("abc d"), VectorOf("ab")}));
  EXPECT_EQ(json["prompt_eval_count"], 10);
  EXPECT_GT(json["total_duration"], 0);
  EXPECT_TRUE(json["load_duration"].is_number_integer());
  EXPECT_EQ(
      Ok(kPath, {{"model", "encoder"}, {"input", "ab"}})["embeddings"][0].get<std::vector<float>>(),
      VectorOf("ab"));
  EXPECT_EQ(Ok("/api/embeddings", {{"model", "encoder"}, {"prompt", "ab"}})["embedding"]
                .get<std::vector<float>>(),
            VectorOf("ab"));
}

TEST_F(OllamaEmbedTest, NothingToEmbedLoads) {
  for (const Json& input : {Json(nullptr), Json(""), Json::array()}) {
    EXPECT_EQ(Ok(kPath, {{"model", "encoder"}, {"input", input}})["embeddings"], Json::array());
  }
  EXPECT_EQ(Ok("/api/embeddings", {{"model", "encoder"}})["embedding"], Json::array());
}

TEST_F(OllamaEmbedTest, LongTextsLoseTheirEndUnlessToldOtherwise) {
  std::string fits = "b ", longer;
  for (int i = 0; i < 125; ++i) fits += "a ";
  longer = fits + "c d e";
  const Json whole = Ok(kPath, {{"model", "encoder"}, {"input", fits}}),
             cut = Ok(kPath, {{"model", "encoder"}, {"input", longer}});
  EXPECT_EQ(cut["embeddings"], whole["embeddings"]);  // the model's last token is still there
  EXPECT_EQ(cut["prompt_eval_count"], 128);
  EXPECT_EQ(Ok("/api/embeddings", {{"model", "encoder"}, {"prompt", longer}})["embedding"],
            whole["embeddings"][0]);
  EXPECT_THAT(Refusal(kPath, {{"model", "encoder"}, {"input", longer}, {"truncate", false}}),
              HasSubstr("expected at most 128 tokens, the longest text, found 131"));
}

TEST_F(OllamaEmbedTest, EveryFieldIsAcceptedOrRefusedByName) {
  const std::tuple<const char*, Json, Outcome> fields[] = {
      {"truncate", false, kTaken},
      {"truncate", "yes", kRefused},
      {"keep_alive", "5m", kTaken},
      {"options", {{"num_ctx", 64}, {"temperature", 0}}, kTaken},
      {"options", {{"made_up", 1}}, kRefused},
      {"options", 5, kRefused},
      {"dimensions", 32, kTaken},
      {"dimensions", 8, kRefused},
      {"input", 5, kRefused},
      {"input", Json::array({"a", 5}), kRefused},
      {"input", Json::object(), kRefused},
      {"made_up", 1, kRefused}};
  for (const auto& [name, value, outcome] : fields) {
    Json body = {{"model", "encoder"}, {"input", "ab"}};
    body[name] = value;
    if (outcome == kTaken) {
      EXPECT_EQ(Ok(kPath, body)["embeddings"][0].get<std::vector<float>>(), VectorOf("ab")) << name;
    } else {
      EXPECT_THAT(Refusal(kPath, body), HasSubstr(name)) << value;
    }
  }
  EXPECT_THAT(Refusal("/api/embeddings", {{"model", "encoder"}, {"prompt", 5}}),
              HasSubstr("prompt"));
  EXPECT_THAT(Refusal(kPath, {{"model", "base"}, {"input", "x"}}), HasSubstr("'base' writes"));
}

TEST_F(OllamaEmbedTest, ShowTellsWhatItIs) {
  const Json show = Ok("/api/show", {{"model", "encoder"}});
  EXPECT_EQ(show["capabilities"], Json::array({"embedding"}));
  EXPECT_EQ(show["model_info"]["general.architecture"], "bert");
  EXPECT_EQ(show["model_info"]["bert.embedding_length"], 32);
  EXPECT_EQ(Ok("/api/show", {{"model", "base"}})["capabilities"][0], "completion");
  EXPECT_EQ(Json::parse(Call("GET", "/api/tags").body)["models"].at(2)["details"]["family"],
            "bert");
  EXPECT_EQ(Json::parse(Call("GET", "/api/ps").body)["models"].at(2)["context_length"], 128);
}

TEST_F(EmbeddingsTest, StopRefusesBothKindsAtOnceAndFinishesWhatWasAdmitted) {
  const std::vector<ServedModel> served = Served();
  Server server({.port = 0}, served);
  bakestone::testing::RawClient client(server.port());
  EmbeddingPlug plug(*embedder_);
  client.Send(bakestone::testing::Post(kOpenAi, R"({"model": "encoder", "input": "ab"})"));
  while (embedder_->Load().waiting == 0) std::this_thread::sleep_for(1ms);
  bool all = false;
  {
    EnginePlug other(*engine_);
    std::thread stop([&] { all = server.Stop(300s); });
    while (!engine_->Draining() || !embedder_->Draining()) {
      std::this_thread::sleep_for(1ms);  // neither waits for the other
    }
    other.Pull();
    plug.Pull();
    stop.join();
  }
  EXPECT_TRUE(all);
  const std::string response = client.ReadResponse();
  EXPECT_EQ(bakestone::testing::StatusOf(response), 200);
  EXPECT_EQ(Json::parse(bakestone::testing::BodyOf(response))["data"][0]["embedding"]
                .get<std::vector<float>>(),
            VectorOf("ab"));
}

}  // namespace
}  // namespace bakestone
