#include "convert/tensor_pairs.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>
#include <numeric>

#include "base/error.h"
#include "base/quote.h"
#include "kernels/math.h"
#include "model/families/families.h"

namespace bakestone {
namespace {

float Effective(float x) { return x + 1; }
float LessOneOf(float x) { return x - 1; }
float Decay(float x) { return static_cast<float>(-math::Exp64(static_cast<double>(x))); }
float LogarithmOfDecay(float x) { return static_cast<float>(std::log(-static_cast<double>(x))); }

std::vector<int64_t> Inverse(const std::vector<int64_t>& order) {
  std::vector<int64_t> inverse(order.size());
  for (size_t i = 0; i < order.size(); ++i) {
    inverse[static_cast<size_t>(order[i])] = static_cast<int64_t>(i);
  }
  return inverse;
}

// Row i of what is returned is rows[i] of the tensor, its columns and values likewise.
SourceTensor Rearranged(SourceTensor tensor, std::vector<int64_t> rows,
                        std::vector<int64_t> columns, float (*value)(float)) {
  if (rows.empty() && columns.empty() && value == nullptr) return tensor;
  tensor.bytes = {};
  tensor.rows = [source = tensor.rows, rows = std::move(rows), columns = std::move(columns), value,
                 cols = tensor.cols()](int64_t row, int64_t n, float* x) {
    std::vector<float> in_order(columns.size());
    for (int64_t i = 0; i < n; ++i, x += cols) {
      const int64_t from = rows.empty() ? row + i : rows[static_cast<size_t>(row + i)];
      source(from, 1, columns.empty() ? x : in_order.data());
      for (size_t c = 0; c < columns.size(); ++c) x[c] = in_order[static_cast<size_t>(columns[c])];
      if (value == nullptr) continue;
      for (int64_t c = 0; c < cols; ++c) x[c] = value(x[c]);
    }
  };
  return tensor;
}

// A file gives the sizes: orders, and shapes that are changed, must be those of the tensor.
void Check(const TensorPair& pair, const SourceTensor& tensor) {
  int64_t elements = tensor.elements();
  if (!pair.ne.empty()) {
    elements = std::accumulate(pair.ne.begin(), pair.ne.end(), int64_t{1}, std::multiplies<>());
  }
  const auto rows = std::ssize(pair.rows), columns = std::ssize(pair.columns);
  if ((rows == 0 || rows + pair.first_row == tensor.num_rows()) &&
      (columns == 0 || columns == tensor.cols()) && elements == tensor.elements()) {
    return;
  }
  Throw(ErrorCode::kCorrupt,
        "tensor {}: expected {} rows of {} weights, {} in all, found {} rows of {}",
        Quote(tensor.name), rows > 0 ? rows : tensor.num_rows(),
        columns > 0 ? columns : tensor.cols(), elements, tensor.num_rows(), tensor.cols());
}

// The same weights in rows of another length, which divides the old one or is divided by it.
SourceTensor Reshaped(SourceTensor tensor, std::vector<int64_t> ne) {
  const int64_t before = tensor.cols(), after = ne[0];
  tensor.ne = std::move(ne);
  if (after == before) return tensor;
  tensor.rows = [source = tensor.rows, before, after](int64_t row, int64_t n, float* x) {
    if (after % before == 0) return source(row * (after / before), n * (after / before), x);
    const int64_t parts = before / after;
    std::vector<float> whole(static_cast<size_t>(before));
    for (int64_t i = row; i < row + n; ++i, x += after) {
      source(i / parts, 1, whole.data());
      std::copy_n(whole.begin() + i % parts * after, after, x);
    }
  };
  return tensor;
}

class Pairs {
 public:
  Pairs(const ModelConfig& config, const TensorNames& gguf, const TensorNames& folder,
        int64_t layer)
      : config_(config), gguf_(gguf), folder_(folder), layer_(layer) {}

  std::vector<TensorPair> Take() { return std::move(pairs_); }

  void OfModel() {
    if (config_.per_layer_dim > 0) {
      Weight(gguf_.per_layer_embedding, folder_.per_layer_embedding);
      Weight(gguf_.per_layer_projection, folder_.per_layer_projection);
      Norm(gguf_.per_layer_norm, folder_.per_layer_norm);
    }
    const EncoderConfig& encoder = config_.encoder;
    if (encoder.positions > 0) {
      TensorPair& table = Weight(gguf_.positions, folder_.positions);
      if (encoder.first_position > 0) {
        table.first_row = encoder.first_position;
        table.rows.resize(static_cast<size_t>(encoder.positions));
        std::iota(table.rows.begin(), table.rows.end(), table.first_row);
      }
    }
    if (encoder.token_types) Weight(gguf_.token_types, folder_.token_types);
    if (encoder.embedding_norm) {
      Norm(gguf_.embedding_norm, folder_.embedding_norm);
      Bias(gguf_.embedding_norm, folder_.embedding_norm);
    }
    if (config_.embedding_norm) {
      Norm(gguf_.embedding_norm, folder_.embedding_norm);
      Bias(gguf_.embedding_norm, folder_.embedding_norm);
    }
  }

