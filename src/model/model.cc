#include "model/model.h"

#include <sys/resource.h>

#include <chrono>

#include "base/error.h"
#include "base/log.h"
#include "model/model_file.h"

namespace bakestone {
namespace {

// Of a file, where nothing large must be read for it.
std::optional<Hash> KnownHash(const ModelFile& file, const PackCache& cache) {
  bool known = true;
  const Hash hash = file.ContentHash([&](const std::filesystem::path& one) {
    const std::optional<Hash> own = known ? cache.KnownHash(one) : std::nullopt;
    known = own.has_value();
    return own.value_or(Hash{});
  });
  return known ? std::optional<Hash>(hash) : std::nullopt;
}

// looked: whether they were looked for and not found.
void Keep(const PackCache& cache, const Hash& source, const std::vector<PackedPanel>& panels,
          bool looked) {
  ::setpriority(PRIO_PROCESS, 0, 10);  // of this thread: answers come first
  if (looked || cache.Open(source) == nullptr) cache.Keep(source, panels);
}

}  // namespace

Model::~Model() {
  constexpr std::chrono::milliseconds kUnnoticed{300};
  if (!keeping.valid() || keeping.wait_for(kUnnoticed) == std::future_status::ready) return;
  LogInfo("{}: writing its packed weights, so that the next start takes no work", path.string());
  keeping.wait();
}

std::shared_ptr<const Model> Model::Load(const std::filesystem::path& path,
                                         const KernelTable& kernels, ThreadPool& pool,
                                         const LoadOptions& options) {
  const ModelFile file = ModelFile::Open(path);
  const ModelConfig config = file.Config();
  const TensorSource tensors = file.Tensors();
  const LoadTypes types = options.types ? options.types(path) : LoadTypes();
  const std::optional<PackCache> cache =
      options.pack_cache ? std::optional<PackCache>(*options.pack_cache) : std::nullopt;
  const std::optional<Hash> known = cache ? KnownHash(file, *cache) : std::nullopt;
  // Beside this thread: the hash, which takes about as long as packing, and the tokenizer, which
  // takes longer than mapping packed weights.
  std::future<Hash> hash = std::async(std::launch::async, [&] {
    if (known) return *known;
    return file.ContentHash([&](const std::filesystem::path& one) {
      return cache ? cache->SourceHash(one) : HashOfFile(one);
    });
  });
  std::future<std::shared_ptr<Model>> described =
      std::async(std::launch::async, [&] { return std::make_shared<Model>(file.Tokenizer()); });
  const std::shared_ptr<const PackedFile> packed =
      known ? cache->Open(types.Identity(*known)) : nullptr;
  std::vector<PackedPanel> made;
  const bool keep = cache && packed == nullptr;
  std::unique_ptr<const Weights> weights =
      Weights::Load(tensors, config, kernels, pool,
                    {.packed = packed, .types = &types, .made = keep ? &made : nullptr});
  const std::shared_ptr<Model> model = described.get();
  model->path = path;
  model->config = config;
  model->licence = file.Licence();
  if (const auto found = file.ChatTemplate()) {
    model->chat_template = chat::ChatTemplate::Parse(found->text, found->where);
  }
  model->weights = std::move(weights);
  model->decoder = std::make_unique<const Decoder>(model->config, *model->weights);
  model->file_hash = types.Identity(hash.get());
  if (keep) {
    model->keeping = std::async(std::launch::async, Keep, *cache, model->file_hash, std::move(made),
                                known.has_value());
    if (options.wait_until_kept) model->keeping.wait();
  }
  return model;
}

}  // namespace bakestone
