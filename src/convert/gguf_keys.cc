#include "convert/gguf_keys.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include <fmt/format.h>

#include "base/error.h"
#include "base/quote.h"
#include "convert/config_difference.h"
#include "format/gguf.h"

namespace bakestone {
namespace {

class KeyWriter {
 public:
  KeyWriter(const ModelConfig& config, GgufWriter& writer) : config_(config), writer_(writer) {}

  void Add() const {
    if (config_.rwkv.heads > 0) return AddRwkv();
    U32("block_count", config_.num_layers);
    U32("context_length", config_.context_length);
    U32("embedding_length", config_.hidden_dim);
    U32OrList("feed_forward_length",
              config_.router.experts > 0 ? config_.router.dense_dim : config_.ffn_dim,
              config_.ffn_dims);
    U32("vocab_size", config_.vocab_size);
    U32("attention.head_count", config_.num_heads);
    AddHeads();
    F32(config_.norm_kind == NormKind::kRms ? "attention.layer_norm_rms_epsilon"
                                            : "attention.layer_norm_epsilon",
        static_cast<double>(config_.norm_eps));
    F32("rope.freq_base", config_.rope.theta);
    U32("rope.dimension_count", config_.rope.dim);
    AddScaling();
    if (HasLocalRope(config_)) F32("rope.freq_base_swa", config_.local_rope.theta);
    const auto window = std::max_element(config_.windows.begin(), config_.windows.end());
    if (window != config_.windows.end() &&
        *window > 0) {  // of encoders both sides, without the row
      U32("attention.sliding_window", *window - (config_.encoder.both_ways ? 1 : 0));
    }
    if (config_.encoder.both_ways) AddEncoder();
    Optional("attn_logit_softcapping", config_.attention_soft_cap, 0);
    Optional("final_logit_softcapping", config_.final_soft_cap, 0);
    if (config_.router.experts > 0) AddRouter();
    if (config_.architecture == "gemma4") AddLayers();
    AddStates();
    if (config_.architecture == "granite") {
      F32("embedding_scale", static_cast<double>(config_.embedding_scale));
      F32("residual_scale", static_cast<double>(config_.residual_scale));
      F32("attention.scale", static_cast<double>(config_.attention_scale));
      F32("logit_scale", 1 / static_cast<double>(config_.logit_scale));
    }
  }

 private:
  // The ranks of narrow products are their tensors', beside which they are written.
  void AddRwkv() const {
    U32("block_count", config_.num_layers);
    U32("context_length", config_.context_length);
    U32("embedding_length", config_.hidden_dim);
    U32("feed_forward_length", config_.ffn_dim);
    U32("vocab_size", config_.vocab_size);
    U32("attention.head_count", 0);
    F32("attention.layer_norm_epsilon", static_cast<double>(config_.norm_eps));
    U32("wkv.head_size", config_.rwkv.head_dim);
  }

  void AddHeads() const {
    const LatentConfig& latent = config_.latent;
    if (latent.kv_rank > 0) {  // what the cache would hold in the usual keys, heads in others
      U32("attention.head_count_kv", 1);
      U32("attention.kv_lora_rank", latent.kv_rank);
      if (latent.q_rank > 0) U32("attention.q_lora_rank", latent.q_rank);
      U32("attention.key_length", latent.kv_rank + latent.rope_dim);
      U32("attention.value_length", latent.kv_rank);
      U32("attention.key_length_mla", latent.key_dim());
      U32("attention.value_length_mla", latent.value_dim);
      return;
    }
    std::vector<int64_t> kv_heads = config_.kv_head_counts;
    if (config_.architecture == "lfm2") {  // 0: a layer without attention
      for (const Mixer mixer : config_.mixers) {
        kv_heads.push_back(mixer == Mixer::kAttention ? config_.num_kv_heads : 0);
      }
    }
    U32OrList("attention.head_count_kv", config_.num_kv_heads, kv_heads);
    U32("attention.key_length", config_.head_dim);
    U32("attention.value_length", config_.head_dim);
  }

  void AddScaling() const {
    const RopeConfig& rope = config_.rope;
    if (rope.linear_scale != 1) {
      writer_.AddString(Key("rope.scaling.type"), "linear");
      F32("rope.scaling.factor", rope.linear_scale);
    }
    if (!rope.far_factors.empty()) {
      U32("rope.scaling.original_context_length", rope.near_context);
      F32("rope.scaling.attn_factor", rope.magnitude);
    }
    if (rope.yarn.factor == 0) return;
    writer_.AddString(Key("rope.scaling.type"), "yarn");
    F32("rope.scaling.factor", rope.yarn.factor);
    U32("rope.scaling.original_context_length", std::llround(rope.yarn.original_context));
    F32("rope.scaling.yarn_beta_fast", rope.yarn.beta_fast);
    F32("rope.scaling.yarn_beta_slow", rope.yarn.beta_slow);
    if (config_.latent.kv_rank > 0) {
      if (rope.yarn.score_rate > 0) F32("rope.scaling.yarn_log_multiplier", rope.yarn.score_rate);
    } else if (!Near(rope.magnitude, 0.1 * std::log(rope.yarn.factor) + 1)) {
      F32("rope.scaling.attn_factor", rope.magnitude);
    }
  }

