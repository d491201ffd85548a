// What stands beside a layer's attention and MLP: experts beside the MLP, and what each layer is
// told of the token.
#include <cmath>

#include "model/decoder_pass.h"
#include "ops/rows.h"

namespace bakestone {

void DecoderPass::MlpBesideExperts(int64_t layer, MatrixView<float> x, const RowSet& set) {
  Arena::Scope scope(arena_);
  const LayerWeights& weights = Layer(layer);
  const BesideWeights& beside = *weights.beside;
  const float eps = config_.norm_eps;
  const MatrixView<float> y = arena_.TakeMatrix<float>(set.rows, x.cols);
  const MatrixView<float> h = arena_.TakeMatrix<float>(set.rows, x.cols);
  const MatrixView<float> mixed = arena_.TakeMatrix<float>(set.rows, x.cols);
  const MatrixView<float> logits = arena_.TakeMatrix<float>(set.rows, config_.router.experts);
  MlpActivation(layer, x, set);
  const SiteOutput down = {Site::kDown, y};
  Products(layer, set, {&down, 1}, Epilogue::kStore);
  ops::RmsNorm(exec_.context, y, beside.mlp_norm, eps, y);

  ops::RmsNorm(exec_.context, x, beside.router_norm, eps, h);
  ProductsOf(h, {{weights.router, logits}}, "router input");
  std::vector<ExpertRows> chosen = ChooseExperts(config_.router, {}, logits);
  ops::RmsNorm(exec_.context, x, beside.experts_norm, eps, h);
  for (int64_t row = 0; row < mixed.rows; ++row) std::fill_n(mixed.Row(row), mixed.cols, 0.0f);
  for (size_t expert = 0; expert < chosen.size(); ++expert) {
    if (chosen[expert].rows.empty()) continue;
    for (float& share : chosen[expert].shares) share *= beside.expert_scales[expert];
    Expert({static_cast<int32_t>(layer), Site::kGate, static_cast<int32_t>(expert)}, {},
           chosen[expert], h, mixed);
  }
  ops::RmsNorm(exec_.context, mixed, beside.experts_post_norm, eps, mixed);
  ops::Add(exec_.context, mixed, y);
  if (!weights.mlp_post_norm.empty()) ops::RmsNorm(exec_.context, y, weights.mlp_post_norm, eps, y);
  ops::Add(exec_.context, y, x);
}

void DecoderPass::PlanPerLayer(MatrixView<const float> x) {
  const int64_t dim = config_.per_layer_dim, width = config_.num_layers * dim;
  per_layer_ = arena_.TakeMatrix<float>(x.rows, width);
  Arena::Scope scope(arena_);
  const MatrixView<float> projected = arena_.TakeMatrix<float>(x.rows, width);
  ops::Embed(exec_.context, weights_.per_layer_embedding.panel(), step_.tokens, per_layer_);
  ops::Scale(exec_.context, std::sqrt(static_cast<float>(dim)), per_layer_);
  ProductsOf(x, {{weights_.per_layer_projection, projected}}, "embedding by layer");
  ops::Scale(exec_.context, 1.0f / std::sqrt(static_cast<float>(config_.hidden_dim)), projected);
  ops::RmsNormGroups(exec_.context, weights_.per_layer_norm, config_.norm_eps, projected);
  ops::Add(exec_.context, projected, per_layer_);
  ops::Scale(exec_.context, std::sqrt(0.5f), per_layer_);
}

void DecoderPass::AddPerLayer(int64_t layer, MatrixView<float> x, const RowSet& set) {
  Arena::Scope scope(arena_);
  const PerLayerWeights& weights = *Layer(layer).per_layer;
  const int64_t dim = config_.per_layer_dim;
  MatrixView<float> told(per_layer_.data + layer * dim, per_layer_.rows, dim, per_layer_.stride);
  if (set.rows < told.rows) told = GatherOutputs(told);
  const MatrixView<float> gate = arena_.TakeMatrix<float>(set.rows, dim);
  const MatrixView<float> y = arena_.TakeMatrix<float>(set.rows, x.cols);
  ProductsOf(x, {{weights.gate, gate}}, "gate of what a layer is told");
  const ActType form = ops::ActTypeFor(weights.out.panel().type, exec_.precision);
  ops::GeGluQuantize(exec_.context, gate, told, {&form, 1}, exec_.scratch.rows,
                     "what a layer is told");
  const ops::Product product = {.panel = weights.out.panel(), .bias = nullptr, .y = y};
  ops::MatMul(exec_.context, exec_.scratch.rows, {&product, 1}, exec_.precision);
  ops::RmsNorm(exec_.context, y, weights.norm, config_.norm_eps, y);
  ops::Add(exec_.context, y, x);
}

}  // namespace bakestone
