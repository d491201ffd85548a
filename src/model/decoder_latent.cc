// Attention whose keys and values come from a latent (LatentConfig), in the expanded form: pages
// hold every head's keys and values, padded to one size. A head's rotated channels come first.
#include "model/decoder_pass.h"
#include "ops/rows.h"

namespace bakestone {
namespace {

// to[i, ...] = from[i, ...] by heads of `size` channels, at `at` of heads of `stride`.
void CopyHeads(MatrixView<const float> from, int64_t row, int64_t size, int64_t stride, int64_t at,
               float* to) {
  const float* source = from.Row(row);
  for (int64_t head = 0; head * size < from.cols; ++head) {
    std::copy_n(source + head * size, size, to + head * stride + at);
  }
}

}  // namespace

void DecoderPass::LatentKeysAndValues(const LatentWeights& weights,
                                      MatrixView<const float> normed) {
  Arena::Scope scope(arena_);
  const LatentConfig& latent = config_.latent;
  const int64_t rows = normed.rows, heads = config_.num_heads, dim = config_.head_dim;
  const MatrixView<float> kv = arena_.TakeMatrix<float>(rows, latent.kv_rank + latent.rope_dim);
  const MatrixView<float> compressed = arena_.TakeMatrix<float>(rows, latent.kv_rank);
  const MatrixView<float> own_k = arena_.TakeMatrix<float>(rows, heads * latent.nope_dim);
  const MatrixView<float> own_v = arena_.TakeMatrix<float>(rows, heads * latent.value_dim);
  const MatrixView<float> k = arena_.TakeMatrix<float>(rows, heads * dim);
  const MatrixView<float> v = arena_.TakeMatrix<float>(rows, heads * dim);
  ProductsOf(normed, {{weights.kv_a, kv}}, "attention input");
  const MatrixView<float> rotated(kv.data + latent.kv_rank, rows, latent.rope_dim, kv.stride);
  ops::Rope(exec_.context, *all_.rope->main, rotated, latent.rope_dim);
  ops::RmsNorm(exec_.context, {kv.data, rows, latent.kv_rank, kv.stride}, weights.kv_a_norm,
               latent.norm_eps, compressed);
  ProductsOf(compressed, {{weights.k_b, own_k}, {weights.v_b, own_v}}, "latent");
  exec_.pool.ParallelFor(rows, 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      std::fill_n(k.Row(row), k.cols, 0.0f);
      std::fill_n(v.Row(row), v.cols, 0.0f);
      for (int64_t head = 0; head < heads; ++head) {
        std::copy_n(rotated.Row(row), latent.rope_dim, k.Row(row) + head * dim);
      }
      CopyHeads(own_k, row, latent.nope_dim, dim, latent.rope_dim, k.Row(row));
      CopyHeads(own_v, row, latent.value_dim, dim, 0, v.Row(row));
    }
  });
  ops::WriteKv(exec_.context, attention_, all_.runs, k, v);
}

void DecoderPass::LatentQueries(const LatentWeights& weights, const RowSet& set,
                                MatrixView<const float> normed, MatrixView<float> q) {
  Arena::Scope scope(arena_);
  const LatentConfig& latent = config_.latent;
  const MatrixView<float> own =
      arena_.TakeMatrix<float>(set.rows, config_.num_heads * latent.key_dim());
  if (latent.q_rank > 0) {
    const MatrixView<float> compressed = arena_.TakeMatrix<float>(set.rows, latent.q_rank);
    ProductsOf(normed, {{weights.q_a, compressed}}, "attention input");
    ops::RmsNorm(exec_.context, compressed, weights.q_a_norm, latent.norm_eps, compressed);
    ProductsOf(compressed, {{weights.q_b, own}}, "latent of queries");
  } else {
    ProductsOf(normed, {{weights.q_b, own}}, "attention input");
  }
  ops::Rope(exec_.context, *set.rope->main, own, latent.key_dim());
  exec_.pool.ParallelFor(set.rows, 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      std::fill_n(q.Row(row), q.cols, 0.0f);
      CopyHeads(own, row, latent.key_dim(), config_.head_dim, 0, q.Row(row));
    }
  });
}

MatrixView<float> DecoderPass::LatentAttention(int64_t layer, MatrixView<float> x,
                                               bool only_outputs) {
  LoadPages(layer);
  const RowSet& set = only_outputs ? out_ : all_;
  const LayerWeights& weights = Layer(layer);
  const MatrixView<float> y = only_outputs ? GatherOutputs(x) : x;
  Arena::Scope scope(arena_);
  MatrixView<float> normed = arena_.TakeMatrix<float>(all_.rows, x.cols);
  ops::RmsNorm(exec_.context, x, weights.attention_norm, config_.norm_eps, normed);
  LatentKeysAndValues(*weights.latent, normed);
  if (set.rows == 0) return y;
  if (only_outputs) normed = GatherOutputs(normed);
  const MatrixView<float> q = arena_.TakeMatrix<float>(set.rows, config_.q_dim());
  const MatrixView<float> padded = arena_.TakeMatrix<float>(set.rows, config_.q_dim());
  const MatrixView<float> mixed = arena_.TakeMatrix<float>(set.rows, config_.mixed_dim(layer));
  LatentQueries(*weights.latent, set, normed, q);
  ops::Attention(exec_.context, attention_, set.runs, q, padded);
  exec_.pool.ParallelFor(set.rows, 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t head = 0; head < config_.num_heads; ++head) {
        std::copy_n(padded.Row(row) + head * config_.head_dim, config_.latent.value_dim,
                    mixed.Row(row) + head * config_.latent.value_dim);
      }
    }
  });
  const SiteOutput o = {Site::kO, y};
  ops::Quantize(exec_.context, mixed, FormsFor(layer, set, {&o, 1}).span(), exec_.scratch.rows,
                "attention output");
  AddBranch(layer, set, Site::kO, weights.attention_post_norm, y);
  return y;
}

}  // namespace bakestone
