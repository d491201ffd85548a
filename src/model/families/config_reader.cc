#include "model/families/config_reader.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numbers>

#include "base/error.h"
#include "base/quote.h"
#include "model/families/families.h"

namespace bakestone {

std::string ConfigReader::Spelled(const Field& field) const {
  const char* name = is_hf() ? field.hf : field.gguf;
  return name != nullptr ? name : "";
}

int64_t ConfigReader::Size(const Field& field, int64_t max, std::optional<int64_t> fallback) const {
  const std::optional<double> value = Number(field);
  if (!value && fallback) return *fallback;
  if (!value) {
    Throw(ErrorCode::kCorrupt, "{}: {}: expected a number from 1 to {}, found none", file(),
          Spelled(field), max);
  }
  if (!(*value >= 1 && *value <= static_cast<double>(max)) || *value != std::floor(*value)) {
    Throw(ErrorCode::kCorrupt, "{}: {}: expected a number from 1 to {}, found {:.15g}", file(),
          Spelled(field), max, *value);
  }
  return static_cast<int64_t>(*value);
}

double ConfigReader::Positive(const Field& field, double fallback) const {
  const double value = Number(field).value_or(fallback);
  if (!std::isfinite(value) || value <= 0 || value > 1e15) {
    Throw(ErrorCode::kCorrupt, "{}: {}: expected a positive number, found {}", file(),
          Spelled(field), value);
  }
  return value;
}

void ConfigReader::Expect(const Field& field, double constant) const {
  const double found = Number(field).value_or(constant);
  if (std::fabs(found - constant) < 1e-6) return;
  Throw(ErrorCode::kUnsupported, "{}: {}: expected {}, found {}", file(), Spelled(field), constant,
        found);
}

void ConfigReader::Refuse(const Field& field, const char* what) const {
  const double number = Number(field).value_or(0);
  if (number == 0 && !Flag(field).value_or(false)) return;
  Throw(ErrorCode::kUnsupported, "{}: {}: expected 0, found {}: {} is not supported", file(),
        Spelled(field), number != 0 ? fmt::format("{:.15g}", number) : "true", what);
}

std::vector<bool> LocalLayers(const ConfigReader& in, const ModelConfig& config, int64_t period) {
  const Field field = {nullptr, "layer_types"};
  const Field pattern = {"attention.sliding_window_pattern", "sliding_window_pattern"};
  const std::vector<double> given =
      in.Numbers({pattern.gguf, nullptr});  // config.json has a period there
  const std::vector<std::string> types = in.Texts(field);
  if (!given.empty() && given.size() != static_cast<size_t>(config.num_layers)) {
    Throw(ErrorCode::kCorrupt, "{}: {}: expected one value for each of {} layers, found {}",
          in.file(), in.Spelled(pattern), config.num_layers, given.size());
  }
  if (given.empty() && period > 0) period = in.Size(pattern, kMaxLayers, period);
  if (!types.empty() && types.size() != static_cast<size_t>(config.num_layers)) {
    Throw(ErrorCode::kCorrupt, "{}: {}: expected one name for each of {} layers, found {}",
          in.file(), in.Spelled(field), config.num_layers, types.size());
  }
  std::vector<bool> local;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    if (!given.empty()) {
      local.push_back(given[static_cast<size_t>(layer)] != 0);
      continue;
    }
    if (types.empty()) {
      local.push_back(period == 0 || (layer + 1) % period != 0);
      continue;
    }
    const std::string& type = types[static_cast<size_t>(layer)];
    if (type != "full_attention" && type != "sliding_attention") {
      Throw(ErrorCode::kUnsupported,
            "{}: {}[{}]: expected full_attention or sliding_attention, found {}", in.file(),
            in.Spelled(field), layer, Quote(type));
    }
    local.push_back(type == "sliding_attention");
  }
  return local;
}

void SetWindows(ModelConfig& config, int64_t window, const std::vector<bool>& local) {
  config.windows.clear();
  for (const bool is_local : local) config.windows.push_back(is_local ? window : 0);
}

