#include "model/model.h"

#include <future>

#include "base/error.h"
#include "format/gguf.h"
#include "format/gguf_tokenizer.h"

namespace bakestone {

std::shared_ptr<const Model> Model::Load(const std::filesystem::path& path,
                                         const KernelTable& kernels, ThreadPool& pool,
                                         const LoadOptions& options) {
  const GgufFile file = GgufFile::Open(path);
  const ModelConfig config = ReadConfig(file);
  // Beside this thread: the hash, and the tokenizer, which takes longer than mapping packed weights.
  const std::optional<PackCache> cache =
      options.pack_cache ? std::optional<PackCache>(*options.pack_cache) : std::nullopt;
  std::future<Hash> hash = std::async(std::launch::async, [&] {
    return cache ? cache->SourceHash(path) : HashOfFile(path);
  });
  std::future<std::shared_ptr<Model>> described =
      std::async(std::launch::async, [&] { return std::make_shared<Model>(FromGguf(file)); });
  std::shared_ptr<const PackedFile> packed;
  std::optional<Hash> source;
  if (cache) {
    source = hash.get();
    packed = cache->OpenOrMake(*source, static_cast<int64_t>(file.bytes().size()),
                               [&](PackedFileWriter& writer) { Weights::Pack(file, config, pool, writer); });
  }
  std::unique_ptr<const Weights> weights = Weights::Load(file, config, kernels, pool, std::move(packed));
  const std::shared_ptr<Model> model = described.get();
  model->path = path;
  model->config = config;
  if (file.Has("general.license")) model->licence = file.GetString("general.license");
  if (file.Has("tokenizer.chat_template")) {
    model->chat_template = chat::ChatTemplate::Parse(file.GetString("tokenizer.chat_template"),
                                                     file.name() + ": tokenizer.chat_template");
  }
  model->weights = std::move(weights);
  model->decoder = std::make_unique<const Decoder>(model->config, *model->weights);
  model->file_hash = source ? *source : hash.get();
  return model;
}

}  // namespace bakestone
