#include "convert/hf_config_writer.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "convert/config_difference.h"
#include "convert/hf_rope_writer.h"
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
    {"gemma4_text", "Gemma4ForCausalLM"},
    {"glm4_moe", "Glm4MoeForCausalLM"},
    {"deepseek_v2", "DeepseekV2ForCausalLM"},
    {"deepseek_v3", "DeepseekV3ForCausalLM"},
    {"gpt_oss", "GptOssForCausalLM"},
    {"lfm2", "Lfm2ForCausalLM"},
    {"qwen3_5_text", "Qwen3_5ForCausalLM"},
    {"qwen3_5_moe_text", "Qwen3_5MoeForCausalLM"},
    {"rwkv7", "RWKV7ForCausalLM"},
    {"gemma3_text+use_bidirectional_attention", "Gemma3TextModel"},
    {"bert", "BertModel"},
    {"modernbert", "ModernBertModel"},
    {"nomic_bert", "NomicBertModel"},
    {"phi3", "Phi3ForCausalLM"},
    {"olmo2", "Olmo2ForCausalLM"},
    {"olmo3", "Olmo3ForCausalLM"},
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
  if (config.architecture == "deepseek2" && config.router.bias) return "deepseek_v3";
  if (config.architecture == "olmo2" && !config.windows.empty()) return "olmo3";
  return mistral ? "mistral" : std::string(FamilyOf(config).hf_types[0]);
}

void AddWindows(const ModelConfig& config, Json& json) {
  if (config.windows.empty()) return;
  json["sliding_window"] = *std::max_element(config.windows.begin(), config.windows.end());
  const bool mixed =
      std::find(config.windows.begin(), config.windows.end(), 0) != config.windows.end();
  if (!mixed && config.layer_ropes.empty()) return;
  Json types = Json::array();
  for (const int64_t window : config.windows) {
    types.push_back(window > 0 ? "sliding_attention" : "full_attention");
  }
  json["layer_types"] = types;
}

void AddExperts(const ModelConfig& config, Json& json) {
  const RouterConfig& router = config.router;
  if (router.experts == 0) return;
  const bool local = config.architecture == "llama" || config.architecture == "gpt-oss";
  const bool shared = config.architecture == "glm4moe" || config.architecture == "deepseek2";
  json[local ? "num_local_experts" : shared ? "n_routed_experts" : "num_experts"] = router.experts;
  json[router.beside_mlp ? "top_k_experts" : "num_experts_per_tok"] = router.used;
  if (local) return;  // their shares always add up to 1
  json["intermediate_size"] = router.dense_dim;
  json["moe_intermediate_size"] = config.ffn_dim;
  if (router.beside_mlp) {
    json["enable_moe_block"] = true;
    return;
  }
  json["norm_topk_prob"] = router.renormalize;
  if (shared) {
    json["n_shared_experts"] = router.shared_dim / config.ffn_dim;
    json["n_group"] = router.groups;
    json["topk_group"] = router.used_groups;
    json["topk_method"] = router.bias         ? "noaux_tc"
                          : router.groups > 1 ? "group_limited_greedy"
                                              : "greedy";
    json["routed_scaling_factor"] = ShortestOf(router.scale);
    json["first_k_dense_replace"] = router.dense_layers;
    return;
  }
  json["decoder_sparse_step"] = 1;
  json["mlp_only_layers"] = Json::array();
  if (router.shared_dim > 0) json["shared_expert_intermediate_size"] = router.shared_dim;
}

void AddLatent(const ModelConfig& config, Json& json) {
  const LatentConfig& latent = config.latent;
  if (latent.kv_rank == 0) return;
  json.erase("head_dim");
  json["kv_lora_rank"] = latent.kv_rank;
  json["q_lora_rank"] = latent.q_rank > 0 ? Json(latent.q_rank) : Json();
  json["qk_nope_head_dim"] = latent.nope_dim;
  json["qk_rope_head_dim"] = latent.rope_dim;
  json["v_head_dim"] = latent.value_dim;
  json["attention_bias"] = false;
}

