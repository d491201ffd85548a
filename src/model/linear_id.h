// Names one matrix of the decoder: layer and site (and expert). Adapters, gradients, importance
// matrices and overrides are all keyed by it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace bakestone {

enum class Site : uint8_t { kQ, kK, kV, kO, kGate, kUp, kDown };
inline constexpr int kNumSites = 7;

struct LinearId {
  int32_t layer = 0;
  Site site = Site::kQ;

  int64_t index() const { return int64_t{layer} * kNumSites + static_cast<int64_t>(site); }
  friend bool operator==(const LinearId&, const LinearId&) = default;
};

// Hugging Face's module names, which PEFT uses: "self_attn.q_proj" ... "mlp.down_proj".
std::string_view SiteName(Site site);
std::optional<Site> ParseSite(std::string_view name);  // accepts "q_proj" and "self_attn.q_proj"

}  // namespace bakestone