namespace {

void CheckLayers(const ConfigReader& in, const ModelConfig& config, const Field& field,
                 size_t found) {
  if (found == static_cast<size_t>(config.num_layers)) return;
  Throw(ErrorCode::kCorrupt, "{}: {}: expected one number for each of {} layers, found {}",
        in.file(), in.Spelled(field), config.num_layers, found);
}

// One width, or a list by layer.
void ReadWidths(const ConfigReader& in, ModelConfig& config) {
  const Field field = {"feed_forward_length", "intermediate_size"};
  const std::vector<double> by_layer = in.Numbers({field.gguf, nullptr});
  if (by_layer.empty()) {
    config.ffn_dim = in.Size(field, kMaxWidth);
    return;
  }
  CheckLayers(in, config, field, by_layer.size());
  for (const double width : by_layer) {
    if (!(width >= 1 && width <= static_cast<double>(kMaxWidth))) {
      Throw(ErrorCode::kCorrupt, "{}: {}: expected numbers from 1 to {}, found {:.15g}", in.file(),
            in.Spelled(field), kMaxWidth, width);
    }
    config.ffn_dims.push_back(static_cast<int64_t>(width));
  }
  config.ffn_dim = config.ffn_dims.front();
  const auto& all = config.ffn_dims;
  if (std::adjacent_find(all.begin(), all.end(), std::not_equal_to<>()) == all.end()) {
    config.ffn_dims.clear();
  }
}

void ReadHeads(const ConfigReader& in, ModelConfig& config) {
  const Field heads = {"attention.head_count", "num_attention_heads"};
  const Field kv_heads = {"attention.head_count_kv", "num_key_value_heads"};
  const Field length = {"attention.key_length", "head_dim"};
  config.num_heads = in.Size(heads, kMaxHeads);
  const std::vector<double> by_layer =
      in.Numbers({kv_heads.gguf, nullptr});  // 0 in layers without attention
  for (const double count : by_layer) {
    if (count != 0 && config.num_kv_heads == 0) {
      config.num_kv_heads = static_cast<int64_t>(std::min(count, 1e6));
    }
  }
  if (config.num_kv_heads == 0) {
    config.num_kv_heads = in.Size(kv_heads, kMaxHeads, config.num_heads);
  }
  const auto check = [&](int64_t count) {
    if (count >= 1 && count <= config.num_heads && config.num_heads % count == 0) return;
    Throw(ErrorCode::kCorrupt, "{}: {}: expected a divisor of the {} heads, found {}", in.file(),
          in.Spelled(kv_heads), config.num_heads, count);
  };
  check(config.num_kv_heads);
  std::vector<int64_t> counts;
  for (const double count : by_layer) {
    counts.push_back(count != 0 ? static_cast<int64_t>(std::min(count, 1e6)) : config.num_kv_heads);
    check(counts.back());
  }
  if (std::adjacent_find(counts.begin(), counts.end(), std::not_equal_to<>()) != counts.end()) {
    CheckLayers(in, config, kv_heads, counts.size());
    config.kv_head_counts = std::move(counts);
  }
  if (!in.Number(length) && config.hidden_dim % config.num_heads != 0) {
    Throw(ErrorCode::kCorrupt, "{}: {}: expected a divisor of the embedding length {}, found {}",
          in.file(), in.Spelled(heads), config.hidden_dim, config.num_heads);
  }
  config.head_dim = in.Size(length, kMaxHeadDim, config.hidden_dim / config.num_heads);
  if (config.head_dim % 2 != 0 || config.head_dim > kMaxHeadDim) {
    Throw(ErrorCode::kCorrupt, "{}: head size: expected an even number up to {}, found {}",
          in.file(), kMaxHeadDim, config.head_dim);
  }
  const Field value = {"attention.value_length", nullptr};
  const int64_t value_length = in.Size(value, kMaxHeadDim, config.head_dim);
  if (value_length != config.head_dim) {
    Throw(ErrorCode::kUnsupported, "{}: {}: expected the key length {}, found {}", in.file(),
          in.Spelled(value), config.head_dim, value_length);
  }
}

// Layers that predict further tokens: GGUF counts them among the others.
void ReadIgnoredLayers(const ConfigReader& in, ModelConfig& config) {
  const Field field = {"nextn_predict_layers", "num_nextn_predict_layers"};
  if (in.Number(field).value_or(0) == 0) return;
  config.ignored_layers = in.Size(field, in.is_hf() ? kMaxLayers : config.num_layers - 1);
  if (!in.is_hf()) config.num_layers -= config.ignored_layers;
}

void ReadEpsilon(const ConfigReader& in, ModelConfig& config) {
  const bool layer = config.norm_kind == NormKind::kLayer;
  Field field = {layer ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon",
                 layer ? "norm_epsilon" : "rms_norm_eps"};
  for (const char* name : {"norm_eps", "layer_norm_eps"}) {
    if (!in.Number(field) && in.is_hf()) field.hf = name;
  }
  const double eps = in.Positive(field, in.is_hf() && !layer ? 1e-6 : 1e-5);
  if (eps >= 1) {
    Throw(ErrorCode::kCorrupt, "{}: {}: expected a number below 1, found {}", in.file(),
          in.Spelled(field), eps);
  }
  config.norm_eps = static_cast<float>(eps);
}

// The activation is the family's; config.json says it again and must agree.
void CheckActivation(const ConfigReader& in, const ModelConfig& config) {
  Field field = {nullptr, "hidden_activation"};
  if (!in.Text(field)) field.hf = "hidden_act";
  const std::string found = in.Text(field).value_or("");
  if (config.mlp == MlpKind::kSquaredRelu) {
    if (found.empty() || found == "sqrelu") return;
    Throw(ErrorCode::kUnsupported, "{}: {}: expected sqrelu, found {}", in.file(),
          in.Spelled(field), Quote(found));
  }
  const bool silu = config.mlp == MlpKind::kSwiGlu || config.mlp == MlpKind::kClampedSwiGlu;
  const bool erf = config.mlp == MlpKind::kErfGelu || config.mlp == MlpKind::kErfGeGlu;
  const bool fits =
      erf    ? found == "gelu"
      : silu ? found == "silu" || found == "swish"
             : found == "gelu_pytorch_tanh" || found == "gelu_new" || found == "gelu_fast" ||
                   (found == "gelu" && config.architecture == "gemma");  // as its first files say
  if (found.empty() || fits) return;
  Throw(ErrorCode::kUnsupported, "{}: {}: expected {}, found {}", in.file(), in.Spelled(field),
        silu  ? "silu"
        : erf ? "gelu"
              : "gelu_pytorch_tanh",
        Quote(found));
}

// Whether the attention's matrices have biases is what the tensors say; a folder that says
// something else is not what its makers computed with.
void CheckAttentionBias(const ConfigReader& in, const ModelConfig& config) {
  const Field field = {nullptr, "attention_bias"};
  const std::optional<bool> said = in.Flag(field);
  if (!said || config.latent.kv_rank > 0) return;  // of a latent it means others
  int64_t layer = 0;
  while (layer < config.num_layers && config.mixer(layer) != Mixer::kAttention) ++layer;
  if (layer == config.num_layers) return;
  const TensorNames& names = *config.names;
  const std::string query =
      names.Layer(layer, names.q_k_v != nullptr ? names.q_k_v : names.sites[0]);
  if (!in.HasTensor(query + ".weight")) return;  // said where it is read
  const bool there = in.HasTensor(query + ".bias");
  if (there == *said) return;
  Throw(ErrorCode::kCorrupt, "{}: {}: expected {}, as there is {} {}.bias, found {}", in.file(),
        in.Spelled(field), there, there ? "a tensor" : "no tensor", query, *said);
}

void CheckVocabulary(const ConfigReader& in, ModelConfig& config) {
  config.vocab_size =
      in.VocabularyRows(config.names != nullptr ? config.names->embedding : kGgufNames.embedding);
  if (config.vocab_size < 1 || config.vocab_size > std::numeric_limits<int32_t>::max()) {
    Throw(ErrorCode::kCorrupt, "{}: embedding: expected 1 to 2^31 - 1 rows, found {}", in.file(),
          config.vocab_size);
  }
  const Field tie = {nullptr, "tie_word_embeddings"};
  const bool has_head = in.HasHead();
  config.tied_embedding = in.Flag(tie).value_or(!has_head);
  if (!config.tied_embedding && !has_head) {
    Throw(ErrorCode::kCorrupt,
          "{}: {}: expected true, or a tensor of the output head; found neither", in.file(),
          in.Spelled(tie));
  }
}

}  // namespace