// Of layers that keep a state, beside those with attention.
void AddStates(const ModelConfig& config, Json& json) {
  if (config.mixers.empty() || config.rwkv.heads > 0) return;
  const bool delta = config.delta.value_heads > 0;
  Json types = Json::array();
  for (const Mixer mixer : config.mixers) {
    types.push_back(mixer == Mixer::kAttention ? "full_attention"
                    : delta                    ? "linear_attention"
                                               : "conv");
  }
  json["layer_types"] = types;
  if (!delta) {
    json["conv_L_cache"] = config.taps;
    json["conv_bias"] = false;
    json["block_auto_adjust_ff_dim"] = false;
    json["norm_eps"] = json["rms_norm_eps"];
    return;
  }
  json["linear_conv_kernel_dim"] = config.taps;
  json["linear_num_key_heads"] = config.delta.key_heads;
  json["linear_num_value_heads"] = config.delta.value_heads;
  json["linear_key_head_dim"] = config.delta.key_dim;
  json["linear_value_head_dim"] = config.delta.value_dim;
}

void AddEncoder(const ModelConfig& config, const std::string& model_type, Json& json) {
  if (!config.encoder.both_ways) return;
  if (IsGemma(config)) {
    if (json.contains("sliding_window")) {  // both sides, without the row
      json["sliding_window"] = json["sliding_window"].get<int64_t>() - 1;
    }
    return;
  }
  json["layer_norm_eps"] = json["norm_eps"] = ShortestOf(config.norm_eps);
  json.erase("norm_epsilon");
  if (config.mlp == MlpKind::kErfGelu) json["hidden_act"] = "gelu";
  if (model_type == "bert") json["position_embedding_type"] = "absolute";
  if (model_type != "modernbert") return;
  json.erase("hidden_act");
  json["hidden_activation"] = "gelu";
  json["norm_bias"] = json["mlp_bias"] = json["attention_bias"] = false;
  if (json.contains("sliding_window")) {
    json["local_attention"] = json["sliding_window"].get<int64_t>() - 1;
    json.erase("sliding_window");
  }
}

// Ranks are the tensors', and added where those are at hand.
void AddRwkv(const ModelConfig& config, Json& json) {
  if (config.rwkv.heads == 0) return;
  json.erase("num_attention_heads");
  json.erase("num_key_value_heads");
  json.erase("norm_epsilon");
  json["hidden_act"] = "sqrelu";
  json["head_dim"] = config.rwkv.head_dim;
  json["num_heads"] = nullptr;  // of two that say the same, one
  json["norm_eps"] = ShortestOf(config.norm_eps);
  json["norm_first"] = config.embedding_norm;
  json["norm_bias"] = true;
  json["attn"] = nullptr;
  json["value_dim"] =
      std::vector<int64_t>(static_cast<size_t>(config.num_layers), config.hidden_dim);
}

// What Gemma 4's layers have of their own.
void AddLayers(const ModelConfig& config, Json& json) {
  const auto local = std::find_if(config.windows.begin(), config.windows.end(),
                                  [](int64_t window) { return window > 0; });
  const int64_t layer = local == config.windows.end() ? 0 : local - config.windows.begin();
  json["head_dim"] = config.layer_head_dim(layer);
  json["num_key_value_heads"] = config.layer_kv_heads(layer);
  json["global_head_dim"] = config.head_dim;
  json["num_global_key_value_heads"] = config.num_kv_heads;
  json["attention_k_eq_v"] = !config.keys_as_values.empty();
  int64_t shared = 0;
  for (int64_t i = 0; i < config.num_layers; ++i) shared += config.kv_layer(i) != i;
  json["num_kv_shared_layers"] = shared;
  json["use_double_wide_mlp"] = !config.ffn_dims.empty();
  json["hidden_size_per_layer_input"] = config.per_layer_dim;
  json["vocab_size_per_layer_input"] = config.vocab_size;
}

