// config.json says how queries and keys are rotated in three ways:
//
//   transformers 4   "rope_theta": 1e6, "rope_scaling": null | {"rope_type" | "type": "llama3",
//                    "factor": ...}
//   transformers 5   "rope_parameters": {"rope_theta": 1e6, "rope_type": "default", "factor": ...}
//   5, by layer type "rope_parameters": {"full_attention": {"rope_theta": ...},
//   "sliding_attention": {...}}
//
// and what part of a head, as "partial_rotary_factor" beside or within them.
#include "model/families/hf_config.h"

#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/quote.h"
#include "format/hf_folder.h"

namespace bakestone {
namespace {

using Json = nlohmann::json;

constexpr const char* kLayerConfig = "per_layer_config";
constexpr float kNotRotated = 1e30f;  // of a frequency, as GGUF files say it

const Json* Member(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

std::string TypeOf(const Json& scaling) {
  const Json* named = Member(scaling, "rope_type");
  if (named == nullptr) named = Member(scaling, "type");
  return named != nullptr && named->is_string() ? named->get<std::string>() : "default";
}

}  // namespace

HfConfig::HfConfig(const HfFolder& folder) : folder_(folder) {}

std::string HfConfig::file() const { return (folder_.path() / "config.json").string(); }

const Json* HfConfig::Find(const Field& field) const {
  return field.hf == nullptr ? nullptr : folder_.Config(field.hf);
}

void HfConfig::Fail(const std::string& field, const char* expected, const Json& found) const {
  Throw(ErrorCode::kCorrupt, "{}: {}: expected {}, found {}", file(), field, expected,
        Quote(found.dump(-1, ' ', true, Json::error_handler_t::replace)));
}

std::optional<double> HfConfig::Number(const Field& field) const {
  const Json* value = Find(field);
  if (value == nullptr || value->is_boolean()) return std::nullopt;
  if (!value->is_number()) Fail(field.hf, "a number", *value);
  return value->get<double>();
}

std::optional<bool> HfConfig::Flag(const Field& field) const {
  const Json* value = Find(field);
  if (value == nullptr || value->is_number()) return std::nullopt;
  if (!value->is_boolean()) Fail(field.hf, "true or false", *value);
  return value->get<bool>();
}

std::optional<std::string> HfConfig::Text(const Field& field) const {
  const Json* value = Find(field);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) Fail(field.hf, "a string", *value);
  return value->get<std::string>();
}

std::vector<double> HfConfig::Numbers(const Field& field) const {
  const Json* value = Find(field);
  if (value == nullptr) return {};
  if (!value->is_array()) Fail(field.hf, "a list of numbers", *value);
  std::vector<double> numbers;
  for (const Json& one : *value) {
    if (!one.is_number()) Fail(field.hf, "a list of numbers", *value);
    numbers.push_back(one.get<double>());
  }
  return numbers;
}

std::vector<std::string> HfConfig::Texts(const Field& field) const {
  const Json* value = Find(field);
  if (value == nullptr) return {};
  if (!value->is_array()) Fail(field.hf, "a list of names", *value);
  std::vector<std::string> names;
  for (const Json& one : *value) {
    if (!one.is_string()) Fail(field.hf, "a list of names", *value);
    names.push_back(one.get<std::string>());
  }
  return names;
}

bool HfConfig::HasLayerConfig() const { return folder_.Config(kLayerConfig) != nullptr; }

std::vector<std::pair<std::string, double>> HfConfig::OfLayer(int64_t layer) const {
  const Json* all = folder_.Config(kLayerConfig);
  if (all == nullptr) return {};
  if (!all->is_object()) Fail(kLayerConfig, "an object by layer", *all);
  const std::string number = std::to_string(layer);
  const Json* own = Member(*all, number.c_str());
  if (own == nullptr) return {};
  const std::string where = std::string(kLayerConfig) + "." + number;
  if (!own->is_object()) Fail(where, "an object of numbers", *own);
  std::vector<std::pair<std::string, double>> values;
  for (const auto& [name, value] : own->items()) {
    if (!value.is_number()) Fail(where + "." + Quote(name), "a number", value);
    values.emplace_back(name, value.get<double>());
  }
  return values;
}

int64_t HfConfig::VocabularyRows(const char* embedding) const {
  const std::string name = std::string(embedding) + ".weight";
  const SafetensorsTensor* tensor = folder_.Find(name);
  if (tensor == nullptr) {
    Throw(ErrorCode::kCorrupt, "{}: tensor '{}': expected it, found none", folder_.name(), name);
  }
  return tensor->shape.empty() ? 0 : tensor->shape[0];
}

std::string HfConfig::File(const char* name) const {
  return folder_.Text(name, int64_t{1} << 20).value_or("");
}

std::vector<ConfigReader::Module> HfConfig::Modules() const {
  std::vector<Module> modules;
  for (const HfModule& module : folder_.modules()) modules.push_back({module.type, module.path});
  return modules;
}

std::vector<std::string> HfConfig::Labels() const {
  const Json* names = folder_.Config("id2label");
  if (names == nullptr) return {};
  if (!names->is_object()) Fail("id2label", "an object of names", *names);
  std::vector<std::string> labels;
  for (size_t i = 0; i < names->size(); ++i) {
    const auto name = names->find(std::to_string(i));
    if (name == names->end() || !name->is_string()) {
      Fail("id2label", "a name for each number from 0 on", *names);
    }
    labels.push_back(name->get<std::string>());
  }
  return labels;
}

bool HfConfig::HasHead() const { return folder_.Find("lm_head.weight") != nullptr; }

bool HfConfig::HasTensor(const std::string& name) const { return folder_.Find(name) != nullptr; }

double HfConfig::Part(const Json& scaling, const char* name, std::optional<double> fallback) const {
  const Json* value = Member(scaling, name);
  if (value == nullptr && fallback) return *fallback;
  if (value == nullptr) Fail(std::string("rope scaling: ") + name, "a positive number", Json());
  const double number = value->is_number() ? value->get<double>() : -1;
  if (!(number > 0 && number < 1e15)) {
    Fail(std::string("rope scaling: ") + name, "a positive number", *value);
  }
  return number;
}

void HfConfig::ReadRope(ModelConfig& config) const {
  const Json* v5 = folder_.Config("rope_parameters");
  if (v5 != nullptr && !v5->is_object()) Fail("rope_parameters", "an object", *v5);
  const Json empty = Json::object();
  const auto read = [&](const Json& parameters, double theta, int64_t head_dim, RopeConfig& rope) {
    rope.theta = Part(parameters, "rope_theta", theta);
    const double share = std::min(Part(parameters, "partial_rotary_factor",
                                       Positive({nullptr, "partial_rotary_factor"}, 1.0)),
                                  1.0);
    if (TypeOf(parameters) ==
        "proportional") {  // frequencies as of the whole head, the last ones 0
      rope.dim = head_dim;
      const auto rotated = static_cast<size_t>(share * static_cast<double>(head_dim) / 2);
      rope.frequency_factors.assign(static_cast<size_t>(head_dim / 2), kNotRotated);
      std::fill_n(rope.frequency_factors.begin(), rotated, 1.0f);
      rope.linear_scale = Part(parameters, "factor", 1);
      return;
    }
    rope.dim = static_cast<int64_t>(static_cast<double>(head_dim) * share);
    if (rope.dim < 2 || rope.dim % 2 != 0) {
      Throw(ErrorCode::kCorrupt,
            "{}: partial_rotary_factor: expected an even number of a head's {} channels, "
            "found {}",
            file(), head_dim, rope.dim);
    }
    Scale(parameters, config, rope);
  };
  const double theta = Positive({nullptr, "rope_theta"},
                                Positive({nullptr, "global_rope_theta"}, config.rope.theta));
  const Json* full = v5 != nullptr ? Member(*v5, "full_attention") : nullptr;
  const Json* local = v5 != nullptr ? Member(*v5, "sliding_attention") : nullptr;
  const Json* scaling = folder_.Config("rope_scaling");
  if (scaling != nullptr && !scaling->is_object()) Fail("rope_scaling", "an object", *scaling);
  const Json* main = full != nullptr ? full : v5 != nullptr ? v5 : scaling;
  read(main != nullptr ? *main : empty, theta, config.rotated_dim(), config.rope);
  const double fallback = config.local_rope.theta > 0 ? config.local_rope.theta : config.rope.theta;
  const double local_theta = Positive({nullptr, "rope_local_base_freq"},
                                      Positive({nullptr, "local_rope_theta"}, fallback));
  read(local != nullptr ? *local : empty, local_theta, config.local_head_dim(), config.local_rope);
}

void HfConfig::Scale(const Json& scaling, ModelConfig& config, RopeConfig& rope) const {
  const std::string type = TypeOf(scaling);
  const Json* own_context = Member(scaling, "original_max_position_embeddings");
  const double original = own_context != nullptr
                              ? Part(scaling, "original_max_position_embeddings", std::nullopt)
                              : Positive({nullptr, "original_max_position_embeddings"},
                                         static_cast<double>(config.context_length));
  if (type == "default") return;
  if (type == "linear") {
    rope.linear_scale = Part(scaling, "factor", std::nullopt);
  } else if (type == "llama3") {
    ScaleAsLlama3({.factor = Part(scaling, "factor", std::nullopt),
                   .low_frequency = Part(scaling, "low_freq_factor", 1),
                   .high_frequency = Part(scaling, "high_freq_factor", 4),
                   .original_context = original},
                  rope);
  } else if (type == "yarn") {
    YarnScaling yarn = {.factor = Part(scaling, "factor", std::nullopt),
                        .original_context = original,
                        .beta_fast = Part(scaling, "beta_fast", 32),
                        .beta_slow = Part(scaling, "beta_slow", 1)};
    const Json* truncate = Member(scaling, "truncate");
    yarn.truncate = truncate == nullptr || *truncate != false;
    const auto magnitude = [&](const char* name) {
      return yarn.factor > 1 ? 0.1 * Part(scaling, name, std::nullopt) * std::log(yarn.factor) + 1
                             : 1;
    };
    if (Member(scaling, "attention_factor") != nullptr) {
      yarn.magnitude = Part(scaling, "attention_factor", std::nullopt);
    } else if (Member(scaling, "mscale") != nullptr &&
               Member(scaling, "mscale_all_dim") != nullptr) {
      yarn.magnitude = magnitude("mscale") / magnitude("mscale_all_dim");
    }
    ScaleAsYarn(yarn, rope);
    if (config.latent.kv_rank > 0 &&
        Member(scaling, "mscale_all_dim") != nullptr) {  // of scores, not of the rope
      config.attention_scale = static_cast<float>(static_cast<double>(config.attention_scale) *
                                                  std::pow(magnitude("mscale_all_dim"), 2));
      rope.yarn.score_rate = 0.1 * Part(scaling, "mscale_all_dim", std::nullopt);
    }
  } else if (type == "longrope" || type == "su") {
    ReadLongRope(scaling, config, rope);
  } else {
    Throw(ErrorCode::kUnsupported,
          "{}: rope scaling: expected default, linear, llama3, yarn, longrope or proportional, "
          "found {}",
          file(), Quote(type));
  }
}

void HfConfig::ReadLongRope(const Json& scaling, ModelConfig& config, RopeConfig& rope) const {
  for (const char* name : {"short_factor", "long_factor"}) {
    const Json* list = Member(scaling, name);
    if (list == nullptr || !list->is_array() ||
        static_cast<int64_t>(list->size()) != rope.dim / 2) {
      Fail(std::string("rope scaling: ") + name, "a factor for each pair of channels",
           list != nullptr ? *list : Json());
    }
    std::vector<float> factors;
    for (const Json& one : *list) {
      const double factor = one.is_number() ? one.get<double>() : -1;
      if (!(factor > 0 && factor < 1e15)) {
        Fail(std::string("rope scaling: ") + name, "positive numbers", one);
      }
      factors.push_back(static_cast<float>(factor));
    }
    (name[0] == 's' ? rope.frequency_factors : rope.far_factors) = std::move(factors);
  }
  const double context = static_cast<double>(config.context_length);
  const Json* own = Member(scaling, "original_max_position_embeddings");
  const double original = own != nullptr
                              ? Part(scaling, "original_max_position_embeddings", std::nullopt)
                              : Positive({nullptr, "original_max_position_embeddings"}, context);
  const double stretch = Part(scaling, "factor", context / original);
  rope.magnitude = Part(scaling, "attention_factor",
                        stretch > 1 ? std::sqrt(1 + std::log(stretch) / std::log(original)) : 1.0);
  rope.near_context = static_cast<int64_t>(original);
  if (rope.near_context >= config.context_length) rope.far_factors.clear();
}

}  // namespace bakestone
