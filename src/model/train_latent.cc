// Attention over a latent in the training pass (LatentConfig, model/decoder_latent.cc), in its
// expanded form: every head has keys and values of its own, padded to one size. Only the output's
// matrix takes pairs; gradients go through the latents, whose matrices are frozen.
//
// Kept per row: queries, keys and values as attention takes them, its output, and both latents over
// their rms.
#include "model/phase_timer.h"
#include "model/train_layer.h"
#include "ops/train_rows.h"
#include "tensor/half.h"

namespace bakestone {
namespace {

// By heads: `size` channels of heads of `from_dim`, to channel `at` of heads of `to_dim`.
struct HeadCopy {
  int64_t heads, size, from_dim, to_dim, from_at, to_at;
};
void CopyHeads(ThreadPool& pool, const HeadCopy& copy, int64_t rows, const uint16_t* from,
               uint16_t* to) {
  pool.ParallelFor(rows, kRowsOfAThread, [&](int64_t begin, int64_t end, int) {
    for (int64_t head = begin * copy.heads; head < end * copy.heads; ++head) {
      std::copy_n(from + head * copy.from_dim + copy.from_at, copy.size,
                  to + head * copy.to_dim + copy.to_at);
    }
  });
}

}  // namespace

// latent_h_: x [rows, width], stride between them, over its rms and times the norm's weight.
void TrainLayer::NormLatent(const float* x, int64_t stride, int64_t width, int64_t rows,
                            const std::vector<float>& weight, uint16_t* y, float* inverse) {
  const PhaseTimer timer(phases.rows);
  for (int64_t row = 0; row < rows; ++row) {
    std::copy_n(x + row * stride, width, latent_x_.data() + row * width);
  }
  ops::TrainNorm(kernels_, pool_,
                 {.x = latent_x_.data(),
                  .weight = weight.data(),
                  .bias = nullptr,
                  .centred = false,
                  .rows = rows,
                  .dim = width,
                  .eps = config_.latent.norm_eps,
                  .y = y,
                  .h = latent_h_.data(),
                  .inverse = inverse});
}

// latent_x_, of what the norm gave, to latent_h_, of what it took.
void TrainLayer::NormLatentBackward(int64_t width, int64_t rows, const std::vector<float>& weight,
                                    const uint16_t* y, const float* inverse) {
  const PhaseTimer timer(phases.rows);
  std::fill_n(latent_d_.data(), rows * width, 0.0f);
  ops::TrainNormBackward(kernels_, pool_,
                         {.centred = false,
                          .dh = latent_x_.data(),
                          .y = y,
                          .inverse = inverse,
                          .weight = weight.data(),
                          .rows = rows,
                          .dim = width,
                          .dx = latent_d_.data(),
                          .dx_bf16 = latent_h_.data()});
}

void TrainLayer::LatentKeysAndValues(const At& at, const uint16_t* input, LayerSaved& saved) {
  const LatentConfig& latent = config_.latent;
  const LatentWeights& weights = *at.source().layer(at.layer).latent;
  const int64_t rows = at.rows(), heads = config_.num_heads, dim = config_.head_dim,
                down = latent.kv_rank + latent.rope_dim, rotated = latent.rope_dim,
                nope = latent.nope_dim, value = latent.value_dim;
  Frozen(at, FrozenSite::kLatentDown, {input, latent_wide_.data(), TrainStore::kF32});
  Rotate(at, latent_wide_.data() + latent.kv_rank, down, 1, rotated, RopeOf(at), 1,
         latent_down_.data(), rotated);
  NormLatent(latent_wide_.data(), down, latent.kv_rank, rows, weights.kv_a_norm,
             saved.y_latent.data(), saved.inverse_latent.data());
  std::fill_n(saved.k.data(), rows * heads * dim, uint16_t{0});
  std::fill_n(saved.v.data(), rows * heads * dim, uint16_t{0});
  Frozen(at, FrozenSite::kLatentKeys, {latent_h_.data(), latent_up_.data(), TrainStore::kBF16});
  CopyHeads(pool_, {heads, nope, nope, dim, 0, rotated}, rows, latent_up_.data(), saved.k.data());
  Frozen(at, FrozenSite::kLatentValues, {latent_h_.data(), latent_up_.data(), TrainStore::kBF16});
  CopyHeads(pool_, {heads, value, value, dim, 0, 0}, rows, latent_up_.data(), saved.v.data());
  for (int64_t head = 0; head < rows * heads; ++head) {
    std::copy_n(latent_down_.data() + head / heads * rotated, rotated, saved.k.data() + head * dim);
  }
}

void TrainLayer::LatentQueries(const At& at, const uint16_t* input, LayerSaved& saved) {
  const LatentConfig& latent = config_.latent;
  const LatentWeights& weights = *at.source().layer(at.layer).latent;
  const int64_t rows = at.rows(), heads = config_.num_heads, dim = config_.head_dim,
                key = latent.key_dim();
  if (latent.q_rank > 0) {
    Frozen(at, FrozenSite::kLatentQueriesDown, {input, latent_wide_.data(), TrainStore::kF32});
    NormLatent(latent_wide_.data(), latent.q_rank, latent.q_rank, rows, weights.q_a_norm,
               saved.y_queries.data(), saved.inverse_queries.data());
    input = latent_h_.data();
  }
  Frozen(at, FrozenSite::kLatentQueries, {input, latent_wide_.data(), TrainStore::kF32});
  Rotate(at, latent_wide_.data(), heads * key, heads, key, RopeOf(at), 1, latent_up_.data(),
         heads * key);
  std::fill_n(saved.q.data(), rows * heads * dim, uint16_t{0});
  CopyHeads(pool_, {heads, key, key, dim, 0, 0}, rows, latent_up_.data(), saved.q.data());
}

// latent_up_: of what heads give, their values.
const uint16_t* TrainLayer::LatentOutput(const At& at, const LayerSaved& saved) {
  const int64_t value = config_.latent.value_dim;
  CopyHeads(pool_, {config_.num_heads, value, config_.head_dim, value, 0, 0}, at.rows(),
            saved.attention.data(), latent_up_.data());
  return latent_up_.data();
}

void TrainLayer::LatentForward(const At& at, float* x, LayerSaved& saved) {
  const uint16_t* input = BranchInput(x, AttentionNorm(at), at.rows(), saved.y_attention.data(),
                                      saved.inverse_attention.data());
  LatentKeysAndValues(at, input, saved);
  LatentQueries(at, input, saved);
  {
    const PhaseTimer timer(phases.attention);
    attention_.Forward(AttentionOf(at), saved.q.data(), saved.k.data(), saved.v.data(),
                       saved.attention.data(), saved.log_sum.data());
  }
  BranchOutput(at, TrainGroup::kO, LatentOutput(at, saved), saved, x);
}

// From dq in qkv_ to dh_ (added).
void TrainLayer::LatentQueriesBackward(const At& at, const LayerSaved& saved) {
  const LatentConfig& latent = config_.latent;
  const LatentWeights& weights = *at.source().layer(at.layer).latent;
  const int64_t rows = at.rows(), heads = config_.num_heads, dim = config_.head_dim,
                key = latent.key_dim(), q = heads * dim;
  Rotate(at, qkv_.data(), 3 * q, heads, dim, RopeOf(at), -1, d_attention_.data(), q);
  CopyHeads(pool_, {heads, key, dim, key, 0, 0}, rows, d_attention_.data(), latent_up_.data());
  if (latent.q_rank == 0) {
    FrozenBackward(at, FrozenSite::kLatentQueries,
                   {latent_up_.data(), dh_.data(), TrainStore::kAddF32});
    return;
  }
  FrozenBackward(at, FrozenSite::kLatentQueries,
                 {latent_up_.data(), latent_x_.data(), TrainStore::kF32});
  NormLatentBackward(latent.q_rank, rows, weights.q_a_norm, saved.y_queries.data(),
                     saved.inverse_queries.data());
  FrozenBackward(at, FrozenSite::kLatentQueriesDown,
                 {latent_h_.data(), dh_.data(), TrainStore::kAddF32});
}

// From dk and dv in qkv_ to dh_ (overwritten).
void TrainLayer::LatentKeysBackward(const At& at, const LayerSaved& saved) {
  const LatentConfig& latent = config_.latent;
  const LatentWeights& weights = *at.source().layer(at.layer).latent;
  const int64_t rows = at.rows(), heads = config_.num_heads, dim = config_.head_dim,
                q = heads * dim, rotated = latent.rope_dim, rank = latent.kv_rank,
                padded = ops::PadRank(rank + rotated);
  const float *dk = qkv_.data() + q, *dv = dk + q;
  const auto take = [&](const float* from, int64_t at_channel, int64_t size) {
    pool_.ParallelFor(rows, kRowsOfAThread, [&](int64_t begin, int64_t end, int) {
      for (int64_t head = begin * heads; head < end * heads; ++head) {
        const float* own = from + head / heads * 3 * q + head % heads * dim + at_channel;
        kernels_.to_bf16(own, latent_up_.data() + head * size, size);
      }
    });
  };
  take(dk, rotated, latent.nope_dim);
  FrozenBackward(at, FrozenSite::kLatentKeys,
                 {latent_up_.data(), latent_x_.data(), TrainStore::kF32});
  take(dv, 0, latent.value_dim);
  FrozenBackward(at, FrozenSite::kLatentValues,
                 {latent_up_.data(), latent_x_.data(), TrainStore::kAddF32});
  NormLatentBackward(rank, rows, weights.kv_a_norm, saved.y_latent.data(),
                     saved.inverse_latent.data());
  // The rotated part is one for all heads.
  for (int64_t row = 0; row < rows; ++row) {
    float* sum = latent_d_.data() + row * rotated;
    std::fill_n(sum, rotated, 0.0f);
    for (int64_t head = 0; head < heads; ++head) {
      for (int64_t i = 0; i < rotated; ++i) sum[i] += dk[row * 3 * q + head * dim + i];
    }
  }
  std::fill_n(latent_down_.data(), rows * padded, uint16_t{0});
  Rotate(at, latent_d_.data(), rotated, 1, rotated, RopeOf(at), -1, latent_down_.data() + rank,
         padded);
  for (int64_t row = 0; row < rows; ++row) {
    std::copy_n(latent_h_.data() + row * rank, rank, latent_down_.data() + row * padded);
  }
  FrozenBackward(at, FrozenSite::kLatentDown, {latent_down_.data(), dh_.data(), TrainStore::kF32});
}

void TrainLayer::LatentBackward(const At& at, const LayerSaved& saved, const Gradients& gradients) {
  const LatentConfig& latent = config_.latent;
  const int64_t rows = at.rows(), heads = config_.num_heads, dim = config_.head_dim,
                q = heads * dim;
  const bool o_ends = Ends(LayerStep::kO, gradients);
  const uint16_t* dy = BranchOutputBackward(at, TrainGroup::kO, saved, gradients);
  LinearBackward(at, TrainGroup::kO, dy, LatentOutput(at, saved), saved, gradients,
                 o_ends ? nullptr : d_latent_.data(), TrainStore::kBF16);
  if (o_ends) return;
  std::fill_n(d_attention_.data(), rows * q, uint16_t{0});
  CopyHeads(pool_, {heads, latent.value_dim, latent.value_dim, dim, 0, 0}, rows, d_latent_.data(),
            d_attention_.data());
  {
    const PhaseTimer timer(phases.attention);
    attention_.Backward(AttentionOf(at), saved.q.data(), saved.k.data(), saved.v.data(),
                        saved.attention.data(), saved.log_sum.data(), d_attention_.data(),
                        {.q = qkv_.data(),
                         .k = qkv_.data() + q,
                         .v = qkv_.data() + 2 * q,
                         .q_stride = 3 * q,
                         .kv_stride = 3 * q});
  }
  LatentKeysBackward(at, saved);
  LatentQueriesBackward(at, saved);
  BranchInputBackward(
      {saved.y_attention.data(), saved.inverse_attention.data(), AttentionNorm(at).weight, -1},
      rows, gradients, gradients.below);
}

}  // namespace bakestone
