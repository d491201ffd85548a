#include "grammar/json_schema.h"

#include <gtest/gtest.h>

#include "grammar/test_grammar.h"

namespace bakestone {
namespace {

using nlohmann::ordered_json;
using Kind = GrammarSource::Kind;
using testing::CompileNow;
using testing::Takes;

class SchemaTest : public ::testing::Test {
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
  static std::shared_ptr<const Constraint> Compile(const std::string& schema) {
    return CompileNow(*grammars_, {Kind::kJsonSchema, schema});
  }
  static void Expect(const std::string& schema, const std::vector<std::string>& valid,
                     const std::vector<std::string>& invalid) {
    std::shared_ptr<const Constraint> constraint;
    try {
      constraint = Compile(schema);
    } catch (const Error& error) {
      ADD_FAILURE() << schema << ": " << error.what();
      return;
    }
    for (const std::string& text : valid) {
      EXPECT_TRUE(Takes(*constraint, text)) << schema << " takes " << text;
    }
    for (const std::string& text : invalid) {
      EXPECT_FALSE(Takes(*constraint, text)) << schema << " refuses " << text;
    }
  }
  static Grammars* grammars_;
};
Grammars* SchemaTest::grammars_ = nullptr;

TEST_F(SchemaTest, ObjectsHaveTheirMembersInOrder) {
  const char* schema =
      R"({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}, "c": {"type": "boolean"}},
                           "required": ["b"], "additionalProperties": false})";
  Expect(schema,
         {R"({"a":1,"b":"x","c":true})", R"({"b":"x"})", "{\n  \"a\": -7,\n  \"b\": \"\"\n}",
          R"({"b": "\u00e9\n", "c": false})"},
         {"{}", R"({"a":1})", R"({"b":"x","a":1})", R"({"b":"x","d":1})", R"({"b":"x",})",
          R"({"b":"x"} )", R"({"a":1.5,"b":"x"})", "{\"b\":\"\n\"}", R"({"b":"\ud800"})"});
  Expect(R"({"type": "object", "properties": {"a": {"type": "integer"}}})",
         {"{}", R"({"a":1})", R"({"a":1,"x":[1,{}]})", R"({"x":null})", R"({"ab":"","":1})"},
         {R"({"a":"no"})", R"({"x":1,"a":"no"})", R"({"\u0061":"no"})", R"({"a":1,"a":2})"});
  Expect(
      R"({"type": "object", "additionalProperties": {"type": "number"}, "minProperties": 1, "maxProperties": 2})",
      {R"({"a":1})", R"({"a":1,"b":2e3})"}, {"{}", R"({"a":"1"})", R"({"a":1,"b":2,"c":3})"});
  Expect(R"({"type": "object", "required": ["x"]})", {R"({"x":1})", R"({"x":1,"y":2})"},
         {"{}", R"({"y":2})"});
  Expect(R"({"type": "object", "properties": {"a": false, "b": {}}})", {"{}", R"({"b":1})"},
         {R"({"a":1})"});
  Expect(
      R"({"type": "object", "patternProperties": {"^[a-z]+$": {"type": "null"}}, "additionalProperties": false})",
      {"{}", R"({"ab":null})"}, {R"({"A":null})", R"({"a":1})"});
  Expect(R"({"type": "object", "propertyNames": {"maxLength": 2}})", {R"({"ab":1})"},
         {R"({"abc":1})"});
}

TEST_F(SchemaTest, ArraysHaveTheirItems) {
  Expect(R"({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3})",
         {"[1]", "[1,2,3]", "[1, 2]"}, {"[]", "[1,2,3,4]", "[\"1\"]"});
  Expect(
      R"({"type": "array", "prefixItems": [{"type": "string"}, {"type": "null"}], "items": false})",
      {"[]", "[\"\"]", "[\"\",null]"}, {"[null]", "[\"\",null,1]"});
  Expect(R"({"type": "array", "prefixItems": [{"type": "string"}], "minItems": 2})",
         {"[\"\",1]", "[\"\",1,{}]"}, {"[\"\"]", "[1,1]"});
  Expect(R"({"type": "array", "items": false})", {"[]"}, {"[1]"});
  Expect(R"({"type": "array"})", {"[]", "[[[]], {\"a\":[1]}]"}, {"{}", "[,]"});
}

