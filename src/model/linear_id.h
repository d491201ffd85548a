// Names one matrix of the decoder: layer and site (and expert). Adapters, gradients, importance
// matrices and overrides are all keyed by it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>

namespace bakestone {

enum class Site : uint8_t { kQ, kK, kV, kO, kGate, kUp, kDown };
inline constexpr int kNumSites = 7;

struct LinearId {
  int32_t layer = 0;
  Site site = Site::kQ;
  int32_t expert = -1;  // which of a mixture's; -1: the layer's own matrix

  // Of the layer's own matrices [0, layers * kNumSites); those of experts have others.
  int64_t index() const {
    return ((int64_t{expert} + 1) << 32) + int64_t{layer} * kNumSites + static_cast<int64_t>(site);
  }
  friend bool operator==(const LinearId&, const LinearId&) = default;
  // By layer, a layer's own matrices before those of its experts, expert by expert.
  friend bool operator<(const LinearId& a, const LinearId& b) {
    return std::tie(a.layer, a.expert, a.site) < std::tie(b.layer, b.expert, b.site);
  }
};

// "layers.3.self_attn.q_proj", "layers.3.mlp.experts.5.gate_proj".
std::string LinearName(LinearId id);

// Hugging Face's module names, which PEFT uses: "self_attn.q_proj" ... "mlp.down_proj".
std::string_view SiteName(Site site);
std::optional<Site> ParseSite(std::string_view name);  // accepts "q_proj" and "self_attn.q_proj"

}  // namespace bakestone
