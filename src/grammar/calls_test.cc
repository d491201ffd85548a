#include "grammar/calls.h"

#include <gtest/gtest.h>

#include "grammar/test_grammar.h"

namespace bakestone {
namespace {

using dialog::CallShape;
using dialog::CallSyntax;
using nlohmann::ordered_json;
using testing::CompileNow;
using testing::Takes;

const ordered_json kTide = ordered_json::parse(
    R"({"type": "object", "properties": {"harbour": {"type": "string"}, "hours": {"type": "integer", "minimum": 0, "maximum": 48}},
                                                   "required": ["harbour"], "additionalProperties": false})");
const ordered_json kWind = ordered_json::parse(
    R"({"type": "object", "properties": {"unit": {"enum": ["knots", "m/s"]}}, "required": ["unit"], "additionalProperties": false})");

class CallsTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    grammars_ = new Grammars(testing::SharedTestModel()->tokenizer, testing::TestGrammarOptions());
  }
  static void TearDownTestSuite() {
    delete grammars_;
    grammars_ = nullptr;
  }
  void SetUp() override {
    if (!GrammarsAreBuilt()) GTEST_SKIP() << "built without xgrammar";
  }
  static std::shared_ptr<const Constraint> Compile(const HeldReply& reply,
                                                   const std::vector<int32_t>& markers = {}) {
    return CompileNow(*grammars_, SourceOf(reply, testing::SharedTestModel()->tokenizer, markers));
  }
  static void Expect(const HeldReply& reply, const std::vector<std::string>& valid,
                     const std::vector<std::string>& invalid) {
    const auto constraint = Compile(reply);
    for (const std::string& text : valid) EXPECT_TRUE(Takes(*constraint, text)) << text;
    for (const std::string& text : invalid) EXPECT_FALSE(Takes(*constraint, text)) << text;
  }
  static HeldReply Held(const CallSyntax& syntax, bool several = true) {
    return {.calls = WriteCalls(syntax, several),
            .functions = {{"get_tide", "tools[0].function.parameters", kTide},
                          {"get_wind", "tools[2].function.parameters", kWind}}};
  }
  static std::string Refusal(const HeldReply& reply) {
    try {
      Compile(reply);
      return "taken";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      return error.what();
    }
  }
  static Grammars* grammars_;
};
Grammars* CallsTest::grammars_ = nullptr;

CallSyntax Tagged() {
  return {.shape = CallShape::kJsonObject,
          .call_begin = "<tool_call>\n",
          .call_end = "\n</tool_call>",
          .separator = "\n",
          .before_name = "{\"name\": \"",
          .after_name = "\", \"arguments\": ",
          .after_arguments = "}"};
}
CallSyntax Brackets() {
  return {.shape = CallShape::kJsonObject,
          .section_begin = "[TOOL_CALLS] [",
          .section_end = "]",
          .separator = ", ",
          .before_name = "{\"name\": \"",
          .after_name = "\", \"arguments\": ",
          .after_arguments = ", \"id\": \"\x01\"}"};
}
CallSyntax Bare() {
  return {.shape = CallShape::kJsonObject,
          .alternate_begin = "<|python_tag|>",
          .arguments_key = "parameters",
          .before_name = "{\"name\": \"",
          .after_name = "\", \"parameters\": ",
          .after_arguments = "}"};
}
CallSyntax Tags() {
  return {.shape = CallShape::kNameThenParameters,
          .call_begin = "<tool_call>\n<function=",
          .call_end = "</function>\n</tool_call>",
          .separator = "\n",
          .after_name = ">\n",
          .key_begin = "<parameter=",
          .key_end = ">\n",
          .value_end = "\n</parameter>\n"};
}

