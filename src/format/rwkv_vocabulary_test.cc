// RWKV's tokenizer against its rule, by tools/make_rwkv_tokenizer_goldens.py, from either form; and
// files that lie.
#include "format/rwkv_vocabulary.h"

#include <gmock/gmock.h>

#include <iterator>
#include <sstream>

#include "base/file.h"
#include "base/source_dir.h"
#include "format/gguf_tokenizer.h"
#include "text/tokenizer_goldens.h"

namespace bakestone {
namespace {

constexpr size_t kStep = 4;  // of the corpus' lines, as in the generator

const std::filesystem::path kRoot = SourceDir();
const std::filesystem::path kFolder = kRoot / "tests" / "data" / "rwkv_tokenizer";

void ExpectIdsOfTheRule(const Tokenizer& tokenizer) {
  const std::vector<std::string> lines = goldens::Lines(kFolder / "corpus.ids");
  const std::vector<goldens::Text> texts = goldens::Corpus(kRoot);
  ASSERT_EQ(lines.size(), (texts.size() + kStep - 1) / kStep);
  for (size_t i = 0; i < lines.size(); ++i) {
    std::istringstream in(lines[i]);
    const std::vector<int32_t> expected{std::istream_iterator<int32_t>(in), {}};
    const std::string& text = texts[i * kStep].bytes;
    const std::vector<int32_t> ids = tokenizer.Encode(text, {.add_special = true});
    ASSERT_EQ(ids, expected) << text;
    EXPECT_EQ(tokenizer.DecodeBytes(ids), text);
  }
  EXPECT_TRUE(tokenizer.EncodesAllBytes());
  EXPECT_TRUE(tokenizer.IsEndOfGeneration(0));
  EXPECT_FALSE(tokenizer.add_bos());
}

TEST(RwkvVocabulary, FileGivesTheIdsOfTheRule) {
  ExpectIdsOfTheRule(
      Tokenizer(FromRwkvVocabulary(ReadFile(kFolder / kRwkvVocabularyFile), "vocab.txt")));
}

TEST(RwkvVocabulary, GgufGivesTheIdsOfTheRule) {
  const GgufFile file = GgufFile::Open(kFolder / "vocabulary.gguf");
  TokenizerSpec spec = FromGguf(file);
  EXPECT_GT(spec.eot, 0);
  EXPECT_EQ(spec.tokens[static_cast<size_t>(spec.eot)], "\n\n");
  const auto vocabulary = static_cast<int32_t>(spec.tokens.size());
  spec.eot = -1;  // what ends a turn is no text
  const Tokenizer tokenizer(std::move(spec));
  EXPECT_EQ(tokenizer.Type(vocabulary - 1), TokenType::kUnused);
  ExpectIdsOfTheRule(tokenizer);
}

TEST(RwkvVocabulary, NoTextGivesTheTokenThatEndsDocuments) {
  TokenizerSpec spec = FromRwkvVocabulary("1 'a' 1\n", "v");
  spec.unk = 0;  // as folders say it
  EXPECT_THAT(Tokenizer(spec).Encode("a<|rwkv_tokenizer_end_of_text|>a"),
              ::testing::ElementsAre(1, 1));
  EXPECT_THAT(Tokenizer(spec).Encode("a<|rwkv_tokenizer_end_of_text|>", {.parse_special = true}),
              ::testing::ElementsAre(1, 0));
}

TEST(RwkvVocabulary, EscapesAreThoseOfPython) {
  const TokenizerSpec spec = FromRwkvVocabulary(
      "1 'a' 1\n2 '\\xe9' 2\n3 b'\\xe9\\\\' 2\n4 \"'\" 1\n5 '\\u2028\\U0001f600' 7\r\n"
      "6 ' \\t ' 3",
      "v");
  EXPECT_THAT(spec.tokens, ::testing::ElementsAre(::testing::_, "a", "\xC3\xA9", "\xE9\\", "'",
                                                  "\u2028\U0001F600", " \t "));
  EXPECT_EQ(UnescapeRwkvToken("\\t\\n\\r\\\\\\'\\xfFq\\"), "\t\n\r\\'\xFFq\\");
}

TEST(RwkvVocabulary, TokensOfAGgufFileBecomeTheFileThatTheyCameFrom) {
  const GgufFile file = GgufFile::Open(kFolder / "vocabulary.gguf");
  const TokenizerSpec original =
      FromRwkvVocabulary(ReadFile(kFolder / kRwkvVocabularyFile), "vocab.txt");
  const TokenizerSpec again = FromRwkvVocabulary(ToRwkvVocabulary(FromGguf(file)), "again.txt");
  EXPECT_EQ(again.tokens, original.tokens);
  EXPECT_EQ(again.types, original.types);
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  EXPECT_EQ(UnescapeRwkvToken(EscapeRwkvToken(all)), all);
  TokenizerSpec spec = FromRwkvVocabulary("1 'a' 1\n", "v");
  for (const std::string& token : {all, std::string("'\\\n\x7F"), std::string("\xC3\xA9'\"\t")}) {
    spec.tokens[1] = token;
    EXPECT_EQ(FromRwkvVocabulary(ToRwkvVocabulary(spec), "w").tokens[1], token);
  }
  spec.types[0] = TokenType::kNormal;
  EXPECT_THROW(ToRwkvVocabulary(spec), Error);
}

TEST(RwkvVocabulary, NamesTheLineThatLies) {
  for (const char* second :
       {"3 'b' 1", "2 'b' 2", "2 b 1", "2 'b", "2 'b' x", "2 '' 0", "2 'it's' 4", "2 '\\x4' 1",
        "2 '\\ud800' 3", "2 b'\\u0041' 1", "2 '\\q' 2", "", "2"}) {
    try {
      FromRwkvVocabulary(std::string("1 'a' 1\n") + second + "\n", "v.txt");
      ADD_FAILURE() << "no error: " << second;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kCorrupt);
      EXPECT_THAT(std::string(error.what()),
                  ::testing::HasSubstr("v.txt: line 2: expected 2, a token in quotes"));
    }
  }
}

}  // namespace
}  // namespace bakestone
