#include "convert/hf_config_writer.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "convert/gguf_keys.h"
#include "format/hf_folder.h"
#include "format/safetensors.h"
#include "model/families/families.h"

namespace bakestone {
namespace {

using Json = nlohmann::ordered_json;

// Classes of transformers, by model_type: those that can be written.
const std::map<std::string, const char*, std::less<>> kClasses = {
    {"llama", "LlamaForCausalLM"},
    {"mistral", "MistralForCausalLM"},
    {"mixtral", "MixtralForCausalLM"},
    {"qwen2", "Qwen2ForCausalLM"},
    {"qwen3", "Qwen3ForCausalLM"},
    {"qwen2_moe", "Qwen2MoeForCausalLM"},
    {"qwen3_moe", "Qwen3MoeForCausalLM"},
    {"gemma", "GemmaForCausalLM"},
    {"gemma2", "Gemma2ForCausalLM"},
    {"gemma3_text", "Gemma3ForCausalLM"},
    {"phi3", "Phi3ForCausalLM"},
    {"olmo2", "Olmo2ForCausalLM"},
    {"granite", "GraniteForCausalLM"},
    {"smollm3", "SmolLM3ForCausalLM"},
    {"starcoder2", "Starcoder2ForCausalLM"}};

const char* TorchType(DType type) {
  return type == DType::kF16 ? "float16" : type == DType::kBF16 ? "bfloat16" : "float32";
}

bool IsGemma(const ModelConfig& config) { return config.architecture.starts_with("gemma"); }

std::string TypeOf(const ModelConfig& config) {
  const bool mistral =
      config.architecture == "llama" && config.router.experts == 0 && !config.windows.empty();
  return mistral ? "mistral" : std::string(FamilyOf(config).hf_types[0]);
}

void AddWindows(const ModelConfig& config, Json& json) {
  if (config.windows.empty()) return;
  json["sliding_window"] = *std::max_element(config.windows.begin(), config.windows.end());
  const bool mixed =
      std::find(config.windows.begin(), config.windows.end(), 0) != config.windows.end();
  if (!mixed) return;
  Json types = Json::array();
  for (const int64_t window : config.windows) {
    types.push_back(window > 0 ? "sliding_attention" : "full_attention");
  }
  json["layer_types"] = types;
}

void AddRope(const ModelConfig& config, Json& json) {
  json["rope_theta"] = config.rope.theta;
  if (config.rope.dim != config.head_dim) {
    json["partial_rotary_factor"] =
        static_cast<double>(config.rope.dim) / static_cast<double>(config.head_dim);
  }
  if (config.rope.linear_scale != 1) {
    json["rope_scaling"] = {{"rope_type", "linear"}, {"factor", config.rope.linear_scale}};
  }
  const auto has = [&](LayerRope rope) {
    return std::find(config.layer_ropes.begin(), config.layer_ropes.end(), rope) !=
           config.layer_ropes.end();
  };
  if (has(LayerRope::kLocal)) json["rope_local_base_freq"] = config.local_rope.theta;
  if (!has(LayerRope::kNone)) return;
  Json rotated = Json::array();
  for (const LayerRope rope : config.layer_ropes) {
    rotated.push_back(rope != LayerRope::kNone ? 1 : 0);
  }
  json["no_rope_layers"] = rotated;
}

void AddExperts(const ModelConfig& config, Json& json) {
  const RouterConfig& router = config.router;
  if (router.experts == 0) return;
  json[config.architecture == "llama" ? "num_local_experts" : "num_experts"] = router.experts;
  json["num_experts_per_tok"] = router.used;
  if (config.architecture == "llama") return;  // Mixtral's shares always add up to 1
  json["intermediate_size"] = router.dense_dim;
  json["moe_intermediate_size"] = config.ffn_dim;
  json["norm_topk_prob"] = router.renormalize;
  json["decoder_sparse_step"] = 1;
  json["mlp_only_layers"] = Json::array();
  if (router.shared_dim > 0) json["shared_expert_intermediate_size"] = router.shared_dim;
}

// A number that was rounded to f32 as short as it was before, as far as that can be told.
double Short(float value) { return std::stod(fmt::format("{}", value)); }

void AddScales(const ModelConfig& config, Json& json) {
  if (config.architecture == "granite") {
    json["embedding_multiplier"] = Short(config.embedding_scale);
    json["residual_multiplier"] = Short(config.residual_scale);
    json["attention_multiplier"] = Short(config.attention_scale);
    json["logits_scaling"] = 1 / static_cast<double>(config.logit_scale);
  } else if (IsGemma(config) && config.attention_scale > 0) {
    json["query_pre_attn_scalar"] = 1 / std::pow(static_cast<double>(config.attention_scale), 2);
  }
  if (config.attention_soft_cap > 0) {
    json["attn_logit_softcapping"] = Short(config.attention_soft_cap);
  }
  if (config.final_soft_cap > 0) json["final_logit_softcapping"] = Short(config.final_soft_cap);
}

// What the folder's reader makes of the config, beside tensors that have nothing but the shapes it
// asks for.
ModelConfig ReadBack(const ModelConfig& config, const Json& json) {
  SafetensorsWriter writer;
  const std::vector<uint8_t> zeros(static_cast<size_t>(config.vocab_size) * 4);
  const int64_t table[] = {config.vocab_size, 1};
  writer.AddTensor("model.embed_tokens.weight", DType::kF32, table,
                   std::span<const uint8_t>(zeros));
  if (!config.tied_embedding) {
    writer.AddTensor("lm_head.weight", DType::kF32, table, std::span<const uint8_t>(zeros));
  }
  const std::string file = writer.Serialize();
  return ReadConfig(HfFolder::Parse(
      json.dump(), {reinterpret_cast<const uint8_t*>(file.data()), file.size()}, "the folder"));
}

}  // namespace

const Family& FamilyOf(const ModelConfig& config) {
  for (const Family& family : Families()) {
    if (family.architecture == config.architecture &&
        family.experts == (config.router.experts > 0)) {
      return family;
    }
  }
  for (const Family& family : Families()) {  // whose models have experts or not
    if (family.architecture == config.architecture) return family;
  }
  BAKESTONE_CHECK(false && "a config of no family");
  return Families()[0];
}

nlohmann::ordered_json MakeHfConfig(const ModelConfig& config, const TokenizerSpec& tokenizer,
                                    DType type) {
  const std::string model_type = TypeOf(config);
  const bool layer_norm = config.norm_kind == NormKind::kLayer;
  Json json = {{"architectures", Json::array({kClasses.at(model_type)})},
               {"model_type", model_type},
               {"hidden_act", config.mlp == MlpKind::kSwiGlu ? "silu" : "gelu_pytorch_tanh"},
               {"hidden_size", config.hidden_dim},
               {"intermediate_size", config.ffn_dim},
               {"num_hidden_layers", config.num_layers},
               {"num_attention_heads", config.num_heads},
               {"num_key_value_heads", config.num_kv_heads},
               {"head_dim", config.head_dim},
               {"max_position_embeddings", config.context_length},
               {layer_norm ? "norm_epsilon" : "rms_norm_eps", Short(config.norm_eps)},
               {"tie_word_embeddings", config.tied_embedding},
               {"vocab_size", config.vocab_size},
               {"torch_dtype", TorchType(type)}};
  if (IsGemma(config)) json["hidden_activation"] = "gelu_pytorch_tanh";
  if (model_type == "starcoder2") json["use_bias"] = true;
  AddRope(config, json);
  AddWindows(config, json);
  AddExperts(config, json);
  AddScales(config, json);
  if (tokenizer.bos >= 0) json["bos_token_id"] = tokenizer.bos;
  if (tokenizer.eos >= 0) json["eos_token_id"] = tokenizer.eos;
  if (tokenizer.pad >= 0) json["pad_token_id"] = tokenizer.pad;
  return json;
}

std::optional<std::string> LostInFolder(const ModelConfig& config) {
  if (config.latent.kv_rank > 0) return "attention over a latent";
  if (config.layers_own() != nullptr) return config.layers_own();
  if (!kClasses.contains(TypeOf(config))) return "what this family has of its own";
  return DifferenceOf(config, ReadBack(config, MakeHfConfig(config, {}, DType::kF32)));
}

}  // namespace bakestone