TEST_F(CallsTest, ARequiredReplyIsCallsOfTheFunctions) {
  const std::string tide =
      "<tool_call>\n{\"name\": \"get_tide\", \"arguments\": {\"harbour\": \"Dover </tool_call>\", "
      "\"hours\": 6}}\n</tool_call>";
  const std::string wind =
      "<tool_call>\n{\"name\": \"get_wind\", \"arguments\": {\"unit\":\"knots\"}}\n</tool_call>";
  const std::vector<std::string> wrong = {
      "",
      "Hello.",
      tide + "Hello.",
      tide.substr(0, tide.size() - 1),
      "Hello. " + tide,
      "<tool_call>\n{\"name\": \"get_wind\", \"arguments\": {\"harbour\": \"x\"}}\n</tool_call>",
      "<tool_call>\n{\"name\": \"get_rain\", \"arguments\": {}}\n</tool_call>",
      "<tool_call>\n{\"name\": \"get_tide\", \"arguments\": {\"harbour\": \"x\", \"hours\": "
      "60}}\n</tool_call>"};
  Expect(Held(Tagged()), {tide, wind, tide + "\n" + wind + "\n" + wind}, wrong);
  Expect(Held(Tagged(), false), {tide, wind}, {tide + "\n" + wind});
  HeldReply begun = Held(Tagged());
  begun.begun = CallOpening(begun.calls, "");
  EXPECT_EQ(begun.begun, "<tool_call>\n{\"name\": \"");
  Expect(begun, {tide.substr(begun.begun.size()), tide.substr(begun.begun.size()) + "\n" + wind},
         {tide, "get_rain\", \"arguments\": {}}\n</tool_call>"});
  begun.functions = {begun.functions[1]};
  begun.begun = CallOpening(begun.calls, "get_wind");
  Expect(begun, {wind.substr(begun.begun.size())}, {wind, tide.substr(begun.begun.size())});
}

TEST_F(CallsTest, EachSyntaxHasItsOwnSpelling) {
  Expect(
      Held(Brackets()),
      {R"([TOOL_CALLS] [{"name": "get_wind", "arguments": {"unit":"m/s"}, "id": "abcDEF123"}])",
       R"([TOOL_CALLS] [{"name": "get_wind", "arguments": {"unit":"m/s"}, "id": "a"}, {"name": "get_tide", "arguments": {"harbour":"]"}, "id": "b"}])"},
      {R"([TOOL_CALLS] [{"name": "get_wind", "arguments": {"unit":"m/s"}, "id": "a"})",
       R"([TOOL_CALLS] [])",
       R"([TOOL_CALLS] [{"name": "get_wind", "arguments": {"unit":"m/s"}}])"});
  Expect(Held(Bare(), false), {R"({"name": "get_wind", "parameters": {"unit":"m/s"}})"},
         {R"({"name": "get_wind", "parameters": {"unit":"feet"}})"});
  Expect(Held({.shape = CallShape::kNamedObject,
               .section_begin = "<calls>[",
               .section_end = "]</calls>",
               .separator = ", ",
               .before_name = "{\"",
               .after_name = "\": ",
               .after_arguments = "}"}),
         {R"(<calls>[{"get_wind": {"unit":"m/s"}}, {"get_tide": {"harbour":"x"}}]</calls>)"},
         {R"(<calls>[{"get_wind": {}}]</calls>)"});
  Expect(Held({.shape = CallShape::kNameThenJson,
               .call_begin = "[CALL]",
               .separator = "",
               .after_name = "[ID]\x01[ARGS]"}),
         {R"([CALL]get_wind[ID]x1[ARGS]{"unit":"m/s"})",
          R"([CALL]get_wind[ID]x1[ARGS]{"unit":"m/s"}[CALL]get_tide[ID]2[ARGS]{"harbour":""})"},
         {R"([CALL]get_wind[ID][ARGS]{"unit":"m/s"})"});
  Expect(
      Held({.shape = CallShape::kHarmony}),
      {R"(<|channel|>commentary to=functions.get_wind <|constrain|>json<|message|>{"unit":"m/s"})"},
      {R"(<|channel|>final<|message|>Hello)"});
  Expect(Held({.shape = CallShape::kPython,
               .section_begin = "<call>[",
               .section_end = "]</call>",
               .separator = ", "}),
         {R"(<call>[get_tide(harbour="a\"b", hours=3), get_wind(unit="knots")]</call>)",
          "<call>[get_tide(harbour=\"\")]</call>"},
         {"<call>[get_tide(hours=3)]</call>", "<call>[get_tide(hours=3, harbour=\"x\")]</call>",
          "<call>[get_tide(harbour='x')]</call>", "<call>[get_tide(harbour=\"x\",)]</call>",
          "<call>[]</call>"});
  Expect(Held({.shape = CallShape::kBraces,
               .call_begin = "<call>",
               .call_end = "</call>",
               .quote = "<q>"},
              false),
         {"<call>get_tide{harbour:<q>a \"b\" <<q>,hours:3}</call>",
          "<call>get_wind{unit:<q>knots<q>}</call>"},
         {"<call>get_tide{harbour:<q>a<q>b<q>}</call>", "<call>get_tide{hours:3}</call>",
          "<call>get_wind{unit:<q>feet<q>}</call>"});
  Expect(Held(Tags()),
         {"<tool_call>\n<function=get_tide>\n<parameter=harbour>\nDover\n</param> & "
          "<b>\n</parameter>\n<parameter=hours>\n12\n</parameter>\n</function>\n</tool_call>",
          "<tool_call>\n<function=get_wind>\n<parameter=unit>\nm/s\n</parameter>\n</function>\n</"
          "tool_call>"},
         {"<tool_call>\n<function=get_tide>\n<parameter=hours>\n12\n</parameter>\n</function>\n</"
          "tool_call>",
          "<tool_call>\n<function=get_tide>\n<parameter=harbour>\na</parameter>b\n</parameter>\n</"
          "function>\n</tool_call>",
          "<tool_call>\n<function=get_wind>\n<parameter=unit>\nfeet\n</parameter>\n</function>\n</"
          "tool_call>",
          "<tool_call>\n<function=get_tide>\n<parameter=harbour>\na\n</"
          "parameter>\n<parameter=hours>\n\"12\"\n</parameter>\n</function>\n</tool_call>"});
}

