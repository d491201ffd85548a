// /v1/messages and count_tokens: the whole form, the sequence of events, every field, blocks of
// every type.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/anthropic/block_output.h"
#include "server/test_router.h"

namespace bakestone {
namespace {

using bakestone::testing::Json;
using bakestone::testing::RouterTest;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* kPath = "/v1/messages";

class MessagesTest : public RouterTest {
 protected:
  // An end of the answer cannot be forbidden in this API: the model must not draw one by itself,
  // and does not.
  static Json Body(int max_tokens = 8) {
    return {{"model", "base"},
            {"max_tokens", max_tokens},
            {"temperature", 0},
            {"messages", Json::array({{{"role", "user"}, {"content", "hello"}}})}};
  }
  Json RefusedMessage(const Json& body, int status = 400) {
    const http::Response response = Call("POST", kPath, body.dump());
    EXPECT_EQ(response.status, status) << body << response.body;
    const Json json = Json::parse(response.body);
    EXPECT_EQ(json["type"], "error");
    EXPECT_TRUE(json["error"]["type"].is_string());
    return json["error"]["message"];
  }
};

TEST_F(MessagesTest, AnswersWithTheFormThatClientsExpect) {
  const Json json = Ok(kPath, Body());
  EXPECT_EQ(json["type"], "message");
  EXPECT_EQ(json["role"], "assistant");
  EXPECT_TRUE(json["id"].get<std::string>().starts_with("msg_"));
  EXPECT_EQ(json["content"].at(0)["type"], "text");
  EXPECT_TRUE(json["stop_reason"] == "max_tokens" || json["stop_reason"] == "end_turn");
  EXPECT_TRUE(json["stop_sequence"].is_null());
  const Json again = Ok(kPath, Body());
  EXPECT_EQ(again["content"], json["content"]);
  for (const char* key : {"input_tokens", "output_tokens", "cache_creation_input_tokens",
                          "cache_read_input_tokens"}) {
    EXPECT_TRUE(json["usage"][key].is_number()) << key;
  }
}

TEST_F(MessagesTest, StreamHasTheEventsByName) {
  Json body = Body();
  const Json whole = Ok(kPath, body);
  body["stream"] = true;
  const http::Response response = Call("POST", kPath, body.dump());
  EXPECT_EQ(response.content_type, "text/event-stream");
  std::vector<std::string> types;
  std::string text;
  Json last_delta;
  for (size_t at = 0; at < response.body.size();) {
    const size_t end = response.body.find("\n\n", at), data = response.body.find("\ndata: ", at);
    const Json event = Json::parse(response.body.substr(data + 7, end - data - 7));
    EXPECT_EQ(response.body.substr(at, data - at), "event: " + event["type"].get<std::string>());
    if (types.empty() || types.back() != event["type"].get<std::string>()) {
      types.push_back(event["type"]);
    }
    if (event["type"] == "content_block_delta") text += event["delta"]["text"].get<std::string>();
    if (event["type"] == "message_start") {
      EXPECT_EQ(event["message"]["content"], Json::array());
    }
    if (event["type"] == "message_delta") last_delta = event;
    at = end + 2;
  }
  EXPECT_THAT(types, ElementsAre("message_start", "content_block_start", "content_block_delta",
                                 "content_block_stop", "message_delta", "message_stop"));
  EXPECT_EQ(text, whole["content"][0]["text"].get<std::string>());
  EXPECT_EQ(last_delta["delta"]["stop_reason"], whole["stop_reason"]);
  EXPECT_EQ(last_delta["usage"]["output_tokens"], whole["usage"]["output_tokens"]);
}

TEST_F(MessagesTest, CountTokensCountsWhatTheMessageWouldRead) {
  Json body = Body();
  body["system"] = Json::array(
      {{{"type", "text"}, {"text", "be short"}, {"cache_control", {{"type", "ephemeral"}}}}});
  const Json usage = Ok(kPath, body)["usage"];
  body.erase("max_tokens");
  EXPECT_EQ(Ok("/v1/messages/count_tokens", body)["input_tokens"].get<int>(),
            usage["input_tokens"].get<int>() + usage["cache_read_input_tokens"].get<int>());
}

TEST_F(MessagesTest, BillingHeaderOfAnAgentDoesNotReachThePrompt) {
  Json body = Body();
  body["system"] = "be short";
  const Json plain = Ok("/v1/messages/count_tokens", body);
  body["system"] =
      Json::array({{{"type", "text"}, {"text", "x-anthropic-billing-header: v=1; cch=8a31;"}},
                   {{"type", "text"}, {"text", "be short"}}});
  EXPECT_EQ(Ok("/v1/messages/count_tokens", body), plain);
  body["system"] = "x-anthropic-billing-header: cch=1\nbe short";
  EXPECT_EQ(Ok("/v1/messages/count_tokens", body), plain);
}

TEST_F(MessagesTest, MoreTokensThanTheContextHoldsAreCutToWhatFits) {
  const http::Response response = Call("POST", kPath, Body(1'000'000).dump());
  EXPECT_EQ(response.status, 200) << response.body;
}

TEST_F(MessagesTest, LastMessageOfTheAssistantIsContinued) {
  Json body = Body();
  const int64_t before = Ok("/v1/messages/count_tokens", body)["input_tokens"];
  body["messages"].push_back({{"role", "assistant"}, {"content", "Well, "}});
  EXPECT_EQ(Ok("/v1/messages/count_tokens", body)["input_tokens"], before + 6);
}

enum Outcome { kAccepted, kRefused };
struct FieldCase {
  const char* name;
  Json value;
  Outcome outcome;
};
// Every field of Anthropic's MessageCreateParams, and those that its agents send beside them.
const FieldCase kFields[] = {
    {"cache_control", {{"type", "ephemeral"}}, kAccepted},
    {"container", "x", kRefused},
    {"diagnostics", Json::object(), kAccepted},
    {"inference_geo", "eu", kAccepted},
    {"max_tokens", 0, kRefused},
    {"max_tokens", nullptr, kRefused},
    {"messages", Json::array(), kRefused},
    {"metadata", {{"user_id", "x"}}, kAccepted},
    {"output_config", {{"effort", "high"}}, kAccepted},
    {"output_config", {{"format", {{"type", "json_schema"}}}}, kRefused},
    {"output_format", {{"type", "frob"}}, kRefused},
    {"service_tier", "auto", kAccepted},
    {"speed", "fast", kAccepted},
    {"stop_sequences", Json::array({"x"}), kAccepted},
    {"stop_sequences", Json::array({""}), kRefused},
    {"stream", false, kAccepted},
    {"system", "be short", kAccepted},
    {"system", 5, kRefused},
    {"temperature", 0.5, kAccepted},
    {"temperature", -1, kRefused},
    {"thinking", {{"type", "enabled"}, {"budget_tokens", 1024}}, kAccepted},
    {"thinking", {{"type", "adaptive"}}, kAccepted},
    {"thinking", {{"type", "deep"}}, kRefused},
    {"tool_choice", {{"type", "auto"}}, kAccepted},
    {"tool_choice", {{"type", "any"}}, kRefused},
    {"tools", Json::array(), kAccepted},
    {"top_k", 5, kAccepted},
    {"top_p", 0.9, kAccepted},
    {"user_profile_id", "x", kAccepted},
    {"workspace_id", "x", kAccepted},
    {"context_management", Json::object(), kAccepted},
    {"mcp_servers", Json::array(), kAccepted},
    {"mcp_servers", Json::array({1}), kRefused},
    {"made_up_field", 1, kRefused},
};

TEST_F(MessagesTest, EveryFieldIsAcceptedOrRefusedByName) {
  for (const FieldCase& field : kFields) {
    Json body = Body(1);
    body[field.name] = field.value;
    if (field.outcome == kAccepted) {
      const http::Response response = Call("POST", kPath, body.dump());
      EXPECT_EQ(response.status, 200) << field.name << " " << field.value << response.body;
    } else {
      EXPECT_THAT(RefusedMessage(body).get<std::string>(), HasSubstr(field.name)) << field.value;
    }
  }
}

TEST_F(MessagesTest, BlocksOfAConversationWithToolsAreRead) {
  Json body = Body();
  body["messages"] = Json::parse(R"([
    {"role": "user", "content": [{"type": "text", "text": "Tide?", "cache_control": {"type": "ephemeral"}}]},
    {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm.", "signature": "x"}, {"type": "redacted_thinking", "data": "x"},
      {"type": "text", "text": "Let me see."}, {"type": "tool_use", "id": "toolu_1", "name": "get_tide", "input": {"harbour": "x"}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "2 m"}]},
      {"type": "tool_result", "tool_use_id": "toolu_1", "is_error": true, "content": "none"}, {"type": "text", "text": "Well?"}, {"type": "text", "text": "Now?"}]}])");
  body["tools"] = Json::parse(R"([
    {"name": "get_tide", "description": "x", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}},
    {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}])");
  const http::Response response = Call("POST", kPath, body.dump());
  EXPECT_EQ(response.status, 200) << response.body;
  EXPECT_THAT(response.headers,
              ::testing::Contains(::testing::Pair("X-Bakestone-Warning", HasSubstr("1 tools"))));
}

