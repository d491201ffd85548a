#include "grammar/grammar.h"

#include <gtest/gtest.h>

#include "grammar/test_grammar.h"

namespace bakestone {
namespace {

using Kind = GrammarSource::Kind;
using testing::CompileNow;
using testing::Takes;

class GrammarTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!GrammarsAreBuilt()) GTEST_SKIP() << "built without xgrammar";
  }
  std::string Refusal(GrammarSource source) {
    try {
      CompileNow(grammars_, std::move(source));
      return "taken";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      return error.what();
    }
  }
  Grammars grammars_{testing::SharedTestModel()->tokenizer, [] {
                       GrammarOptions options = testing::TestGrammarOptions();
                       options.cpu_seconds = 1;
                       return options;
                     }()};
};

TEST_F(GrammarTest, EachKindOfSourceIsHonoured) {
  const auto object = CompileNow(grammars_, {Kind::kJsonObject, ""});
  EXPECT_TRUE(Takes(*object, R"({"a": [1, "\u0041", {"b": null}]})"));
  for (const char* text : {"[]", "{", "{} ", "{\"a\"}", "{\"a\":1e}", "{\"a\":\"\x01\"}"}) {
    EXPECT_FALSE(Takes(*object, text)) << text;
  }
  const auto regex = CompileNow(grammars_, {Kind::kRegex, "(yes|no)[!?]{0,2}"});
  for (const char* text : {"yes", "no!?"}) EXPECT_TRUE(Takes(*regex, text)) << text;
  for (const char* text : {"", "yes!!!", " yes"}) EXPECT_FALSE(Takes(*regex, text)) << text;
  const auto ebnf = CompileNow(grammars_, {Kind::kEbnf, "root ::= \"a\" root \"b\" | \"\"\n"});
  EXPECT_TRUE(Takes(*ebnf, "aabb"));
  EXPECT_FALSE(Takes(*ebnf, "aab"));
  const auto choice = CompileNow(grammars_, {Kind::kChoice, R"(["red", "gr\"een"])"});
  EXPECT_TRUE(Takes(*choice, "gr\"een"));
  EXPECT_FALSE(Takes(*choice, "re"));
}

TEST_F(GrammarTest, WhatWasCompiledIsKept) {
  const GrammarSource source{Kind::kRegex, "[0-9]{3}"};
  EXPECT_EQ(CompileNow(grammars_, source), CompileNow(grammars_, source));
}

TEST_F(GrammarTest, ControlTokensAreNeverLegalAndEndingsOnlyAtTheEnd) {
  const Tokenizer& tokenizer = testing::SharedTestModel()->tokenizer;
  const auto mask = CompileNow(grammars_, {Kind::kJsonSchema, R"({"type": "string"})"})->Begin();
  std::vector<uint32_t> bits(static_cast<size_t>(tokenizer.vocab_size() + 31) / 32);
  const auto check = [&](bool complete) {
    mask->Fill(bits);
    for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
      if (tokenizer.IsEndOfGeneration(id)) {
        EXPECT_EQ(testing::HasBit(bits, id), complete) << id;
      } else if (tokenizer.IsControl(id)) {
        EXPECT_FALSE(testing::HasBit(bits, id)) << id;
      }
    }
  };
  check(false);
  for (const char c : {'"', 'a'}) {
    EXPECT_TRUE(mask->Accept(testing::kTestFirstByte + c));
    check(false);
  }
  EXPECT_TRUE(mask->Accept(testing::kTestFirstByte + '"'));
  check(true);
  mask->Rollback(1);
  check(false);
  EXPECT_FALSE(mask->Accept(tokenizer.EndOfGeneration()[0]));
  check(false);
}

TEST_F(GrammarTest, HostileSourcesEndNeitherServerNorOthers) {
  std::string nested = "a";
  for (int i = 0; i < 50'000; ++i) nested = "(" + nested + ")";
  EXPECT_NE(Refusal({Kind::kRegex, nested}), "taken");
  EXPECT_NE(Refusal({Kind::kEbnf, "root ::= " + nested}), "taken");
  std::string schema = "{}";
  for (int i = 0; i < 1000; ++i) schema = R"({"type":"array","items":)" + schema + "}";
  EXPECT_NE(Refusal({Kind::kJsonSchema, schema}), "taken");
  EXPECT_NE(Refusal({Kind::kJsonSchema, "{"}), "taken");
  EXPECT_NE(Refusal({Kind::kEbnf, "no grammar"}), "taken");
  EXPECT_NE(Refusal({Kind::kEbnf, std::string("root ::= \"a\"\0root", 18)}), "taken");
  EXPECT_NE(Refusal({Kind::kRegex, std::string(300 << 10, 'a')}), "taken");
  // Compiles without end: it is cut off.
  std::string slow = "root ::= ";
  for (int i = 0; i < 4000; ++i) slow += "([a-z]{0,900} | [^x]{3,1000}) ";
  const std::string why = Refusal({Kind::kEbnf, slow});
  EXPECT_NE(why.find("compil"), std::string::npos) << why;
  EXPECT_EQ(Refusal({Kind::kRegex, "a"}), "taken");
}

TEST_F(GrammarTest, AnAbsentHelperIsAnErrorOfTheServer) {
  Grammars broken(testing::SharedTestModel()->tokenizer, {.helper = {"/nonexistent"}});
  try {
    CompileNow(broken, {Kind::kRegex, "a"});
    FAIL() << "taken";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kIo);
  }
  Grammars none(testing::SharedTestModel()->tokenizer, {});
  EXPECT_THROW(CompileNow(none, {Kind::kRegex, "a"}), Error);
}

}  // namespace
}  // namespace bakestone