  void OfLayer() {
    if (config_.latent.kv_rank > 0) Latent();
    if (config_.mixer(layer_) == Mixer::kConvolution) Convolution();
    if (config_.mixer(layer_) == Mixer::kDeltaRule) Delta();
    if (config_.mixer(layer_) == Mixer::kRwkv) Rwkv();
    if (config_.sinks) Vector(gguf_.sinks, folder_.sinks);
    if (config_.has_experts(layer_) && config_.router.bias) {
      Vector(gguf_.router_bias, folder_.router_bias);
    }
    if (config_.has_experts(layer_) && config_.router.beside_mlp) Beside();
    if (config_.per_layer_dim > 0) {
      Weight(gguf_.layer_gate, folder_.layer_gate);
      Weight(gguf_.layer_out, folder_.layer_out);
      Norm(gguf_.layer_norm, folder_.layer_norm);
    }
    if (config_.layer_scales) Vector(gguf_.layer_scale, folder_.layer_scale).optional = true;
  }

 private:
  // Names with their suffixes.
  TensorPair& Add(const char* gguf, const char* folder) {
    TensorPair& pair = pairs_.emplace_back();
    pair.gguf = layer_ < 0 ? gguf : gguf_.Layer(layer_, gguf);
    pair.folder = layer_ < 0 ? folder : folder_.Layer(layer_, folder);
    return pair;
  }
  TensorPair& Weight(const char* gguf, const char* folder) {
    TensorPair& pair = Add(gguf, folder);
    pair.gguf += ".weight";
    pair.folder += ".weight";
    return pair;
  }
  TensorPair& Vector(const char* gguf, const char* folder) {
    TensorPair& pair = Add(gguf, folder);
    pair.full = true;
    return pair;
  }
  void Norm(const char* gguf, const char* folder) {
    TensorPair& pair = Weight(gguf, folder);
    pair.full = true;
    if (FoldersHaveNormsLessOne(config_)) pair.value = TensorValue::kLessOne;
  }

  void Bias(const char* gguf, const char* folder) {
    TensorPair& pair = Vector(gguf, folder);
    pair.gguf += ".bias";
    pair.folder += ".bias";
    pair.optional = true;
  }

  // The projections to a latent; those from it are stacks (latent_tensors.h).
  void Latent() {
    if (config_.latent.q_rank > 0) {
      Weight(gguf_.q_a, folder_.q_a);
      Norm(gguf_.q_a_norm, folder_.q_a_norm);
      Weight(gguf_.q_b, folder_.q_b);
    }
    Weight(gguf_.kv_a, folder_.kv_a);
    Norm(gguf_.kv_a_norm, folder_.kv_a_norm);
  }

  // Folders have a dimension of one between channels and taps.
  void Taps(TensorPair& pair, int64_t channels) const {
    pair.full = true;
    pair.ne = {config_.taps, channels};
    pair.folder_shape = {channels, 1, config_.taps};
  }

  void Convolution() {
    Weight(gguf_.convolution_in, folder_.convolution_in);
    Weight(gguf_.convolution_out, folder_.convolution_out);
    Taps(Weight(gguf_.convolution, folder_.convolution), config_.hidden_dim);
  }

  // Shares of the token before are made together (rwkv_parts.h).
  void Rwkv() {
    const RwkvNames &gguf = *gguf_.rwkv, &folder = *folder_.rwkv;
    const int64_t hidden = config_.hidden_dim;
    const auto flat = [&](const char* in_gguf, const char* in_folder, std::vector<int64_t> shape) {
      TensorPair& pair = Vector(in_gguf, in_folder);
      pair.ne = {hidden};
      pair.folder_shape = std::move(shape);
    };
    Weight(gguf.receptance, folder.receptance);
    Weight(gguf.key, folder.key);
    Weight(gguf.value, folder.value);
    Weight(gguf.output, folder.output);
    // Folders have the bias with the second of two products.
    const auto narrow = [&](const char* RwkvNames::* in, const char* RwkvNames::* out,
                            const char* RwkvNames::* bias) {
      Weight(gguf.*in, folder.*in);
      Weight(gguf.*out, folder.*out);
      if (bias == nullptr) return;
      TensorPair& pair = Vector(gguf.*bias, folder.*out);
      pair.gguf += ".weight";
      pair.folder += ".bias";
    };
    narrow(&RwkvNames::decay_in, &RwkvNames::decay_out, &RwkvNames::decay_bias);
    narrow(&RwkvNames::rate_in, &RwkvNames::rate_out, &RwkvNames::rate_bias);
    narrow(&RwkvNames::gate_in, &RwkvNames::gate_out, nullptr);
    if (layer_ > 0) narrow(&RwkvNames::value_in, &RwkvNames::value_out, &RwkvNames::value_bias);
    flat(gguf.key_scale, folder.key_scale, {hidden});
    flat(gguf.key_rate, folder.key_rate, {hidden});
    flat(gguf.bonus, folder.bonus, {config_.rwkv.heads, config_.rwkv.head_dim});
    flat(gguf.mlp_share, folder.mlp_share, {hidden});
    Norm(gguf.norm, folder.norm);
    Bias(gguf.norm, folder.norm);
  }

