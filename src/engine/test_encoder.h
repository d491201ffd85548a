// For tests: the tiny BERT of tests/data/families with a tokenizer of letters, and a loop that
// embeds with it.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <future>
#include <memory>
#include <string>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/source_dir.h"
#include "base/thread_pool.h"
#include "engine/embedding_loop.h"
#include "kernels/kernel_table.h"
#include "model/model.h"

namespace bakestone::testing {

// [PAD] [UNK] [CLS] [SEP], then a to z at the start of a word and within one: a letter is a token.
inline constexpr int32_t kTestCls = 2, kTestSep = 3, kTestLetterA = 4;

inline void WriteTestEncoder(const std::filesystem::path& folder) {
  using Json = nlohmann::ordered_json;
  std::filesystem::create_directories(folder);
  const auto source = std::filesystem::path(SourceDir()) / "tests/data/families/bert";
  for (const char* name : {"config.json", "model.safetensors"}) {
    std::filesystem::copy_file(source / name, folder / name,
                               std::filesystem::copy_options::overwrite_existing);
  }
  Json vocab = {{"[PAD]", 0}, {"[UNK]", 1}, {"[CLS]", kTestCls}, {"[SEP]", kTestSep}};
  for (int i = 0; i < 26; ++i) vocab[std::string(1, static_cast<char>('a' + i))] = kTestLetterA + i;
  for (int i = 0; i < 26; ++i) {
    vocab["##" + std::string(1, static_cast<char>('a' + i))] = kTestLetterA + 26 + i;
  }
  const auto special = [](const char* name) {
    return Json{{"SpecialToken", {{"id", name}, {"type_id", 0}}}};
  };
  const Json json = {
      {"version", "1.0"},
      {"added_tokens", Json::array()},
      {"normalizer",
       {{"type", "BertNormalizer"},
        {"clean_text", true},
        {"lowercase", true},
        {"handle_chinese_chars", true},
        {"strip_accents", nullptr}}},
      {"pre_tokenizer", {{"type", "BertPreTokenizer"}}},
      {"post_processor",
       {{"type", "TemplateProcessing"},
        {"single", Json::array({special("[CLS]"), Json{{"Sequence", {{"id", "A"}, {"type_id", 0}}}},
                                special("[SEP]")})}}},
      {"model",
       {{"type", "WordPiece"},
        {"unk_token", "[UNK]"},
        {"continuing_subword_prefix", "##"},
        {"max_input_chars_per_word", 100},
        {"vocab", vocab}}}};
  std::ofstream(folder / "tokenizer.json") << json;
}

// Loaded once a process.
inline std::shared_ptr<const Model> SharedTestEncoder() {
  static const std::shared_ptr<const Model> model = [] {
    const auto folder = std::filesystem::temp_directory_path() /
                        ("bakestone-encoder-" + std::to_string(::getpid()));
    WriteTestEncoder(folder);
    ThreadPool pool(1);
    auto loaded = Model::Load(folder, ChooseKernels(nullptr), pool);
    std::filesystem::remove_all(folder);
    return loaded;
  }();
  return model;
}

// A loop with its threads: both go together.
inline std::shared_ptr<EmbeddingLoop> MakeTestEmbeddingLoop(EmbeddingLoopOptions options = {}) {
  struct Both {
    explicit Both(EmbeddingLoopOptions options)
        : pool(1), loop(SharedTestEncoder(), ChooseKernels(nullptr), pool, options) {}
    ThreadPool pool;
    EmbeddingLoop loop;
  };
  auto both = std::make_shared<Both>(options);
  return {both, &both->loop};
}

// Holds a loop still inside a sink, so that what a test sets up meanwhile cannot be overtaken.
class EmbeddingPlug {
 public:
  explicit EmbeddingPlug(EmbeddingLoop& loop) {
    loop.Submit({.texts = {{kTestCls}},
                 .sink = [this, pulled = pulled_.get_future().share()](EmbeddingEvent&&) {
                   plugged_.set_value();
                   pulled.wait();
                 }});
    plugged_.get_future().wait();
  }
  ~EmbeddingPlug() { Pull(); }
  void Pull() {
    if (!std::exchange(done_, true)) pulled_.set_value();
  }

 private:
  std::promise<void> plugged_, pulled_;
  bool done_ = false;
};

}  // namespace bakestone::testing
