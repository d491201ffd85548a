// How a model is loaded, the same for every verb that computes with one: --quantize and
// --no-pack-cache.
#pragma once

#include <optional>
#include <string>

#include "cli/flags.h"
#include "model/model.h"

namespace bakestone::cli {

struct LoadFlags {
  std::optional<std::string> quantize;
  bool no_pack_cache = false;
};

void AddLoadFlags(Flags& flags, LoadFlags* values);

// Throws UsageError of that verb for a type that there is not. What is chosen for a model is said
// on stderr when it is loaded.
LoadOptions Loading(const std::string& verb, const LoadFlags& values);

}  // namespace bakestone::cli