TEST_F(CallsTest, FreeTextIsHeldFromACallsMarkerOn) {
  HeldReply reply = Held(Tagged());
  reply.required = false;
  reply.functions[1].strict = false;
  const std::string tide =
      "<tool_call>\n{\"name\": \"get_tide\", \"arguments\": {\"harbour\": \"x\"}}\n</tool_call>";
  const std::string any =
      "<tool_call>\n{\"name\": \"get_wind\", \"arguments\": {\"anything\": [1]}}\n</tool_call>";
  Expect(reply,
         {"", "Hello <tool>, {\"name\": 1} <tool_cal", tide, "Let me look.\n\n" + tide,
          "x" + any + "\n" + tide},
         {"Hello <tool_call>",
          "<tool_call>\n{\"name\": \"get_tide\", \"arguments\": {}}\n</tool_call>",
          "<tool_call>\n{\"name\": \"get_rain\", \"arguments\": {}}\n</tool_call>",
          tide + " and <tool_call> nothing", "<think>a</think><tool_call>"});
  // In reasoning a marker says nothing.
  reply.reasoning = {"<think>", "</think>"};
  Expect(reply, {"<think>I could <tool_call> it.</think>\n\n" + tide, "\n<think>a", "Hello.", tide},
         {"<think>a</think><tool_call>", "Hello <think> <tool_call>"});
  reply.in_reasoning = true;
  Expect(reply, {"I could <tool_call> it.</think>\n\n" + tide, "a"}, {"a</think><tool_call>"});
}