void AddScales(const ModelConfig& config, Json& json) {
  if (config.architecture == "granite") {
    json["embedding_multiplier"] = ShortestOf(config.embedding_scale);
    json["residual_multiplier"] = ShortestOf(config.residual_scale);
    json["attention_multiplier"] = ShortestOf(config.attention_scale);
    json["logits_scaling"] = 1 / static_cast<double>(config.logit_scale);
  } else if (config.architecture != "gemma4" && IsGemma(config) && config.attention_scale > 0) {
    const double scalar = 1 / std::pow(static_cast<double>(config.attention_scale), 2);
    const double whole = std::round(scalar);  // transformers 5 takes no other
    const bool is_whole = std::fabs(scalar - whole) < 1e-4 * scalar;
    json["query_pre_attn_scalar"] = is_whole ? Json(std::llround(whole)) : Json(scalar);
  }
  if (config.attention_soft_cap > 0) {
    json["attn_logit_softcapping"] = ShortestOf(config.attention_soft_cap);
  }
  if (config.final_soft_cap > 0)
    json["final_logit_softcapping"] = ShortestOf(config.final_soft_cap);
}

// What the folder's reader makes of the config, beside tensors that have nothing but the shapes it
// asks for.
ModelConfig ReadBack(const ModelConfig& config, const Json& json) {
  SafetensorsWriter writer;
  const std::vector<uint8_t> zeros(static_cast<size_t>(config.vocab_size) * 4);
  const int64_t table[] = {config.vocab_size, 1};
  writer.AddTensor(std::string(FamilyOf(config).hf->embedding) + ".weight", DType::kF32, table,
                   std::span<const uint8_t>(zeros));
  if (!config.tied_embedding) {
    writer.AddTensor("lm_head.weight", DType::kF32, table, std::span<const uint8_t>(zeros));
  }
  if (config.architecture == "glm4moe" && config.qk_norm != QkNorm::kNone) {  // known by the tensor
    writer.AddTensor("model.layers.0.self_attn.q_norm.weight", DType::kF32, table,
                     std::span<const uint8_t>(zeros));
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
  const bool silu = config.mlp == MlpKind::kSwiGlu || config.mlp == MlpKind::kClampedSwiGlu;
  Json json = {{"architectures", Json::array({kClasses.at(model_type)})},
               {"model_type", model_type.substr(0, model_type.find('+'))},
               {"hidden_act", silu ? "silu" : "gelu_pytorch_tanh"},
               {"hidden_size", config.hidden_dim},
               {"intermediate_size", config.ffn_dim},
               {"num_hidden_layers", config.num_layers},
               {"num_attention_heads", config.num_heads},
               {"num_key_value_heads", config.num_kv_heads},
               {"head_dim", config.head_dim},
               {"max_position_embeddings", config.context_length},
               {layer_norm ? "norm_epsilon" : "rms_norm_eps", ShortestOf(config.norm_eps)},
               {"tie_word_embeddings", config.tied_embedding},
               {"vocab_size", config.vocab_size},
               {"torch_dtype", TorchType(type)}};
  if (const size_t flag = model_type.find('+'); flag != std::string::npos) {
    json[model_type.substr(flag + 1)] = true;
  }
  if (IsGemma(config)) json["hidden_activation"] = "gelu_pytorch_tanh";
  if (model_type == "starcoder2") json["use_bias"] = true;
  if (model_type == "glm4_moe" || model_type == "gpt_oss") json["attention_bias"] = true;
  if (model_type == "glm4_moe") json["use_qk_norm"] = config.qk_norm != QkNorm::kNone;
  if (model_type == "gemma4_text") AddLayers(config, json);
  AddLatent(config, json);
  AddStates(config, json);
  AddRwkv(config, json);
  if (config.rwkv.heads == 0) AddRopeSettings(config, json);
  AddWindows(config, json);
  AddEncoder(config, model_type, json);
  AddExperts(config, json);
  AddScales(config, json);
  if (tokenizer.bos >= 0) json["bos_token_id"] = tokenizer.bos;
  if (tokenizer.eos >= 0) json["eos_token_id"] = tokenizer.eos;
  // Said where there is none, too: some classes have a default beyond small vocabularies.
  json["pad_token_id"] = tokenizer.pad >= 0 ? Json(tokenizer.pad) : Json();
  return json;
}

std::optional<std::string> LostInFolder(const ModelConfig& config) {
  if (!kClasses.contains(TypeOf(config))) return "what this family has of its own";
  if (config.classifier.labels > 0) return "a head that scores";
  ModelConfig said = config;
  said.encoder.pooling = Pooling::kMean;  // other files say it
  said.encoder.dense.clear();
  return DifferenceOf(said, ReadBack(config, MakeHfConfig(config, {}, DType::kF32)));
}

}  // namespace bakestone
