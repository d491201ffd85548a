// tokenizer.json against PyPI's tokenizers, by tools/make_hf_tokenizer_goldens.py; and files that
// are not read.
#include "format/tokenizer_json.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <array>

#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/source_dir.h"
#include "format/gguf_tokenizer.h"
#include "format/hf_folder.h"
#include "format/hf_tokenizer.h"
#include "format/sentencepiece_model.h"
#include "text/tokenizer_goldens.h"
#include "text/utf8.h"

namespace bakestone {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr size_t kStep = 8;  // of the corpus' lines, as in the generator

const std::filesystem::path kRoot = SourceDir();
const std::filesystem::path kFolder = kRoot / "tests" / "data" / "hf_tokenizer";

std::vector<std::string> Names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(kFolder)) {
    if (entry.path().extension() == ".json") names.push_back(entry.path().stem().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<std::string> ValidTexts() {
  std::vector<std::string> texts;
  for (const goldens::Text& text : goldens::Corpus(kRoot)) {
    if (text.valid_utf8) texts.push_back(text.bytes);
  }
  return texts;
}

std::string Fnv(std::string_view text) {
  uint64_t hash = 0xCBF29CE484222325;
  for (const char byte : text) hash = (hash ^ static_cast<uint8_t>(byte)) * 0x100000001B3;
  return fmt::format("{:016x}", hash);
}

class TokenizerJsonTest : public ::testing::TestWithParam<std::string> {
 protected:
  Tokenizer tokenizer_{
      FromTokenizerJson(ReadFile(kFolder / (GetParam() + ".json")), GetParam() + ".json")};
};

TEST_P(TokenizerJsonTest, IdsAndTextEqualThoseOfTokenizers) {
  const std::vector<std::string> texts = ValidTexts();
  const std::vector<std::string> lines = goldens::Lines(kFolder / (GetParam() + ".ids"));
  ASSERT_EQ(lines.size(), (texts.size() + kStep - 1) / kStep);
  for (size_t i = 0; i < lines.size(); ++i) {
    const std::string& text = texts[i * kStep];
    const size_t first = lines[i].find(" | "), second = lines[i].find(" | ", first + 1);
    const goldens::Expected plain(lines[i].substr(0, first));
    const goldens::Expected special(lines[i].substr(first + 3, second - first - 3));
    EXPECT_EQ(plain.Render(tokenizer_.Encode(text, {.add_special = false})), plain.text()) << text;
    const auto ids = tokenizer_.Encode(text, {.add_special = true, .parse_special = true});
    EXPECT_EQ(special.Render(ids), special.text()) << text;
    EXPECT_EQ(Fnv(tokenizer_.Decode(ids, {.render_special = true})), lines[i].substr(second + 3))
        << text;
  }
}

class UnigramJsonTest : public ::testing::TestWithParam<const char*> {};

TEST_P(UnigramJsonTest, ClustersWhiteSpaceAndMarksAreThoseOfTokenizers) {
  const std::string name = GetParam();
  const Tokenizer tokenizer(FromTokenizerJson(ReadFile(kFolder / (name + ".json")), name));
  const std::vector<std::string> texts = goldens::Lines(kFolder / "CASES.txt");
  const std::vector<std::string> lines = goldens::Lines(kFolder / (name + ".cases"));
  ASSERT_EQ(lines.size(), texts.size());
  for (size_t i = 0; i < lines.size(); ++i) {
    const auto text = nlohmann::json::parse(texts[i]).get<std::string>();
    EXPECT_EQ(fmt::format("{}", fmt::join(tokenizer.Encode(text, {.parse_special = true}), " ")),
              lines[i])
        << texts[i];
  }
}

TEST_P(UnigramJsonTest, PairsAreThoseOfTokenizers) {
  const std::string name = GetParam();
  const Tokenizer tokenizer(FromTokenizerJson(ReadFile(kFolder / (name + ".json")), name));
  const std::vector<std::string> texts = goldens::Lines(kFolder / "CASES.txt");
  const std::vector<std::string> lines = goldens::Lines(kFolder / (name + ".pairs"));
  ASSERT_EQ(lines.size(), 15u);
  const auto text = [&](size_t i) { return nlohmann::json::parse(texts[i]).get<std::string>(); };
  for (size_t i = 0; i < lines.size(); ++i) {
    const Tokenizer::Pair pair = tokenizer.EncodePair(text(i + 4), text(i + 9));
    EXPECT_EQ(fmt::format("{} | {}", fmt::join(pair.ids, " "), fmt::join(pair.types, " ")),
              lines[i]);
  }
}

INSTANTIATE_TEST_SUITE_P(Names, UnigramJsonTest, ::testing::Values("xlmr", "bge_m3"),
                         [](const auto& info) { return std::string(info.param); });

// What text cannot do: a user's text makes no control tokens, though the vocabulary has their
// spellings.
TEST(UnigramJson, ControlTokensComeFromTemplatesOnly) {
  const Tokenizer tokenizer(FromTokenizerJson(ReadFile(kFolder / "xlmr.json"), "xlmr.json"));
  for (const char* text : {"<s>", "a </s> b", "<mask>"}) {
    for (const int32_t id : tokenizer.Encode(text, {.add_special = false})) {
      EXPECT_FALSE(tokenizer.IsControl(id)) << text;
    }
  }
}

// XLM-R's ids, from SentencePiece's file in a folder and from GGUF.
TEST(Fairseq, IdsAreThoseOfSentencePieceShifted) {
  const auto folder =
      std::filesystem::path(::testing::TempDir()) / fmt::format("xlmr_{}", ::getpid());
  std::filesystem::create_directories(folder);
  std::filesystem::copy_file(kFolder / "fairseq.model", folder / "sentencepiece.bpe.model");
  SafetensorsWriter none;
  const std::vector<uint8_t> zeros(4);
  none.AddTensor("embeddings.word_embeddings.weight", DType::kF32, std::array<int64_t, 2>{1, 1},
                 zeros);
  none.Write(folder / "model.safetensors");
  WriteFileAtomically(folder / "config.json", R"({"model_type": "xlm-roberta"})");
  const Tokenizer of_folder(FromHfFolder(HfFolder::Open(folder))),
      of_gguf(FromGguf(GgufFile::Open(kFolder / "fairseq.gguf")));
  WriteFileAtomically(folder / "config.json", R"({"model_type": "camembert"})");
  EXPECT_THROW(FromHfFolder(HfFolder::Open(folder)), Error);
  std::filesystem::remove_all(folder);
  EXPECT_EQ(of_folder.vocab_size(), 702);
  const auto mask = of_folder.Encode("a <mask>", {.parse_special = true});
  EXPECT_EQ(mask[mask.size() - 2], 701);
  const std::vector<std::string> texts = ValidTexts(),
                                 lines = goldens::Lines(kFolder / "fairseq.ids");
  ASSERT_EQ(lines.size(), (texts.size() + kStep - 1) / kStep);
  for (size_t i = 0; i < lines.size(); ++i) {
    const goldens::Expected expected(lines[i]);
    EXPECT_EQ(expected.Render(of_folder.Encode(texts[i * kStep])), expected.text())
        << texts[i * kStep];
    EXPECT_EQ(expected.Render(of_gguf.Encode(texts[i * kStep])), expected.text())
        << texts[i * kStep];
  }
}

// And SentencePiece's own files against that package.
TEST(SentencePieceModel, IdsEqualThoseOfSentencePiece) {
  for (const char* name : {"sp_bpe", "sp_unigram"}) {
    const std::string model = ReadFile(kFolder / (std::string(name) + ".model"));
    const Tokenizer tokenizer(FromSentencePieceModel(
        {reinterpret_cast<const uint8_t*>(model.data()), model.size()}, "tokenizer.model"));
    const std::vector<std::string> texts = ValidTexts(),
                                   lines = goldens::Lines(kFolder / (std::string(name) + ".ids"));
    ASSERT_EQ(lines.size(), (texts.size() + kStep - 1) / kStep);
    for (size_t i = 0; i < lines.size(); ++i) {
      const goldens::Expected expected(lines[i]);
      EXPECT_EQ(expected.Render(tokenizer.Encode(texts[i * kStep], {.add_special = false})),
                expected.text())
          << name << ": " << texts[i * kStep];
    }
  }
}

TEST(SentencePieceModel, DamageIsAnError) {
  const std::string model = ReadFile(kFolder / "sp_unigram.model");
  const auto* bytes = reinterpret_cast<const uint8_t*>(model.data());
  for (size_t size = 0; size < model.size(); size += size < 100 ? 1 : 997) {
    try {
      FromSentencePieceModel({bytes, size}, "t.model");
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kCorrupt);
      EXPECT_THAT(std::string(error.what()), HasSubstr("t.model"));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, TokenizerJsonTest, ::testing::ValuesIn(Names()),
                         [](const auto& info) { return info.param; });

void ExpectError(const std::string& json, ErrorCode code,
                 const ::testing::Matcher<std::string>& message) {
  try {
    FromTokenizerJson(json, "t.json");
    ADD_FAILURE() << "no error: " << json;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_THAT(std::string(error.what()), AllOf(HasSubstr("t.json"), message));
  }
}

constexpr const char* kBytes = R"("pre_tokenizer": {"type": "ByteLevel"}, )";
constexpr const char* kModel =
    R"("model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]})";

