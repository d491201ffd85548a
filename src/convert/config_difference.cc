#include "convert/config_difference.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace bakestone {

bool Near(double a, double b) {
  return std::fabs(a - b) <= 1e-6 * std::max(std::fabs(a), std::fabs(b));
}

bool HasLocalRope(const ModelConfig& config) {
  return std::find(config.layer_ropes.begin(), config.layer_ropes.end(), LayerRope::kLocal) !=
         config.layer_ropes.end();
}

namespace {

bool SameYarn(const RopeConfig::Yarn& a, const RopeConfig::Yarn& b) {
  return Near(a.factor, b.factor) && Near(a.original_context, b.original_context) &&
         Near(a.beta_fast, b.beta_fast) && Near(a.beta_slow, b.beta_slow);
}

bool SameRope(const RopeConfig& a, const RopeConfig& b) {
  return Near(a.theta, b.theta) && a.dim == b.dim && Near(a.linear_scale, b.linear_scale) &&
         Near(a.magnitude, b.magnitude) && a.near_context == b.near_context &&
         a.far_factors == b.far_factors && SameYarn(a.yarn, b.yarn) &&
         std::equal(a.frequency_factors.begin(), a.frequency_factors.end(),
                    b.frequency_factors.begin(), b.frequency_factors.end(),
                    [](float x, float y) { return Near(x, y); });
}

bool Attends(const ModelConfig& config) {
  return config.mixers.empty() || std::find(config.mixers.begin(), config.mixers.end(),
                                            Mixer::kAttention) != config.mixers.end();
}

bool SameStates(const ModelConfig& a, const ModelConfig& b) {
  return a.mixers == b.mixers && a.taps == b.taps && a.delta.key_heads == b.delta.key_heads &&
         a.delta.value_heads == b.delta.value_heads && a.delta.key_dim == b.delta.key_dim &&
         a.delta.value_dim == b.delta.value_dim && a.rwkv.heads == b.rwkv.heads &&
         a.rwkv.head_dim == b.rwkv.head_dim;
}

bool SameLatent(const LatentConfig& a, const LatentConfig& b) {
  return a.kv_rank == b.kv_rank && a.q_rank == b.q_rank && a.nope_dim == b.nope_dim &&
         a.rope_dim == b.rope_dim && a.value_dim == b.value_dim && a.interleaved == b.interleaved &&
         Near(static_cast<double>(a.norm_eps), static_cast<double>(b.norm_eps));
}

bool SameLayers(const ModelConfig& a, const ModelConfig& b) {
  for (int64_t layer = 0; layer < a.num_layers; ++layer) {
    if (a.layer_rope(layer) != b.layer_rope(layer) || a.window(layer) != b.window(layer)) {
      return false;
    }
    if (a.layer_head_dim(layer) != b.layer_head_dim(layer) ||
        a.layer_kv_heads(layer) != b.layer_kv_heads(layer) ||
        a.ffn_width(layer) != b.ffn_width(layer) || a.kv_layer(layer) != b.kv_layer(layer) ||
        a.has_keys_as_values(layer) != b.has_keys_as_values(layer)) {
      return false;
    }
  }
  return true;
}

bool SameRouter(const RouterConfig& a, const RouterConfig& b) {
  return a.experts == b.experts && a.used == b.used && a.score == b.score && a.bias == b.bias &&
         a.groups == b.groups && a.used_groups == b.used_groups &&
         a.groups_by_two == b.groups_by_two && a.renormalize == b.renormalize &&
         a.scale == b.scale && a.expert_biases == b.expert_biases && a.shared_dim == b.shared_dim &&
         a.shared_gate == b.shared_gate && a.dense_layers == b.dense_layers &&
         a.dense_dim == b.dense_dim && a.beside_mlp == b.beside_mlp;
}

// What can be said of an encoder: where positions begin in its table is the format's.
bool SameEncoder(const EncoderConfig& a, const EncoderConfig& b) {
  return a.both_ways == b.both_ways && a.positions == b.positions &&
         a.token_types == b.token_types && a.embedding_norm == b.embedding_norm &&
         a.bare_first == b.bare_first && a.pooling == b.pooling &&
         std::equal(a.dense.begin(), a.dense.end(), b.dense.begin(), b.dense.end(),
                    [](const DenseConfig& x, const DenseConfig& y) {
                      return x.width == y.width && x.tanh == y.tanh;
                    });
}

}  // namespace

std::optional<std::string> DifferenceOf(const ModelConfig& a, const ModelConfig& b) {
  const auto f = [](float value) { return static_cast<double>(value); };
  const std::array<std::pair<const char*, bool>, 27> same = {{
      {"the architecture", a.architecture == b.architecture},
      {"the number of layers", a.num_layers == b.num_layers},
      {"the width", a.hidden_dim == b.hidden_dim && a.ffn_dim == b.ffn_dim},
      {"the heads",
       a.num_heads == b.num_heads && a.num_kv_heads == b.num_kv_heads && a.head_dim == b.head_dim},
      {"the vocabulary", a.vocab_size == b.vocab_size},
      {"the context length", a.context_length == b.context_length},
      {"the norm", a.norm_kind == b.norm_kind && Near(f(a.norm_eps), f(b.norm_eps))},
      {"where norms stand", a.norm_placement == b.norm_placement},
      {"norms of queries, keys and values", a.qk_norm == b.qk_norm && a.value_norm == b.value_norm},
      {"what layers are told of a token",
       a.per_layer_dim == b.per_layer_dim && a.layer_scales == b.layer_scales},
      {"the tied embedding", a.tied_embedding == b.tied_embedding},
      {"windows, rotation or sizes by layer", a.num_layers == b.num_layers && SameLayers(a, b)},
      {"the rotary embedding", !Attends(a) || SameRope(a.rope, b.rope)},
      {"the local layers' rotary embedding",
       !HasLocalRope(a) || SameRope(a.local_rope, b.local_rope)},
      {"the MLP", a.mlp == b.mlp},
      {"an encoder", SameEncoder(a.encoder, b.encoder)},
      {"layers that keep a state", SameStates(a, b)},
      {"attention over a latent", SameLatent(a.latent, b.latent)},
      {"gates and sinks of attention", a.output_gate == b.output_gate && a.sinks == b.sinks},
      {"the router", SameRouter(a.router, b.router)},
      {"the scale of scores", Near(f(a.attention_scale), f(b.attention_scale))},
      {"the cap of scores", Near(f(a.attention_soft_cap), f(b.attention_soft_cap))},
      {"the cap of logits", Near(f(a.final_soft_cap), f(b.final_soft_cap))},
      {"the norm of the embedding", a.embedding_norm == b.embedding_norm},
      {"the embedding's scale", Near(f(a.embedding_scale), f(b.embedding_scale))},
      {"the residual's scale", Near(f(a.residual_scale), f(b.residual_scale))},
      {"the logits' scale", Near(f(a.logit_scale), f(b.logit_scale))},
  }};
  for (const auto& [what, equal] : same) {
    if (!equal) return what;
  }
  return std::nullopt;
}

}  // namespace bakestone
