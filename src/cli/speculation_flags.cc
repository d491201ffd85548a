#include "cli/speculation_flags.h"

#include <fmt/core.h>

#include "cli/environment.h"

namespace bakestone::cli {

void AddSpeculationFlags(Flags& flags, SpeculationFlags* values) {
  flags.Add(
      "--speculate", &values->mode,
      "Guess tokens ahead and verify them; answers are the same. auto: where it makes them faster; "
      "lookup: whenever the text repeats itself, faster or not; off");
  flags.Add("--draft", &values->draft, "A small model with the same vocabulary that guesses too");
}

SpeculationOptions MakeSpeculation(const SpeculationFlags& values, ThreadPool& pool,
                                   const LoadOptions& loading) {
  SpeculationOptions options;
  if (values.mode == "off") {
    options.mode = Speculation::kOff;
  } else if (values.mode == "lookup") {
    options.mode = Speculation::kAlways;
  } else if (values.mode != "auto") {
    throw UsageError(
        fmt::format("--speculate: expected auto, off or lookup, found '{}'", values.mode));
  }
  if (!values.draft) return options;
  if (values.mode != "auto") {
    throw UsageError(
        fmt::format("--draft: guesses only with --speculate auto, found '{}'", values.mode));
  }
  options.draft = Model::Load(ResolveModel(*values.draft), Kernels(), pool, loading);
  return options;
}

}  // namespace bakestone::cli