TEST_F(CallsTest, FreeTextIsHeldInSyntaxesOfOtherKindsToo) {
  HeldReply bare = Held(Bare(), false);
  bare.required = false;
  Expect(bare,
         {"", " \n", "Hello {\"name\": 1}", R"({"name": "get_wind", "parameters": {"unit":"m/s"}})",
          R"(<|python_tag|>{"name": "get_wind", "parameters": {"unit":"m/s"}})"},
         {"{", "{\"a\": 1}", R"({"name": "get_wind", "parameters": {}})",
          R"({"name": "get_wind", "parameters": {"unit":"m/s"}} Hello)", "Hello <|python_tag|>x"});
  HeldReply brackets = Held(Brackets());
  brackets.required = false;
  Expect(
      brackets,
      {"Hello [1]",
       R"(Well. [TOOL_CALLS] [{"name": "get_wind", "arguments": {"unit":"m/s"}, "id": "a"}])"},
      {"[TOOL_CALLS]",
       R"([TOOL_CALLS] [{"name": "get_wind", "arguments": {"unit":"m/s"}, "id": "a"}] {"name": "get_rain"})"});
  HeldReply harmony = Held({.shape = CallShape::kHarmony});
  harmony.required = false;
  const std::string thought = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant";
  Expect(
      harmony,
      {thought + "<|channel|>final<|message|>Hello",
       thought +
           R"(<|channel|>commentary to=functions.get_wind <|constrain|>json<|message|>{"unit":"m/s"})",
       thought + R"( to=functions.get_wind<|channel|>commentary json<|message|>{"unit":"m/s"})"},
      {thought + R"( to=functions.get_wind<|channel|>commentary json<|message|>{})",
       thought + " to=functions.get_rain<|channel|>"});
  HeldReply tags = Held(Tags());
  tags.required = false;
  tags.functions[0].strict = false;
  Expect(tags,
         {"Hello.",
          "<tool_call>\n<function=get_tide>\n<parameter=any>\nx<y\n</parameter>\n</function>\n</"
          "tool_call>",
          "<tool_call>\n<function=get_tide>\n</function>\n</tool_call>"},
         {"<tool_call>\n<function=get_wind>\n</function>\n</tool_call>"});
}

TEST_F(CallsTest, ControlTokensAreLegalWhereTheSyntaxHasThemAlone) {
  const Tokenizer& tokenizer = testing::SharedTestModel()->tokenizer;
  CallSyntax syntax = Tagged();
  syntax.call_begin = "<|im_start|>call";
  syntax.call_end = "<|im_start|><|im_end|>\n";  // the last one ends the answer
  HeldReply reply = Held(syntax);
  std::vector<uint32_t> bits(static_cast<size_t>(tokenizer.vocab_size() + 31) / 32);
  for (const bool required : {true, false}) {
    reply.required = required;
    const auto mask = Compile(reply, {testing::kTestImStart})->Begin();
    const auto legal = [&](int32_t id) {
      mask->Fill(bits);
      return testing::HasBit(bits, id);
    };
    const auto write = [&](const std::string& text) {
      for (const char c : text) {
        ASSERT_TRUE(mask->Accept(testing::kTestFirstByte + static_cast<uint8_t>(c)))
            << text << " at " << c;
      }
    };
    EXPECT_TRUE(legal(testing::kTestImStart));
    EXPECT_FALSE(legal(testing::kTestFirstByte + grammar::kMarkerByte));
    EXPECT_EQ(legal(testing::kTestFirstByte + '<'), !required);
    EXPECT_TRUE(mask->Accept(testing::kTestImStart));
    mask->Rollback(1);
    EXPECT_FALSE(mask->Accept(testing::kTestFirstByte + grammar::kMarkerByte));
    EXPECT_TRUE(mask->Accept(testing::kTestImStart));
    EXPECT_FALSE(legal(testing::kTestImStart));
    write("call{\"name\": \"get_tide\", \"arguments\": {\"harbour\": \"a");
    EXPECT_FALSE(legal(testing::kTestImStart));
    EXPECT_FALSE(mask->Accept(testing::kTestImStart));
    EXPECT_FALSE(legal(testing::kTestImEnd));
    write("\"}}");
    EXPECT_TRUE(legal(testing::kTestImStart));
    EXPECT_FALSE(legal(testing::kTestImEnd));
    EXPECT_TRUE(mask->Accept(testing::kTestImStart));
    EXPECT_TRUE(legal(testing::kTestImEnd));
    EXPECT_FALSE(legal(testing::kTestImStart));
    EXPECT_TRUE(mask->Accept(testing::kTestImEnd));
  }
}

