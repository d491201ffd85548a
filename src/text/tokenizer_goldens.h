// For tests and benchmarks only: the corpus, the small vocabularies and the expected ids that
// tools/make_tokenizer_goldens.py wrote to tests/data/tokenizer/ (it states the formats). Throws
// Error where a file is absent or damaged.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "text/tokenizer.h"

namespace bakestone::goldens {

inline std::filesystem::path Folder(const std::filesystem::path& source_root) {
  return source_root / "tests" / "data" / "tokenizer";
}

inline std::vector<std::string> Lines(const std::filesystem::path& path) {
  std::ifstream in(path);
  if (!in) Throw(ErrorCode::kNotFound, "{}: cannot open", path.string());
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(std::move(line));
  return lines;
}

struct Text {
  std::string bytes;
  bool valid_utf8 = true;
};

inline std::vector<Text> Corpus(const std::filesystem::path& source_root) {
  std::vector<Text> corpus;
  for (const std::string& line : Lines(Folder(source_root) / "corpus.jsonl")) {
    const auto json = nlohmann::json::parse(line);
    if (json.is_string()) {
      corpus.push_back({json.get<std::string>(), true});
      continue;
    }
    const auto hex = json.at("hex").get<std::string>();
    std::string bytes;
    for (size_t i = 0; i + 1 < hex.size(); i += 2) {
      bytes.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
    }
    corpus.push_back({bytes, false});
  }
  return corpus;
}

inline TokenizerSpec Spec(const std::filesystem::path& source_root, const std::string& name) {
  const auto path = Folder(source_root) / (name + ".json");
  const auto json = nlohmann::json::parse(ReadFile(path));
  TokenizerSpec spec;
  spec.source = path.filename().string();
  const auto kind = json.at("kind").get<std::string>();
  spec.kind = kind == "byte_bpe" ? TokenizerKind::kByteBpe
              : kind == "bpe"    ? TokenizerKind::kSentencePieceBpe
                                 : TokenizerKind::kUnigram;
  spec.pre_tokenizer = json.value("pre_tokenizer", "");
  json.at("tokens").get_to(spec.tokens);
  if (json.contains("scores")) json.at("scores").get_to(spec.scores);
  spec.types.assign(spec.tokens.size(), TokenType::kNormal);
  for (const auto& [type, ids] : json.at("types").items()) {
    for (const size_t id : ids) spec.types.at(id) = static_cast<TokenType>(std::stoi(type));
  }
  for (const std::string merge : json.value("merges", nlohmann::json::array())) {
    const size_t space = merge.find(' ');
    spec.merges.emplace_back(merge.substr(0, space), merge.substr(space + 1));
  }
  for (const auto& added : json.value("added", nlohmann::json::array())) {
    spec.added.push_back({.id = added.at("id"),
                          .lstrip = added.at("lstrip"),
                          .rstrip = added.at("rstrip"),
                          .single_word = added.at("single_word"),
                          .normalized = added.at("normalized")});
  }
  spec.bos = json.value("bos", -1);
  spec.eos = json.value("eos", -1);
  spec.unk = json.value("unk", -1);
  spec.nfc = json.value("nfc", false);
  spec.ignore_merges = json.value("ignore_merges", false);
  if (!json.value("add_space_prefix", true)) spec.space_prefix = SpacePrefix::kNever;
  spec.remove_extra_whitespaces = json.value("remove_extra_whitespaces", false);
  spec.byte_fallback = json.value("byte_fallback", true);
  const auto charsmap = Folder(source_root) / (name + ".charsmap");
  if (std::filesystem::exists(charsmap)) {
    const std::string bytes = ReadFile(charsmap);
    spec.precompiled_charsmap.assign(bytes.begin(), bytes.end());
  }
  return spec;
}

// One line's expectation: absent, the ids, or their hash.
class Expected {
 public:
  explicit Expected(std::string_view text) : text_(text) {
    while (text_.ends_with(' ')) text_.pop_back();
  }
  bool absent() const { return text_ == "-"; }
  // In the golden's own form, so that a difference reads well.
  std::string Render(std::span<const int32_t> ids) const {
    if (!text_.starts_with('#')) {
      std::string text;
      for (const int32_t id : ids) text.append(text.empty() ? "" : " ").append(std::to_string(id));
      return text;
    }
    uint64_t hash = 0xCBF29CE484222325;
    for (const int32_t id : ids) {
      for (int shift = 0; shift < 32; shift += 8) {
        hash = (hash ^ (static_cast<uint32_t>(id) >> shift & 255)) * 0x100000001B3;
      }
    }
    return fmt::format("#{:016x}", hash);
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

struct ExpectedLine {
  Expected plain, special;  // the second: with special tokens parsed
};

inline std::vector<ExpectedLine> ExpectedIds(const std::filesystem::path& source_root,
                                             const std::string& name) {
  std::vector<ExpectedLine> expected;
  for (const std::string& line : Lines(Folder(source_root) / (name + ".ids"))) {
    const size_t bar = line.find(" | ");
    const std::string plain = line.substr(0, bar);
    expected.push_back(
        {Expected(plain), Expected(bar == std::string::npos ? plain : line.substr(bar + 3))});
  }
  return expected;
}

// Compares the tokenizer with the goldens of that name; one message a difference.
inline std::vector<std::string> Differences(const std::filesystem::path& source_root,
                                            const std::string& name, const Tokenizer& tokenizer) {
  const auto corpus = Corpus(source_root);
  const auto expected = ExpectedIds(source_root, name);
  std::vector<std::string> differences;
  if (corpus.size() < 2000 || expected.size() != corpus.size()) {
    differences.push_back(
        fmt::format("{} lines of corpus, {} of ids", corpus.size(), expected.size()));
    return differences;
  }
  for (size_t i = 0; i < corpus.size(); ++i) {
    for (const bool special : {false, true}) {
      const Expected& want = special ? expected[i].special : expected[i].plain;
      // sentencepiece itself never parses a control token.
      if (want.absent() || (special && tokenizer.kind() != TokenizerKind::kByteBpe)) continue;
      const auto ids =
          tokenizer.Encode(corpus[i].bytes, {.add_special = false, .parse_special = special});
      if (want.Render(ids) == want.text()) continue;
      differences.push_back(fmt::format("line {}{} '{}': expected {}, found {}", i + 1,
                                        special ? " with specials" : "", corpus[i].bytes,
                                        want.text(), want.Render(ids)));
    }
  }
  return differences;
}

}  // namespace bakestone::goldens
