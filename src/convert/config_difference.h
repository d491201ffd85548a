// Whether two models compute the same, by their settings: writers read back what they wrote and
// hold it against what was to be said. Pure functions; any thread.
#pragma once

#include <optional>
#include <string>

#include "model/config.h"

namespace bakestone {

// The first setting in which two configs differ; nullopt where they say the same.
std::optional<std::string> DifferenceOf(const ModelConfig& a, const ModelConfig& b);

// Equal but for rounding.
bool Near(double a, double b);

// Whether a layer is rotated by `local_rope`.
bool HasLocalRope(const ModelConfig& config);

}  // namespace bakestone
