// A loaded model: everything that belongs to one GGUF file or Hugging Face folder. Immutable,
// shared by engine, eval, training.
#pragma once

#include <filesystem>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "base/sha256.h"
#include "model/config.h"
#include "model/decoder.h"
#include "model/load_types.h"
#include "model/pack_cache.h"
#include "model/weights.h"
#include "text/chat/template.h"
#include "text/tokenizer.h"

namespace bakestone {

struct LoadOptions {
  std::optional<PackCacheOptions> pack_cache;  // absent: the weights are packed in memory
  // The types that the matrices of a file get; empty: as they are stored.
  std::function<LoadTypes(const std::filesystem::path&)> types;
  bool wait_until_kept = false;  // return when packed weights are kept: for measuring what follows
};

struct Model {
  explicit Model(TokenizerSpec spec) : tokenizer(std::move(spec)) {}
  ~Model();  // waits until packed weights are kept; where that takes a while, the log says so
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  std::filesystem::path path;
  // SHA-256 of the GGUF, or of the names and hashes of several files; of weights that were
  // quantized while they were loaded, of that and their types (LoadTypes::Identity).
  Hash file_hash{};
  ModelConfig config;
  std::optional<std::string> licence;  // as the model's file says it; absent: unknown
  Tokenizer tokenizer;
  std::optional<chat::ChatTemplate> chat_template;  // absent: the file has none
  std::unique_ptr<const Weights> weights;
  std::unique_ptr<const Decoder> decoder;
  // Packed weights on their way to the cache, from a thread of its own: after the weights, so that
  // it ends before they do.
  std::future<void> keeping;

  // Reads, checks, and packs or maps what was packed before. Throws Error naming the file and the
  // field.
  static std::shared_ptr<const Model> Load(const std::filesystem::path& path,
                                           const KernelTable& kernels, ThreadPool& pool,
                                           const LoadOptions& options = {});
};

}  // namespace bakestone
