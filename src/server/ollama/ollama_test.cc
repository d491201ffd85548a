// Ollama's API: chat, generate, what is served; every field, and what cannot be read.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/test_router.h"

namespace bakestone {
namespace {

using bakestone::testing::Json;
using bakestone::testing::RouterTest;
using ::testing::HasSubstr;

class OllamaTest : public RouterTest {
 protected:
  static Json Chat(int most = 8) {
    return {{"model", "base"},
            {"stream", false},
            {"messages", Json::array({{{"role", "user"}, {"content", "hello"}}})},
            {"options", {{"temperature", 0}, {"num_predict", most}}}};
  }
  static Json Generate(int most = 8) {
    return {{"model", "base:latest"},
            {"stream", false},
            {"prompt", "hello"},
            {"options", {{"temperature", 0}, {"num_predict", most}}}};
  }
  std::string RefusedMessage(const std::string& path, const Json& body, int status = 400) {
    const http::Response response = Call("POST", path, body.dump());
    EXPECT_EQ(response.status, status) << body << response.body;
    const Json json = Json::parse(response.body);
    return json["error"].is_string() ? json["error"].get<std::string>() : "";
  }
  static std::vector<Json> Lines(const std::string& stream) {
    std::vector<Json> lines;
    for (size_t at = 0; at < stream.size();) {
      const size_t end = stream.find('\n', at);
      lines.push_back(Json::parse(stream.substr(at, end - at)));
      at = end + 1;
    }
    return lines;
  }
};

TEST_F(OllamaTest, ChatAnswersWholeAndInLines) {
  Json body = Chat();
  const Json whole = Ok("/api/chat", body);
  EXPECT_EQ(whole["message"]["role"], "assistant");
  EXPECT_EQ(whole["done"], true);
  EXPECT_TRUE(whole["done_reason"] == "stop" || whole["done_reason"] == "length");
  for (const char* key : {"total_duration", "load_duration", "prompt_eval_count",
                          "prompt_eval_duration", "eval_count", "eval_duration"}) {
    EXPECT_TRUE(whole[key].is_number_integer()) << key;
  }
  body.erase("stream");
  const http::Response response = Call("POST", "/api/chat", body.dump());
  EXPECT_EQ(response.content_type, "application/x-ndjson");
  const std::vector<Json> lines = Lines(response.body);
  std::string text;
  for (const Json& line : lines) {
    text += line["message"]["content"].get<std::string>();
    EXPECT_EQ(line["done"], &line == &lines.back());
  }
  EXPECT_EQ(text, whole["message"]["content"].get<std::string>());
  EXPECT_EQ(lines.back()["eval_count"], whole["eval_count"]);
}

TEST_F(OllamaTest, GenerateIsAChatOfOneMessageUnlessRaw) {
  const Json generated = Ok("/api/generate", Generate());
  EXPECT_EQ(generated["response"], Ok("/api/chat", Chat())["message"]["content"]);
  EXPECT_EQ(generated["model"], "base:latest");
  Json body = Generate();
  body["raw"] = true;
  const Json raw = Ok("/api/generate", body);
  EXPECT_LT(raw["prompt_eval_count"].get<int>(), generated["prompt_eval_count"].get<int>());
  const Json completion =
      Ok("/v1/completions",
         {{"model", "base"}, {"prompt", "hello"}, {"max_tokens", 8}, {"temperature", 0}});
  EXPECT_EQ(raw["response"], completion["choices"][0]["text"]);
}

TEST_F(OllamaTest, NothingToSayLoads) {
  EXPECT_EQ(Ok("/api/generate", {{"model", "base"}})["done_reason"], "load");
  EXPECT_EQ(Ok("/api/chat", {{"model", "base"}, {"messages", Json::array()}})["done_reason"],
            "load");
}

TEST_F(OllamaTest, TellsWhatIsServed) {
  const Json tags = Json::parse(Call("GET", "/api/tags").body)["models"];
  ASSERT_EQ(tags.size(), 2u);
  EXPECT_EQ(tags[1]["details"]["parent_model"], "base");
  EXPECT_NE(tags[0]["digest"], tags[1]["digest"]);
  EXPECT_EQ(Json::parse(Call("GET", "/api/ps").body)["models"].at(0)["context_length"],
            engine_->max_context());
  const Json show = Ok("/api/show", {{"model", "base:latest"}});
  EXPECT_EQ(show["capabilities"].at(0), "completion");
  EXPECT_EQ(show["model_info"]["general.architecture"], engine_->model().config.architecture);
  EXPECT_THAT(show["template"].get<std::string>(), HasSubstr("<|im_start|>"));
  RefusedMessage("/api/show", {{"model", "nobody"}}, 404);
  RefusedMessage("/api/show", {{"model", "base"}, {"verbose", "yes"}}, 400);
  RefusedMessage("/api/show", {{"model", "base"}, {"options", 1}}, 400);
  const std::string version = Json::parse(Call("GET", "/api/version").body)["version"];
  EXPECT_EQ(version.find_first_not_of("0123456789."), std::string::npos);
}

enum Outcome { kAccepted, kRefused };
struct FieldCase {
  const char* name;
  Json value;
  Outcome outcome;
};
const FieldCase kShared[] = {
    {"format", "", kAccepted},
    {"format", "yaml", kRefused},
    {"keep_alive", "5m", kAccepted},
    {"keep_alive", 0, kAccepted},
    {"logprobs", true, kAccepted},
    {"top_logprobs", 3, kAccepted},
    {"top_logprobs", 21, kRefused},
    {"think", true, kAccepted},
    {"think", "low", kAccepted},
    {"think", "much", kRefused},
    {"truncate", true, kAccepted},
    {"shift", true, kAccepted},
    {"options", 5, kRefused},
    {"options", {{"made_up", 1}}, kRefused},
    {"options", {{"mirostat", 1}}, kRefused},
    {"options",
     {{"num_ctx", 4096}, {"num_gpu", 1}, {"mirostat", 0}, {"repeat_last_n", 64}},
     kAccepted},
    {"options",
     {{"temperature", 0.5},
      {"top_k", 5},
      {"top_p", 0.5},
      {"min_p", 0.1},
      {"seed", 3},
      {"num_predict", 2},
      {"stop", Json::array({"x"})},
      {"repeat_penalty", 1.1},
      {"presence_penalty", 0.1},
      {"frequency_penalty", 0.1}},
     kAccepted},
    {"options", {{"num_predict", -5}}, kRefused},
    {"made_up_field", 1, kRefused},
};

TEST_F(OllamaTest, EveryFieldIsAcceptedOrRefusedByName) {
  const auto check = [&](const char* path, Json body, const FieldCase& field) {
    body[field.name] = field.value;
    if (field.outcome == kAccepted) {
      EXPECT_EQ(Call("POST", path, body.dump()).status, 200) << field.name << " " << field.value;
    } else {
      EXPECT_THAT(RefusedMessage(path, body), HasSubstr(field.name)) << field.value;
    }
  };
  for (const FieldCase& field : kShared) {
    check("/api/chat", Chat(2), field);
    check("/api/generate", Generate(2), field);
  }
  for (const FieldCase& field :
       std::initializer_list<FieldCase>{{"suffix", "x", kRefused},
                                        {"suffix", "", kAccepted},
                                        {"template", "x", kRefused},
                                        {"context", Json::array({1}), kRefused},
                                        {"images", Json::array({"x"}), kRefused},
                                        {"images", Json::array(), kAccepted},
                                        {"system", "be short", kAccepted},
                                        {"width", 5, kAccepted}}) {
    check("/api/generate", Generate(2), field);
  }
}

TEST_F(OllamaTest, ConversationsWithToolsAreRead) {
  Json body = Chat();
  body["messages"] = Json::parse(R"([
    {"role": "system", "content": "Metres."}, {"role": "user", "content": "Tide?"},
    {"role": "assistant", "content": "", "thinking": "Hm.", "tool_calls": [{"function": {"name": "get_tide", "arguments": {"harbour": "x"}}}]},
    {"role": "tool", "content": "2 m", "tool_name": "get_tide"}])");
  body["tools"] = Json::parse(
      R"([{"type": "function", "function": {"name": "get_tide", "description": "x", "parameters": {"type": "object"}}}])");
  EXPECT_EQ(Call("POST", "/api/chat", body.dump()).status, 200);
  const std::pair<const char*, const char*> cases[] = {
      {R"([1])", "messages[0]"},
      {R"([{"role": "robot"}])", "messages[0].role"},
      {R"([{"role": "user", "content": "x", "images": ["x"]}])", "images"},
      {R"([{"role": "assistant", "tool_calls": [{"function": {"arguments": {}}}]}])",
       "function.name"},
      {R"([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}])",
       "function.arguments"}};
  for (const auto& [messages, place] : cases) {
    body["messages"] = Json::parse(messages);
    EXPECT_THAT(RefusedMessage("/api/chat", body), HasSubstr(place)) << messages;
  }
}

}  // namespace
}  // namespace bakestone