TEST(TokenizerJson, RefusesByNameWhatItDoesNotRead) {
  const auto refused = [](const std::string& field, const char* name) {
    ExpectError("{" + field + ", " + kModel + "}", ErrorCode::kUnsupported, HasSubstr(name));
  };
  refused(R"("pre_tokenizer": {"type": "BertPreTokenizer"})", "BertPreTokenizer");
  refused(std::string(kBytes) + R"("normalizer": {"type": "Lowercase"})", "Lowercase");
  refused(
      R"("pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}, {"type": "Digits"}]})",
      "Digits");
  refused(std::string(kBytes) + R"("post_processor": {"type": "Strange"})", "Strange");
  refused(R"("pre_tokenizer": {"type": "Metaspace", "split": true})", "split");
  refused(R"("version": "1.0")", "neither");
  ExpectError(R"({"model": {"type": "Strange", "vocab": []}})", ErrorCode::kUnsupported,
              HasSubstr("Strange"));
}

TEST(UnigramJson, NamesWhatItDoesNotRead) {
  const auto with = [](const std::string& vocab, const std::string& more) {
    return R"({"model": {"type": "Unigram", "vocab": )" + vocab + "}" + more + "}";
  };
  const std::string vocab = R"([["a", -1.0]])",
                    marks = R"(, "pre_tokenizer": {"type": "Metaspace"})";
  ExpectError(with(vocab, ""), ErrorCode::kUnsupported, HasSubstr("Metaspace"));
  ExpectError(with(vocab, R"(, "pre_tokenizer": {"type": "ByteLevel"})"), ErrorCode::kUnsupported,
              HasSubstr("ByteLevel"));
  ExpectError(with(vocab, marks + R"(, "normalizer": {"type": "StripAccents"})"),
              ErrorCode::kUnsupported, HasSubstr("StripAccents"));
  ExpectError(
      with(vocab,
           marks +
               R"(, "normalizer": {"type": "Replace", "pattern": {"Regex": "a+"}, "content": ""})"),
      ErrorCode::kUnsupported, HasSubstr("a+"));
  ExpectError(
      with(vocab,
           marks +
               R"(, "normalizer": {"type": "Replace", "pattern": {"String": ""}, "content": "x"})"),
      ErrorCode::kCorrupt, HasSubstr("pattern.String"));
  ExpectError(
      with(vocab,
           marks + R"(, "normalizer": {"type": "Precompiled", "precompiled_charsmap": "ab!d"})"),
      ErrorCode::kCorrupt, HasSubstr("precompiled_charsmap"));
  ExpectError(with("{}", marks), ErrorCode::kCorrupt, HasSubstr("model.vocab"));
  ExpectError(with(R"([["a"]])", marks), ErrorCode::kCorrupt, HasSubstr("vocab[0]"));
  ExpectError(with(R"([["a", 1e300]])", marks), ErrorCode::kCorrupt, HasSubstr("vocab[0]"));
  ExpectError(
      R"({"model": {"type": "Unigram", "unk_id": 4, "vocab": [["a", -1.0]]}, "pre_tokenizer": {"type": "Metaspace"}})",
      ErrorCode::kCorrupt, HasSubstr("unk_id"));
}

