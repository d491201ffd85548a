// /v1/chat/completions: every field, messages of every form.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/test_router.h"

namespace bakestone {
namespace {

using bakestone::testing::Json;
using bakestone::testing::RouterTest;
using ::testing::HasSubstr;

constexpr const char* kPath = "/v1/chat/completions";

class ChatTest : public RouterTest {
 protected:
  Json Answer(const Json& body) { return Ok(kPath, body)["choices"]; }
};

const Json kTool = {
    {"type", "function"},
    {"function",
     {{"name", "get_tide"},
      {"description", "Tells the tide."},
      {"parameters", {{"type", "object"}, {"properties", {{"harbour", {{"type", "string"}}}}}}}}}};

enum Outcome { kHonoured, kNoEffect, kRefused };
struct FieldCase {
  const char* name;
  Json value;
  Outcome outcome;
};

// Every field of OpenAI's CreateChatCompletionRequest, then those of others that this server knows.
const FieldCase kFields[] = {
    {"messages", Json::array({{{"role", "user"}, {"content", "hi"}}}), kHonoured},
    {"model", "tuned", kHonoured},
    {"stream", false, kNoEffect},
    {"n", 2, kHonoured},
    {"temperature", 1.5, kHonoured},
    {"top_p", 0.5, kHonoured},
    {"frequency_penalty", 0.5, kHonoured},
    {"presence_penalty", 0.5, kHonoured},
    {"logit_bias", {{"70", 50}}, kHonoured},
    {"logprobs", true, kHonoured},
    {"top_logprobs", nullptr, kNoEffect},
    {"seed", 7, kNoEffect},  // of a greedy answer
    {"stop", Json::array({"x"}), kHonoured},
    {"max_tokens", 4, kHonoured},
    {"max_completion_tokens", 8, kHonoured},
    {"tools", Json::array({kTool}), kHonoured},
    {"tool_choice", "auto", kNoEffect},
    {"parallel_tool_calls", false, kNoEffect},  // there are no calls
    {"prediction", {{"type", "content"}, {"content", "x"}}, kNoEffect},
    {"reasoning_effort", "low", kNoEffect},  // this model's template does not read it
    {"response_format", {{"type", "text"}}, kNoEffect},
    {"stream_options", nullptr, kNoEffect},
    {"modalities", Json::array({"text"}), kNoEffect},
    {"verbosity", "medium", kNoEffect},
    {"user", "somebody", kNoEffect},
    {"metadata", {{"a", "b"}}, kNoEffect},
    {"store", true, kNoEffect},
    {"service_tier", "auto", kNoEffect},
    {"service_tier", "flex", kNoEffect},  // there is nobody to give way to
    {"service_tier", "fast", kRefused},
    {"safety_identifier", "x", kNoEffect},
    {"prompt_cache_key", "x", kNoEffect},
    {"prompt_cache_retention", "24h", kNoEffect},
    {"audio", {{"voice", "x"}, {"format", "wav"}}, kRefused},
    {"modalities", Json::array({"audio"}), kRefused},
    {"verbosity", "high", kRefused},
    {"web_search_options", Json::object(), kRefused},
    {"functions", Json::array({{{"name", "f"}}}), kRefused},
    {"function_call", "auto", kRefused},
    // Not OpenAI's.
    {"top_k", 3, kNoEffect},
    {"min_p", 0.1, kNoEffect},
    {"repetition_penalty", 1.3, kHonoured},
    {"ignore_eos", true, kNoEffect},
    {"min_tokens", 3, kNoEffect},
    {"chat_template_kwargs", {{"enable_thinking", false}}, kNoEffect},
    {"add_generation_prompt", true, kNoEffect},
    {"continue_final_message", false, kNoEffect},
    {"speculate", false, kNoEffect},
    {"made_up_field", 1, kRefused},
};

TEST_F(ChatTest, EveryFieldIsHonouredRefusedByNameOrWithoutEffect) {
  const Json plain = Answer(ChatBody());
  for (const FieldCase& field : kFields) {
    Json body = ChatBody();
    body[field.name] = field.value;
    if (std::string_view(field.name) == "max_tokens") body.erase("max_completion_tokens");
    if (field.outcome == kRefused) {
      EXPECT_EQ(Refused(400, kPath, body.dump())["param"], field.name) << field.value;
      continue;
    }
    const Json answer = Answer(body);
    if (field.outcome == kNoEffect) {
      EXPECT_EQ(answer, plain) << field.name << " " << field.value;
    }
  }
}

TEST_F(ChatTest, MaxTokensHasTwoNamesAndMinTokensHolds) {
  Json body = ChatBody(3);
  body["max_completion_tokens"] = 4;
  EXPECT_EQ(Refused(400, kPath, body.dump())["param"], "max_tokens");
  body.erase("max_tokens");
  EXPECT_EQ(Ok(kPath, body)["usage"]["completion_tokens"], 4);
  body["min_tokens"] = 5;
  EXPECT_EQ(Refused(400, kPath, body.dump())["param"], "min_tokens");
}

TEST_F(ChatTest, MessagesOfEveryRoleAreTaken) {
  Json body = ChatBody();
  body["messages"] = Json::parse(R"([
    {"role": "developer", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]},
    {"role": "system", "content": "Metres.", "name": "x"},
    {"role": "user", "content": "Tide?"},
    {"role": "assistant", "content": null, "reasoning": "Hm.", "reasoning_content": "Hm.", "refusal": null, "annotations": [],
     "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "get_tide", "arguments": "{\"harbour\": \"x\"}"}}]},
    {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "2 m"}]},
    {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
    {"role": "user", "content": "Why?"}])");
  body["tools"] = Json::array({kTool});
  EXPECT_EQ(Call("POST", kPath, body.dump()).status, 200);
}

