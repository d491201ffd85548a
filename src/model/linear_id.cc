#include "model/linear_id.h"

#include <array>

#include <fmt/format.h>

namespace bakestone {
namespace {

constexpr std::array<std::string_view, kNumSites> kNames = {
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};

}  // namespace

std::string_view SiteName(Site site) { return kNames[static_cast<size_t>(site)]; }

std::string LinearName(LinearId id) {
  const std::string_view name = SiteName(id.site);
  if (id.expert < 0) return fmt::format("layers.{}.{}", id.layer, name);
  return fmt::format("layers.{}.mlp.experts.{}.{}", id.layer, id.expert,
                     name.substr(name.find('.') + 1));
}

std::optional<Site> ParseSite(std::string_view name) {
  for (size_t i = 0; i < kNames.size(); ++i) {
    const std::string_view full = kNames[i];
    if (name == full || name == full.substr(full.find('.') + 1)) return static_cast<Site>(i);
  }
  return std::nullopt;
}

}  // namespace bakestone
