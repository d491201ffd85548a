// Loading of layers that keep a state by sequence, and of the attention beside them.
#include <cmath>

#include "base/error.h"
#include "base/quote.h"
#include "kernels/math.h"
#include "model/weights_loader.h"
#include "tensor/dequantize.h"

namespace bakestone {

// Files have [channels, taps], with a dimension of one between them or not.
std::vector<float> WeightsLoader::Taps(const std::string& name, int64_t channels) {
  const StoredTensor& tensor = Take(name);
  const int64_t taps = config_.taps;
  if (tensor.rows() != channels || tensor.cols() != taps || !tensor.has_type ||
      BlockSize(tensor.type) != 1) {
    Throw(ErrorCode::kCorrupt,
          "{}: tensor {}: expected {} numbers for each of {} channels, found {} of {}",
          source_.name(), Quote(name), taps, channels, tensor.ShapeText(), tensor.type_name);
  }
  std::vector<float> stored(static_cast<size_t>(channels * taps)), turned(stored.size());
  DequantizeRow(tensor.type, tensor.data.data(), stored.data(), channels * taps);
  for (int64_t channel = 0; channel < channels; ++channel) {
    for (int64_t tap = 0; tap < taps; ++tap) {
      turned[static_cast<size_t>(tap * channels + channel)] =
          stored[static_cast<size_t>(channel * taps + tap)];
    }
  }
  return turned;
}

void WeightsLoader::AddConvolution(int64_t layer, LayerWeights& weights) {
  const int64_t hidden = config_.hidden_dim;
  const auto named = [&](const char* name) { return names_.Layer(layer, name); };
  const auto matrix = [&](const std::string& name, int64_t n) {
    return Matrix({name, name + ".weight", 0, n}, {.n = n, .k = hidden});
  };
  weights.convolution = std::make_unique<ConvolutionWeights>();
  weights.convolution->in = matrix(named(names_.convolution_in), 3 * hidden);
  weights.convolution->out = matrix(named(names_.convolution_out), hidden);
  const std::string taps = named(names_.convolution);
  weights.convolution->taps = Taps(taps + ".weight", hidden);
  if (Has(taps + ".bias")) weights.convolution->bias = Vector(taps + ".bias", hidden);
}

void WeightsLoader::AddDelta(int64_t layer, LayerWeights& weights) {
  const DeltaConfig& config = config_.delta;
  const int64_t hidden = config_.hidden_dim, values = config.value_heads * config.value_dim;
  const auto named = [&](const char* name) { return names_.Layer(layer, name); };
  const auto matrix = [&](const char* name, int64_t n, int64_t k) {
    return Matrix({named(name), named(name) + ".weight", 0, n}, {.n = n, .k = k});
  };
  weights.delta = std::make_unique<DeltaWeights>();
  weights.delta->qkv = matrix(names_.delta_qkv, config.channels(), hidden);
  weights.delta->z = matrix(names_.delta_z, values, hidden);
  weights.delta->alpha = matrix(names_.delta_alpha, config.value_heads, hidden);
  weights.delta->beta = matrix(names_.delta_beta, config.value_heads, hidden);
  weights.delta->out = matrix(names_.delta_out, hidden, values);
  weights.delta->taps = Taps(named(names_.delta_taps), config.channels());
  weights.delta->dt = Vector(named(names_.delta_dt), config.value_heads);
  weights.delta->norm = Vector(named(names_.delta_norm), config.value_dim);
  weights.delta->decay = Vector(named(names_.delta_decay), config.value_heads);
  for (float& decay : weights.delta->decay) {
    if (!std::isfinite(decay) || std::fabs(decay) > 80) {
      Throw(ErrorCode::kCorrupt, "{}: tensor {}: expected numbers within 80 of 0, found {}",
            source_.name(), Quote(named(names_.delta_decay)), decay);
    }
    if (names_.logarithmic_decay) {
      decay = static_cast<float>(-math::Exp64(static_cast<double>(decay)));
    }
  }
}

void WeightsLoader::AddGatedQueries(int64_t layer, LayerWeights& weights) {
  const int64_t dim = config_.head_dim, rows = config_.q_dim();
  const std::string name = names_.Layer(layer, names_.sites[static_cast<size_t>(Site::kQ)]);
  const auto part = [&](int64_t first, const char* key) {
    std::vector<int32_t> map;
    for (int64_t row = 0; row < rows; ++row) {
      map.push_back(static_cast<int32_t>(row / dim * 2 * dim + first + row % dim));
    }
    return Matrix({name, name + key, 0, 2 * rows}, {.n = rows, .k = config_.hidden_dim}, map);
  };
  weights.q = part(0, ".q");
  weights.output_gate = part(dim, ".gate");
}

}  // namespace bakestone