TEST_F(ChatTest, MessagesThatCannotBeReadAreRefusedWithTheirPlace) {
  const std::pair<const char*, const char*> cases[] = {
      {R"([])", "messages"},
      {R"("hi")", "messages"},
      {R"([1])", "messages[0]"},
      {R"([{"content": "x"}])", "messages[0].role"},
      {R"([{"role": "robot", "content": "x"}])", "messages[0].role"},
      {R"([{"role": "function", "name": "f", "content": "x"}])", "messages[0].role"},
      {R"([{"role": "user"}])", "messages[0].content"},
      {R"([{"role": "user", "content": 5}])", "messages[0].content"},
      {R"([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}])",
       "image_url"},
      {R"([{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}])",
       "input_audio"},
      {R"([{"role": "user", "content": [{"type": "file", "file": {}}]}])", "file"},
      {R"([{"role": "user", "content": [{"type": "text"}]}])", "messages[0].content[0].text"},
      {R"([{"role": "user", "content": "x", "made_up": 1}])", "made_up"},
      {R"([{"role": "assistant"}])", "messages[0].content"},
      {R"([{"role": "assistant", "tool_calls": [{"id": "x", "function": {"arguments": "{}"}}]}])",
       "function.name"},
      {R"([{"role": "assistant", "tool_calls": [{"id": "x", "type": "custom"}]}])",
       "tool_calls[0].type"},
      {R"([{"role": "assistant", "function_call": {"name": "f"}}])", "function_call"},
      {R"([{"role": "tool", "content": "x"}])", "tool_call_id"}};
  for (const auto& [messages, place] : cases) {
    Json body = ChatBody();
    body["messages"] = Json::parse(messages);
    const Json error = Refused(400, kPath, body.dump());
    EXPECT_EQ(error["param"], "messages") << messages;
    EXPECT_THAT(error["message"].get<std::string>(), HasSubstr(place)) << messages;
  }
}

