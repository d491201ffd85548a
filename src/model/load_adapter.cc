#include "model/load_adapter.h"

#include "format/gguf_adapter.h"
#include "format/peft.h"

namespace bakestone {

std::shared_ptr<const Adapter> LoadAdapter(const std::filesystem::path& path, const Model& model) {
  const ModelConfig& config = model.config;
  const AdapterFile file =
      std::filesystem::is_directory(path)
          ? ReadPeftAdapter(path)
          : ReadGgufAdapter(path, {config.num_heads, config.num_kv_heads, config.head_dim});
  return Adapter::Load(file, config);
}

}  // namespace bakestone
