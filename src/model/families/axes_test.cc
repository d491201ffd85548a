// Every axis that a family declares, turned off, moves the logits of its golden model.
#include <algorithm>

#include "model/families/test_families.h"

namespace bakestone {
namespace testing {
namespace {

// Biases of norms, where decoders have layer norms.
bool HasNormBiases(const ModelConfig& config) {
  return config.norm_kind == NormKind::kLayer && !config.encoder.both_ways;
}

void ForNorms(Weights& weights, const std::function<void(std::vector<float>&)>& change) {
  change(weights.final_norm);
  for (LayerWeights& layer : weights.layers) {
    for (auto* norm : {&layer.attention_norm, &layer.mlp_norm, &layer.attention_post_norm,
                       &layer.mlp_post_norm, &layer.q_norm, &layer.k_norm}) {
      change(*norm);
    }
  }
}

void Fill(std::vector<float>& values, float value) {
  std::fill(values.begin(), values.end(), value);
}

Axis ForRwkv(const char* name, const std::function<void(RwkvWeights&)>& change) {
  return {name, [](const ModelConfig& config) { return config.rwkv.heads > 0; },
          [change](ModelConfig&, Weights& weights) {
            for (LayerWeights& layer : weights.layers) change(*layer.rwkv);
          }};
}

}  // namespace

const std::vector<Axis>& Axes() {
  using C = const ModelConfig&;
  static const std::vector<Axis> axes = {
      {"window", [](C c) { return !c.windows.empty(); },
       [](ModelConfig& c, Weights&) { c.windows.clear(); }},
      {"window by layer",
       [](C c) {
         return std::adjacent_find(c.windows.begin(), c.windows.end(), std::not_equal_to<>()) !=
                c.windows.end();
       },
       [](ModelConfig& c, Weights&) {
         std::rotate(c.windows.begin(), c.windows.begin() + 1, c.windows.end());
       }},
      {"rope by layer", [](C c) { return !c.layer_ropes.empty() && c.head_dims.empty(); },
       [](ModelConfig& c, Weights&) { c.layer_ropes.clear(); }},
      {"rope base", [](C c) { return c.rope.theta != 10000; },
       [](ModelConfig& c, Weights&) { c.rope.theta = 10000; }},
      {"local rope base", [](C c) { return c.local_rope.theta != 10000; },
       [](ModelConfig& c, Weights&) { c.local_rope.theta = 10000; }},
      {"part of a head", [](C c) { return c.rope.dim != c.rotated_dim(); },
       [](ModelConfig& c, Weights&) {
         c.rope.dim = c.head_dim;
         c.rope.frequency_factors.resize(static_cast<size_t>(c.head_dim / 2), 1.0f);
         c.rope.far_factors.clear();
       }},
      {"same rope in all layers",
       [](C c) { return !c.layer_ropes.empty() && c.local_rope.theta == c.rope.theta; },
       [](ModelConfig& c, Weights&) { c.local_rope = c.rope; }},
      {"experts of a row", [](C c) { return c.router.experts > 0; },
       [](ModelConfig& c, Weights&) { c.router.used = 1; }},
      {"shares of the chosen", [](C c) { return c.router.experts > 0; },
       [](ModelConfig& c, Weights&) { c.router.renormalize = !c.router.renormalize; }},
      {"bias of the choice", [](C c) { return c.router.bias; },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) layer.router_bias.clear();
       }},
      {"score of experts", [](C c) { return c.router.score == RouterScore::kSigmoid; },
       [](ModelConfig& c, Weights&) { c.router.score = RouterScore::kSoftmax; }},
      {"groups of experts", [](C c) { return c.router.groups > 1; },
       [](ModelConfig& c, Weights&) { c.router.groups = 1; }},
      {"what groups count by", [](C c) { return c.router.groups > 1; },
       [](ModelConfig& c, Weights&) { c.router.groups_by_two = !c.router.groups_by_two; }},
      {"scale of shares", [](C c) { return c.router.scale != 1; },
       [](ModelConfig& c, Weights&) { c.router.scale = 1; }},
      {"shared expert", [](C c) { return c.router.shared_dim > 0; },
       [](ModelConfig& c, Weights&) { c.router.shared_dim = 0; }},
      {"gate of the shared expert", [](C c) { return c.router.shared_gate; },
       [](ModelConfig& c, Weights&) { c.router.shared_gate = false; }},
      {"norm of the latent", [](C c) { return c.latent.kv_rank > 0; },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) {
           layer.latent->kv_a_norm.assign(layer.latent->kv_a_norm.size(), 1.0f);
         }
       }},
      {"norm of the queries' latent", [](C c) { return c.latent.q_rank > 0; },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) {
           layer.latent->q_a_norm.assign(layer.latent->q_a_norm.size(), 1.0f);
         }
       }},
      {"norm epsilon of latents", [](C c) { return c.latent.kv_rank > 0; },
       [](ModelConfig& c, Weights&) { c.latent.norm_eps = 1; }},
      {"output gate", [](C c) { return c.output_gate; },
       [](ModelConfig& c, Weights&) { c.output_gate = false; }},
      {"taps", [](C c) { return c.taps > 0; },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) {
           for (auto* taps : {layer.convolution ? &layer.convolution->taps : nullptr,
                              layer.delta ? &layer.delta->taps : nullptr}) {
             if (taps != nullptr) std::fill_n(taps->begin(), taps->size() / 4, 0.0f);
           }
         }
       }},
      {"heads of the delta rule", [](C c) { return c.delta.value_heads > c.delta.key_heads; },
       [](ModelConfig& c, Weights&) { c.delta.tiled = !c.delta.tiled; }},
      {"decay", [](C c) { return c.delta.key_heads > 0; },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) {
           if (layer.delta) layer.delta->dt.assign(layer.delta->dt.size(), 0.0f);
         }
       }},
      {"sinks", [](C c) { return c.sinks; }, [](ModelConfig& c, Weights&) { c.sinks = false; }},
      {"clamped SwiGLU", [](C c) { return c.mlp == MlpKind::kClampedSwiGlu; },
       [](ModelConfig& c, Weights&) { c.mlp = MlpKind::kSwiGlu; }},
      {"biases of experts", [](C c) { return c.router.expert_biases; },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) {
           for (ExpertWeights& expert : layer.experts) expert.up.ClearBias();
         }
       }},
      {"bias of the router", [](C c) { return c.router.expert_biases; },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) layer.router.ClearBias();
       }},
      {"linear scale", [](C c) { return c.rope.linear_scale != 1; },
       [](ModelConfig& c, Weights&) { c.rope.linear_scale = 1; }},
      {"frequency factors", [](C c) { return !c.rope.frequency_factors.empty(); },
       [](ModelConfig& c, Weights&) { c.rope.frequency_factors.clear(); }},
      {"rope magnitude", [](C c) { return c.rope.magnitude != 1; },
       [](ModelConfig& c, Weights&) { c.rope.magnitude = 1; }},
      {"norm kind", [](C c) { return c.norm_kind == NormKind::kLayer; },
       [](ModelConfig& c, Weights&) { c.norm_kind = NormKind::kRms; }},
      {"norm bias", HasNormBiases,
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) layer.attention_norm_bias.clear();
       }},
      {"MLP norm bias", HasNormBiases,
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) layer.mlp_norm_bias.clear();
       }},
      {"final norm bias", HasNormBiases,
       [](ModelConfig&, Weights& w) { w.final_norm_bias.clear(); }},
      {"norms after attention", [](C c) { return c.has_post_norms(); },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) layer.attention_post_norm.clear();
       }},
      {"norms after the MLP", [](C c) { return c.has_post_norms(); },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) layer.mlp_post_norm.clear();
       }},
      {"no norms before", [](C c) { return !c.has_pre_norms(); },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) {
           layer.attention_norm = layer.attention_post_norm;
           layer.mlp_norm = layer.mlp_post_norm;
         }
       }},
      {"norm of queries", [](C c) { return c.qk_norm != QkNorm::kNone; },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) layer.q_norm.clear();
       }},
      {"norm of keys", [](C c) { return c.qk_norm != QkNorm::kNone; },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) layer.k_norm.clear();
       }},
      {"norm of queries over all heads", [](C c) { return c.qk_norm == QkNorm::kWhole; },
       [](ModelConfig& c, Weights& w) {
         for (LayerWeights& layer : w.layers) layer.q_norm.resize(static_cast<size_t>(c.head_dim));
       }},
      {"norm of values", [](C c) { return c.value_norm; },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) layer.v_norm.clear();
       }},
      {"keys and values of the last layer of the kind", [](C c) { return !c.kv_layers.empty(); },
       [](ModelConfig& c, Weights&) {  // those of the first
         for (int64_t layer = 0; layer < c.num_layers; ++layer) {
           if (c.owns_kv(layer)) continue;
           const auto first = std::find_if(c.windows.begin(), c.windows.end(), [&](int64_t window) {
             return window == c.window(layer);
           });
           c.kv_layers[static_cast<size_t>(layer)] = first - c.windows.begin();
         }
       }},
      {"keys as values", [](C c) { return !c.keys_as_values.empty(); },
       [](ModelConfig& c, Weights& w) {  // those of layers that have some: of the same shape in all
         for (int64_t layer = 0; layer < c.num_layers; ++layer) {
           if (c.has_keys_as_values(layer)) w.layers[static_cast<size_t>(layer)].v = w.layers[0].v;
         }
         c.keys_as_values.clear();
       }},
      {"embeddings by layer", [](C c) { return c.per_layer_dim > 0; },
       [](ModelConfig& c, Weights&) { c.per_layer_dim = 0; }},
      {"norm of the embedding by layer", [](C c) { return c.per_layer_dim > 0; },
       [](ModelConfig&, Weights& w) { w.per_layer_norm.assign(w.per_layer_norm.size(), 1.0f); }},
      {"norm of what a layer is told", [](C c) { return c.per_layer_dim > 0; },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) {
           layer.per_layer->norm.assign(layer.per_layer->norm.size(), 1.0f);
         }
       }},
      {"scale of layers", [](C c) { return c.layer_scales; },
       [](ModelConfig& c, Weights&) { c.layer_scales = false; }},
      {"experts beside the MLP", [](C c) { return c.router.beside_mlp; },
       [](ModelConfig& c, Weights&) { c.router.beside_mlp = false; }},
      {"norm of the router", [](C c) { return c.router.beside_mlp; },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) {
           layer.beside->router_norm = layer.beside->experts_norm;
         }
       }},
      {"norm of experts", [](C c) { return c.router.beside_mlp; },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) layer.beside->experts_norm = layer.mlp_norm;
       }},
      {"norm after the MLP beside", [](C c) { return c.router.beside_mlp; },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) {
           layer.beside->mlp_norm.assign(layer.beside->mlp_norm.size(), 1.0f);
         }
       }},
      {"norm after experts", [](C c) { return c.router.beside_mlp; },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) {
           layer.beside->experts_post_norm.assign(layer.mlp_norm.size(), 1.0f);
         }
       }},
      {"scale by expert", [](C c) { return c.router.beside_mlp; },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) {
           layer.beside->expert_scales.assign(layer.experts.size(), 1.0f);
         }
       }},
      ForRwkv("shares of the first branch's receptance",
              [](RwkvWeights& r) { Fill(r.shares[0], 0); }),
      ForRwkv("shares of its decay", [](RwkvWeights& r) { r.shares[1] = r.shares[2]; }),
      ForRwkv("shares of its keys", [](RwkvWeights& r) { r.shares[2] = r.shares[3]; }),
      ForRwkv("shares of its values", [](RwkvWeights& r) { Fill(r.shares[3], 0); }),
      ForRwkv("shares of its rate", [](RwkvWeights& r) { r.shares[4] = r.shares[5]; }),
      ForRwkv("shares of its gate", [](RwkvWeights& r) { Fill(r.shares[5], 0); }),
      ForRwkv("shares of the second branch", [](RwkvWeights& r) { Fill(r.mlp_share, 0); }),
      ForRwkv("bias of the decay", [](RwkvWeights& r) { r.decay_out.ClearBias(); }),
      ForRwkv("bias of the rate", [](RwkvWeights& r) { r.rate_out.ClearBias(); }),
      ForRwkv("values of the first layer", [](RwkvWeights& r) { r.value_out.ClearBias(); }),
      ForRwkv("scale of keys", [](RwkvWeights& r) { Fill(r.key_scale, 1); }),
      ForRwkv("rate of keys", [](RwkvWeights& r) { Fill(r.key_rate, 0); }),
      ForRwkv("bonus", [](RwkvWeights& r) { Fill(r.bonus, 0); }),
      ForRwkv("norm of heads", [](RwkvWeights& r) { Fill(r.norm, 1); }),
      ForRwkv("bias of the norm of heads", [](RwkvWeights& r) { Fill(r.norm_bias, 0); }),
      {"norm of the embedding", [](C c) { return c.embedding_norm; },
       [](ModelConfig& c, Weights&) { c.embedding_norm = false; }},
      {"size of heads", [](C c) { return c.rwkv.heads > 0; },
       [](ModelConfig& c, Weights&) {
         c.rwkv = {.heads = 2 * c.rwkv.heads, .head_dim = c.rwkv.head_dim / 2};
       }},
      {"norms less one", [](C c) { return c.norms_less_one; },
       [](ModelConfig&, Weights& w) {
         ForNorms(w, [](std::vector<float>& norm) {
           for (float& value : norm) value -= 1;
         });
       }},
      {"MLP kind", [](C c) { return c.mlp == MlpKind::kGeGlu; },
       [](ModelConfig& c, Weights&) { c.mlp = MlpKind::kSwiGlu; }},
      {"no gate", [](C c) { return !c.gated() && c.rwkv.heads == 0; },
       [](ModelConfig& c, Weights& w) {
         c.mlp = MlpKind::kGeGlu;
         for (LayerWeights& layer : w.layers) layer.gate = layer.up;
       }},
      {"attention scale", [](C c) { return c.attention_scale > 0; },
       [](ModelConfig& c, Weights&) { c.attention_scale = 0; }},
      {"cap of scores", [](C c) { return c.attention_soft_cap > 0; },
       [](ModelConfig& c, Weights&) { c.attention_soft_cap = 0; }},
      {"cap of logits", [](C c) { return c.final_soft_cap > 0; },
       [](ModelConfig& c, Weights&) { c.final_soft_cap = 0; }},
      {"embedding scale", [](C c) { return c.embedding_scale != 1; },
       [](ModelConfig& c, Weights&) { c.embedding_scale = 1; }},
      {"residual scale", [](C c) { return c.residual_scale != 1; },
       [](ModelConfig& c, Weights&) { c.residual_scale = 1; }},
      {"logit scale", [](C c) { return c.logit_scale != 1; },
       [](ModelConfig& c, Weights&) { c.logit_scale = 1; }},
      {"norm epsilon", [](C c) { return c.norm_eps > 0.01f; },
       [](ModelConfig& c, Weights&) { c.norm_eps = 1e-6f; }},
      {"untied head", [](C c) { return !c.tied_embedding; },
       [](ModelConfig&, Weights& w) { w.untied_head.reset(); }},
      {"biases", [](C c) { return c.architecture == "qwen2" || c.architecture == "starcoder2"; },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) layer.q.ClearBias();
       }},
  };
  return axes;
}

