// Attention: norm, q|k|v, their norms and rotation, keys and values into pages, the mix, output.
#include <cstring>

#include "kernels/math.h"
#include "model/decoder_pass.h"
#include "ops/rows.h"

namespace bakestone {

void DecoderPass::NormAndRotate(int64_t layer, const RowSet& set, std::span<const float> norm, MatrixView<float> x) {
  if (!norm.empty()) ops::RmsNormGroups(exec_.context, norm, config_.norm_eps, x);
  const LayerRope rope = config_.layer_rope(layer);
  if (rope == LayerRope::kNone) return;
  const auto& table = rope == LayerRope::kLocal ? set.rope->local : set.rope->main;
  ops::Rope(exec_.context, *table, x, config_.head_dim);
}

MatrixView<float> DecoderPass::Attention(int64_t layer, MatrixView<float> x, bool only_outputs) {
  LoadPages(layer);
  const RowSet& set = only_outputs ? out_ : all_;
  const LayerWeights& weights = Layer(layer);
  const Norm norm = {weights.attention_norm, weights.attention_norm_bias};
  MatrixView<float> y = only_outputs ? GatherOutputs(x) : x;
  Arena::Scope scope(arena_);
  const MatrixView<float> k = arena_.TakeMatrix<float>(all_.rows, config_.kv_dim());
  const MatrixView<float> v = arena_.TakeMatrix<float>(all_.rows, config_.kv_dim());
  const MatrixView<float> q = arena_.TakeMatrix<float>(set.rows, config_.q_dim());
  const std::array<SiteOutput, 3> outputs = {{{Site::kK, k}, {Site::kV, v}, {Site::kQ, q}}};
  const std::span<const SiteOutput> sites = outputs;
  PlainOutput gate = {weights.output_gate, {}};
  if (config_.output_gate) gate.y = arena_.TakeMatrix<float>(set.rows, config_.q_dim());
  const PlainOutput* with_queries = config_.output_gate ? &gate : nullptr;
  NormedProducts(layer, all_, x, norm, only_outputs ? sites.first(2) : sites, "attention input",
                 only_outputs ? nullptr : with_queries);
  NormAndRotate(layer, all_, weights.k_norm, k);
  ops::WriteKv(exec_.context, attention_, all_.runs, k, v);
  if (set.rows == 0) return y;
  if (only_outputs) NormedProducts(layer, set, y, norm, sites.last(1), "attention input", with_queries);
  NormAndRotate(layer, set, weights.q_norm, q);
  const MatrixView<float> mixed = arena_.TakeMatrix<float>(set.rows, config_.q_dim());
  const bool both_ways = config_.encoder.both_ways;
  ops::Attention(exec_.context, attention_, both_ways ? BothWays(set) : set.runs, q, mixed);
  if (config_.output_gate) GateOutput(gate.y, mixed);
  const SiteOutput o = {Site::kO, y};
  ops::Quantize(exec_.context, mixed, FormsFor(layer, set, {&o, 1}).span(), exec_.scratch.rows,
                "attention output");
  AddBranch(layer, set, Site::kO, weights.attention_post_norm, y);
  return y;
}

void DecoderPass::GateOutput(MatrixView<const float> gate, MatrixView<float> x) {
  exec_.pool.ParallelFor(x.rows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t i = 0; i < x.cols; ++i) x(row, i) *= math::Sigmoid(gate(row, i));
    }
  });
}

MatrixView<float> DecoderPass::Mix(int64_t layer, MatrixView<float> x, bool only_outputs) {
  switch (config_.mixer(layer)) {
    case Mixer::kConvolution:
      return Convolution(layer, x, only_outputs);
    case Mixer::kDeltaRule:
      return DeltaRule(layer, x, only_outputs);
    case Mixer::kAttention:
      break;
  }
  return config_.latent.kv_rank > 0 ? LatentAttention(layer, x, only_outputs) : Attention(layer, x, only_outputs);
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
