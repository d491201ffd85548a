// A model as Hugging Face's libraries save it: a folder with
//
//   config.json                    what the model is; multimodal ones nest the decoder's part as
//                                  text_config
//   model.safetensors              its tensors, or
//   model.safetensors.index.json   {"weight_map": {tensor: "model-00001-of-00002.safetensors",
//                                  ...}} and shards
//   tokenizer.json, tokenizer.model (XLM-R: sentencepiece.bpe.model), tokenizer_config.json,
//   special_tokens_map.json,
//   generation_config.json, chat_template.jinja            any of them may be absent
//
// Opening reads the small files and maps the shards. Refused by name: weights in pickle files
// (reading one runs code of its author's) and foreign quantizations. Errors are kNotFound, kCorrupt
// or kUnsupported and name the file, the field, expected, found and the way out. Immutable; any
// number of threads may read.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "format/safetensors.h"

namespace bakestone {

// A step that sentence-transformers puts behind a model (modules.json): the last part of its type
// ("Pooling"), its folder.
struct HfModule {
  std::string type, path;
};

struct HfTensor {
  std::string
      name;  // as other models spell it: "model.layers.0...", whatever nests the decoder here
  const SafetensorsTensor* tensor = nullptr;
};

class HfFolder {
 public:
  // Whether the path is a folder that this reads.
  static bool IsOne(const std::filesystem::path& path);
  static HfFolder Open(const std::filesystem::path& path);
  // The same of the text of a config.json and the bytes of a model.safetensors, which the caller
  // keeps alive.
  static HfFolder Parse(std::string_view config, std::span<const uint8_t> tensors,
                        std::string name);
  ~HfFolder();
  HfFolder(HfFolder&&) noexcept;

  const std::string& name() const { return name_; }  // the folder, for messages
  const std::filesystem::path& path() const { return path_; }

  // A field of the decoder's config (text_config if there is one, else the file itself); null if it
  // is absent or JSON's null. Where the decoder's part lacks it, what the whole says.
  const nlohmann::json* Config(std::string_view field) const;
  // Whether the config has the field, be it null.
  bool Mentions(std::string_view field) const;
  // A field of another of the folder's JSON files ("generation_config.json"); null where either is
  // absent.
  const nlohmann::json* Field(std::string_view file, std::string_view field) const;
  // "license" of the head of README.md, the model's card; nullopt where it names none.
  std::optional<std::string> Licence() const;
  // The whole of a text file of the folder; nullopt where it is absent.
  std::optional<std::string> Text(const char* file, int64_t max_bytes = int64_t{256} << 20) const;

  std::span<const HfTensor> tensors() const { return tensors_; }  // sorted by name
  const SafetensorsTensor* Find(
      std::string_view tensor_name) const;  // null if absent; of a module, too
  // What is behind the model, in order, and the tensors of its dense layers:
  // "module:2_Dense.linear.weight".
  std::span<const HfModule> modules() const { return modules_; }
  std::span<const HfTensor> module_tensors() const { return module_tensors_; }
  // The shards, for hashing and for letting pages go.
  std::span<const SafetensorsFile> shards() const;

 private:
  struct Documents;
  HfFolder();
  void ReadConfig(std::string_view text);
  void OpenShards();
  void NameTensors();
  void OpenModules();
  std::span<const SafetensorsFile> ModelShards() const {
    return std::span(shards_).first(num_model_shards_.value_or(shards_.size()));
  }

  std::string name_;
  std::filesystem::path path_;
  std::unique_ptr<Documents> documents_;
  std::vector<SafetensorsFile> shards_;     // those of modules behind the model's
  std::optional<size_t> num_model_shards_;  // none: all
  std::vector<HfTensor> tensors_;
  std::vector<HfModule> modules_;
  std::vector<HfTensor> module_tensors_;
};

}  // namespace bakestone
