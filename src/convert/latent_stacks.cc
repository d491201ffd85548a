#include "convert/latent_stacks.h"

#include <algorithm>

#include "base/error.h"
#include "base/quote.h"
#include "convert/stored_source.h"

namespace bakestone {
namespace {

void Expect(const SourceTensor& tensor, int64_t rows, int64_t cols) {
  if (tensor.num_rows() == rows && tensor.cols() == cols) return;
  Throw(ErrorCode::kCorrupt, "tensor {}: expected {} rows of {} weights, found {} of {}",
        Quote(tensor.name), rows, cols, tensor.num_rows(), tensor.cols());
}

}  // namespace

std::vector<SourceTensor> SplitKeysAndValues(const LatentConfig& latent, int64_t heads,
                                             const SourceTensor& kv_b) {
  const int64_t nope = latent.nope_dim, value = latent.value_dim, rank = latent.kv_rank,
                both = nope + value;
  Expect(kv_b, heads * both, rank);
  SourceTensor keys = kv_b, values = kv_b;
  keys.bytes = values.bytes = {};
  keys.forget = {};  // the values lie between them
  keys.ne = {nope, rank, heads};
  values.ne = {rank, value, heads};
  const auto of_keys = [rows = kv_b.rows, nope, both, rank](int64_t row, int64_t n, float* x) {
    for (int64_t i = 0; i < n; ++i) {
      rows((row + i) / nope * both + (row + i) % nope, 1, x + i * rank);
    }
  };
  keys.rows = Turned(of_keys, nope, rank);
  values.rows = [rows = kv_b.rows, nope, value, both, rank](int64_t row, int64_t n, float* x) {
    for (int64_t i = 0; i < n; ++i) {
      rows((row + i) / value * both + nope + (row + i) % value, 1, x + i * rank);
    }
  };
  return {std::move(keys), std::move(values)};
}

SourceTensor JoinKeysAndValues(const LatentConfig& latent, int64_t heads, const SourceTensor& k_b,
                               const SourceTensor& v_b) {
  const int64_t nope = latent.nope_dim, value = latent.value_dim, rank = latent.kv_rank,
                both = nope + value;
  Expect(k_b, heads * rank, nope);
  Expect(v_b, heads * value, rank);
  SourceTensor joined = v_b;
  joined.ne = {rank, heads * both};
  joined.bytes = {};
  joined.forget = [keys = k_b.forget, values = v_b.forget] {
    if (keys) keys();
    if (values) values();
  };
  joined.rows = [keys = Turned(k_b.rows, rank, nope), values = v_b.rows, nope, value, both, rank](
                    int64_t row, int64_t n, float* x) {
    for (int64_t i = 0; i < n; ++i, x += rank) {
      const int64_t head = (row + i) / both, within = (row + i) % both;
      if (within < nope) {
        keys(head * nope + within, 1, x);
      } else {
        values(head * value + within - nope, 1, x);
      }
    }
  };
  return joined;
}

}  // namespace bakestone
