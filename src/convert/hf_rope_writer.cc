#include "convert/hf_rope_writer.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <optional>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "model/families/config_reader.h"

namespace bakestone {
namespace {

using Json = nlohmann::ordered_json;

constexpr float kNotRotated = 1e29f;  // a divisor above it leaves a pair as it is

// Llama 3's settings from the divisors that they gave: one within the ramp tells the original
// context. The ramp's ends are those of all of Meta's models; the caller reads back what it writes.
std::optional<Llama3Scaling> Llama3Of(const RopeConfig& rope) {
  Llama3Scaling scaling = {.factor = static_cast<double>(*std::max_element(
                               rope.frequency_factors.begin(), rope.frequency_factors.end()))};
  for (size_t i = 0; i < rope.frequency_factors.size(); ++i) {
    const auto factor = static_cast<double>(rope.frequency_factors[i]);
    if (factor < 1.01 || factor > 0.99 * scaling.factor) continue;
    const double smooth = (1 / factor - 1 / scaling.factor) / (1 - 1 / scaling.factor);
    const double turns =
        scaling.low_frequency + smooth * (scaling.high_frequency - scaling.low_frequency);
    const double exponent = 2.0 * static_cast<double>(i) / static_cast<double>(rope.dim);
    scaling.original_context =
        std::round(turns * 2 * std::numbers::pi * std::pow(rope.theta, exponent));
    break;
  }
  return scaling.factor > 1 ? std::optional(scaling) : std::nullopt;
}

Json YarnOf(const ModelConfig& config) {
  const RopeConfig& rope = config.rope;
  const RopeConfig::Yarn& yarn = rope.yarn;
  Json json = {{"rope_type", "yarn"},
               {"factor", yarn.factor},
               {"original_max_position_embeddings", std::llround(yarn.original_context)},
               {"beta_fast", yarn.beta_fast},
               {"beta_slow", yarn.beta_slow}};
  if (!rope.truncate) json["truncate"] = false;
  if (config.latent.kv_rank > 0) {
    if (yarn.score_rate > 0) {
      json["mscale"] = json["mscale_all_dim"] =
          ShortestOf(static_cast<float>(10 * yarn.score_rate));
    }
  } else if (std::fabs(rope.magnitude - (0.1 * std::log(yarn.factor) + 1)) > 1e-6) {
    json["attention_factor"] = ShortestOf(static_cast<float>(rope.magnitude));
  }
  return json;
}

Json LongRopeOf(const ModelConfig& config) {
  const RopeConfig& rope = config.rope;
  const auto list = [](const std::vector<float>& factors) {
    Json json = Json::array();
    for (const float factor : factors) json.push_back(ShortestOf(factor));
    return json;
  };
  Json json = {{"rope_type", "longrope"},
               {"type", "longrope"},
               {"short_factor", list(rope.frequency_factors)},
               {"long_factor", list(rope.far_factors)}};
  const double stretch =
      static_cast<double>(config.context_length) / static_cast<double>(rope.near_context);
  const double usual =
      std::sqrt(1 + std::log(stretch) / std::log(static_cast<double>(rope.near_context)));
  if (std::fabs(rope.magnitude - usual) > 1e-6) json["attention_factor"] = rope.magnitude;
  return json;
}

// The scaling of the main rope; null: none.
Json ScalingOf(const ModelConfig& config) {
  const RopeConfig& rope = config.rope;
  if (rope.linear_scale != 1) return {{"rope_type", "linear"}, {"factor", rope.linear_scale}};
  if (rope.yarn.factor > 0) return YarnOf(config);
  if (!rope.far_factors.empty()) return LongRopeOf(config);
  if (rope.frequency_factors.empty()) return {};
  const auto last = std::find_if(rope.frequency_factors.begin(), rope.frequency_factors.end(),
                                 [](float factor) { return factor > kNotRotated; });
  if (last != rope.frequency_factors.end()) {
    return {{"rope_type", "proportional"},
            {"partial_rotary_factor", static_cast<double>(last - rope.frequency_factors.begin()) /
                                          static_cast<double>(rope.frequency_factors.size())}};
  }
  const auto scaling = Llama3Of(rope);
  if (!scaling) return {};
  return {{"rope_type", "llama3"},
          {"factor", scaling->factor},
          {"low_freq_factor", scaling->low_frequency},
          {"high_freq_factor", scaling->high_frequency},
          {"original_max_position_embeddings", std::llround(scaling->original_context)}};
}

bool Has(const ModelConfig& config, LayerRope rope) {
  return std::find(config.layer_ropes.begin(), config.layer_ropes.end(), rope) !=
         config.layer_ropes.end();
}

}  // namespace

double ShortestOf(float value) { return std::stod(fmt::format("{}", value)); }

void AddRopeSettings(const ModelConfig& config, Json& json) {
  const Json scaling = ScalingOf(config);
  if (Has(config, LayerRope::kLocal) && config.architecture != "gemma3") {
    const auto kind = [](Json parameters, const RopeConfig& rope, int64_t head_dim) {
      parameters["rope_theta"] = rope.theta;
      if (rope.dim != head_dim) {
        parameters["partial_rotary_factor"] =
            static_cast<double>(rope.dim) / static_cast<double>(head_dim);
      }
      return parameters;
    };
    const Json plain = {{"rope_type", "default"}};
    json["rope_parameters"] = {
        {"full_attention", kind(scaling.is_null() ? plain : scaling, config.rope, config.head_dim)},
        {"sliding_attention", kind(plain, config.local_rope, config.local_head_dim())}};
    return;
  }
  json["rope_theta"] = config.rope.theta;
  const int64_t head = config.latent.kv_rank > 0 ? config.latent.rope_dim : config.head_dim;
  if (config.rope.dim != head) {
    json["partial_rotary_factor"] =
        static_cast<double>(config.rope.dim) / static_cast<double>(head);
  }
  if (!scaling.is_null()) json["rope_scaling"] = scaling;
  if (scaling.is_null() && config.architecture == "gpt-oss") {  // whose default is YaRN
    json["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", config.rope.theta}};
  }
  if (!config.rope.far_factors.empty()) {
    json["original_max_position_embeddings"] = config.rope.near_context;
  }
  if (Has(config, LayerRope::kLocal)) json["rope_local_base_freq"] = config.local_rope.theta;
  if (!Has(config, LayerRope::kNone)) return;
  Json rotated = Json::array();
  for (const LayerRope rope : config.layer_ropes) {
    rotated.push_back(rope != LayerRope::kNone ? 1 : 0);
  }
  json["no_rope_layers"] = rotated;
}

}  // namespace bakestone
