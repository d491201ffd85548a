#include "model/config.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/quote.h"
#include "format/gguf.h"
#include "format/hf_folder.h"
#include "format/q_k_permute.h"
#include "model/families/families.h"
#include "model/families/gguf_config.h"
#include "model/families/hf_config.h"

namespace bakestone {
namespace {

// What is known of and lacks something, by the name in either format.
struct Unsupported {
  std::string_view name, lacks;
};
constexpr Unsupported kUnsupported[] = {
    {"granitemoe", "a mixture of experts in this family"},
    {"qwen3next", "the gated delta rule"},
    {"qwen3_next", "the gated delta rule"},
    {"mamba", "a state-space mixer"},
    {"mamba2", "a state-space mixer"},
    {"rwkv6", "RWKV-6's mixer"},
    {"cohere", "parallel branches"},
    {"command-r", "parallel branches"},
    {"phi", "parallel branches"},
    {"phi2", "parallel branches"},
    {"falcon", "parallel branches"},
    {"gpt2", "learned positions"},
    {"t5", "an encoder"},
};

// Edits from one name to the other.
size_t Distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = row[0]++;
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t edited =
          std::min({row[j] + 1, row[j + 1] + 1, diagonal + (a[i] != b[j] ? 1 : 0)});
      diagonal = row[j + 1];
      row[j + 1] = edited;
    }
  }
  return row[b.size()];
}

[[noreturn]] void ThrowUnknown(const std::string& file, const char* field, std::string_view found) {
  std::string known;
  std::string_view nearest;
  const std::string_view name = found.substr(0, 64);
  size_t least = name.size();
  for (const Family& family : Families()) {
    const std::string architecture(family.architecture);
    if (!known.ends_with(architecture)) {
      known += (known.empty() ? "" : ", ") + architecture;  // Mixtral is llama too
    }
    const size_t distance = Distance(name, family.architecture);
    if (distance < least) {
      least = distance;
      nearest = family.architecture;
    }
  }
  const auto lacking = std::find_if(std::begin(kUnsupported), std::end(kUnsupported),
                                    [&](const Unsupported& one) { return one.name == found; });
  std::string why;
  if (lacking != std::end(kUnsupported)) {
    why = fmt::format("; that family needs {}, which is not supported", lacking->lacks);
  }
  if (!nearest.empty()) why += fmt::format("; the nearest known is {}", nearest);
  Throw(ErrorCode::kUnsupported, "{}: {}: expected one of {}, found {}{}", file, field, known,
        Quote(found), why);
}

}  // namespace

LinearShape ShapeOf(const ModelConfig& config, LinearId id) {
  const int64_t ffn = id.expert >= 0 ? config.ffn_dim : config.ffn_width(id.layer);
  switch (id.site) {
    case Site::kQ:
      return {config.q_dim(id.layer), config.hidden_dim};
    case Site::kK:
    case Site::kV:
      return {config.kv_dim(id.layer), config.hidden_dim};
    case Site::kO:
      return {config.hidden_dim, config.mixed_dim(id.layer)};
    case Site::kGate:
    case Site::kUp:
      return {ffn, config.hidden_dim};
    case Site::kDown:
      return {config.hidden_dim, ffn};
  }
  BAKESTONE_CHECK(false && "a site outside the enum");
  return {};
}

int64_t ModelConfig::state_size(int64_t layer) const {
  if (mixer(layer) == Mixer::kAttention) return 0;
  if (mixer(layer) == Mixer::kConvolution) return (taps - 1) * hidden_dim;
  if (mixer(layer) == Mixer::kRwkv) {
    return 2 * hidden_dim + rwkv.heads * rwkv.head_dim * rwkv.head_dim;
  }
  return (taps - 1) * delta.channels() + delta.value_heads * delta.key_dim * delta.value_dim;
}

bool ModelConfig::has_state() const {
  return std::any_of(mixers.begin(), mixers.end(),
                     [](Mixer mixer) { return mixer != Mixer::kAttention; });
}

int64_t ModelConfig::local_head_dim() const {
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    if (layer_rope(layer) == LayerRope::kLocal) return layer_head_dim(layer);
  }
  return rotated_dim();
}

const char* ModelConfig::layers_own() const {
  if (per_layer_dim > 0) return "embeddings by layer";
  if (!kv_layers.empty()) return "keys and values of another layer";
  if (!keys_as_values.empty()) return "keys as values";
  if (!head_dims.empty() || !kv_head_counts.empty()) return "heads of another size by layer";
  if (!ffn_dims.empty()) return "an MLP of another width by layer";
  if (value_norm) return "norms of values";
  return layer_scales ? "scales of layers" : nullptr;
}

