#include "ops/delta_rule.h"

#include "base/error.h"

namespace bakestone::ops {

void DeltaRule(Context& context, const DeltaRuleShape& shape, std::span<const DeltaRun> runs,
               MatrixView<const float> qkv, MatrixView<const float> decay,
               MatrixView<const float> rate, MatrixView<float> out) {
  const int64_t heads = shape.value_heads, keys = shape.key_heads * shape.key_dim,
                state = shape.key_dim * shape.value_dim;
  BAKESTONE_CHECK(heads % shape.key_heads == 0 && qkv.cols == 2 * keys + heads * shape.value_dim);
  BAKESTONE_CHECK(decay.cols == heads && rate.cols == heads && decay.stride == rate.stride);
  BAKESTONE_CHECK(out.cols == heads * shape.value_dim && out.rows == qkv.rows);
  for (const DeltaRun& run : runs) {
    BAKESTONE_CHECK(run.rows.begin < run.rows.end && run.rows.end <= qkv.rows);
  }
  const auto kernel = context.serve().rows.delta_rule;
  context.pool().ParallelFor(
      static_cast<int64_t>(runs.size()) * heads, 1, [&](int64_t begin, int64_t end, int) {
        for (int64_t unit = begin; unit < end; ++unit) {
          const DeltaRun& run = runs[static_cast<size_t>(unit / heads)];
          const int64_t head = unit % heads;
          const int64_t key_head =
              shape.tiled ? head % shape.key_heads : head / (heads / shape.key_heads);
          const float* q = qkv.data + key_head * shape.key_dim;
          kernel({.q = q,
                  .k = q + keys,
                  .v = qkv.data + 2 * keys + head * shape.value_dim,
                  .stride = qkv.stride,
                  .decay = decay.data + head,
                  .rate = rate.data + head,
                  .gate_stride = decay.stride,
                  .before = run.before + head * state,
                  .after = run.after + head * state,
                  .y = out.data + head * shape.value_dim,
                  .y_stride = out.stride,
                  .key_dim = shape.key_dim,
                  .value_dim = shape.value_dim},
                 run.rows);
        }
      });
}

void RwkvRule(Context& context, int64_t dim, std::span<const DeltaRun> runs, const RwkvParts& rows,
              MatrixView<float> out) {
  const int64_t heads = out.cols / dim;
  BAKESTONE_CHECK(out.cols % dim == 0);
  for (const MatrixView<const float>& part :
       {rows.r, rows.decay, rows.k, rows.v, rows.removal, rows.rate}) {
    BAKESTONE_CHECK(part.rows == out.rows && part.cols == out.cols && part.stride == rows.r.stride);
  }
  for (const DeltaRun& run : runs) {
    BAKESTONE_CHECK(run.rows.begin < run.rows.end && run.rows.end <= out.rows);
  }
  const auto kernel = context.serve().rows.rwkv_rule;
  context.pool().ParallelFor(
      static_cast<int64_t>(runs.size()) * heads, 1, [&](int64_t begin, int64_t end, int) {
        for (int64_t unit = begin; unit < end; ++unit) {
          const DeltaRun& run = runs[static_cast<size_t>(unit / heads)];
          const int64_t head = unit % heads, at = head * dim;
          kernel({rows.r.data + at, rows.decay.data + at, rows.k.data + at, rows.v.data + at,
                  rows.removal.data + at, rows.rate.data + at, rows.r.stride,
                  run.before + head * dim * dim, run.after + head * dim * dim, out.data + at,
                  out.stride, dim},
                 run.rows);
        }
      });
}

}  // namespace bakestone::ops