TEST_F(MessagesTest, BlocksThatCannotBeReadAreRefusedWithTheirPlace) {
  const std::pair<const char*, const char*> cases[] = {
      {R"([1])", "messages[0]"},
      {R"([{"role": "robot", "content": "x"}])", "messages[0].role"},
      {R"([{"role": "user"}])", "messages[0].content"},
      {R"([{"role": "user", "content": [1]}])", "messages[0].content[0]"},
      {R"([{"role": "user", "content": [{"type": "image", "source": {}}]}])", "image"},
      {R"([{"role": "user", "content": [{"type": "document", "source": {}}]}])", "document"},
      {R"([{"role": "user", "content": [{"type": "tool_result"}]}])", "tool_use_id"},
      {R"([{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x", "content": [{"type": "image"}]}]}])",
       "image"},
      {R"([{"role": "assistant", "content": [{"type": "tool_use", "id": "x"}]}])", "name"},
      {R"([{"role": "assistant", "content": [{"type": "server_tool_use"}]}])", "server_tool_use"},
      {R"([{"role": "user", "content": []}])", "messages"}};
  for (const auto& [messages, place] : cases) {
    Json body = Body();
    body["messages"] = Json::parse(messages);
    EXPECT_THAT(RefusedMessage(body).get<std::string>(), HasSubstr(place)) << messages;
  }
  Json body = Body();
  body["model"] = "nobody";
  RefusedMessage(body, 404);
}

