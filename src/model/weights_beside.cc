// Loading of what stands beside a layer's attention and MLP: experts beside the MLP, embeddings by
// layer; and of layers that read the keys and values of another.
#include <cmath>

#include "model/weights_loader.h"

namespace bakestone {

void WeightsLoader::AddBeside(int64_t layer, LayerWeights& weights) {
  const int64_t hidden = config_.hidden_dim, experts = config_.router.experts;
  const auto named = [&](const char* name) { return names_.Layer(layer, name); };
  BesideWeights& beside = *(weights.beside = std::make_unique<BesideWeights>());
  beside.mlp_norm = Norm(named(names_.beside_mlp_norm), hidden);
  beside.experts_norm = Norm(named(names_.beside_experts_norm), hidden);
  beside.experts_post_norm = Norm(named(names_.beside_experts_post_norm), hidden);
  beside.router_norm = Vector(named(names_.router_scale), hidden);
  const float factor = 1.0f / std::sqrt(static_cast<float>(hidden));
  for (float& value : beside.router_norm) value *= factor;
  beside.expert_scales.assign(static_cast<size_t>(experts), 1.0f);
  if (Has(named(names_.expert_scales))) {
    beside.expert_scales = Vector(named(names_.expert_scales), experts);
  }
}

void WeightsLoader::AddPerLayerTables() {
  const int64_t hidden = config_.hidden_dim, dim = config_.per_layer_dim,
                width = config_.num_layers * dim;
  const auto matrix = [&](const std::string& name, LinearShape shape) {
    return Matrix({name, name + ".weight", 0, shape.n}, shape);
  };
  weights_->per_layer_embedding =
      matrix(names_.per_layer_embedding, {.n = config_.vocab_size, .k = width});
  weights_->per_layer_projection = matrix(names_.per_layer_projection, {.n = width, .k = hidden});
  weights_->per_layer_norm = Norm(names_.per_layer_norm, dim);
}

void WeightsLoader::AddPerLayer(int64_t layer, LayerWeights& weights) {
  const int64_t hidden = config_.hidden_dim, dim = config_.per_layer_dim;
  const auto named = [&](const char* name) { return names_.Layer(layer, name); };
  const auto matrix = [&](const std::string& name, LinearShape shape) {
    return Matrix({name, name + ".weight", 0, shape.n}, shape);
  };
  weights.per_layer = std::make_unique<PerLayerWeights>();
  weights.per_layer->gate = matrix(named(names_.layer_gate), {.n = dim, .k = hidden});
  weights.per_layer->out = matrix(named(names_.layer_out), {.n = hidden, .k = dim});
  weights.per_layer->norm = Norm(named(names_.layer_norm), hidden);
}

void WeightsLoader::IgnoreKeysAndValues(int64_t layer) {
  if (config_.owns_kv(layer)) return;
  for (const char* name : {names_.sites[static_cast<size_t>(Site::kK)],
                           names_.sites[static_cast<size_t>(Site::kV)], names_.k_norm}) {
    const std::string tensor = names_.Layer(layer, name) + ".weight";
    if (Has(tensor)) Take(tensor);
  }
}

}  // namespace bakestone