bool HasSite(const ModelConfig& config, LinearId id) {
  if (id.expert >= 0) {
    return id.site >= Site::kGate && config.has_experts(id.layer) &&
           id.expert < config.router.experts;
  }
  if (id.site <= Site::kO && config.mixer(id.layer) != Mixer::kAttention) return false;
  if ((id.site == Site::kK || id.site == Site::kV) && !config.owns_kv(id.layer)) return false;
  if (id.site == Site::kV && config.has_keys_as_values(id.layer)) return false;
  if (id.site <= Site::kV) return config.latent.kv_rank == 0;
  if (id.site == Site::kO) return true;
  return config.has_mlp(id.layer) && (id.site != Site::kGate || config.gated());
}

bool CanAdaptExperts(const ModelConfig& config) {
  return config.mlp != MlpKind::kClampedSwiGlu && !config.router.beside_mlp;
}

const char* FrozenPart(const ModelConfig& config) {
  if (config.router.experts > 0) return "its router and its experts' own matrices";
  if (config.has_state()) return "the matrices of its states";
  if (config.output_gate) return "the gates of its heads";
  if (config.latent.kv_rank > 0) return "the latents of its attention";
  if (config.per_layer_dim > 0) return "its embeddings by layer";
  if (config.norm_kind == NormKind::kLayer) return "the biases of its norms";
  return nullptr;
}

std::string TrainingLacks(const ModelConfig& config) {
  const std::pair<bool, const char*> axes[] = {
      {config.norm_kind != NormKind::kRms && config.logit_scale != 1,
       "layer norms before scaled logits"},
      {config.has_post_norms() && config.residual_scale != 1, "a factor on normalized branches"},
      {config.router.experts > 0 && !config.router.beside_mlp &&
           (config.norm_placement != NormPlacement::kPre || config.residual_scale != 1),
       "experts without the norm before them alone"},
      {config.router.beside_mlp && config.norm_placement != NormPlacement::kSandwich,
       "experts beside an MLP without norms around both"},
      {!config.kv_layers.empty() && config.residual_scale != 1,
       "a factor on branches whose keys are another layer's"},
      {config.latent.kv_rank > 0 && config.residual_scale != 1,
       "a factor on branches with latent attention"},
      {config.rwkv.heads > 0, "RWKV's layers"},
      {config.has_state() &&
           (config.norm_placement != NormPlacement::kPre || config.residual_scale != 1),
       "states without the norm before them alone"},
      {config.encoder.both_ways, "attention to later tokens"},
      {config.mlp == MlpKind::kSquaredRelu || config.mlp == MlpKind::kErfGelu ||
           config.mlp == MlpKind::kErfGeGlu,
       "an MLP of that activation"},
      {config.value_norm && config.qk_norm != QkNorm::kPerHead,
       "norms of values without those of queries and keys by head"},
  };
  std::string lacks;
  for (const auto& [there, what] : axes) {
    if (there) lacks += (lacks.empty() ? "" : ", ") + std::string(what);
  }
  return lacks;
}

ModelConfig ReadConfig(const GgufFile& file) {
  const std::string_view type = file.GetString("general.type", "model");
  if (type != "model") {
    Throw(ErrorCode::kUnsupported, "{}: general.type: expected 'model', found {}{}", file.name(),
          Quote(type), type == "adapter" ? "; give an adapter beside its base model" : "");
  }
  const std::string_view architecture = file.GetString("general.architecture");
  for (const Family& family : Families()) {
    if (family.architecture != architecture) continue;
    ModelConfig config = ReadWith(GgufConfig(file), family);
    config.name = file.GetString("general.name", "");
    config.permuted_qk = GgufPermutesQueryKey(architecture);
    return config;
  }
  ThrowUnknown(file.name(), "general.architecture", architecture);
}

ModelConfig ReadConfig(const HfFolder& folder) {
  const HfConfig in(folder);
  const std::string type = in.Text({nullptr, "model_type"}).value_or("");
  // Whether the name of a family's type, and what may stand behind a plus, are this config's; the
  // best counts.
  const auto fits = [&](std::string_view name) {
    const size_t plus = name.find('+');
    if (type.empty() || name.substr(0, plus) != type) return 0;
    if (plus == std::string_view::npos) return 1;
    return in.Flag({nullptr, std::string(name.substr(plus + 1)).c_str()}).value_or(false) ? 2 : 0;
  };
  int best = 0;
  for (const Family& family : Families()) {
    for (const std::string_view name : family.hf_types) best = std::max(best, fits(name));
  }
  for (const Family& family : Families()) {
    const auto is_best = [&](std::string_view name) { return best > 0 && fits(name) == best; };
    if (std::none_of(family.hf_types.begin(), family.hf_types.end(), is_best)) continue;
    ModelConfig config = ReadWith(in, family);
    config.name = folder.path().filename().string();
    return config;
  }
  ThrowUnknown(in.file(), "model_type", type);
}

}  // namespace bakestone
