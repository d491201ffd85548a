#include "model/model.h"

#include <future>

#include "base/error.h"
#include "model/model_file.h"

namespace bakestone {
std::shared_ptr<const Model> Model::Load(const std::filesystem::path& path,
                                         const KernelTable& kernels, ThreadPool& pool,
                                         const LoadOptions& options) {
  const ModelFile file = ModelFile::Open(path);
  const ModelConfig config = file.Config();
  const TensorSource tensors = file.Tensors();
  // Beside this thread: the hash, and the tokenizer, which takes longer than mapping packed
  // weights.
  const std::optional<PackCache> cache =
      options.pack_cache ? std::optional<PackCache>(*options.pack_cache) : std::nullopt;
  std::future<Hash> hash = std::async(std::launch::async, [&] {
    return file.ContentHash([&](const std::filesystem::path& one) {
      return cache ? cache->SourceHash(one) : HashOfFile(one);
    });
  });
  std::future<std::shared_ptr<Model>> described =
      std::async(std::launch::async, [&] { return std::make_shared<Model>(file.Tokenizer()); });
  std::shared_ptr<const PackedFile> packed;
  std::optional<Hash> source;
  if (cache) {
    source = hash.get();
    packed = cache->OpenOrMake(*source, file.bytes(), [&](PackedFileWriter& writer) {
      Weights::Pack(tensors, config, pool, writer);
    });
  }
  std::unique_ptr<const Weights> weights =
      Weights::Load(tensors, config, kernels, pool, std::move(packed));
  const std::shared_ptr<Model> model = described.get();
  model->path = path;
  model->config = config;
  model->licence = file.Licence();
  if (const auto found = file.ChatTemplate()) {
    model->chat_template = chat::ChatTemplate::Parse(found->text, found->where);
  }
  model->weights = std::move(weights);
  model->decoder = std::make_unique<const Decoder>(model->config, *model->weights);
  model->file_hash = source ? *source : hash.get();
  return model;
}

}  // namespace bakestone
