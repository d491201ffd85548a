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

TEST(BoundedMask, ConfirmsWhatTheGrammarTakes) {
  if (!GrammarsAreBuilt()) GTEST_SKIP() << "built without xgrammar";
  const Tokenizer words(WordsSpec());
  Grammars by_word(words, testing::TestGrammarOptions()),
      by_byte(testing::SharedTestModel()->tokenizer, testing::TestGrammarOptions());
  const GrammarSource sources[] = {
      {Kind::kJsonSchema,
       R"({"type":"object","properties":{"a":{"type":"string","maxLength":5},"b":{"type":"string","minLength":2}},"required":["a","b"],"additionalProperties":false})"},
      {Kind::kJsonSchema,
       R"({"type":"object","properties":{"a":{"type":"string","minLength":3,"maxLength":45},"b":{"type":["string","null"],"maxLength":1}},"required":["a","b"],"additionalProperties":false})"},
      {Kind::kJsonSchema,
       R"({"anyOf":[{"type":"object","properties":{"a":{"type":"string","maxLength":300},"b":{"type":"string","maxLength":0}},"required":["a","b"],"additionalProperties":false},{"type":"string","minLength":4,"maxLength":4},{"type":"integer"}]})"},
      {Kind::kJsonSchema,
       R"({"type":"object","properties":{"a":{"type":"string","pattern":"^[a-z]{3,100}$"},"b":{"type":"string","pattern":"^(ab|x){70,80}c?$"}},"required":["a","b"],"additionalProperties":false})"},
      {Kind::kRegex, R"(\{"a": "[a-q]{0,100}(", "b|x{3}){1,70}"\})"}};
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
  for (const GrammarSource& source : sources) {
    const auto fast = testing::CompileNow(by_word, source),
               exact = testing::CompileNow(by_byte, source);
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
      std::vector<uint32_t> once = bits;
      mask->Narrow(once, 0);
      std::vector<uint32_t> twice = once;
      mask->Narrow(twice, 1);
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
        const std::string where = source.text + "\n" + prefix + " + " + text;
        EXPECT_TRUE(testing::HasBit(bits, id) || !takes) << where;
        if (testing::HasBit(bits, id)) {
          EXPECT_EQ(mask->Confirm(id), takes) << where;
        }
        EXPECT_EQ(mask->Accept(id), takes) << where;
        if (takes) mask->Rollback(1);
        EXPECT_LE(testing::HasBit(twice, id), takes) << where;
        if (text.size() < grammar::TokenTexts::kMost) {  // few enough to be asked about
          EXPECT_EQ(testing::HasBit(twice, id), takes) << where;
          EXPECT_EQ(testing::HasBit(once, id), takes) << where;
        }
        ++compared;
        legal += takes;
      }
    }
  }
  EXPECT_GT(compared, 5000);
  EXPECT_GT(legal, 500);
}

// What room is measured by may be part of the schema, and so may texts that do without it: an
// answer is what the schema allows all the same, and the same when some of it was guessed.
TEST(BoundedMask, AnswersNeverLeaveTheGrammar) {
  if (!GrammarsAreBuilt()) GTEST_SKIP() << "built without xgrammar";
  Grammars grammars(testing::SharedTestModel()->tokenizer, testing::TestGrammarOptions());
  EngineOptions options;
  options.speculation.mode = Speculation::kAlways;
  const auto engine = testing::MakeTestEngine(options);
  const std::string probes(40, '\x7F');
  const GrammarSource sources[] = {
      {Kind::kJsonSchema,
       R"({"anyOf":[{"const":")" + probes + R"("},{"type":"string","maxLength":0}]})"},
      {Kind::kJsonSchema,
       R"({"anyOf":[{"type":"string","maxLength":2},{"type":"string","pattern":"^[^a-y]{40}$"}]})"},
      {Kind::kJsonSchema,
       R"({"anyOf":[{"type":"string","minLength":5,"maxLength":40},{"const":""}]})"},
      {Kind::kJsonSchema, R"({"type":"string","pattern":"^[^\u0000-\u001f]{2,70}$"})"},
      {Kind::kRegex, "[a-z]{70,75}-"}};
  for (const GrammarSource& source : sources) {
    const auto constraint = testing::CompileNow(grammars, source);
    for (uint64_t seed = 0; seed < 8; ++seed) {
      GenerationRequest request;
      request.prompt = testing::TextTokens("hello");
      request.constraint = constraint;
      request.max_tokens = 120;
      request.logprobs = true;
      request.speculate = false;
      request.sampling = {.temperature = seed == 0 ? 0.0 : 1.0, .seed = seed};
      const Event answer = Generate(*engine, request);
      ASSERT_EQ(answer.finish, FinishReason::kStop) << source.text << answer.text;
      EXPECT_TRUE(testing::Takes(*constraint, answer.text)) << source.text << answer.text;
      request.speculate = true;
      for (const TokenInfo& one : answer.tokens) request.expected.push_back(one.token);
      const Event guessed = Generate(*engine, request);
      EXPECT_EQ(guessed.text, answer.text);
      EXPECT_GT(guessed.usage.accepted_tokens, 0);
      for (size_t i = 0; i < answer.tokens.size(); ++i) {
        EXPECT_EQ(guessed.tokens.at(i).logprobs->logprob, answer.tokens[i].logprobs->logprob);
      }
    }
  }
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
  EXPECT_EQ(grammar::WithoutCounts("root ::= \"{\" [a-z]{2,3} [a-z]{0,64} (a | b){65,} [{5]{1,2}"),
            "root ::= \"{\" [a-z]{2,3} [a-z]* (a | b)+ [{5]{1,2}");
}

}  // namespace
}  // namespace bakestone