ModelConfig ReadWith(const ConfigReader& in, const Family& family) {
  ModelConfig config;
  config.architecture = family.architecture;
  config.names = in.is_hf() ? family.hf : family.gguf;
  config.num_layers = in.Size({"block_count", "num_hidden_layers"}, kMaxLayers);
  ReadIgnoredLayers(in, config);
  config.context_length = in.Size({"context_length", "max_position_embeddings"}, kMaxContext);
  config.hidden_dim = in.Size({"embedding_length", "hidden_size"}, kMaxWidth);
  if (family.attention) {
    ReadWidths(in, config);
    in.Number({"attention.kv_lora_rank", "kv_lora_rank"}) ? ReadLatent(in, config)
                                                          : ReadHeads(in, config);
  }
  config.rope.dim = config.local_rope.dim = config.rotated_dim();
  family.describe(in, config);
  if (config.router.experts == 0) {
    for (const char* field : {"num_local_experts", "num_experts", "n_routed_experts"}) {
      in.Refuse({"expert_count", field}, "a mixture of experts in this family");
    }
  }
  in.ReadRope(config);
  ReadEpsilon(in, config);
  CheckActivation(in, config);
  CheckVocabulary(in, config);
  if (in.is_hf() && family.attention) CheckAttentionBias(in, config);
  return config;
}