TEST_F(ChatTest, ToolsThatCannotBeReadAreRefusedWithTheirPlace) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"tools": 1})", "tools"},
      {R"({"tools": [1]})", "tools"},
      {R"({"tools": [{"type": "custom", "custom": {"name": "x"}}]})", "tools"},
      {R"({"tools": [{"type": "function"}]})", "tools"},
      {R"({"tools": [{"type": "function", "function": {"name": "a b"}}]})", "tools"},
      {R"({"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]})",
       "tools"},
      {R"({"tools": [{"type": "function", "function": {"name": "f"}}, {"type": "function", "function": {"name": "f"}}]})",
       "tools"},
      {R"({"tool_choice": "sometimes"})", "tool_choice"},
      {R"({"tool_choice": "required"})", "tool_choice"},
      {R"({"tool_choice": {"type": "function", "function": {"name": "f"}}})", "tool_choice"},
      {R"({"tools": [{"type": "function", "function": {"name": "g"}}], "tool_choice": {"type": "function", "function": {"name": "f"}}})",
       "tool_choice"}};
  for (const auto& [fields, param] : cases) {
    Json body = ChatBody();
    body.update(Json::parse(fields));
    EXPECT_EQ(Refused(400, kPath, body.dump())["param"], param) << fields;
  }
}

TEST_F(ChatTest, ToolsChangeThePromptUnlessNoneMayBeCalled) {
  Json body = ChatBody();
  const int64_t plain = Ok(kPath, body)["usage"]["prompt_tokens"];
  body["tools"] = Json::array({kTool});
  EXPECT_GT(Ok(kPath, body)["usage"]["prompt_tokens"].get<int64_t>(), plain + 50);
  body["tool_choice"] = "none";
  EXPECT_EQ(Ok(kPath, body)["usage"]["prompt_tokens"], plain);
}

TEST_F(ChatTest, RequiredCallIsBegunForTheModel) {
  Json body = ChatBody();
  body.erase("ignore_eos");
  body["tools"] = Json::array({kTool});
  body["logit_bias"] = {{std::to_string(bakestone::testing::kTestFirstByte + '{'),
                         100}};  // what a call's arguments begin with
  for (const Json& choice :
       {Json("required"), Json{{"type", "function"}, {"function", {{"name", "get_tide"}}}}}) {
    body["tool_choice"] = choice;
    const Json message = Ok(kPath, body)["choices"][0]["message"];
    ASSERT_TRUE(message.contains("tool_calls")) << message;
    EXPECT_EQ(message["tool_calls"][0]["function"]["name"], "get_tide");
    EXPECT_TRUE(
        message["tool_calls"][0]["function"]["arguments"].get<std::string>().starts_with("{"))
        << message;
    EXPECT_TRUE(message["content"].is_null()) << message;
  }
  body["stream"] = true;
  const std::vector<std::string> frames = Frames(Call("POST", kPath, body.dump()).body);
  EXPECT_EQ(Json::parse(frames.at(1))["choices"][0]["delta"]["tool_calls"][0]["function"]["name"],
            "get_tide");
}

TEST_F(ChatTest, LastMessageIsContinuedWhereAskedTo) {
  Json body = ChatBody();
  const int64_t before = Ok(kPath, body)["usage"]["prompt_tokens"];
  body["messages"].push_back({{"role", "assistant"}, {"content", "Well, "}});
  body["continue_final_message"] = true;
  body["add_generation_prompt"] = false;
  EXPECT_EQ(Ok(kPath, body)["usage"]["prompt_tokens"], before + 6);
  body["add_generation_prompt"] = true;
  EXPECT_EQ(Refused(400, kPath, body.dump())["param"], "continue_final_message");
  body = ChatBody();
  body["continue_final_message"] = true;
  EXPECT_EQ(Refused(400, kPath, body.dump())["param"], "continue_final_message");
}

TEST_F(ChatTest, TemplateVariablesCannotForgeTheTemplatesOwn) {
  Json body = ChatBody();
  body["chat_template_kwargs"] = {{"bos_token", "<|im_start|>"}};
  EXPECT_EQ(Refused(400, kPath, body.dump())["param"], "chat_template_kwargs");
  body["chat_template_kwargs"] = 5;
  EXPECT_EQ(Refused(400, kPath, body.dump())["param"], "chat_template_kwargs");
}

}  // namespace
}  // namespace bakestone
