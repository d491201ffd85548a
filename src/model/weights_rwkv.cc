// Loading of RWKV-7's layers. GGUF has the biases of the narrow products as tensors of their own
// and the shares of the token before together; folders of Hugging Face have the first with the
// matrices and the second together or one by one.
#include "base/error.h"
#include "base/quote.h"
#include "model/weights_loader.h"
#include "tensor/dequantize.h"

namespace bakestone {

std::vector<float> WeightsLoader::Flat(const std::string& name, int64_t n) {
  const StoredTensor& tensor = Take(name);
  if (tensor.rows() * tensor.cols() != n || !tensor.has_type || BlockSize(tensor.type) != 1) {
    Throw(ErrorCode::kCorrupt, "{}: tensor {}: expected {} numbers, found {} of {}", source_.name(),
          Quote(tensor.name), n, tensor.ShapeText(), tensor.type_name);
  }
  std::vector<float> values(static_cast<size_t>(n));
  DequantizeRow(tensor.type, tensor.data.data(), values.data(), n);
  return values;
}

void WeightsLoader::AddRwkv(int64_t layer, LayerWeights& weights) {
  const RwkvNames& names = *names_.rwkv;
  const int64_t hidden = config_.hidden_dim;
  const auto named = [&](const char* name) { return names_.Layer(layer, name); };
  const auto matrix = [&](const char* name, int64_t n, int64_t k) {
    return Matrix({named(name), named(name) + ".weight", 0, n}, {.n = n, .k = k});
  };
  RwkvWeights& rwkv = *(weights.rwkv = std::make_unique<RwkvWeights>());
  rwkv.receptance = matrix(names.receptance, hidden, hidden);
  rwkv.key = matrix(names.key, hidden, hidden);
  rwkv.value = matrix(names.value, hidden, hidden);
  rwkv.output = matrix(names.output, hidden, hidden);
  // Two products with few rows between them, as many as the file has.
  const auto narrow = [&](const char* in, const char* out, const char* bias, Weight& first,
                          Weight& second) {
    const StoredTensor& tensor = source_.Tensor(named(in) + ".weight");
    if (tensor.shape.size() != 2 || tensor.rows() > kMaxNarrow) {
      Throw(ErrorCode::kCorrupt, "{}: tensor {}: expected at most {} rows of {}, found {}",
            source_.name(), Quote(tensor.name), kMaxNarrow, hidden, tensor.ShapeText());
    }
    first = matrix(in, tensor.rows(), hidden);
    second = matrix(out, hidden, tensor.rows());
    if (bias != nullptr && second.bias_.empty()) {
      second.bias_ = Flat(named(bias) + ".weight", hidden);
    }
  };
  narrow(names.decay_in, names.decay_out, names.decay_bias, rwkv.decay_in, rwkv.decay_out);
  narrow(names.rate_in, names.rate_out, names.rate_bias, rwkv.rate_in, rwkv.rate_out);
  narrow(names.gate_in, names.gate_out, nullptr, rwkv.gate_in, rwkv.gate_out);
  if (layer > 0) {
    narrow(names.value_in, names.value_out, names.value_bias, rwkv.value_in, rwkv.value_out);
  } else {  // some files have what nothing reads
    for (const char* name : {names.value_in, names.value_out, names.value_bias}) {
      for (const char* suffix : {".weight", ".bias"}) {
        if (name != nullptr && Has(named(name) + suffix)) Take(named(name) + suffix);
      }
    }
  }
  rwkv.key_scale = Flat(named(names.key_scale), hidden);
  rwkv.key_rate = Flat(named(names.key_rate), hidden);
  rwkv.bonus = Flat(named(names.bonus), hidden);
  rwkv.norm = Vector(named(names.norm) + ".weight", hidden);
  rwkv.norm_bias = Vector(named(names.norm) + ".bias", hidden);
  rwkv.mlp_share = Flat(named(names.mlp_share), hidden);
  const bool together = Has(named(names.shares));
  const std::vector<float> all =
      together ? Flat(named(names.shares), kRwkvInputs * hidden) : std::vector<float>();
  for (size_t i = 0; i < kRwkvInputs; ++i) {
    const auto begin = all.begin() + static_cast<int64_t>(together ? i : 0) * hidden;
    if (together) rwkv.shares[i].assign(begin, begin + hidden);
    if (!together) rwkv.shares[i] = Flat(named(names.share[i]), hidden);
  }
}

}  // namespace bakestone
