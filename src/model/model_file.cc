#include "model/model_file.h"

#include "base/error.h"
#include "format/gguf.h"
#include "format/gguf_tokenizer.h"
#include "format/hf_folder.h"
#include "format/hf_tokenizer.h"
#include "format/rwkv_vocabulary.h"

namespace bakestone {
namespace {

// Files of RWKV's world models have a name in place of a template.
constexpr const char* kRwkvWorldTemplate =
    "{% for message in messages %}"
    "{{ 'System' if message.role == 'system' else 'User' if message.role == 'user' else "
    "'Assistant' }}: "
    "{{ message.content | trim }}\n\n"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}";

}  // namespace

ModelFile::ModelFile() = default;
ModelFile::~ModelFile() = default;
ModelFile::ModelFile(ModelFile&&) noexcept = default;

ModelFile ModelFile::Open(const std::filesystem::path& path) {
  ModelFile file;
  file.path_ = path;
  if (HfFolder::IsOne(path)) {
    file.folder_ = std::make_unique<const HfFolder>(HfFolder::Open(path));
  } else {
    file.gguf_ = std::make_unique<const GgufFile>(GgufFile::Open(path));
  }
  return file;
}

const std::string& ModelFile::name() const { return gguf_ ? gguf_->name() : folder_->name(); }

ModelConfig ModelFile::Config() const { return gguf_ ? ReadConfig(*gguf_) : ReadConfig(*folder_); }

TokenizerSpec ModelFile::Tokenizer() const {
  return gguf_ ? FromGguf(*gguf_) : FromHfFolder(*folder_);
}

std::optional<ModelFile::Template> ModelFile::ChatTemplate() const {
  if (folder_) {
    std::optional<std::string> text = HfChatTemplate(*folder_);
    if (!text) return std::nullopt;
    return Template{std::move(*text), name() + ": chat template"};
  }
  constexpr const char* kKey = "tokenizer.chat_template";
  if (!gguf_->Has(kKey)) return std::nullopt;
  if (gguf_->GetString(kKey) == "rwkv-world") {
    return Template{kRwkvWorldTemplate, name() + ": " + kKey};
  }
  return Template{std::string(gguf_->GetString(kKey)), name() + ": " + kKey};
}

std::optional<std::string> ModelFile::Licence() const {
  if (folder_) return folder_->Licence();
  if (!gguf_->Has("general.license")) return std::nullopt;
  return std::string(gguf_->GetString("general.license"));
}

TensorSource ModelFile::Tensors() const {
  return gguf_ ? TensorSource(*gguf_) : TensorSource(*folder_);
}

std::vector<std::filesystem::path> ModelFile::Files() const {
  if (gguf_) return gguf_->paths();
  std::vector<std::filesystem::path> files;
  for (const char* name :
       {"config.json", "generation_config.json", "tokenizer.json", "tokenizer.model",
        "sentencepiece.bpe.model", "tokenizer_config.json", "special_tokens_map.json",
        "chat_template.jinja", "chat_template.json", kRwkvVocabularyFile}) {
    if (std::filesystem::exists(path_ / name)) files.push_back(path_ / name);
  }
  for (const SafetensorsFile& shard : folder_->shards()) files.emplace_back(shard.name());
  return files;
}

Hash ModelFile::ContentHash(
    const std::function<Hash(const std::filesystem::path&)>& hash_of) const {
  const std::vector<std::filesystem::path> files = Files();
  if (files.size() == 1) return hash_of(files[0]);
  Sha256 all;
  for (const std::filesystem::path& path : files) {
    const std::string line = path.filename().string() + " " + ToHex(hash_of(path)) + "\n";
    all.Update({reinterpret_cast<const uint8_t*>(line.data()), line.size()});
  }
  return all.Finish();
}

int64_t ModelFile::bytes() const {
  int64_t total = 0;
  if (gguf_) {
    for (const auto& path : gguf_->paths()) {
      total += static_cast<int64_t>(std::filesystem::file_size(path));
    }
    return total;
  }
  for (const SafetensorsFile& shard : folder_->shards()) {
    total += static_cast<int64_t>(shard.mapping().bytes().size());
  }
  return total;
}

}  // namespace bakestone