void ScaleAsLlama3(const Llama3Scaling& scaling, RopeConfig& rope) {
  rope.frequency_factors.clear();
  for (int64_t i = 0; i < rope.dim / 2; ++i) {
    const double exponent = 2.0 * static_cast<double>(i) / static_cast<double>(rope.dim);
    const double turns =
        scaling.original_context / (2 * std::numbers::pi * std::pow(rope.theta, exponent));
    double factor = 1;  // of what turns often within the original context
    if (turns < scaling.low_frequency) {
      factor = scaling.factor;
    } else if (turns <= scaling.high_frequency) {
      const double smooth =
          (turns - scaling.low_frequency) / (scaling.high_frequency - scaling.low_frequency);
      factor = 1 / ((1 - smooth) / scaling.factor + smooth);
    }
    rope.frequency_factors.push_back(static_cast<float>(factor));
  }
}

void ScaleAsYarn(const YarnScaling& scaling, RopeConfig& rope) {
  const auto dim = static_cast<double>(rope.dim);
  // The channel that turns `turns` times within the original context.
  const auto channel = [&](double turns) {
    return dim * std::log(scaling.original_context / (turns * 2 * std::numbers::pi)) /
           (2 * std::log(rope.theta));
  };
  double low = channel(scaling.beta_fast), high = channel(scaling.beta_slow);
  if (scaling.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1);
  if (low == high) high += 0.001;
  rope.frequency_factors.clear();
  for (int64_t i = 0; i < rope.dim / 2; ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    rope.frequency_factors.push_back(static_cast<float>(1 / (ramp / scaling.factor + (1 - ramp))));
  }
  rope.magnitude =
      scaling.magnitude.value_or(scaling.factor > 1 ? 0.1 * std::log(scaling.factor) + 1 : 1);
  rope.yarn = {.factor = scaling.factor,
               .original_context = scaling.original_context,
               .beta_fast = scaling.beta_fast,
               .beta_slow = scaling.beta_slow};
}

}  // namespace bakestone
