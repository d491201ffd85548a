#include "model/model.h"

#include <future>

#include "base/error.h"
#include "format/gguf.h"
#include "format/gguf_tokenizer.h"

namespace bakestone {

std::shared_ptr<const Model> Model::Load(const std::filesystem::path& path,
                                         const KernelTable& kernels, ThreadPool& pool) {
  const GgufFile file = GgufFile::Open(path);
  // Reads the file a second time, out of the page cache, while the weights are packed.
  std::future<Hash> hash = std::async(std::launch::async, [&] { return HashOfFile(path); });
  const ModelConfig config = ReadConfig(file);
  auto model = std::make_shared<Model>(FromGguf(file));
  model->path = path;
  model->config = config;
  if (file.Has("general.license")) model->licence = file.GetString("general.license");
  if (file.Has("tokenizer.chat_template")) {
    model->chat_template = chat::ChatTemplate::Parse(file.GetString("tokenizer.chat_template"),
                                                     file.name() + ": tokenizer.chat_template");
  }
  model->weights = Weights::Load(file, model->config, kernels, pool);
  model->decoder = std::make_unique<const Decoder>(model->config, *model->weights);
  model->file_hash = hash.get();
  return model;
}

}  // namespace bakestone
