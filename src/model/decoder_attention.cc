// Attention: norm, q|k|v, their norms and rotation, keys and values into pages, the mix, output.
#include <cstring>

#include "kernels/math.h"
#include "model/decoder_pass.h"
#include "ops/rows.h"

namespace bakestone {

void DecoderPass::NormAndRotate(int64_t layer, const RowSet& set, std::span<const float> norm,
                                MatrixView<float> x) {
  if (!norm.empty()) ops::RmsNormGroups(exec_.context, norm, config_.norm_eps, x);
  const LayerRope rope = config_.layer_rope(layer);
  if (rope == LayerRope::kNone) return;
  const auto& table = rope == LayerRope::kLocal ? set.rope->local : set.rope->main;
  ops::Rope(exec_.context, *table, x, config_.layer_head_dim(layer));
}

void DecoderPass::KeepKeysAndValues(int64_t layer, MatrixView<float> k, MatrixView<float> v) {
  if (config_.has_keys_as_values(layer)) {
    for (int64_t row = 0; row < k.rows; ++row) std::copy_n(k.Row(row), k.cols, v.Row(row));
  }
  const LayerWeights& weights = Layer(layer);
  NormAndRotate(layer, all_, weights.k_norm, k);
  if (!weights.v_norm.empty()) {
    ops::RmsNormGroups(exec_.context, weights.v_norm, config_.norm_eps, v);
  }
  ops::WriteKv(exec_.context, attention_, all_.runs, k, v);
}

MatrixView<float> DecoderPass::Attention(int64_t layer, MatrixView<float> x, bool only_outputs) {
  LoadPages(layer);
  const RowSet& set = only_outputs ? out_ : all_;
  const LayerWeights& weights = Layer(layer);
  const Norm norm = {weights.attention_norm, weights.attention_norm_bias};
  MatrixView<float> y = only_outputs ? GatherOutputs(x) : x;
  Arena::Scope scope(arena_);
  const bool owns = config_.owns_kv(layer);
  const int64_t q_dim = config_.q_dim(layer), kv_dim = owns ? config_.kv_dim(layer) : 0;
  const MatrixView<float> k = arena_.TakeMatrix<float>(all_.rows, kv_dim);
  const MatrixView<float> v = arena_.TakeMatrix<float>(all_.rows, kv_dim);
  const MatrixView<float> q = arena_.TakeMatrix<float>(set.rows, q_dim);
  std::array<SiteOutput, 3> outputs;
  size_t count = 0;  // of keys and values
  if (owns) outputs[count++] = {Site::kK, k};
  if (owns && !config_.has_keys_as_values(layer)) outputs[count++] = {Site::kV, v};
  outputs[count] = {Site::kQ, q};
  const std::span<const SiteOutput> keys_and_values(outputs.data(), count),
      all_three(outputs.data(), count + 1);
  PlainOutput gate = {weights.output_gate, {}};
  if (config_.output_gate) gate.y = arena_.TakeMatrix<float>(set.rows, q_dim);
  const PlainOutput* with_queries = config_.output_gate ? &gate : nullptr;
  if (owns || !only_outputs) {
    NormedProducts(layer, all_, x, norm, only_outputs ? keys_and_values : all_three,
                   "attention input", only_outputs ? nullptr : with_queries);
  }
  if (owns) KeepKeysAndValues(layer, k, v);
  if (set.rows == 0) return y;
  if (only_outputs) {
    NormedProducts(layer, set, y, norm, all_three.last(1), "attention input", with_queries);
  }
  NormAndRotate(layer, set, weights.q_norm, q);
  const MatrixView<float> mixed = arena_.TakeMatrix<float>(set.rows, q_dim);
  const bool both_ways = config_.encoder.both_ways;
  ops::Attention(exec_.context, attention_,
                 both_ways ? BothWays(set, config_.window(layer)) : set.runs, q, mixed);
  if (config_.output_gate) ops::Gate(exec_.context, gate.y, mixed, mixed);
  const SiteOutput o = {Site::kO, y};
  ops::Quantize(exec_.context, mixed, FormsFor(layer, set, {&o, 1}).span(), exec_.scratch.rows,
                "attention output");
  AddBranch(layer, set, Site::kO, weights.attention_post_norm, y);
  return y;
}

MatrixView<float> DecoderPass::Mix(int64_t layer, MatrixView<float> x, bool only_outputs) {
  switch (config_.mixer(layer)) {
    case Mixer::kConvolution:
      return Convolution(layer, x, only_outputs);
    case Mixer::kDeltaRule:
      return DeltaRule(layer, x, only_outputs);
    case Mixer::kRwkv:
      return RwkvLayer(layer, x, only_outputs);
    case Mixer::kAttention:
      break;
  }
  return config_.latent.kv_rank > 0 ? LatentAttention(layer, x, only_outputs)
                                    : Attention(layer, x, only_outputs);
}

MatrixView<float> DecoderPass::GatherOutputs(MatrixView<const float> x) {
  const MatrixView<float> y = arena_.TakeMatrix<float>(num_outputs(), x.cols);
  for (int64_t i = 0; i < y.rows; ++i) {
    const float* row = x.Row(step_.output_rows[static_cast<size_t>(i)]);
    std::memcpy(y.Row(i), row, static_cast<size_t>(x.cols) * sizeof(float));
  }
  return y;
}

}  // namespace bakestone