// Compiled within the helper's seconds, though they count more than the library likes.
TEST_F(SchemaTest, PatternsMayCountMany) {
  const auto quoted = [](size_t count, char c) { return '"' + std::string(count, c) + '"'; };
  std::string pairs;
  for (int i = 0; i < 100; ++i) pairs += "b7";
  Expect(R"({"type": "string", "pattern": "^[a-z]{1,2000}$"})", {quoted(1, 'a'), quoted(2000, 'q')},
         {quoted(0, 'a'), quoted(2001, 'q'), R"("aB")"});
  Expect(R"({"type": "string", "pattern": "^([a-c]\\d){100}-?$"})",
         {'"' + pairs + '"', '"' + pairs + "-\""}, {'"' + pairs + "b7\"", R"("b7b7")"});
  try {
    testing::CompileNow(*grammars_, {GrammarSource::Kind::kJsonSchema,
                                     R"({"type": "string", "pattern": "^[a-z]{1,20000}$"})"});
    FAIL() << "taken";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(
        std::string(error.what()).find("a repeat of 20000, of which at most 10000 are counted"),
        std::string::npos)
        << error.what();
  }
}

TEST_F(SchemaTest, StringsHaveTheirLengthAndPattern) {
  Expect(R"({"type": "string", "minLength": 1, "maxLength": 2})",
         {R"("a")", R"("\n\"")", "\"\xC3\xA9\xF0\x9F\x98\x80\"", R"("\ud83d\ude00")"},
         {R"("")", R"("abc")", "\"\t\""});
  Expect(R"({"type": "string", "pattern": "^a+\\d{2}$"})", {R"("a12")", R"("aaa00")"},
         {R"("a1")", R"("ba12")", R"("a123")"});
  Expect(R"({"type": "string", "pattern": "b"})", {R"("b")", R"("abc")", R"("\"b")"},
         {R"("")", R"("ac")"});
  Expect(R"({"type": "string", "pattern": "^\"$"})", {R"("\"")"}, {R"(""")", R"("x")"});
  Expect(R"({"type": "string", "pattern": "^(a|bc)?[^x-z\\s]$"})",
         {R"("aw")", R"("bcw")", R"("\\")"}, {R"("ax")", R"("a ")", R"("bcab")"});
  Expect(R"({"type": "string", "format": "date"})", {R"("2024-02-29")", R"("2023-12-31")"},
         {R"("2023-02-29")", R"("2023-13-01")", R"("x2023-12-31")"});
  Expect(R"({"type": "string", "format": "uuid"})", {R"("01234567-89ab-cdef-0123-456789ABCDEF")"},
         {R"("0123")"});
}

TEST_F(SchemaTest, NumbersAreWithinTheirBounds) {
  Expect(R"({"type": "integer", "minimum": -12, "maximum": 345})",
         {"-12", "-9", "0", "9", "300", "345"}, {"-13", "346", "1000", "-0", "01", "1.0"});
  Expect(R"({"type": "integer", "exclusiveMinimum": 99})", {"100", "999", "123456789012345678901"},
         {"99", "9", "-100"});
  Expect(R"({"type": "integer", "maximum": -5})", {"-5", "-10", "-99999"}, {"-4", "0", "5"});
  Expect(R"({"type": "number", "minimum": 0.25, "maximum": 2.5})",
         {"0.25", "0.250", "0.3", "1", "1.999", "2.5", "2.50"},
         {"0.24", "0.2499", "2.51", "3", "-1", "0"});
  Expect(R"({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1})",
         {"0.1", "0.001", "0.999"}, {"0", "0.0", "1", "1.0", "-0.5"});
  Expect(R"({"type": "number", "minimum": -1.5})", {"-1.5", "-1.49", "-0.1", "0", "17.3"},
         {"-1.51", "-2"});
  Expect(R"({"type": "number"})", {"1e5", "-0.5E-3", "0"}, {"1.", ".5", "+1", "0x1", "NaN"});
  Expect(R"({"type": "integer", "multipleOf": 7})", {"0", "7", "-14", "700"}, {"8", "-1", "71"});
  Expect(R"({"type": "integer", "multipleOf": 25, "minimum": -30, "maximum": 60})",
         {"-25", "0", "50"}, {"75", "-50", "10"});
  Expect(R"({"type": "number", "multipleOf": 0.01})", {"1.25", "3", "-0.5"}, {"1.255"});
}

TEST_F(SchemaTest, ManyBoundsAgreeWithArithmetic) {
  for (const auto& [least, most] : std::vector<std::pair<int, int>>{
           {-3, 4}, {0, 0}, {9, 11}, {95, 105}, {-101, -99}, {-1, 1000}, {19, 21}, {100, 199}}) {
    const auto constraint =
        Compile(fmt::format(R"({{"type": "integer", "minimum": {}, "maximum": {}}})", least, most));
    for (int value = -130; value <= 1130; value += value > -110 && value < 210 ? 1 : 13) {
      EXPECT_EQ(Takes(*constraint, fmt::format("{}", value)), value >= least && value <= most)
          << value << " in " << least << ".." << most;
    }
  }
  for (const auto& [least, most] : std::vector<std::pair<int, int>>{
           {-35, 40}, {5, 5}, {95, 1105}, {-101, -9}, {100, 199}, {-10, 10}, {10, 20}, {11, 19}}) {
    for (const bool exclusive : {false, true}) {
      if (exclusive && least == most) continue;
      const std::string prefix = exclusive ? "exclusiveM" : "m";
      const auto constraint =
          Compile(fmt::format(R"({{"type": "number", "{}inimum": {}, "{}aximum": {}}})", prefix,
                              least / 10.0, prefix, most / 10.0));
      for (int value = -140; value <= 1120; value += value > -110 && value < 220 ? 1 : 17) {
        const bool in = exclusive ? value > least && value < most : value >= least && value <= most;
        EXPECT_EQ(Takes(*constraint, fmt::format("{}{}.{}", value < 0 ? "-" : "",
                                                 std::abs(value) / 10, std::abs(value) % 10)),
                  in)
            << value / 10.0 << " in " << least / 10.0 << ".." << most / 10.0 << " exclusive "
            << exclusive;
      }
    }
  }
}

TEST_F(SchemaTest, SchemasArePutTogether) {
  Expect(R"({"enum": [1, "a", null, [1, 2], {"b": true}]})",
         {"1", "\"a\"", "null", "[1, 2]", R"({"b":true})"}, {"2", "\"b\"", "[2,1]"});
  Expect(R"({"type": "string", "enum": ["x", 1]})", {"\"x\""}, {"1"});
  Expect(R"({"const": "a\"b"})", {R"("a\"b")"}, {R"("a")"});
  Expect(R"({"anyOf": [{"type": "integer"}, {"type": "null"}], "title": "t", "default": null})",
         {"5", "null"}, {"\"\""});
  Expect(
      R"({"type": "object", "properties": {"a": {}, "b": {}}, "additionalProperties": false, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]})",
      {R"({"a":1})", R"({"b":1})"}, {"{}"});
  Expect(
      R"({"oneOf": [{"type": "object", "properties": {"k": {"const": "a"}, "n": {"type": "integer"}}, "required": ["k"], "additionalProperties": false},
                       {"type": "object", "properties": {"k": {"const": "b"}}, "required": ["k"], "additionalProperties": false}]})",
      {R"({"k":"a","n":1})", R"({"k":"b"})"}, {R"({"k":"b","n":1})", R"({"k":"c"})"});
  Expect(
      R"({"allOf": [{"$ref": "#/$defs/p"}, {"properties": {"b": {"type": "null"}}, "required": ["b"]}], "unevaluatedProperties": false,
             "$defs": {"p": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}})",
      {R"({"b":null,"a":1})"}, {R"({"a":1})", R"({"b":null,"a":1,"c":1})"});
  Expect(
      R"({"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
             "required": ["kids"], "additionalProperties": false}}})",
      {R"({"kids":[]})", R"({"kids":[{"kids":[]},{"kids":[]}]})"}, {R"({"kids":[1]})"});
  Expect(R"({"type": ["string", "null"], "maxLength": 1})", {"null", "\"a\""}, {"\"ab\"", "1"});
  Expect(R"({"maxLength": 1})", {"null", "\"a\"", "123", "[]"}, {"\"ab\""});
  Expect("{}", {"1", "{}", "\"x\""}, {"", "x"});
}

TEST_F(SchemaTest, WhatCannotBeHonouredIsRefusedByKeywordAndPlace) {
  const std::vector<std::array<const char*, 3>> refused = {
      {R"({"not": {}})", "not", "#"},
      {R"({"type": "object", "properties": {"a": {"type": "array", "uniqueItems": true}}})",
       "uniqueItems", "#/properties/a"},
      {R"({"if": {}, "then": {}})", "if", "#"},
      {R"({"type": "array", "contains": {}})", "contains", "#"},
      {R"({"dependentRequired": {}})", "dependentRequired", "#"},
      {R"({"$ref": "other.json"})", "$ref", "#"},
      {R"({"$ref": "#anchor"})", "$ref", "#"},
      {R"({"$ref": "#/$defs/none"})", "$ref", "#"},
      {R"({"$dynamicRef": "#x"})", "$dynamicRef", "#"},
      {R"({"oneOf": [{"type": "integer"}, {"type": "number"}]})", "oneOf", "#"},
      {R"({"type": "string", "format": "frob"})", "format", "#"},
      {R"({"type": "string", "pattern": "a", "maxLength": 2})", "pattern", "#"},
      {R"x({"type": "string", "pattern": "(?=a)"})x", "pattern", "#"},
      {R"({"type": "string", "pattern": "\\bx"})", "pattern", "#"},
      {R"({"type": "string", "pattern": "(a)\\1"})", "pattern", "#"},
      {R"({"type": "string", "pattern": "\\p{L}"})", "pattern", "#"},
      {R"({"type": "number", "multipleOf": 3})", "multipleOf", "#"},
      {R"({"type": "object", "minProperties": 2})", "minProperties", "#"},
      {R"({"frobnicate": 1})", "frobnicate", "#"},
      {R"({"$schema": "http://localhost/own"})", "$schema", "#"},
      {R"({"anyOf": [{"required": ["a"]}, {"required": ["b"]}], "unevaluatedProperties": false})",
       "unevaluatedProperties", "#"},
      {R"({"enum": [1], "minimum": 2})", "minimum", "#"},
      {R"({"type": "frob"})", "type", "#"},
      {R"({"type": "string", "maxLength": 1e9})", "maxLength", "#"},
      {R"({"anyOf": [{"properties": {"b": {}}}], "properties": {"a": {}}, "additionalProperties": false})",
       "additionalProperties", "#/anyOf/0"},
  };
  for (const auto& [schema, keyword, place] : refused) {
    try {
      grammar::FromJsonSchema(ordered_json::parse(schema));
      ADD_FAILURE() << schema << " is taken";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument) << schema;
      const std::string text = error.what();
      EXPECT_NE(text.find(fmt::format("'{}'", keyword)), std::string::npos)
          << schema << ": " << text;
      EXPECT_NE(text.find(fmt::format("'{}'", place)), std::string::npos) << schema << ": " << text;
    }
  }
  for (const char* schema :
       {"false", "1", R"({"$ref": "#"})",
        R"({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}})",
        R"({"type": "array", "minItems": 2, "maxItems": 1})"}) {
    EXPECT_THROW(grammar::FromJsonSchema(ordered_json::parse(schema)), Error) << schema;
  }
}

TEST_F(SchemaTest, SchemasThatGrowWithoutEndAreRefused) {
  // Each reference stands beside a keyword, so that it is put together anew each time.
  EXPECT_THROW(grammar::FromJsonSchema(ordered_json::parse(
                   R"({"$ref": "#/$defs/a", "$defs": {"a": {"type": "object", "minProperties": 1,
      "properties": {"x": {"$ref": "#/$defs/a", "maxProperties": 3}, "y": {"$ref": "#/$defs/a", "maxProperties": 3}}}}})")),
               Error);
  std::string deep = "{}";
  for (int i = 0; i < 200; ++i) deep = R"({"type": "array", "items": )" + deep + "}";
  EXPECT_THROW(grammar::FromJsonSchema(ordered_json::parse(deep)), Error);
}

}  // namespace
}  // namespace bakestone
