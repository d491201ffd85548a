#include "model/load_adapter.h"

#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/quote.h"
#include "format/gguf_adapter.h"
#include "format/peft.h"
#include "tensor/half.h"

namespace bakestone {
namespace {

void CheckBase(const AdapterFile& file, const std::filesystem::path& path, const Model& model) {
  if (file.base_hash.empty() || file.base_hash == ToHex(model.file_hash)) return;
  const std::string base = file.base_name.empty() ? "another one" : Quote(file.base_name);
  if (!file.base_norms.empty() && file.base_norms != NormsHash(*model.weights)) {
    Throw(ErrorCode::kInvalidArgument,
          "{}: expected an adapter of {}, found one that was trained on another model ({}, its "
          "norms differ): load it "
          "with its own base, in any quantization",
          path.string(), model.path.string(), base);
  }
  LogInfo("{}: trained on another file of its base ({}) than {}", path.string(), base,
          model.path.string());
}

}  // namespace

std::string NormsHash(const Weights& weights) {
  Sha256 hash;
  std::vector<uint8_t> bytes;
  const auto add = [&](const std::vector<float>& norm) {
    bytes.clear();
    for (const float value : norm) {
      const uint16_t half = FloatToBF16(value);
      bytes.push_back(static_cast<uint8_t>(half & 255));
      bytes.push_back(static_cast<uint8_t>(half >> 8));
    }
    hash.Update(bytes);
  };
  for (const LayerWeights& layer : weights.layers) {
    for (const auto* norm : {&layer.attention_norm, &layer.mlp_norm, &layer.attention_post_norm,
                             &layer.mlp_post_norm, &layer.q_norm, &layer.k_norm}) {
      add(*norm);
    }
  }
  add(weights.final_norm);
  return ToHex(hash.Finish());
}

std::shared_ptr<const Adapter> LoadAdapter(const std::filesystem::path& path, const Model& model) {
  const ModelConfig& config = model.config;
  const AdapterFile file =
      std::filesystem::is_directory(path)
          ? ReadPeftAdapter(path)
          : ReadGgufAdapter(path, {config.num_heads, config.num_kv_heads, config.head_dim});
  auto adapter = Adapter::Load(file, config);
  CheckBase(file, path, model);
  return adapter;
}

}  // namespace bakestone
