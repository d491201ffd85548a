#include "cli/load_flags.h"

#include <cstdio>
#include <vector>

#include <fmt/core.h>
#include <fmt/ranges.h>

#include "base/quote.h"
#include "cli/environment.h"
#include "convert/load_plan.h"

namespace bakestone::cli {
namespace {

std::string MixNames() {
  std::vector<std::string_view> names;
  for (const QuantMix& mix : QuantMixes()) names.push_back(mix.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

}  // namespace

void AddLoadFlags(Flags& flags, LoadFlags* values) {
  flags.Add(
      "--quantize", &values->quantize,
      fmt::format("Quantize the model while it is loaded, to one of {}: a fast search, so not "
                  "the very weights of 'bakestone quantize', whose errors are a little "
                  "smaller (docs/convert.md)",
                  MixNames()));
  flags.Add("--no-pack-cache", &values->no_pack_cache,
            "Pack the weights in memory, instead of mapping them from the home folder");
}

LoadOptions Loading(const std::string& verb, const LoadFlags& values) {
  LoadOptions options = Loading(values.no_pack_cache);
  if (!values.quantize) return options;
  const QuantMix* mix = FindQuantMix(*values.quantize);
  if (mix == nullptr) {
    throw UsageError(fmt::format("{}: --quantize: expected one of {}, found {}", verb, MixNames(),
                                 Quote(*values.quantize)));
  }
  options.types = [mix](const std::filesystem::path& path) {
    LoadPlan plan = PlanLoad(path, *mix);
    fmt::print(stderr, "{}\n", LoadLine(plan, *mix));
    return std::move(plan.types);
  };
  return options;
}

}  // namespace bakestone::cli
