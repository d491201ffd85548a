// Answers of a given form, through every API that can ask for one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/test_router.h"

namespace bakestone::testing {
namespace {

using ::testing::HasSubstr;

const Json kSchema = Json::parse(
    R"({"type": "object", "properties": {"mood": {"enum": ["calm", "rough"]}, "height": {"type": "integer", "minimum": 1, "maximum": 9}},
                                     "required": ["mood", "height"], "additionalProperties": false})");

class FormTest : public RouterTest {
 protected:
  void SetUp() override {
    if (!GrammarsAreBuilt()) GTEST_SKIP() << "built without xgrammar";
  }
  static Json Body(const std::string& format_field, Json format) {
    Json body = ChatBody(200);
    body.erase("ignore_eos");
    body[format_field] = std::move(format);
    return body;
  }
  static Json SchemaFormat(const Json& schema = kSchema) {
    return {{"type", "json_schema"},
            {"json_schema", {{"name", "sea"}, {"strict", true}, {"schema", schema}}}};
  }
  static void ExpectSea(const std::string& text) {
    const Json json = Json::parse(text, nullptr, false);
    ASSERT_TRUE(json.is_object()) << text;
    EXPECT_TRUE(json["mood"] == "calm" || json["mood"] == "rough") << text;
    EXPECT_TRUE(json["height"] >= 1 && json["height"] <= 9) << text;
    EXPECT_EQ(json.size(), 2) << text;
  }
};

TEST_F(FormTest, EveryChoiceOfAChatIsOfTheSchema) {
  Json body = Body("response_format", SchemaFormat());
  body["n"] = 3;
  body["temperature"] = 1.5;
  body["seed"] = 5;
  const Json answer = Ok("/v1/chat/completions", body);
  for (const Json& choice : answer["choices"]) {
    EXPECT_EQ(choice["finish_reason"], "stop");
    ExpectSea(choice["message"]["content"].get<std::string>());
  }
  // Speculation changes nothing of it.
  body["prediction"] = {{"type", "content"}, {"content", R"({"mood": "rough", "height": 12})"}};
  EXPECT_EQ(Ok("/v1/chat/completions", body)["choices"], answer["choices"]);
  body["speculate"] = false;
  EXPECT_EQ(Ok("/v1/chat/completions", body)["choices"], answer["choices"]);
}

TEST_F(FormTest, EveryApiHasAWayToAsk) {
  ExpectSea(Ok("/v1/responses", {{"model", "base"},
                                 {"input", "hello"},
                                 {"temperature", 0},
                                 {"text",
                                  {{"format",
                                    {{"type", "json_schema"},
                                     {"name", "sea"},
                                     {"strict", true},
                                     {"schema", kSchema}}}}}})["output"][0]["content"][0]["text"]
                .get<std::string>());
  ExpectSea(Ok("/api/generate", {{"model", "base"},
                                 {"prompt", "hello"},
                                 {"stream", false},
                                 {"format", kSchema}})["response"]
                .get<std::string>());
  ExpectSea(Ok("/api/chat", {{"model", "base"},
                             {"messages", Json::array({{{"role", "user"}, {"content", "hello"}}})},
                             {"stream", false},
                             {"format", kSchema}})["message"]["content"]
                .get<std::string>());
  ExpectSea(
      Ok("/v1/messages",
         {{"model", "base"},
          {"messages", Json::array({{{"role", "user"}, {"content", "hello"}}})},
          {"max_tokens", 100},
          {"output_config",
           {{"format", {{"type", "json_schema"}, {"schema", kSchema}}}}}})["content"][0]["text"]
          .get<std::string>());
  ExpectSea(Ok("/v1/completions", {{"model", "base"},
                                   {"prompt", "hello"},
                                   {"max_tokens", 100},
                                   {"guided_json", kSchema.dump()}})["choices"][0]["text"]
                .get<std::string>());
  const std::string choice = Ok(
      "/v1/chat/completions",
      Body("structured_outputs",
           {{"choice", Json::array({"port", "starboard"})}}))["choices"][0]["message"]["content"];
  EXPECT_TRUE(choice == "port" || choice == "starboard") << choice;
  EXPECT_EQ(Ok("/v1/chat/completions",
               Body("guided_regex", "ab{3}c"))["choices"][0]["message"]["content"],
            "abbbc");
  EXPECT_EQ(Ok("/v1/chat/completions",
               Body("guided_grammar", "root ::= \"x\" [y]\n"))["choices"][0]["message"]["content"],
            "xy");
}

TEST_F(FormTest, StreamsAreOfTheFormToo) {
  Json body = Body("response_format", SchemaFormat());
  body["stream"] = true;
  const http::Response response = Call("POST", "/v1/chat/completions", body.dump());
  ASSERT_EQ(response.status, 200);
  std::string text;
  for (const std::string& frame : Frames(response.body)) {
    if (frame == "[DONE]") continue;
    const Json delta = Json::parse(frame)["choices"][0]["delta"];
    if (delta.contains("content")) text += delta["content"].get<std::string>();
  }
  ExpectSea(text);
}

TEST_F(FormTest, LogprobsAreThoseOfTheModel) {
  Json body = Body("response_format", SchemaFormat());
  body["logprobs"] = true;
  body["top_logprobs"] = 3;
  const Json formed = Ok("/v1/chat/completions", body)["choices"][0]["logprobs"]["content"][0];
  body.erase("response_format");
  body["max_tokens"] = 1;
  const Json free = Ok("/v1/chat/completions", body)["choices"][0]["logprobs"]["content"][0];
  EXPECT_EQ(formed["top_logprobs"], free["top_logprobs"]);
  EXPECT_EQ(formed["token"], "{");
  EXPECT_NE(free["token"], "{");
}

TEST_F(FormTest, WhatCannotBeHonouredIsRefusedByName) {
  const auto refused = [&](const Json& body, const char* param, const char* words) {
    const Json error = Refused(400, "/v1/chat/completions", body.dump());
    EXPECT_EQ(error["param"], param) << body;
    EXPECT_THAT(error["message"].get<std::string>(), HasSubstr(words)) << body;
  };
  refused(
      Body("response_format",
           SchemaFormat({{"type", "object"}, {"properties", {{"a", {{"not", Json::object()}}}}}})),
      "response_format", "#/properties/a': 'not'");
  refused(Body("response_format", SchemaFormat("text")), "response_format", "schema");
  refused(Body("response_format", {{"type", "frob"}}), "response_format", "json_schema");
  refused(Body("response_format", {{"type", "json_object"}, {"more", 1}}), "response_format",
          "more");
  refused(Body("response_format", "json"), "response_format", "object");
  refused(Body("guided_regex", "(?=x)"), "guided_regex", "look-around");
  refused(Body("guided_grammar", "nothing"), "guided_grammar", "EBNF");
  refused(Body("guided_choice", Json::array()), "guided_choice", "list");
  // A schema in a string is held to the depth of bodies too.
  std::string deep;
  for (int i = 0; i < 100'000; ++i) deep += "{\"items\":";
  deep += "true" + std::string(100'000, '}');
  refused(Body("guided_json", deep), "guided_json", "at most 64 levels");
  refused(Body("structured_outputs", {{"json", kSchema}, {"regex", "a"}}), "structured_outputs",
          "not together");
  Json body = Body("response_format", SchemaFormat());
  body["ignore_eos"] = true;
  refused(body, "ignore_eos", "form");
  body = Body("response_format", SchemaFormat());
  body["min_tokens"] = 3;
  refused(body, "min_tokens", "form");
  body = Body("response_format", SchemaFormat());
  body["tools"] = Json::parse(R"([{"type": "function", "function": {"name": "f"}}])");
  refused(body, "response_format", "tools");
  body["tool_choice"] = "none";
  Ok("/v1/chat/completions", body);
}

}  // namespace
}  // namespace bakestone::testing