  void AddEncoder() const {
    writer_.AddBool(Key("attention.causal"), false);
    const Pooling pooling = config_.encoder.pooling;
    U32("pooling_type", pooling == Pooling::kMean ? 1 : pooling == Pooling::kFirst ? 2 : 3);
    int64_t in = config_.hidden_dim;
    for (size_t i = 0; i < config_.encoder.dense.size(); ++i) {
      const int64_t out = config_.encoder.dense[i].width;
      U32((GgufDense(i) + "_feat_in").c_str(), in);
      U32((GgufDense(i) + "_feat_out").c_str(), out);
      in = out;
    }
    const auto by_head = 1 / std::sqrt(static_cast<double>(config_.head_dim));
    const auto scale = static_cast<double>(config_.attention_scale);
    if (scale > 0 && !Near(scale, by_head)) F32("attention.scale", scale);
    if (config_.windows.empty()) return;
    int64_t period = 1;  // of layers without a window, the first or the last of each
    while (period < config_.num_layers && config_.window(period) > 0) ++period;
    U32("attention.sliding_window_pattern", config_.window(0) > 0 ? period + 1 : period);
  }

  // Of layers that keep a state.
  void AddStates() const {
    if (config_.architecture == "lfm2") U32("shortconv.l_cache", config_.taps);
    const DeltaConfig& delta = config_.delta;
    if (delta.value_heads == 0) return;
    U32("ssm.conv_kernel", config_.taps);
    U32("ssm.group_count", delta.key_heads);
    U32("ssm.time_step_rank", delta.value_heads);
    U32("ssm.state_size", delta.key_dim);
    U32("ssm.inner_size", delta.value_heads * delta.value_dim);
    const auto first = std::find(config_.mixers.begin(), config_.mixers.end(), Mixer::kAttention);
    U32("full_attention_interval", first - config_.mixers.begin() + 1);
    // Positions of text are the same in all parts of a head.
    const int64_t pairs = config_.rope.dim / 2, third = (pairs + 2) / 3;
    writer_.AddI32s(
        Key("rope.dimension_sections"),
        std::vector<int32_t>{static_cast<int32_t>(third),
                             static_cast<int32_t>(std::min(third, pairs - third)),
                             static_cast<int32_t>(std::max<int64_t>(0, pairs - 2 * third)), 0});
  }

  // What a family's own files say of experts; what is the same in all of its models, they do not.
  void AddRouter() const {
    const RouterConfig& router = config_.router;
    U32("expert_count", router.experts);
    U32("expert_used_count", router.used);
    if (config_.ffn_dim != router.dense_dim || router.expert_biases) {
      U32("expert_feed_forward_length", config_.ffn_dim);
    }
    if (router.shared_gate) U32("expert_shared_feed_forward_length", router.shared_dim);
    if (config_.architecture != "glm4moe" && config_.architecture != "deepseek2") return;
    U32("expert_shared_count", router.shared_dim / config_.ffn_dim);
    U32("leading_dense_block_count", router.dense_layers);
    U32("expert_group_count", router.groups);
    U32("expert_group_used_count", router.used_groups);
    U32("expert_gating_func", router.score == RouterScore::kSigmoid ? 2 : 1);
    F32("expert_weights_scale", static_cast<double>(router.scale));
    writer_.AddBool(Key("expert_weights_norm"), router.renormalize);
  }

  // What Gemma 4's layers have of their own.
  void AddLayers() const {
    std::vector<bool> local;
    int64_t shared = 0;
    for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
      local.push_back(config_.window(layer) > 0);
      shared += config_.kv_layer(layer) != layer;
    }
    writer_.AddBools(Key("attention.sliding_window_pattern"), local);
    U32("attention.shared_kv_layers", shared);
    U32("attention.key_length_swa", config_.local_head_dim());
    U32("attention.value_length_swa", config_.local_head_dim());
    U32("rope.dimension_count_swa", config_.local_rope.dim);
    U32("embedding_length_per_layer_input", config_.per_layer_dim);
    if (config_.final_soft_cap == 0) {
      F32("final_logit_softcapping", 0);  // where it is not said, it is 30
    }
  }

