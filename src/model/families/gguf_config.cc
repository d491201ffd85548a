#include "model/families/gguf_config.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/quote.h"
#include "format/gguf.h"
#include "tensor/dequantize.h"

namespace bakestone {

GgufConfig::GgufConfig(const GgufFile& file)
    : file_(file), prefix_(std::string(file.GetString("general.architecture")) + ".") {}

std::string GgufConfig::file() const { return file_.name(); }

std::string GgufConfig::Spelled(const Field& field) const {
  return field.gguf != nullptr ? prefix_ + field.gguf : "";
}

bool GgufConfig::Has(const Field& field) const {
  return field.gguf != nullptr && file_.Has(Spelled(field));
}

std::optional<double> GgufConfig::Number(const Field& field) const {
  if (!Has(field)) return std::nullopt;
  const std::string key = Spelled(field);
  const GgufType type = file_.Find(key)->type;
  if (type == GgufType::kFloat32 || type == GgufType::kFloat64) return file_.GetF64(key);
  return static_cast<double>(file_.GetU64(key));
}

std::optional<bool> GgufConfig::Flag(const Field& field) const {
  if (!Has(field) || file_.Find(Spelled(field))->type != GgufType::kBool) return std::nullopt;
  return file_.GetBool(Spelled(field));
}

std::optional<std::string> GgufConfig::Text(const Field& field) const {
  if (!Has(field)) return std::nullopt;
  return std::string(file_.GetString(Spelled(field)));
}

std::vector<double> GgufConfig::Numbers(const Field& field) const {
  if (!Has(field)) return {};
  const GgufValue& value = *file_.Find(Spelled(field));
  if (value.type != GgufType::kArray) return {};
  std::vector<double> numbers;
  if (value.element == GgufType::kBool) {
    for (const bool one : file_.GetBools(Spelled(field))) numbers.push_back(one ? 1 : 0);
  } else {
    for (const uint32_t one : file_.GetU32s(Spelled(field))) numbers.push_back(one);
  }
  return numbers;
}

std::vector<std::string> GgufConfig::Labels() const {
  const Field field = {"classifier.output_labels", nullptr};
  std::vector<std::string> labels;
  if (!Has(field)) return labels;
  for (const std::string_view label : file_.GetStrings(Spelled(field))) labels.emplace_back(label);
  return labels;
}

int64_t GgufConfig::VocabularyRows(const char* embedding) const {
  return file_.Tensor(std::string(embedding) + ".weight").rows();
}

bool GgufConfig::HasHead() const { return file_.FindTensor("output.weight") != nullptr; }

bool GgufConfig::HasTensor(const std::string& name) const {
  return file_.FindTensor(name) != nullptr;
}

// Llama 3's scaling and longrope come as tensors of divisors.
std::vector<float> GgufConfig::Factors(const char* name, int64_t rope_dim) const {
  const GgufTensor* tensor = file_.FindTensor(name);
  if (tensor == nullptr) return {};
  if (tensor->type != DType::kF32 || tensor->elements() != rope_dim / 2) {
    Throw(ErrorCode::kCorrupt,
          "{}: tensor '{}': expected {} numbers of type F32, found {} of type {}", file_.name(),
          name, rope_dim / 2, tensor->elements(), DTypeName(tensor->type));
  }
  std::vector<float> factors(static_cast<size_t>(rope_dim / 2));
  DequantizeRow(tensor->type, tensor->data.data(), factors.data(), rope_dim / 2);
  for (size_t i = 0; i < factors.size(); ++i) {
    if (!std::isfinite(factors[i]) || factors[i] <= 0) {
      Throw(ErrorCode::kCorrupt, "{}: tensor '{}'[{}]: expected a positive number, found {}",
            file_.name(), name, i, factors[i]);
    }
  }
  return factors;
}

void GgufConfig::ReadRope(ModelConfig& config) const {
  RopeConfig& rope = config.rope;
  rope.theta = Positive({"rope.freq_base", nullptr}, rope.theta);
  rope.dim = Size({"rope.dimension_count", nullptr}, config.rotated_dim(), config.rotated_dim());
  if (rope.dim % 2 != 0) {
    Throw(ErrorCode::kCorrupt, "{}: {}: expected an even number, found {}", file(),
          Spelled({"rope.dimension_count", nullptr}), rope.dim);
  }
  const double local = config.local_rope.theta > 0 ? config.local_rope.theta : rope.theta;
  const int64_t local_head = config.local_head_dim();
  const Field local_dim = {"rope.dimension_count_swa", nullptr};
  config.local_rope = {.theta = Positive({"rope.freq_base_swa", nullptr}, local),
                       .dim = Size(local_dim, local_head, std::min(rope.dim, local_head))};
  if (config.local_rope.dim % 2 != 0) {
    Throw(ErrorCode::kCorrupt, "{}: {}: expected an even number, found {}", file(),
          Spelled(local_dim), config.local_rope.dim);
  }
  const Field type_field = {"rope.scaling.type", nullptr};
  const std::string type = Text(type_field).value_or("");
  const double factor = Positive({"rope.scaling.factor", nullptr}, 1.0);
  if (type == "linear") {
    rope.linear_scale = factor;
  } else if (type.empty()) {
    rope.linear_scale =
        Positive({"rope.scale_linear", nullptr}, 1.0);  // files before GGUF's scaling keys
  } else if (type == "yarn") {
    ScaleAsYarn({.factor = factor,
                 .original_context = Positive({"rope.scaling.original_context_length", nullptr},
                                              static_cast<double>(config.context_length)),
                 .beta_fast = Positive({"rope.scaling.yarn_beta_fast", nullptr}, 32),
                 .beta_slow = Positive({"rope.scaling.yarn_beta_slow", nullptr}, 1),
                 .magnitude = Number({"rope.scaling.attn_factor", nullptr}),
                 .truncate = rope.truncate},
                rope);
    const double rate = Number({"rope.scaling.yarn_log_multiplier", nullptr}).value_or(0);
    if (config.latent.kv_rank > 0 && rate > 0 && factor > 1) {  // of scores, not of the rope
      rope.magnitude = 1;
      rope.yarn.score_rate = rate;
      config.attention_scale = static_cast<float>(static_cast<double>(config.attention_scale) *
                                                  std::pow(rate * std::log(factor) + 1, 2));
    }
  } else if (type != "none" && type != "longrope") {
    Throw(ErrorCode::kUnsupported, "{}: {}: expected none, linear, yarn or longrope, found {}",
          file(), Spelled(type_field), Quote(type));
  }
  if (file_.FindTensor("rope_factors_short.weight") != nullptr) return ReadLongRope(config);
  std::vector<float> factors = Factors("rope_freqs.weight", rope.dim);
  if (!factors.empty()) rope.frequency_factors = std::move(factors);
}

void GgufConfig::ReadLongRope(ModelConfig& config) const {
  RopeConfig& rope = config.rope;
  rope.frequency_factors = Factors("rope_factors_short.weight", rope.dim);
  rope.far_factors = Factors("rope_factors_long.weight", rope.dim);
  rope.magnitude = Positive({"rope.scaling.attn_factor", nullptr}, 1.0);
  rope.near_context = Size({"rope.scaling.original_context_length", nullptr}, config.context_length,
                           config.context_length);
  if (rope.far_factors.empty()) config.context_length = rope.near_context;
  if (rope.near_context == config.context_length) rope.far_factors.clear();
}

}  // namespace bakestone
