// Loading of attention over a latent. Files have a head's channels as [nope | rotated], memory as
// [rotated | nope], with the rotated ones in half-split order; kv_b, one matrix of keys and values,
// becomes two. GGUF's newer files have two as well, that of the keys transposed: [heads, kv_rank,
// nope_dim].
#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/quote.h"
#include "kernels/pack.h"
#include "model/weights_loader.h"
#include "tensor/dequantize.h"

namespace bakestone {

std::vector<int32_t> WeightsLoader::RotatedFirst(int64_t heads, int64_t nope) const {
  const int64_t rotated = config_.latent.rope_dim, half = rotated / 2;
  std::vector<int32_t> rows;
  for (int64_t head = 0; head < heads; ++head) {
    const int64_t first = head * (nope + rotated);
    for (int64_t i = 0; i < rotated; ++i) {
      const int64_t within = !config_.latent.interleaved ? i
                             : i < half                  ? 2 * i
                                                         : 2 * (i - half) + 1;
      rows.push_back(static_cast<int32_t>(first + nope + within));
    }
    for (int64_t i = 0; i < nope; ++i) rows.push_back(static_cast<int32_t>(first + i));
  }
  return rows;
}

void WeightsLoader::AddLatent(int64_t layer, LayerWeights& weights) {
  const LatentConfig& config = config_.latent;
  const int64_t heads = config_.num_heads, hidden = config_.hidden_dim;
  const auto named = [&](const char* name) { return names_.Layer(layer, name); };
  const auto matrix = [&](const std::string& name, LinearShape shape,
                          const std::vector<int32_t>& row_map = {}) {
    return Matrix({name, name + ".weight", 0, shape.n}, shape, row_map);
  };
  LatentWeights& latent = *(weights.latent = std::make_unique<LatentWeights>());
  if (config.q_rank > 0) {
    latent.q_a = matrix(named(names_.q_a), {.n = config.q_rank, .k = hidden});
    latent.q_a_norm = Norm(named(names_.q_a_norm), config.q_rank);
  }
  const char* q_b = config.q_rank > 0 ? names_.q_b : names_.sites[static_cast<size_t>(Site::kQ)];
  latent.q_b = matrix(
      named(q_b), {.n = heads * config.key_dim(), .k = config.q_rank > 0 ? config.q_rank : hidden},
      RotatedFirst(heads, config.nope_dim));
  // The latent's own rows stay first: what is rotated there comes after them.
  std::vector<int32_t> kv_rows = RotatedFirst(1, config.kv_rank);
  std::rotate(kv_rows.begin(), kv_rows.begin() + config.rope_dim, kv_rows.end());
  latent.kv_a =
      matrix(named(names_.kv_a), {.n = config.kv_rank + config.rope_dim, .k = hidden}, kv_rows);
  latent.kv_a_norm = Norm(named(names_.kv_a_norm), config.kv_rank);
  const std::string kv_b = named(names_.kv_b);
  if (names_.k_b != nullptr && !Has(kv_b + ".weight")) {
    latent.k_b = TransposedKeys(named(names_.k_b));
    latent.v_b = matrix(named(names_.v_b), {.n = heads * config.value_dim, .k = config.kv_rank});
    return;
  }
  const int64_t both = config.nope_dim + config.value_dim;
  const auto part = [&](int64_t first, int64_t count, const char* key) {
    std::vector<int32_t> rows;
    for (int64_t head = 0; head < heads; ++head) {
      for (int64_t i = 0; i < count; ++i) {
        rows.push_back(static_cast<int32_t>(head * both + first + i));
      }
    }
    return Matrix({kv_b, kv_b + key, 0, heads * both}, {.n = heads * count, .k = config.kv_rank},
                  rows);
  };
  latent.k_b = part(0, config.nope_dim, ".k");
  latent.v_b = part(config.nope_dim, config.value_dim, ".v");
}

// Halves stay as they are, other types become f32: their blocks lie across the rows that are
// wanted.
Weight WeightsLoader::TransposedKeys(const std::string& name) {
  const LatentConfig& config = config_.latent;
  const int64_t heads = config_.num_heads, rank = config.kv_rank, nope = config.nope_dim;
  const StoredTensor& tensor = Take(name + ".weight");
  if (tensor.cols() != nope || tensor.rows() != heads * rank || !tensor.has_type) {
    Throw(ErrorCode::kCorrupt, "{}: tensor {}: expected shape {} x {} x {}, found {}",
          source_.name(), Quote(tensor.name), nope, rank, heads, tensor.ShapeText());
  }
  const bool half = tensor.type == DType::kF16 || tensor.type == DType::kBF16;
  const DType type = half ? tensor.type : DType::kF32;
  const auto size = static_cast<size_t>(half ? 2 : 4),
             row_bytes = static_cast<size_t>(RowBytes(tensor.type, nope));
  std::vector<uint8_t> turned(static_cast<size_t>(heads * nope * rank) * size);
  std::vector<uint8_t> row(static_cast<size_t>(nope) * size);
  for (int64_t at = 0; at < heads * rank; ++at) {
    const uint8_t* stored = tensor.data.data() + static_cast<size_t>(at) * row_bytes;
    if (half) {
      std::memcpy(row.data(), stored, row.size());
    } else {
      DequantizeRow(tensor.type, stored, reinterpret_cast<float*>(row.data()), nope);
    }
    const int64_t head = at / rank, column = at % rank;
    for (int64_t i = 0; i < nope; ++i) {
      std::memcpy(turned.data() + static_cast<size_t>((head * nope + i) * rank + column) * size,
                  row.data() + static_cast<size_t>(i) * size, size);
    }
  }
  const DType chosen = TypeOf(tensor, rank), to = chosen == tensor.type ? type : chosen;
  Weight weight;
  FillPanel(weight, {tensor.name, type, turned},
            {name + ".turned", *PanelTypeOf(to), heads * nope, rank, {}});
  source_.Forget(tensor.data);
  return weight;
}

}  // namespace bakestone
