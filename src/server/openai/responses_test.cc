// /v1/responses: the whole form, the sequence of events, every field, items of every type, stored
// answers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/openai/response_output.h"
#include "server/test_router.h"

namespace bakestone {
namespace {

using bakestone::testing::Json;
using bakestone::testing::RouterTest;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* kPath = "/v1/responses";

class ResponsesTest : public RouterTest {
 protected:
  static Json Body(int max_tokens = 8) {
    return {{"model", "base"},
            {"input", "hello"},
            {"max_output_tokens", max_tokens},
            {"temperature", 0},
            {"ignore_eos", true}};
  }
  static std::vector<Json> Events(const std::string& stream) {
    std::vector<Json> events;
    for (size_t at = 0; at < stream.size();) {
      const size_t end = stream.find("\n\n", at), data = stream.find("\ndata: ", at);
      events.push_back(Json::parse(stream.substr(data + 7, end - data - 7)));
      EXPECT_EQ(stream.substr(at, data - at), "event: " + events.back()["type"].get<std::string>());
      EXPECT_EQ(events.back()["sequence_number"], events.size() - 1);
      at = end + 2;
    }
    return events;
  }
  static std::string TextOf(const Json& response) {
    return response["output"].at(0)["content"].at(0)["text"];
  }
};

TEST_F(ResponsesTest, AnswersWithTheFormThatClientsExpect) {
  const Json json = Ok(kPath, Body());
  EXPECT_EQ(json["object"], "response");
  EXPECT_EQ(json["status"], "incomplete");
  EXPECT_EQ(json["incomplete_details"]["reason"], "max_output_tokens");
  for (const char* key : {"id", "created_at", "error", "instructions", "metadata", "model",
                          "parallel_tool_calls", "temperature", "tool_choice", "tools", "top_p",
                          "usage", "text", "truncation", "reasoning", "previous_response_id"}) {
    EXPECT_TRUE(json.contains(key)) << key;
  }
  const Json& item = json["output"].at(0);
  EXPECT_EQ(item["type"], "message");
  EXPECT_EQ(item["role"], "assistant");
  EXPECT_EQ(item["content"].at(0)["type"], "output_text");
  EXPECT_EQ(json["usage"]["output_tokens"], 8);
  EXPECT_EQ(json["usage"]["total_tokens"], json["usage"]["input_tokens"].get<int>() + 8);
  const Json chat = Ok("/v1/chat/completions", ChatBody());
  EXPECT_EQ(TextOf(json), chat["choices"][0]["message"]["content"].get<std::string>());
}

TEST_F(ResponsesTest, StreamHasTheWholeSequenceOfEvents) {
  const Json whole = Ok(kPath, Body());
  Json body = Body();
  body["stream"] = true;
  const http::Response response = Call("POST", kPath, body.dump());
  EXPECT_EQ(response.content_type, "text/event-stream");
  const std::vector<Json> events = Events(response.body);
  std::vector<std::string> types;
  std::string text;
  for (const Json& event : events) {
    if (types.empty() || types.back() != event["type"].get<std::string>()) {
      types.push_back(event["type"]);
    }
    if (event["type"] == "response.output_text.delta") {
      text += event["delta"].get<std::string>();
      EXPECT_EQ(event["output_index"], 0);
      EXPECT_EQ(event["content_index"], 0);
    }
  }
  EXPECT_THAT(types,
              ElementsAre("response.created", "response.in_progress", "response.output_item.added",
                          "response.content_part.added", "response.output_text.delta",
                          "response.output_text.done", "response.content_part.done",
                          "response.output_item.done", "response.incomplete"));
  EXPECT_EQ(text, TextOf(whole));
  EXPECT_EQ(TextOf(events.back()["response"]), text);
  EXPECT_EQ(events.back()["response"]["output"][0], events[events.size() - 2]["item"]);
  EXPECT_EQ(events.back()["response"]["usage"]["output_tokens"], 8);
}

TEST_F(ResponsesTest, LogprobsComeWithTheText) {
  Json body = Body(4);
  body["include"] = Json::array({"message.output_text.logprobs"});
  body["top_logprobs"] = 2;
  const Json part = Ok(kPath, body)["output"][0]["content"][0];
  ASSERT_EQ(part["logprobs"].size(), 4u);
  EXPECT_EQ(part["logprobs"][0]["top_logprobs"].size(), 2u);
  EXPECT_TRUE(part["logprobs"][0]["bytes"].is_array());
}

TEST_F(ResponsesTest, ConversationIsGoneOnFromItsId) {
  const Json first = Ok(kPath, Body());
  Json next = Body();
  next["input"] = "again";
  next["previous_response_id"] = first["id"];
  const Json second = Ok(kPath, next);
  Json whole = Body();
  whole["input"] =
      Json::array({{{"role", "user"}, {"content", "hello"}},
                   first["output"][0],
                   {{"role", "user"},
                    {"content", Json::array({{{"type", "input_text"}, {"text", "again"}}})}}});
  const Json stateless = Ok(kPath, whole);
  EXPECT_EQ(second["usage"]["input_tokens"], stateless["usage"]["input_tokens"]);
  EXPECT_EQ(TextOf(second), TextOf(stateless));

  const std::string path = std::string(kPath) + "/" + first["id"].get<std::string>();
  EXPECT_EQ(Json::parse(Call("GET", path).body), first);
  EXPECT_EQ(Json::parse(Call("DELETE", path).body)["deleted"], true);
  EXPECT_EQ(Call("GET", path).status, 404);
  EXPECT_EQ(Refused(400, kPath, next.dump())["code"], "previous_response_not_found");
  Json silent = Body();
  silent["store"] = false;
  next["previous_response_id"] = Ok(kPath, silent)["id"];
  EXPECT_EQ(Refused(400, kPath, next.dump())["param"], "previous_response_id");
}

TEST(ConversationStore, IsBoundedAndKeepsTenantsApart) {
  api::ConversationStore store({.max_entries = 3, .max_bytes = 400});
  const api::StoredConversation conversation{Json::array({"x"}), {{"a", "b"}}};
  for (int i = 0; i < 5; ++i) store.Put("t", std::to_string(i), conversation);
  EXPECT_FALSE(store.Get("t", "1"));
  EXPECT_TRUE(store.Get("t", "4"));
  EXPECT_FALSE(store.Get("other", "4"));
  EXPECT_FALSE(store.Remove("other", "4"));
  store.Put("t", "large", {Json(std::string(200, 'x')), {}});
  EXPECT_FALSE(store.Get("t", "large"));
  store.Put("t", "4", {Json(std::string(90, 'x')), {}});
  EXPECT_LE(store.bytes(), 400u);
}

enum Outcome { kAccepted, kRefused };
struct FieldCase {
  const char* name;
  Json value;
  Outcome outcome;
};
// Every field of OpenAI's CreateResponse, then those of others that this server knows.
const FieldCase kFields[] = {
    {"access_programs", Json::object(), kAccepted},
    {"background", false, kAccepted},
    {"background", true, kRefused},
    {"background_options", Json::object(), kAccepted},
    {"context_management", Json::array(), kAccepted},
    {"conversation", "conv_1", kRefused},
    {"image", Json::object(), kAccepted},
    {"include", Json::array({"reasoning.encrypted_content"}), kAccepted},
    {"include", Json::array({"all"}), kRefused},
    {"instructions", "be short", kAccepted},
    {"max_output_tokens", 0, kRefused},
    {"max_tool_calls", 3, kAccepted},
    {"metadata", {{"a", "b"}}, kAccepted},
    {"moderation", {{"model", "x"}}, kRefused},
    {"n", 2, kRefused},
    {"parallel_tool_calls", false, kAccepted},
    {"prompt", {{"id", "x"}}, kRefused},
    {"prompt_cache_key", "x", kAccepted},
    {"prompt_cache_options", Json::object(), kAccepted},
    {"prompt_cache_retention", "24h", kAccepted},
    {"reasoning", {{"effort", "low"}, {"summary", "auto"}}, kAccepted},
    {"reasoning", {{"effort", "huge"}}, kRefused},
    {"safety_identifier", "x", kAccepted},
    {"service_tier", "auto", kAccepted},
    {"service_tier", "flex", kAccepted},
    {"service_tier", "fast", kRefused},
    {"store", false, kAccepted},
    {"stream", false, kAccepted},
    {"temperature", 3, kRefused},
    {"text", {{"format", {{"type", "text"}}}}, kAccepted},
    {"text", {{"format", {{"type", "frob"}}}}, kRefused},
    {"tool_choice", "auto", kAccepted},
    {"tool_choice", {{"type", "web_search"}}, kRefused},
    {"tools", Json::array(), kAccepted},
    {"top_logprobs", 21, kRefused},
    {"top_p", 0.5, kAccepted},
    {"truncation", "auto", kAccepted},
    {"truncation", "some", kRefused},
    {"user", "x", kAccepted},
    {"seed", 4, kAccepted},
    {"top_k", 4, kAccepted},
    {"made_up_field", 1, kRefused},
};

TEST_F(ResponsesTest, EveryFieldIsAcceptedOrRefusedByName) {
  for (const FieldCase& field : kFields) {
    Json body = Body(1);
    body[field.name] = field.value;
    if (field.outcome == kAccepted) {
      EXPECT_EQ(Call("POST", kPath, body.dump()).status, 200) << field.name << " " << field.value;
    } else {
      EXPECT_EQ(Refused(400, kPath, body.dump())["param"], field.name) << field.value;
    }
  }
}

TEST_F(ResponsesTest, ItemsOfAConversationWithToolsAreRead) {
  Json body = Body();
  body["instructions"] = "be short";
  body["input"] = Json::parse(R"([
    {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Metres."}]},
    {"role": "user", "content": "Tide?"},
    {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}], "encrypted_content": null},
    {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "get_tide", "arguments": "{}", "status": "completed"},
    {"type": "function_call", "call_id": "call_2", "name": "get_tide", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "call_1", "output": "2 m"},
    {"type": "function_call_output", "call_id": "call_2", "output": [{"type": "input_text", "text": "3 m"}]}])");
  body["tools"] = Json::parse(R"([
    {"type": "function", "name": "get_tide", "description": "x", "parameters": {"type": "object"}, "strict": false},
    {"type": "web_search"}, {"type": "namespace", "name": "x", "tools": []}, {"type": "image_generation"}])");
  const http::Response response = Call("POST", kPath, body.dump());
  EXPECT_EQ(response.status, 200) << response.body;
  EXPECT_EQ(Json::parse(response.body)["tools"].size(), 1u);
  EXPECT_THAT(response.headers,
              ::testing::Contains(::testing::Pair("X-Bakestone-Warning", HasSubstr("3 tools"))));
}

