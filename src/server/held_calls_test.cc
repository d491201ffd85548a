// Calls that are held to their functions' schemas, through every API and every syntax of calls: a
// tiny random model writes noise unless it is held.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/test_router.h"
#include "text/chat/template.h"

namespace bakestone::testing {
namespace {

using ::testing::HasSubstr;

const Json kTide = Json::parse(
    R"({"type": "object", "properties": {"harbour": {"type": "string", "maxLength": 8}, "hours": {"type": "integer", "minimum": 0, "maximum": 48}},
                                   "required": ["harbour", "hours"], "additionalProperties": false})");
const Json kWind = Json::parse(
    R"({"type": "object", "properties": {"unit": {"type": "string", "enum": ["knots", "m/s"]}, "gusts": {"type": "boolean"}}, "required": ["unit"],
                                   "additionalProperties": false})");
const Json kNot = Json::parse(R"({"type": "object", "properties": {"a": {"not": {}}}})");

Json ToolOf(const char* name, const Json& schema, bool strict = false) {
  Json tool = {
      {"type", "function"},
      {"function", {{"name", name}, {"description", "Tells it."}, {"parameters", schema}}}};
  if (strict) tool["function"]["strict"] = true;
  return tool;
}

void ExpectHeld(const std::string& name, const Json& arguments) {
  ASSERT_TRUE(arguments.is_object()) << name << " " << arguments;
  if (name == "get_tide") {
    ASSERT_TRUE(arguments.contains("harbour") && arguments.contains("hours") &&
                arguments.size() == 2)
        << arguments;
    EXPECT_TRUE(arguments["harbour"].is_string()) << arguments;
    EXPECT_TRUE(arguments["hours"].is_number_integer() && arguments["hours"] >= 0 &&
                arguments["hours"] <= 48)
        << arguments;
  } else {
    ASSERT_EQ(name, "get_wind");
    EXPECT_TRUE(arguments["unit"] == "knots" || arguments["unit"] == "m/s") << arguments;
    EXPECT_EQ(arguments.size(), arguments.contains("gusts") ? 2 : 1) << arguments;
  }
}

void ExpectHeldCalls(const Json& message, size_t most) {
  ASSERT_TRUE(message.contains("tool_calls")) << message;
  EXPECT_TRUE(message["content"].is_null()) << message;
  EXPECT_LE(message["tool_calls"].size(), most) << message;
  for (const Json& call : message["tool_calls"]) {
    ExpectHeld(call["function"]["name"],
               Json::parse(call["function"]["arguments"].get<std::string>(), nullptr, false));
  }
}

class HeldCallsTest : public RouterTest {
 protected:
  void SetUp() override {
    if (!GrammarsAreBuilt()) GTEST_SKIP() << "built without xgrammar";
  }
  static Json Body(const Json& choice = "required") {
    Json body = ChatBody(1000);
    body.erase("ignore_eos");
    body["tools"] = Json::array({ToolOf("get_tide", kTide), ToolOf("get_wind", kWind)});
    body["tool_choice"] = choice;
    return body;
  }
};

// A template that shows tools, and calls with this body of a loop over `call`; begin and end
// surround them.
std::string TemplateOf(const std::string& call, const std::string& begin = "",
                       const std::string& end = "") {
  return "{% if tools %}[tools]{{ tools | tojson }}[/tools]\n{% endif %}"
         "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content "
         "}}"
         "{% if message.tool_calls %}" +
         begin + "{% for tool_call in message.tool_calls %}{% set call = tool_call.function %}" +
         call + "{% endfor %}" + end +
         "{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"
         "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";
}

struct Syntax {
  const char* name;
  std::string chat_template;
  dialog::CallShape shape;
};