  // GGUF has the heads of values in another order: those of one head of keys are not neighbours.
  void Delta() {
    const DeltaConfig& delta = config_.delta;
    const int64_t each = delta.value_heads / delta.key_heads;
    std::vector<int64_t> heads, values;
    for (int64_t i = 0; i < delta.value_heads; ++i) {
      heads.push_back(i % delta.key_heads * each + i / delta.key_heads);
      for (int64_t c = 0; c < delta.value_dim; ++c) {
        values.push_back(heads.back() * delta.value_dim + c);
      }
    }
    const int64_t keys = 2 * delta.key_heads * delta.key_dim;
    std::vector<int64_t> channels(static_cast<size_t>(keys));
    std::iota(channels.begin(), channels.end(), 0);
    for (const int64_t value : values) channels.push_back(keys + value);
    Weight(gguf_.delta_qkv, folder_.delta_qkv).rows = channels;
    Weight(gguf_.delta_z, folder_.delta_z).rows = values;
    Weight(gguf_.delta_alpha, folder_.delta_alpha).rows = heads;
    Weight(gguf_.delta_beta, folder_.delta_beta).rows = heads;
    Weight(gguf_.delta_out, folder_.delta_out).columns = values;
    TensorPair& taps = Vector(gguf_.delta_taps, folder_.delta_taps);
    taps.rows = channels;
    Taps(taps, delta.channels());
    Vector(gguf_.delta_dt, folder_.delta_dt).columns = heads;
    TensorPair& decay = Vector(gguf_.delta_decay, folder_.delta_decay);
    decay.columns = heads;
    decay.value = TensorValue::kLogarithm;
    Vector(gguf_.delta_norm, folder_.delta_norm);
  }

  // The norms and scales of experts beside an MLP.
  void Beside() {
    Norm(gguf_.beside_mlp_norm, folder_.beside_mlp_norm);
    Norm(gguf_.beside_experts_norm, folder_.beside_experts_norm);
    Norm(gguf_.beside_experts_post_norm, folder_.beside_experts_post_norm);
    Vector(gguf_.router_scale, folder_.router_scale);
    Vector(gguf_.expert_scales, folder_.expert_scales).optional = true;
  }

  const ModelConfig& config_;
  const TensorNames &gguf_, &folder_;
  const int64_t layer_;
  std::vector<TensorPair> pairs_;
};

}  // namespace

std::vector<TensorPair> PairsOf(const ModelConfig& config, const TensorNames& gguf,
                                const TensorNames& folder, int64_t layer) {
  Pairs pairs(config, gguf, folder, layer);
  layer < 0 ? pairs.OfModel() : pairs.OfLayer();
  return pairs.Take();
}

SourceTensor ToGguf(const TensorPair& pair, SourceTensor stored) {
  Check(pair, stored);
  stored = Rearranged(std::move(stored), pair.rows, pair.columns,
                      pair.value == TensorValue::kLessOne     ? Effective
                      : pair.value == TensorValue::kLogarithm ? Decay
                                                              : nullptr);
  stored.name = pair.gguf;
  if (pair.first_row > 0) stored.ne[1] -= pair.first_row;
  if (!pair.ne.empty()) stored = Reshaped(std::move(stored), pair.ne);
  if (pair.full && stored.type != DType::kF32) {
    stored.type = DType::kF32;
    stored.bytes = {};
  }
  return stored;
}

SourceTensor ToFolder(const TensorPair& pair, SourceTensor stored) {
  Check(pair, stored);
  stored = Rearranged(std::move(stored), pair.rows.empty() ? pair.rows : Inverse(pair.rows),
                      pair.columns.empty() ? pair.columns : Inverse(pair.columns),
                      pair.value == TensorValue::kLessOne     ? LessOneOf
                      : pair.value == TensorValue::kLogarithm ? LogarithmOfDecay
                                                              : nullptr);
  stored.name = pair.folder;
  if (!pair.folder_shape.empty()) {
    stored = Reshaped(std::move(stored), {pair.folder_shape.rbegin(), pair.folder_shape.rend()});
  }
  return stored;
}

bool FoldersHaveNormsLessOne(const ModelConfig& config) {
  for (const Family& family : Families()) {
    if (family.architecture == config.architecture) return TypicalConfig(family).norms_less_one;
  }
  return false;
}

}  // namespace bakestone