namespace {

class FamilyAxes : public FamilyProof {};

TEST_P(FamilyAxes, EveryDeclaredAxisMatters) {
  const Golden golden = ReadGolden(type());
  const ModelFile file = ModelFile::Open(FolderOf(type()));
  const ModelConfig config = file.Config();
  for (const Axis& axis : Axes()) {
    if (!axis.declared(config)) continue;
    SCOPED_TRACE(axis.name);
    ModelConfig flipped = config;
    const auto weights = LoadFrom(file, config);
    axis.flip(flipped, *weights);
    EXPECT_GT(MaxDifference(LogitsOf(flipped, *weights, golden.tokens), golden.logits),
              100 * kTolerance)
        << axis.name;
  }
  if (config.latent.kv_rank > 0) {
    ModelConfig flipped = config;
    flipped.latent.interleaved = !flipped.latent.interleaved;
    EXPECT_GT(
        MaxDifference(LogitsOf(flipped, *LoadFrom(file, flipped), golden.tokens), golden.logits),
        100 * kTolerance);
  } else if (config.gated()) {  // rows of q and k of GGUF files of some families are permuted
    const std::filesystem::path path = FolderOf(type()) / "model.gguf";
    if (!std::filesystem::exists(path)) return;
    const ModelFile gguf = ModelFile::Open(path);
    ModelConfig flipped = gguf.Config();
    flipped.permuted_qk = !flipped.permuted_qk;
    EXPECT_GT(
        MaxDifference(LogitsOf(flipped, *LoadFrom(gguf, flipped), golden.tokens), golden.logits),
        100 * kTolerance);
  }
}

INSTANTIATE_TEST_SUITE_P(Types, FamilyAxes, ::testing::ValuesIn(AllTypes()),
                         [](const auto& info) { return TestName(info.param); });

}  // namespace
}  // namespace testing
}  // namespace bakestone
