#include "format/peft_experts.h"

#include <charconv>

#include <fmt/format.h>

namespace bakestone {
namespace {

constexpr std::string_view kExperts = "mlp.experts", kMixtralExperts = "block_sparse_moe.experts";
constexpr std::string_view kGateUp = "gate_up_proj", kDown = "down_proj", kInner = ".base_layer";

struct ExpertSite {
  std::string_view name, mixtral;
  AdapterSite site;
};
constexpr ExpertSite kExpertSites[] = {{"gate_proj", "w1", AdapterSite::kGateProj},
                                       {"up_proj", "w3", AdapterSite::kUpProj},
                                       {"down_proj", "w2", AdapterSite::kDownProj}};

// Whether the text is the name, or ends with it after a dot.
bool EndsWithName(std::string_view text, std::string_view name) {
  return text == name || (text.ends_with(name) && text[text.size() - name.size() - 1] == '.');
}

}  // namespace

bool ParseExpertModule(std::string_view module, AdapterEntry& entry) {
  const bool mixtral = module.starts_with(kMixtralExperts);
  const std::string_view container = mixtral ? kMixtralExperts : kExperts;
  if (!module.starts_with(container) || module.size() <= container.size() + 1) return false;
  if (module[container.size()] != '.') return false;
  module.remove_prefix(container.size() + 1);
  const char* last = module.data() + module.size();
  int32_t expert = -1;
  const auto [end, error] = std::from_chars(module.data(), last, expert);
  if (error != std::errc() || expert < 0 || end == last || *end != '.') return false;
  const std::string_view name(end + 1, static_cast<size_t>(last - end - 1));
  for (const ExpertSite& site : kExpertSites) {
    if (name != (mixtral ? site.mixtral : site.name)) continue;
    entry.site = site.site;
    entry.expert = expert;
    return true;
  }
  return false;
}

bool IsMixtralModule(std::string_view module) {
  return module.find(kMixtralExperts) != std::string_view::npos;
}

std::string ExpertModuleOf(const AdapterFile& adapter, const AdapterEntry& entry) {
  const bool mixtral = adapter.architecture == kMixtralArchitecture;
  std::string_view name;
  for (const ExpertSite& site : kExpertSites) {
    if (site.site == entry.site) name = mixtral ? site.mixtral : site.name;
  }
  return fmt::format("model.layers.{}.{}.{}.{}", entry.layer, mixtral ? kMixtralExperts : kExperts,
                     entry.expert, name);
}

bool StackedTargets::Add(std::string_view parameter) {
  const size_t dot = parameter.rfind('.');
  const std::string_view container = dot == std::string_view::npos ? "" : parameter.substr(0, dot);
  if (!container.empty() && !EndsWithName(container, "experts")) return false;
  const std::string_view name = parameter.substr(dot == std::string_view::npos ? 0 : dot + 1);
  if (name != kGateUp && name != kDown) return false;
  (name == kGateUp ? gate_up_ : down_) = true;
  return true;
}

std::optional<StackedModule> StackedTargets::Find(std::string_view module) const {
  const bool inner = module.ends_with(kInner);
  if (inner) module.remove_suffix(kInner.size());
  const bool experts = EndsWithName(module, kExperts) || EndsWithName(module, kMixtralExperts);
  if (!experts || !(gate_up_ || down_)) return std::nullopt;
  if (inner && !(gate_up_ && down_)) return std::nullopt;
  const bool gate_up = inner || !down_;
  return StackedModule{gate_up, fmt::format("{}.{}", module, gate_up ? kGateUp : kDown)};
}

void SplitStacked(const StackedShape& shape, const std::vector<float>& a,
                  const std::vector<float>& b, std::vector<AdapterEntry>& entries) {
  const int64_t out = shape.gate_up ? shape.out / 2 : shape.out;
  for (int64_t expert = 0; expert < shape.experts; ++expert) {
    for (int64_t part = 0; part < (shape.gate_up ? 2 : 1); ++part) {
      AdapterEntry entry;
      entry.layer = shape.layer;
      entry.expert = static_cast<int32_t>(expert);
      entry.site = !shape.gate_up ? AdapterSite::kDownProj
                   : part == 0    ? AdapterSite::kGateProj
                                  : AdapterSite::kUpProj;
      entry.rank = shape.rank;
      entry.in = shape.in;
      entry.out = out;
      entry.alpha = shape.alpha;
      const auto first = a.begin() + expert * shape.rank * shape.in;
      entry.a.assign(first, first + shape.rank * shape.in);
      entry.b.reserve(static_cast<size_t>(out * shape.rank));
      for (int64_t o = part * out; o < (part + 1) * out; ++o) {
        for (int64_t r = 0; r < shape.rank; ++r) {
          entry.b.push_back(b[static_cast<size_t>((o * shape.rank + r) * shape.experts + expert)]);
        }
      }
      entries.push_back(std::move(entry));
    }
  }
}

}  // namespace bakestone