TEST_F(ResponsesTest, ItemsThatCannotBeReadAreRefusedWithTheirPlace) {
  const std::pair<const char*, const char*> cases[] = {
      {R"(5)", "input"},
      {R"([])", "input"},
      {R"([1])", "input[0]"},
      {R"([{"type": "message"}])", "input[0].role"},
      {R"([{"role": "user"}])", "input[0].content"},
      {R"([{"type": "item_reference", "id": "x"}])", "item_reference"},
      {R"([{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}])",
       "input_image"},
      {R"([{"role": "user", "content": [{"type": "input_file", "file_id": "x"}]}])", "input_file"},
      {R"([{"type": "function_call", "name": "x"}])", "call_id"},
      {R"([{"type": "function_call_output", "call_id": "x"}])", "output"},
      {R"([{"type": "reasoning", "id": "x", "summary": []}])", "input"}};
  for (const auto& [input, place] : cases) {
    Json body = Body();
    body["input"] = Json::parse(input);
    const Json error = Refused(400, kPath, body.dump());
    EXPECT_EQ(error["param"], "input") << input;
    EXPECT_THAT(error["message"].get<std::string>(), HasSubstr(place)) << input;
  }
}

TEST(ResponseOutput, TellsOfReasoningTextAndCallsInOrder) {
  std::vector<std::string> types;
  openai::ResponseOutput output(
      [&](const std::string& type, Json) { types.push_back(type.substr(9)); });
  api::ChatReply whole;
  whole.calls = {{"call_1", "f", ""}, {"call_2", "g", ""}};
  output.Add({.reasoning = "Hm", .text = "", .calls = {}}, whole, Json::array());
  output.Add({.reasoning = ".", .text = "Yes.", .calls = {}}, whole, Json::array());
  output.Add({.reasoning = "",
              .text = "",
              .calls = {{.index = 0, .begins = true, .name = "f", .arguments = "{\"a\""}}},
             whole, Json::array());
  output.Add({.reasoning = "",
              .text = "",
              .calls = {{.index = 0, .arguments = ": 1}", .ends = true},
                        {.index = 1, .begins = true, .name = "g", .arguments = "{}"}}},
             whole, Json::array());
  output.Finish(true);
  const Json& items = output.items();
  ASSERT_EQ(items.size(), 4u);
  EXPECT_EQ(items[0]["content"][0]["text"], "Hm.");
  EXPECT_EQ(items[1]["content"][0]["text"], "Yes.");
  EXPECT_EQ(items[2]["arguments"], "{\"a\": 1}");
  EXPECT_EQ(items[3]["call_id"], "call_2");
  for (const Json& item : items) EXPECT_EQ(item["status"], "completed");
  EXPECT_THAT(types,
              ElementsAre("output_item.added", "content_part.added", "reasoning_text.delta",
                          "reasoning_text.delta", "reasoning_text.done", "content_part.done",
                          "output_item.done", "output_item.added", "content_part.added",
                          "output_text.delta", "output_text.done", "content_part.done",
                          "output_item.done", "output_item.added", "function_call_arguments.delta",
                          "function_call_arguments.delta", "function_call_arguments.done",
                          "output_item.done", "output_item.added", "function_call_arguments.delta",
                          "function_call_arguments.done", "output_item.done"));
}

}  // namespace
}  // namespace bakestone
