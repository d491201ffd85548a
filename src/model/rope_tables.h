// The rotary tables that a config asks for. Pure; the config must outlive what is made from it.
#pragma once

#include <algorithm>

#include "model/config.h"
#include "ops/rows.h"

namespace bakestone {

inline ops::RopeParameters TableOf(const RopeConfig& rope) {
  return {.theta = rope.theta,
          .dim = rope.dim,
          .linear_scale = rope.linear_scale,
          .frequency_factors = rope.frequency_factors,
          .magnitude = rope.magnitude,
          .far_factors = rope.far_factors};
}

inline bool HasLocalRope(const ModelConfig& config) {
  const auto& ropes = config.layer_ropes;
  return std::find(ropes.begin(), ropes.end(), LayerRope::kLocal) != ropes.end();
}

}  // namespace bakestone
