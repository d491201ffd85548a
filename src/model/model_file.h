// What a model's path names, a GGUF file or a Hugging Face folder, opened but not loaded: its
// settings, tokenizer, chat template, licence and tensors. Immutable; any number of threads may
// read.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/sha256.h"
#include "model/config.h"
#include "model/tensor_source.h"
#include "text/tokenizer_spec.h"

namespace bakestone {

class ModelFile {
 public:
  // A folder is taken for Hugging Face's. Throws what GgufFile and HfFolder throw.
  static ModelFile Open(const std::filesystem::path& path);
  ~ModelFile();
  ModelFile(ModelFile&&) noexcept;

  const std::string& name() const;                          // for messages
  const GgufFile* gguf() const { return gguf_.get(); }      // null for a folder
  const HfFolder* folder() const { return folder_.get(); }  // null for a file

  ModelConfig Config() const;
  TokenizerSpec Tokenizer() const;
  struct Template {
    std::string text, where;  // where it was found, for messages
  };
  std::optional<Template> ChatTemplate() const;
  std::optional<std::string> Licence() const;  // as the file says it
  TensorSource Tensors() const;                // must not outlive this
  // The files that answers depend on; the first is the path given, or config.json.
  std::vector<std::filesystem::path> Files() const;
  // SHA-256 of the file, or of the names and hashes of several; hash_of gives one file's.
  Hash ContentHash(const std::function<Hash(const std::filesystem::path&)>& hash_of) const;
  int64_t bytes() const;  // of the tensors' files

 private:
  ModelFile();
  std::filesystem::path path_;
  std::unique_ptr<const GgufFile> gguf_;  // one of the two
  std::unique_ptr<const HfFolder> folder_;
};

}  // namespace bakestone