TEST(BlockOutput, TellsOfThinkingTextAndCallsInOrder) {
  std::vector<std::string> events;
  anthropic::BlockOutput output([&](const char* type, Json event) {
    const std::string what = event.contains("delta")           ? event["delta"]["type"]
                             : event.contains("content_block") ? event["content_block"]["type"]
                                                               : Json("");
    events.push_back(std::string(type).substr(14) + " " + what);
  });
  api::ChatReply whole;
  whole.calls = {{"toolu_1", "f", ""}, {"toolu_2", "g", ""}};
  output.Add({.reasoning = "Hm", .text = "Yes.", .calls = {}}, whole);
  output.Add(
      {.reasoning = "",
       .text = "",
       .calls = {{.index = 0, .begins = true, .name = "f", .arguments = "{\"a\": 1}", .ends = true},
                 {.index = 1, .begins = true, .name = "g", .arguments = "{\"a\": "}}},
      whole);
  output.Finish();
  EXPECT_THAT(events, ElementsAre("start thinking", "delta thinking_delta", "delta signature_delta",
                                  "stop ", "start text", "delta text_delta", "stop ",
                                  "start tool_use", "delta input_json_delta", "stop ",
                                  "start tool_use", "delta input_json_delta", "stop "));
  const Json blocks = output.Blocks();
  EXPECT_EQ(blocks[0]["thinking"], "Hm");
  EXPECT_EQ(blocks[2]["input"]["a"], 1);
  EXPECT_EQ(blocks[3]["input"], Json::object());  // cut: no object
}

}  // namespace
}  // namespace bakestone