std::vector<Syntax> Syntaxes() {
  using dialog::CallShape;
  const std::string pairs = "{% for k, v in call.arguments.items() %}";
  const std::string value = "(v if v is string else (v | tojson))";
  return {
      {"tagged objects",
       TemplateOf("{{ '\\n<tool_call>\\n{\"name\": \"' + call.name + '\", \"arguments\": ' + "
                  "(call.arguments | tojson) + '}\\n</tool_call>' }}"),
       CallShape::kJsonObject},
      {"a list",
       TemplateOf("{{ call | tojson }}{{ '' if loop.last else ', ' }}", "{{ '[TOOL_CALLS] [' }}",
                  "{{ ']' }}"),
       CallShape::kJsonObject},
      {"bare objects",
       TemplateOf("{{ '{\"name\": \"' + call.name + '\", \"parameters\": ' + (call.arguments | "
                  "tojson) + '}' }}"),
       CallShape::kJsonObject},
      {"control tokens",
       TemplateOf("{{ '<|im_start|>call {\"name\": \"' + call.name + '\", \"arguments\": ' + "
                  "(call.arguments | tojson) + '}<|im_start|>' }}"),
       CallShape::kJsonObject},
      {"named objects",
       TemplateOf("{{ '{\"' + call.name + '\": ' + (call.arguments | tojson) + '}' }}{{ '' if "
                  "loop.last else ', ' }}",
                  "{{ '<|tools_prefix|>[' }}", "{{ ']<|tools_suffix|>' }}"),
       CallShape::kNamedObject},
      {"a name and an object",
       TemplateOf("{{ '[TOOL_CALLS]' + call.name + '[CALL_ID]' + tool_call.id + '[ARGS]' + "
                  "(call.arguments | tojson) }}"),
       CallShape::kNameThenJson},
      {"tagged parameters",
       TemplateOf("{{ '\\n<tool_call>\\n<function=' + call.name + '>\\n' }}" + pairs +
                  "{{ '<parameter=' + k + '>\\n' + " + value +
                  " + '\\n</parameter>\\n' }}{% endfor %}{{ '</function>\\n</tool_call>' }}"),
       CallShape::kNameThenParameters},
      {"braces",
       TemplateOf("{{ '<|tool_call>call:' + call.name + '{' }}" + pairs +
                  "{{ k + ':' + ('<|\"|>' + v + '<|\"|>' if v is string else (v | tojson)) }}{{ '' "
                  "if loop.last else ',' }}{% endfor %}"
                  "{{ '}<tool_call|>' }}"),
       CallShape::kBraces},
      {"Python",
       TemplateOf("{{ call.name + '(' }}" + pairs +
                      "{{ k + '=' }}{% if v is string %}{{ \"'\" + v + \"'\" }}{% else %}{{ v | "
                      "tojson }}{% endif %}{{ '' if loop.last else ', ' }}{% endfor %}{{ ')' }}"
                      "{{ '' if loop.last else ', ' }}",
                  "{{ '<|tool_call_start|>[' }}", "{{ ']<|tool_call_end|>' }}"),
       CallShape::kPython},
      {"channels",
       "{% for message in messages %}{{ '<|im_start|>' + message.role + "
       "'<|channel|>final<|message|>' + message.content }}{% endfor %}{{ '<|im_start|>assistant' }}"
       "{{ tools | tojson if tools }}",
       CallShape::kHarmony}};
}

// The test model with another template.
std::shared_ptr<Engine> EngineWith(const std::string& chat_template) {
  struct Parts {
    explicit Parts(const std::string& source) : pool(1), model(LoadTestModel({})) {
      std::const_pointer_cast<Model>(model)->chat_template = chat::ChatTemplate::Parse(source);
      engine = std::make_unique<Engine>(model, TestKernels(), pool, EngineOptions{});
    }
    ThreadPool pool;
    std::shared_ptr<const Model> model;
    std::unique_ptr<Engine> engine;
  };
  auto parts = std::make_shared<Parts>(chat_template);
  return {parts, parts->engine.get()};
}

Json ChoicesOf(Router& router, const Json& body) {
  const auto recorder = std::make_shared<Recorder>();
  router.Handle({.method = "POST",
                 .path = "/v1/chat/completions",
                 .query = {},
                 .headers = {},
                 .body = body.dump(),
                 .key = nullptr},
                recorder);
  const http::Response response = recorder->Wait();
  EXPECT_EQ(response.status, 200) << response.body;
  return Json::parse(response.body)["choices"];
}

TEST_F(HeldCallsTest, ARequiredCallIsOfItsSchemaInEverySyntax) {
  std::set<std::string> names;
  for (const Syntax& syntax : Syntaxes()) {
    SCOPED_TRACE(syntax.name);
    const auto engine = EngineWith(syntax.chat_template);
    const auto traits =
        dialog::LearnTraits(*engine->model().chat_template, Json{{"bos_token", "<|im_start|>"}});
    ASSERT_EQ(traits.format.calls.shape, syntax.shape);
    Router router({{"base", engine, nullptr, ""}}, {.grammar_helper = TestGrammarOptions().helper});
    for (const int seed : {1, 2, 3}) {
      Json body = Body();
      body["seed"] = seed;
      body["temperature"] = 1.5;
      body["n"] = 2;
      body["parallel_tool_calls"] = seed == 3;
      for (const Json& choice : ChoicesOf(router, body)) {
        EXPECT_EQ(choice["finish_reason"], "tool_calls") << choice;
        ExpectHeldCalls(choice["message"], seed == 3 ? 100 : 1);
        names.insert(choice["message"]["tool_calls"][0]["function"]["name"].get<std::string>());
      }
      body["tool_choice"] = {{"type", "function"}, {"function", {{"name", "get_wind"}}}};
      body["parallel_tool_calls"] = false;
      for (const Json& choice : ChoicesOf(router, body)) {
        ExpectHeldCalls(choice["message"], 1);
        EXPECT_EQ(choice["message"]["tool_calls"][0]["function"]["name"], "get_wind");
      }
    }
  }
  EXPECT_EQ(names.size(), 2);
}

