// Counted texts over a vocabulary of words: what a mask has is what the grammar takes byte by byte.
#include "grammar/bounded_mask.h"

#include <gtest/gtest.h>

#include "grammar/test_grammar.h"

namespace bakestone {
namespace {

using Kind = GrammarSource::Kind;

TokenizerSpec WordsSpec() {
  TokenizerSpec spec;
  spec.source = "words";
  spec.pre_tokenizer = "gpt-2";
  std::vector<std::string> texts;
  for (int byte = 0; byte < 256; ++byte) texts.push_back(std::string(1, static_cast<char>(byte)));
  for (const char* text : {"ab",        "abc",        "abcd",          "abcdef",
                           "the tide ", "\"}",        "\",",           "\", \"",
                           "a\"",       "abc\"}",     "\\n",           "\\n\\n",
                           "a\\",       "\\u00",      "\xC3\xA9",      "\xC3\xA9\xC3\xA9\xC3\xA9",
                           "{\"",       "{\"a\": \"", "{\"a\": \"xy",  "{\"a\": \"wxyz wxyz",
                           "\": \"",    "b\": \"",    "\", \"b\": \"", "\", \"b\": \"abcdefg",
                           "123",       "true",       " \"ab",         " \"abcdefgh"}) {
    texts.push_back(text);
  }
  texts.push_back(std::string(40, 'a'));
  texts.push_back(std::string(31, 'a'));
  for (const std::string& text : texts) {
    std::string spelled;
    for (const char c : text) spelled += testing::ByteSymbol(static_cast<uint8_t>(c));
    spec.tokens.push_back(spelled);
  }
  spec.types.assign(spec.tokens.size(), TokenType::kNormal);
  spec.tokens.push_back("<end>");
  spec.types.push_back(TokenType::kControl);
  spec.eos = static_cast<int32_t>(spec.tokens.size()) - 1;
  return spec;
}

TEST(BoundedMask, HasWhatTheGrammarTakes) {
  if (!GrammarsAreBuilt()) GTEST_SKIP() << "built without xgrammar";
  const Tokenizer words(WordsSpec());
  Grammars by_word(words, testing::TestGrammarOptions()),
      by_byte(testing::SharedTestModel()->tokenizer, testing::TestGrammarOptions());
  const GrammarSource schemas[] = {
      {Kind::kJsonSchema,
       R"({"type":"object","properties":{"a":{"type":"string","maxLength":5},"b":{"type":"string","minLength":2}},"required":["a","b"],"additionalProperties":false})"},
      {Kind::kJsonSchema,
       R"({"type":"object","properties":{"a":{"type":"string","minLength":3,"maxLength":45},"b":{"type":["string","null"],"maxLength":1}},"required":["a","b"],"additionalProperties":false})"},
      {Kind::kJsonSchema,
       R"({"anyOf":[{"type":"object","properties":{"a":{"type":"string","maxLength":300},"b":{"type":"string","maxLength":0}},"required":["a","b"],"additionalProperties":false},{"type":"string","minLength":4,"maxLength":4},{"type":"integer"}]})"}};
  const std::string prefixes[] = {"",
                                  "{",
                                  "{\"a",
                                  "{\"a\": ",
                                  "{\"a\": \"",
                                  "{\"a\": \"x",
                                  "{\"a\": \"xyz",
                                  "{\"a\": \"abcd",
                                  "{\"a\": \"ab\\",
                                  "{\"a\": \"ab\xC3",
                                  "{\"a\": \"ab\\u0",
                                  "{\"a\": \"abcde",
                                  "{\"a\": \"abc\"",
                                  "{\"a\": \"abc\",",
                                  "{\"a\": \"abc\", \"b\": ",
                                  "{\"a\": \"abc\", \"b\": \"",
                                  "{\"a\": \"abc\", \"b\": \"x",
                                  "\"",
                                  "\"abc",
                                  "\"abcd",
                                  "{\"a\": \"" + std::string(12, 'q'),
                                  "{\"a\": \"" + std::string(44, 'q'),
                                  "{\"a\": \"" + std::string(250, 'q')};
  int compared = 0, legal = 0;
  for (const GrammarSource& schema : schemas) {
    const auto fast = testing::CompileNow(by_word, schema),
               exact = testing::CompileNow(by_byte, schema);
    for (const std::string& prefix : prefixes) {
      const auto mask = fast->Begin(), truth = exact->Begin();
      bool possible = true;
      for (const char c : prefix) {
        const bool taken = truth->Accept(testing::kTestFirstByte + static_cast<uint8_t>(c));
        EXPECT_EQ(mask->Accept(static_cast<uint8_t>(c)), taken && possible) << prefix;
        if (!(possible = possible && taken)) break;
      }
      if (!possible) continue;
      std::vector<uint32_t> bits(static_cast<size_t>(words.vocab_size() + 31) / 32);
      mask->Fill(bits);
      for (int32_t id = 0; id < words.vocab_size() - 1; ++id) {
        const std::string text(words.TokenBytes(id));
        int64_t taken = 0;
        while (taken < std::ssize(text) &&
               truth->Accept(testing::kTestFirstByte +
                             static_cast<uint8_t>(text[static_cast<size_t>(taken)]))) {
          ++taken;
        }
        truth->Rollback(taken);
        const bool takes = taken == std::ssize(text);
        const bool has = testing::HasBit(bits, id);
        if (text.size() > grammar::TokenLengths::kMost) {
          EXPECT_LE(has, takes) << prefix << " + " << text;  // too long to be known about
        } else {
          EXPECT_EQ(has, takes) << schema.text << "\n" << prefix << " + " << text;
        }
        if (has) {
          EXPECT_TRUE(mask->Accept(id)) << prefix << " + " << text;
          mask->Rollback(1);
        }
        ++compared;
        legal += has;
      }
    }
  }
  EXPECT_GT(compared, 5000);
  EXPECT_GT(legal, 500);
}

// A user's rule may be called as ours, and repeated: it is nobody's but the user's.
TEST(BoundedMask, AUsersRulesAreLeftAlone) {
  if (!GrammarsAreBuilt()) GTEST_SKIP() << "built without xgrammar";
  Grammars grammars(testing::SharedTestModel()->tokenizer, testing::TestGrammarOptions());
  const auto constraint = testing::CompileNow(
      grammars, {Kind::kEbnf, "root ::= \"<\" character{2,3} \">\"\ncharacter ::= [a-c]\n"});
  EXPECT_TRUE(testing::Takes(*constraint, "<ab>"));
  EXPECT_FALSE(testing::Takes(*constraint, "<a>"));
  EXPECT_FALSE(testing::Takes(*constraint, "<abca>"));
}

TEST(BoundedMask, CountsAreLeftOutWhereTheyAre) {
  EXPECT_EQ(grammar::WithoutCounts("root ::= string | x{2,3}\n"), "root ::= string | x{2,3}\n");
  EXPECT_EQ(
      grammar::WithoutCounts("root ::= \"\\\"\" character{0,5} \"\\\"\" | f0m1character{2,} end"),
      "root ::= string | text end");
}

}  // namespace
}  // namespace bakestone
