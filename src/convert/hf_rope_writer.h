// How a config.json says that queries and keys are rotated: transformers 4's "rope_theta" and
// "rope_scaling", which 5 reads too, or by layer type where only 5 can say it.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "model/config.h"

namespace bakestone {

void AddRopeSettings(const ModelConfig& config, nlohmann::ordered_json& json);

// A number that was rounded to f32 as short as it was before, as far as that can be told.
double ShortestOf(float value);

}  // namespace bakestone