TEST_F(HeldCallsTest, AStrictFunctionsCallIsHeldInFreeText) {
  const auto engine = EngineWith(Syntaxes()[3].chat_template);
  Router router({{"base", engine, nullptr, ""}}, {.grammar_helper = TestGrammarOptions().helper});
  const auto answer = [&](const Json& body) { return ChoicesOf(router, body)[0]; };
  Json body = Body("auto");
  body["tools"] = Json::array({ToolOf("get_tide", kTide, true), ToolOf("get_wind", kWind, true)});
  body["max_tokens"] = 8;
  EXPECT_NE(answer(body)["message"]["content"], Json());  // free text
  body["max_tokens"] = 600;
  body["logit_bias"] = {{std::to_string(kTestImStart), 100}};  // the marker of a call
  const Json choice = answer(body);
  EXPECT_EQ(choice["finish_reason"], "tool_calls") << choice;
  ExpectHeldCalls(choice["message"], 100);
  for (Json& tool : body["tools"]) tool["function"].erase("strict");
  EXPECT_FALSE(answer(body)["message"].contains("tool_calls"));  // markers and nothing else
}

TEST_F(HeldCallsTest, StreamsAndSpeculationChangeNothing) {
  Json body = Body();
  body["seed"] = 4;
  body["temperature"] = 1;
  const Json whole = Ok("/v1/chat/completions", body)["choices"][0]["message"];
  ExpectHeldCalls(whole, 100);
  body["speculate"] = false;
  Json plain = Ok("/v1/chat/completions", body)["choices"][0]["message"];
  ASSERT_EQ(plain["tool_calls"].size(), whole["tool_calls"].size());
  EXPECT_EQ(plain["tool_calls"][0]["function"], whole["tool_calls"][0]["function"]);
  body["speculate"] = true;
  body["prediction"] = {{"type", "content"},
                        {"content", R"(get_tide", "arguments": {"harbour": "x", "hours": 123}})"}};
  EXPECT_EQ(Ok("/v1/chat/completions", body)["choices"][0]["message"]["tool_calls"][0]["function"],
            whole["tool_calls"][0]["function"]);
  body["stream"] = true;
  std::string name, arguments;
  for (const std::string& frame : Frames(Call("POST", "/v1/chat/completions", body.dump()).body)) {
    if (frame == "[DONE]") continue;
    const Json delta = Json::parse(frame)["choices"][0]["delta"];
    for (const Json& call : delta.value("tool_calls", Json::array())) {
      if (call["index"] != 0) continue;
      if (call["function"].contains("name")) name = call["function"]["name"];
      arguments += call["function"]["arguments"].get<std::string>();
    }
  }
  EXPECT_EQ(whole["tool_calls"][0]["function"], (Json{{"name", name}, {"arguments", arguments}}));
}