TEST(TokenizerJson, NamesTheDamage) {
  const auto damaged = [](const std::string& json, const char* what) {
    ExpectError(json, ErrorCode::kCorrupt, HasSubstr(what));
  };
  damaged("[]", "array");
  damaged("{", "no JSON");
  damaged("{\"a\": " + std::string(200'000, '[') + std::string(200'000, ']') + "}", "200 levels");
  damaged("{}", "model");
  damaged(R"({"model": {"type": "BPE", "vocab": [], "merges": []}})", "model.vocab");
  damaged(R"({"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}})", "vocab");
  damaged(R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": []}})", "token 0");
  damaged(R"({"model": {"type": "BPE", "vocab": {"a": 16000000}, "merges": []}})", "16000000");
  damaged(R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a"]}})", "merges[0]");
  damaged(R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", 3]]}})", "merges[0]");
  damaged(std::string("{") + kModel + R"(, "added_tokens": [{"id": 3, "content": ""}]})",
          "added_tokens[0].content");
  damaged(std::string("{") + kModel + R"(, "added_tokens": [{"content": "x"}]})",
          "added_tokens[0].id");
  damaged(std::string("{") + kBytes + kModel +
              R"(, "post_processor": {"type": "TemplateProcessing", "single": [
      {"SpecialToken": {"id": "absent"}}]}})",
          "single[0]");
}

}  // namespace
}  // namespace bakestone
