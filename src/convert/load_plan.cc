#include "convert/load_plan.h"

#include <algorithm>
#include <map>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.h"
#include "convert/hf_source.h"

namespace bakestone {

LoadPlan PlanLoad(const std::filesystem::path& path, const QuantMix& mix) {
  LoadPlan load;
  load.source = OpenSource(path, {.metadata = false});
  load.plan = PlanQuantize(load.source, {.mix = &mix});
  for (const PlannedTensor& planned : load.plan.tensors) {
    if (planned.type == planned.tensor->type || !IsQuantizable(*planned.tensor)) continue;
    for (const std::string& name : planned.tensor->stored) load.types.types[name] = planned.type;
  }
  if (load.plan.bytes() < load.source.stored_bytes() && !load.types.empty()) return load;
  std::map<std::string_view, int64_t> bytes;
  for (const SourceTensor& tensor : load.source.tensors) {
    bytes[DTypeName(tensor.type)] += tensor.stored_bytes();
  }
  const auto most = std::max_element(
      bytes.begin(), bytes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  Throw(ErrorCode::kInvalidArgument,
        "{}: expected a model that {} makes smaller, found one of {} already; load it as it is, or "
        "quantize the F16, BF16 or F32 model that it was made of",
        load.source.name, mix.name, most == bytes.end() ? "no weights" : most->first);
}

std::string LoadLine(const LoadPlan& load, const QuantMix& mix) {
  std::map<std::string_view, int64_t> counts;
  std::map<std::pair<std::string_view, std::string_view>, int64_t> others;  // of rows too short
  int64_t again = 0;
  for (const PlannedTensor& planned : load.plan.tensors) {
    if (!IsQuantizable(*planned.tensor)) continue;
    ++counts[DTypeName(planned.type)];
    if (planned.reason == PlanReason::kRowLength) {
      ++others[{DTypeName(planned.type), DTypeName(planned.wanted)}];
    }
    again += planned.requantized() && IsQuantized(planned.type) ? 1 : 0;
  }
  std::vector<std::string> types, notes;
  for (const auto& [type, count] : counts) types.push_back(fmt::format("{} x {}", type, count));
  for (const auto& [pair, count] : others) {
    notes.push_back(fmt::format("{} got {} instead of {}, whose blocks their rows do not fill",
                                count, pair.first, pair.second));
  }
  if (again > 0) {
    notes.push_back(fmt::format("{} were quantized already, and have the errors of both", again));
  }
  return fmt::format(
      "quantized as it is loaded: {}, {:.3f} bits a weight, {:.0f} MB of {:.0f} MB: "
      "{}{}{}",
      mix.name, load.plan.BitsPerWeight(), static_cast<double>(load.plan.bytes()) * 1e-6,
      static_cast<double>(load.source.stored_bytes()) * 1e-6, fmt::join(types, ", "),
      notes.empty() ? "" : "; ", fmt::join(notes, "; "));
}

}  // namespace bakestone