  void U32OrList(const char* key, int64_t value, const std::vector<int64_t>& by_layer) const {
    if (by_layer.empty()) return U32(key, value);
    writer_.AddU32s(Key(key), std::vector<uint32_t>(by_layer.begin(), by_layer.end()));
  }

  std::string Key(const char* key) const { return config_.architecture + "." + key; }
  void U32(const char* key, int64_t value) const {
    writer_.AddU32(Key(key), static_cast<uint32_t>(value));
  }
  void F32(const char* key, double value) const {
    writer_.AddF32(Key(key), static_cast<float>(value));
  }
  void Optional(const char* key, float value, float absent) const {
    if (value != absent) F32(key, static_cast<double>(value));
  }

  const ModelConfig& config_;
  GgufWriter& writer_;
};

// What GGUF's reader makes of the keys, beside tensors that have nothing but the shapes it asks
// for.
ModelConfig ReadBack(const ModelConfig& config) {
  GgufWriter writer;
  writer.AddString("general.architecture", config.architecture);
  KeyWriter(config, writer).Add();
  int64_t most = config.vocab_size;
  for (const DenseConfig& dense : config.encoder.dense) most = std::max(most, dense.width);
  const std::vector<float> zeros(static_cast<size_t>(most));
  const auto bytes = [](const std::vector<float>& values) {
    return std::span(reinterpret_cast<const uint8_t*>(values.data()),
                     values.size() * sizeof(float));
  };
  const int64_t table[] = {1, config.vocab_size}, one[] = {1};
  writer.AddTensor("token_embd.weight", DType::kF32, table,
                   bytes(zeros).first(static_cast<size_t>(config.vocab_size) * sizeof(float)));
  for (size_t i = 0; i < config.encoder.dense.size(); ++i) {
    const int64_t width = config.encoder.dense[i].width, shape[] = {1, width};
    writer.AddTensor(GgufDense(i) + ".weight", DType::kF32, shape,
                     bytes(zeros).first(static_cast<size_t>(width) * sizeof(float)));
  }
  if (!config.tied_embedding) {
    writer.AddTensor("output.weight", DType::kF32, one, bytes(zeros).first(4));
  }
  if (config.architecture == "glm4moe" && config.qk_norm != QkNorm::kNone) {  // known by the tensor
    writer.AddTensor("blk.0.attn_q_norm.weight", DType::kF32, one, bytes(zeros).first(4));
  }
  if (config.architecture == "deepseek2" && config.router.bias) {  // V3 is known by it
    writer.AddTensor(fmt::format("blk.{}.exp_probs_b.bias", config.num_layers - 1), DType::kF32,
                     one, bytes(zeros).first(4));
  }
  if (config.architecture == "gemma4") {  // layers without values of their own are known by that
    for (int64_t layer = 0; layer < config.num_layers; ++layer) {
      if (HasSite(config, {static_cast<int32_t>(layer), Site::kV})) {
        writer.AddTensor(fmt::format("blk.{}.attn_v.weight", layer), DType::kF32, one,
                         bytes(zeros).first(4));
      }
    }
  }
  const auto add_factors = [&](const char* name, const std::vector<float>& factors) {
    const int64_t count[] = {static_cast<int64_t>(factors.size())};
    if (!factors.empty()) writer.AddTensor(name, DType::kF32, count, bytes(factors));
  };
  if (config.rope.yarn.factor == 0) {
    const bool two = !config.rope.far_factors.empty();
    add_factors(two ? "rope_factors_short.weight" : "rope_freqs.weight",
                config.rope.frequency_factors);
    add_factors("rope_factors_long.weight", config.rope.far_factors);
  }
  const std::string file = writer.Serialize();
  return ReadConfig(GgufFile::Parse({reinterpret_cast<const uint8_t*>(file.data()), file.size()},
                                    "the GGUF file"));
}

}  // namespace

std::string GgufDense(size_t index) { return fmt::format("dense_{}", index + 2); }

std::optional<std::string> LostInGguf(const ModelConfig& config) {
  const size_t dense = config.encoder.dense.size();  // two or none are read by others
  if (dense > 0 && (dense != 2 || config.architecture != "gemma-embedding")) {
    return "dense layers behind an encoder";
  }
  if (config.classifier.labels > 0) return "a head that scores";
  return DifferenceOf(config, ReadBack(config));
}

void AddConfigKeys(const ModelConfig& config, const std::string& source, GgufWriter& writer) {
  if (const auto lost = LostInGguf(config)) {
    Throw(ErrorCode::kUnsupported,
          "{}: {} cannot be said in GGUF's keys of {} yet: the file would compute something "
          "else; use the folder as it is",
          source, *lost, Quote(config.architecture));
  }
  KeyWriter(config, writer).Add();
}

}  // namespace bakestone
