// How PEFT folders hold the pairs of a mixture's experts: one module for each expert's matrix (as
// transformers 4 had them; PEFT stacks them itself for transformers 5), or experts stacked in one
// parameter (`target_parameters`). What is written is the first. Functions without state; any
// thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "format/adapter_file.h"

namespace bakestone {

inline constexpr int64_t kMaxStackedExperts = 4096;
// GGUF's word for Mixtral, whose experts have names of their own.
inline constexpr const char* kMixtralArchitecture = "llama";

// Sets site and expert from "mlp.experts.5.gate_proj" or "block_sparse_moe.experts.5.w1"; false if
// it is none.
bool ParseExpertModule(std::string_view module, AdapterEntry& entry);
bool IsMixtralModule(std::string_view module);
// "model.layers.3.mlp.experts.5.gate_proj", or Mixtral's.
std::string ExpertModuleOf(const AdapterFile& adapter, const AdapterEntry& entry);

// One of a layer's two stacked parameters.
struct StackedModule {
  bool gate_up = false;   // gate_up_proj, else down_proj
  std::string parameter;  // "model.layers.3.mlp.experts.down_proj"
};

// What target_parameters names.
class StackedTargets {
 public:
  bool Add(std::string_view parameter);  // false if it is not one of stacked experts
  // The parameter of a module; none if it is not of stacked experts. PEFT wraps gate_up_proj first.
  std::optional<StackedModule> Find(std::string_view module) const;

 private:
  bool gate_up_ = false, down_ = false;
};

struct StackedShape {
  int32_t layer = 0;
  bool gate_up = false;  // the first half of the outputs is gate_proj's, the second up_proj's
  int64_t rank = 0, experts = 0, in = 0, out = 0;
  float alpha = 0;
};
// Appends an entry for each matrix of each expert: a [experts, rank, in], b [out, rank, experts].
void SplitStacked(const StackedShape& shape, const std::vector<float>& a,
                  const std::vector<float>& b, std::vector<AdapterEntry>& entries);

}  // namespace bakestone
