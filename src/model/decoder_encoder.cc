// What encoders have of their own: positions, types and a norm in the embedding, norms of sums,
// attention to both sides. Their texts are runs without a state, whole in one step.
#include "base/error.h"
#include "model/decoder_pass.h"
#include "ops/rows.h"

namespace bakestone {

void DecoderPass::AddEmbeddingParts(MatrixView<float> x) {
  Arena::Scope scope(arena_);
  const int64_t positions = config_.encoder.positions;
  if (positions > 0) {
    for (const int32_t position : step_.positions) {
      if (position < positions) continue;
      Throw(ErrorCode::kInvalidArgument,
            "text: expected at most the context length of {} tokens, found more", positions);
    }
    const MatrixView<float> rows = arena_.TakeMatrix<float>(x.rows, x.cols);
    ops::Embed(exec_.context, weights_.positions.panel(), step_.positions, rows);
    ops::Add(exec_.context, rows, x);
  }
  if (config_.encoder.token_types) {
    const int64_t types = std::min<int64_t>(weights_.token_types.n(), 2);
    auto* ids = arena_.Take<int32_t>(x.rows);
    for (int64_t i = 0; i < x.rows; ++i) {
      ids[i] = step_.token_types.empty() ? 0 : step_.token_types[static_cast<size_t>(i)];
      if (ids[i] >= types) {
        Throw(ErrorCode::kInvalidArgument,
              "token {}: expected a type below the {} that the model has, found {}", i, types,
              ids[i]);
      }
    }
    const MatrixView<float> rows = arena_.TakeMatrix<float>(x.rows, x.cols);
    ops::Embed(exec_.context, weights_.token_types.panel(), {ids, static_cast<size_t>(x.rows)},
               rows);
    ops::Add(exec_.context, rows, x);
  }
  if (config_.encoder.embedding_norm) {
    ops::LayerNorm(exec_.context, x, weights_.embedding_norm, weights_.embedding_norm_bias,
                   config_.norm_eps, x);
  }
}

void DecoderPass::AddAndNorm(int64_t layer, const RowSet& set, Site site,
                             std::span<const float> norm, MatrixView<float> x) {
  const SiteOutput output = {site, x};
  Products(layer, set, {&output, 1}, Epilogue::kAdd);
  const std::span<const float> bias =
      site == Site::kO ? Layer(layer).attention_norm_bias : Layer(layer).mlp_norm_bias;
  ops::LayerNorm(exec_.context, x, norm, bias, config_.norm_eps, x);
}

std::span<const KvRun> DecoderPass::BothWays(const RowSet& set, int64_t window) {
  const auto count = static_cast<int64_t>(set.runs.size());
  KvRun* runs = arena_.Take<KvRun>(count);
  for (int64_t i = 0; i < count; ++i) {
    const KvRun& run = set.runs[static_cast<size_t>(i)];
    // An output row's run knows its text by the pages.
    const auto text = std::find_if(all_.runs.begin(), all_.runs.end(),
                                   [&](const KvRun& one) { return one.k_pages == run.k_pages; });
    BAKESTONE_CHECK(text != all_.runs.end() && text->first_slot == 0);
    const int64_t last = text->row_end - text->row_begin - 1;
    runs[i] = run;
    if (window > 0) {
      runs[i].first_slot += window / 2;
      runs[i].last_slot = last;
    } else {
      runs[i].first_slot = last;
      runs[i].slot_step = 0;
    }
  }
  return {runs, set.runs.size()};
}

}  // namespace bakestone
