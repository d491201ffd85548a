#include "format/adapter_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <tuple>

#include "base/checked.h"
#include "base/error.h"

namespace bakestone {
namespace {

struct SiteNames {
  std::string_view hf, gguf;
};
constexpr std::array<SiteNames, kNumAdapterSites> kSites = {{
    {"self_attn.q_proj", "attn_q"},
    {"self_attn.k_proj", "attn_k"},
    {"self_attn.v_proj", "attn_v"},
    {"self_attn.o_proj", "attn_output"},
    {"mlp.gate_proj", "ffn_gate"},
    {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"},
    {"self_attn.qkv_proj", "attn_qkv"},
    {"mlp.gate_up_proj", "ffn_up"},
    {"embed_tokens", "token_embd"},
    {"lm_head", "output"},
}};

constexpr int32_t kMaxLayers = 65536, kMaxExperts = 4096;

// What every message of this file begins with.
struct Subject {
  std::string_view file;
  const AdapterEntry& entry;

  template <class... Args>
  [[noreturn]] void Fail(fmt::format_string<Args...> format, Args&&... args) const {
    Throw(ErrorCode::kCorrupt, "{}: {}: {}", file, AdapterEntryName(entry),
          fmt::format(format, std::forward<Args>(args)...));
  }
};

// In pieces of a known length, which compilers turn into vectors.
bool AllFinite(const std::vector<float>& values) {
  constexpr size_t kPiece = 16;
  constexpr uint32_t kExponent = 0x7F800000;
  uint32_t found = 0;
  size_t i = 0;
  const auto is_finite = [](float value) {
    return (std::bit_cast<uint32_t>(value) & kExponent) != kExponent;
  };
  for (; i + kPiece <= values.size(); i += kPiece) {
    uint32_t bad = 0;
    for (size_t j = 0; j < kPiece; ++j) bad |= is_finite(values[i + j]) ? 0u : 1u;
    found |= bad;
  }
  for (; i < values.size(); ++i) found |= is_finite(values[i]) ? 0u : 1u;
  return found == 0;
}

void CheckVector(const Subject& subject, const char* name, const std::vector<float>& values,
                 int64_t rows, int64_t cols) {
  const auto size = CheckedMul(rows, cols);
  if (!size || values.size() != static_cast<size_t>(*size)) {
    subject.Fail("{}: expected {} x {} values, found {}", name, rows, cols, values.size());
  }
  if (AllFinite(values)) return;
  const auto bad =
      std::find_if(values.begin(), values.end(), [](float v) { return !std::isfinite(v); });
  if (bad != values.end()) {
    subject.Fail("{}: expected finite values, found {} at position {}", name, *bad,
                 bad - values.begin());
  }
}

void CheckEntry(const Subject& subject, bool dora) {
  const AdapterEntry& entry = subject.entry;
  if (static_cast<int>(entry.site) >= kNumAdapterSites) {
    subject.Fail("site: expected 0 to {}, found {}", kNumAdapterSites - 1,
                 static_cast<int>(entry.site));
  }
  if (IsLayerSite(entry.site) ? entry.layer < 0 || entry.layer >= kMaxLayers : entry.layer != -1) {
    subject.Fail("layer: expected {}, found {}",
                 IsLayerSite(entry.site) ? fmt::format("0 to {}", kMaxLayers - 1) : "-1",
                 entry.layer);
  }
  if (entry.expert < -1 || entry.expert >= kMaxExperts ||
      (entry.expert >= 0 && !IsMlpSite(entry.site))) {
    subject.Fail("expert: expected -1, or 0 to {} at a matrix of an MLP, found {}", kMaxExperts - 1,
                 entry.expert);
  }
  if (entry.rank <= 0 || entry.in <= 0 || entry.out <= 0) {
    subject.Fail("expected rank, inputs and outputs above 0, found {}, {} and {}", entry.rank,
                 entry.in, entry.out);
  }
  if (!std::isfinite(entry.alpha) || entry.alpha <= 0) {
    subject.Fail("alpha: expected a finite number above 0, found {}", entry.alpha);
  }
  CheckVector(subject, "A", entry.a, entry.rank, entry.in);
  CheckVector(subject, "B", entry.b, entry.out, entry.rank);
  if (dora || !entry.magnitude.empty()) {
    if (!dora) {
      subject.Fail("magnitude: expected none (use_dora is false), found {} values",
                   entry.magnitude.size());
    }
    CheckVector(subject, "magnitude", entry.magnitude, entry.out, 1);
  }
}

}  // namespace

std::string_view AdapterSiteName(AdapterSite site) {
  return kSites.at(static_cast<size_t>(site)).hf;
}

std::string_view AdapterSiteGgufName(AdapterSite site) {
  return kSites.at(static_cast<size_t>(site)).gguf;
}

double AdapterScale(const AdapterFile& file, const AdapterEntry& entry) {
  const double rank = static_cast<double>(entry.rank);
  return entry.alpha / (file.use_rslora ? std::sqrt(rank) : rank);
}

std::string AdapterEntryName(const AdapterEntry& entry) {
  if (static_cast<int>(entry.site) >= kNumAdapterSites) return "entry";
  if (!IsLayerSite(entry.site)) return std::string(AdapterSiteName(entry.site));
  const std::string_view site = AdapterSiteName(entry.site);
  if (entry.expert < 0) return fmt::format("layers.{}.{}", entry.layer, site);
  return fmt::format("layers.{}.mlp.experts.{}.{}", entry.layer, entry.expert,
                     site.substr(site.find('.') + 1));
}

void NormalizeAdapter(AdapterFile& file, std::string_view file_name) {
  if (file.entries.empty()) {
    Throw(ErrorCode::kCorrupt, "{}: expected at least one adapted matrix, found none", file_name);
  }
  std::sort(file.entries.begin(), file.entries.end(),
            [](const AdapterEntry& a, const AdapterEntry& b) {
              return std::tuple(a.layer, a.expert, a.site) < std::tuple(b.layer, b.expert, b.site);
            });
  std::array<const AdapterEntry*, kNumAdapterSites> first{};  // of experts
  const AdapterEntry* previous = nullptr;
  for (const AdapterEntry& entry : file.entries) {
    const Subject subject{file_name, entry};
    CheckEntry(subject, file.use_dora);
    if (previous != nullptr && previous->layer == entry.layer && previous->site == entry.site &&
        previous->expert == entry.expert) {
      subject.Fail("expected once, found again");
    }
    previous = &entry;
    if (entry.expert < 0) continue;  // heads and MLPs can differ by layer
    const AdapterEntry*& model = first[static_cast<size_t>(entry.site)];
    if (model == nullptr) model = &entry;
    if (model->in != entry.in || model->out != entry.out) {
      subject.Fail("expected {} inputs and {} outputs as in {}, found {} and {}", model->in,
                   model->out, AdapterEntryName(*model), entry.in, entry.out);
    }
  }
}

}  // namespace bakestone
