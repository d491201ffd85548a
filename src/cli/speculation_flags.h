// --speculate and --draft, the same for every verb that answers.
#pragma once

#include <optional>
#include <string>

#include "base/thread_pool.h"
#include "cli/flags.h"
#include "engine/speculation.h"
#include "model/model.h"

namespace bakestone::cli {

struct SpeculationFlags {
  std::string mode = "auto";
  std::optional<std::string> draft;
};

void AddSpeculationFlags(Flags& flags, SpeculationFlags* values);

// Loads the draft model, if there is one. Throws UsageError naming the flag; what Model::Load
// throws.
SpeculationOptions MakeSpeculation(const SpeculationFlags& values, ThreadPool& pool,
                                   const LoadOptions& loading);

}  // namespace bakestone::cli