TEST_F(HeldCallsTest, AStopStringEndsACallAsItEndsText) {
  Json body = Body({{"type", "function"}, {"function", {{"name", "get_tide"}}}});
  body["stop"] = "hours";
  const Json choice = Ok("/v1/chat/completions", body)["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "tool_calls") << choice;
  const std::string arguments = choice["message"]["tool_calls"][0]["function"]["arguments"];
  EXPECT_THAT(arguments, HasSubstr("harbour"));
  EXPECT_THAT(arguments, ::testing::Not(HasSubstr("hours")));
}

TEST_F(HeldCallsTest, EveryApiHoldsARequiredCall) {
  const Json flat =
      Json::array({{{"type", "function"}, {"name", "get_tide"}, {"parameters", kTide}}});
  const Json response = Ok("/v1/responses", {{"model", "base"},
                                             {"input", "hello"},
                                             {"tools", flat},
                                             {"tool_choice", "required"},
                                             {"parallel_tool_calls", false},
                                             {"temperature", 1},
                                             {"seed", 1}});
  ASSERT_EQ(response["output"][0]["type"], "function_call") << response;
  ExpectHeld(response["output"][0]["name"],
             Json::parse(response["output"][0]["arguments"].get<std::string>()));
  const Json blocks = Json::array({{{"name", "get_tide"}, {"input_schema", kTide}},
                                   {{"name", "get_wind"}, {"input_schema", kWind}}});
  for (const Json& choice : {Json{{"type", "any"}, {"disable_parallel_tool_use", true}},
                             Json{{"type", "tool"}, {"name", "get_wind"}}}) {
    const Json message =
        Ok("/v1/messages", {{"model", "base"},
                            {"max_tokens", 600},
                            {"messages", Json::array({{{"role", "user"}, {"content", "hello"}}})},
                            {"tools", blocks},
                            {"tool_choice", choice}});
    ASSERT_EQ(message["content"][0]["type"], "tool_use") << message;
    EXPECT_EQ(message["stop_reason"], "tool_use");
    ExpectHeld(message["content"][0]["name"], message["content"][0]["input"]);
  }
  const Json tools = Body()["tools"];
  const Json chat =
      Ok("/api/chat", {{"model", "base"},
                       {"stream", false},
                       {"messages", Json::array({{{"role", "user"}, {"content", "hello"}}})},
                       {"tools", tools},
                       {"tool_choice", "required"},
                       {"parallel_tool_calls", false}});
  ASSERT_EQ(chat["message"]["tool_calls"].size(), 1) << chat;
  ExpectHeld(chat["message"]["tool_calls"][0]["function"]["name"],
             chat["message"]["tool_calls"][0]["function"]["arguments"]);
}

TEST_F(HeldCallsTest, SchemasThatCannotBeHonouredAreRefusedWhereTheyMatter) {
  Json body = Body("required");
  body["tools"][1]["function"]["parameters"] = kNot;
  const auto refused = [&](const std::string& path, const Json& refused_body,
                           const std::string& place) {
    const Json error = Refused(400, path, refused_body.dump());
    EXPECT_EQ(error["param"], place);
    EXPECT_THAT(error["message"].get<std::string>(),
                HasSubstr(place + ": the schema at '#/properties/a': 'not'"));
  };
  refused("/v1/chat/completions", body, "tools[1].function.parameters");
  body["tool_choice"] = {{"type", "function"}, {"function", {{"name", "get_wind"}}}};
  refused("/v1/chat/completions", body, "tools[1].function.parameters");
  body["tool_choice"] = "auto";
  body["tools"][1]["function"]["strict"] = true;
  refused("/v1/chat/completions", body, "tools[1].function.parameters");
  body["max_tokens"] = 4;
  body["tools"][1]["function"]["strict"] = false;
  Ok("/v1/chat/completions", body);
  body["tools"][0]["function"]["strict"] = true;
  Ok("/v1/chat/completions", body);
  body["tool_choice"] = {{"type", "function"}, {"function", {{"name", "get_tide"}}}};
  Ok("/v1/chat/completions", body);
  refused("/v1/responses",
          {{"model", "base"},
           {"input", "hello"},
           {"tool_choice", "required"},
           {"tools", Json::array({{{"type", "web_search"}},
                                  {{"type", "function"}, {"name", "f"}, {"parameters", kNot}}})}},
          "tools[1].parameters");
  const http::Response anthropic =
      Call("POST", "/v1/messages",
           Json{{"model", "base"},
                {"max_tokens", 9},
                {"messages", Json::array({{{"role", "user"}, {"content", "hello"}}})},
                {"tools", Json::array({{{"name", "f"}, {"strict", true}, {"input_schema", kNot}}})}}
               .dump());
  EXPECT_EQ(anthropic.status, 400);
  EXPECT_THAT(anthropic.body, HasSubstr("tools[0].input_schema: the schema at"));
}

TEST_F(HeldCallsTest, WhatCannotGoWithARequiredCallIsRefusedByName) {
  Json body = Body();
  body["ignore_eos"] = true;
  EXPECT_EQ(Refused(400, "/v1/chat/completions", body.dump())["param"], "ignore_eos");
  body = Body();
  body["messages"].push_back({{"role", "assistant"}, {"content", "Well, "}});
  body["continue_final_message"] = true;
  body["add_generation_prompt"] = false;
  EXPECT_EQ(Refused(400, "/v1/chat/completions", body.dump())["param"], "tool_choice");
}

}  // namespace
}  // namespace bakestone::testing