TEST_F(CallsTest, SchemasThatCannotBeHonouredAreRefusedWithTheirPlace) {
  const auto refused = [&](const CallSyntax& syntax, const char* schema, const std::string& words) {
    HeldReply reply = Held(syntax);
    reply.functions[1].parameters = ordered_json::parse(schema);
    const std::string why = Refusal(reply);
    EXPECT_TRUE(why.starts_with("tools[2].function.parameters: ")) << why;
    EXPECT_NE(why.find(words), std::string::npos) << why;
    reply.functions[1].strict = false;
    EXPECT_EQ(Refusal(reply), "taken") << schema;
  };
  refused(Tagged(),
          R"({"type": "object", "properties": {"a": {"type": "array", "uniqueItems": true}}})",
          "'#/properties/a': 'uniqueItems'");
  refused(Tagged(), R"({"properties": {"a": {"not": {}}}})", "'#/properties/a': 'not'");
  refused(Tags(), R"({"type": "object", "properties": {"a": {"type": "string", "pattern": "a+"}}})",
          "'#/properties/a': 'pattern'");
  refused(Tags(), R"({"type": "object", "anyOf": [{"required": ["a"]}]})", "'#': 'anyOf'");
  refused(Tags(), R"({"type": "object", "properties": {"a b": {}}, "required": ["a b"]})",
          "'#': 'required'");
  HeldReply text = Held(Tagged());
  text.functions[0].parameters = {{"type", "string"}};
  EXPECT_NE(Refusal(text).find("tools[0].function.parameters: the schema at '#': 'type'"),
            std::string::npos);
  // What says nothing of its type is an object all the same.
  text.functions[0].parameters = ordered_json::parse(
      R"({"properties": {"a": {"$ref": "#/$defs/n"}, "b": {"$ref": "#"}}, "$defs": {"n": {"type": "null"}}, "required": ["a"]})");
  text.functions[1].parameters = nullptr;
  const std::string begin = "<tool_call>\n{\"name\": \"", end = "}\n</tool_call>";
  Expect(text,
         {begin + R"(get_tide", "arguments": {"a":null,"b":{"a":null}})" + end,
          begin + R"(get_wind", "arguments": {"x":[]})" + end},
         {begin + R"(get_tide", "arguments": [])" + end,
          begin + R"(get_tide", "arguments": {"a":1})" + end,
          begin + R"(get_wind", "arguments": [])" + end});
}

TEST_F(CallsTest, PlainTextsAreCountedListedAndOfAFormat) {
  HeldReply reply = Held(Tags(), false);
  reply.functions = {
      {"f", "x",
       ordered_json::parse(
           R"({"type": "object", "properties": {"a": {"type": "string", "minLength": 2, "maxLength": 3}, "b": {"type": "string", "format": "date"},
                                                        "c": {"type": ["string", "null"]}}, "required": ["b"]})")}};
  const auto call = [](const std::string& members) {
    return "<tool_call>\n<function=f>\n" + members + "</function>\n</tool_call>";
  };
  const auto member = [](const std::string& name, const std::string& value) {
    return "<parameter=" + name + ">\n" + value + "\n</parameter>\n";
  };
  Expect(reply,
         {call(member("a", "xy") + member("b", "2026-11-27")),
          call(member("b", "2026-11-27") + member("c", "\"x\"")),
          call(member("b", "2026-11-27") + member("c", "null"))},
         {call(member("a", "x") + member("b", "2026-11-27")),
          call(member("a", "xyz1") + member("b", "2026-11-27")), call(member("b", "2026-13-27")),
          call(member("a", "xy")), call(member("b", "2026-11-27") + member("c", "x"))});
}

}  // namespace
}  // namespace bakestone
