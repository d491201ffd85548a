#include "model/adapter_entries.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "base/error.h"
#include "model/families/tensor_names.h"
#include "model/linear_id.h"

namespace bakestone {
namespace {

struct Joined {
  AdapterSite site;
  std::vector<Site> parts;
};

// What lies together in the model's files.
std::vector<Joined> JoinedSites(const ModelConfig& config) {
  std::vector<Joined> joined;
  if (config.names == nullptr) return joined;
  if (config.names->q_k_v != nullptr) {
    joined.push_back({AdapterSite::kQkvProj, {Site::kQ, Site::kK, Site::kV}});
  }
  if (config.names->gate_up != nullptr) {
    joined.push_back({AdapterSite::kGateUpProj, {Site::kGate, Site::kUp}});
  }
  return joined;
}

double AlphaOf(const AdapterFile& file, double scale, int64_t rank) {
  const auto wide = static_cast<double>(rank);
  return scale * (file.use_rslora ? std::sqrt(wide) : wide);
}

bool IsZero(const AdapterEntry& entry, int64_t row, int64_t first, int64_t count) {
  const auto begin = entry.b.begin() + row * entry.rank + first;
  return std::all_of(begin, begin + count, [](float value) { return value == 0; });
}

// Without the zeros that fill it up to something else than the parts' equal shares.
int64_t RankIn(const AdapterEntry& entry, int64_t parts) {
  int64_t rank = entry.rank;
  const auto is_empty = [&](int64_t column) {
    for (int64_t row = 0; row < entry.out; ++row) {
      if (!IsZero(entry, row, column, 1)) return false;
    }
    return true;
  };
  while (rank > parts && rank % parts != 0 && is_empty(rank - 1)) --rank;
  return rank;
}

// Whether the rows of each part have only the part's own share of the rank.
bool IsBlockDiagonal(const AdapterEntry& entry, int64_t rank, const std::vector<int64_t>& begins) {
  const auto parts = std::ssize(begins) - 1;
  if (rank % parts != 0) return false;
  const int64_t share = rank / parts;
  for (int64_t part = 0; part < parts; ++part) {
    const auto at = static_cast<size_t>(part);
    for (int64_t row = begins[at]; row < begins[at + 1]; ++row) {
      const int64_t end = (part + 1) * share;
      if (!IsZero(entry, row, 0, part * share) || !IsZero(entry, row, end, entry.rank - end)) {
        return false;
      }
    }
  }
  return true;
}

std::vector<AdapterEntry> SplitJoined(const AdapterFile& file, const AdapterEntry& entry,
                                      const Joined& joined, const ModelConfig& config) {
  std::vector<int64_t> begins = {0};
  for (const Site site : joined.parts) {
    begins.push_back(begins.back() + ShapeOf(config, {entry.layer, site}).n);
  }
  if (entry.out != begins.back() || entry.in != config.hidden_dim) {
    Throw(ErrorCode::kInvalidArgument,
          "adapter {}: {}: expected a matrix of {} x {}, found {} x {}: was it trained on another "
          "base?",
          file.name, AdapterEntryName(entry), begins.back(), config.hidden_dim, entry.out,
          entry.in);
  }
  const auto parts = static_cast<int64_t>(joined.parts.size());
  const int64_t rank = RankIn(entry, parts);
  const bool blocks = IsBlockDiagonal(entry, rank, begins);
  std::vector<AdapterEntry> split;
  for (int64_t part = 0; part < parts; ++part) {
    const auto at = static_cast<size_t>(part);
    AdapterEntry own;
    own.layer = entry.layer;
    own.site = static_cast<AdapterSite>(joined.parts[at]);
    own.rank = blocks ? rank / parts : entry.rank;
    own.in = entry.in;
    own.out = begins[at + 1] - begins[at];
    own.alpha = static_cast<float>(AlphaOf(file, AdapterScale(file, entry), own.rank));
    const int64_t first = blocks ? part * own.rank : 0;
    own.a.assign(entry.a.begin() + first * entry.in,
                 entry.a.begin() + (first + own.rank) * entry.in);
    for (int64_t row = begins[at]; row < begins[at + 1]; ++row) {
      const auto from = entry.b.begin() + row * entry.rank + first;
      own.b.insert(own.b.end(), from, from + own.rank);
    }
    if (!entry.magnitude.empty()) {
      own.magnitude.assign(entry.magnitude.begin() + begins[at],
                           entry.magnitude.begin() + begins[at + 1]);
    }
    split.push_back(std::move(own));
  }
  return split;
}

AdapterEntry QueriesOf(const AdapterFile& file, const AdapterEntry& entry, int64_t head_dim) {
  AdapterEntry queries = entry;
  queries.b.clear();
  queries.out /= 2;
  for (int64_t row = 0; row < entry.out; ++row) {
    if (row / head_dim % 2 == 0) {
      const auto from = entry.b.begin() + row * entry.rank;
      queries.b.insert(queries.b.end(), from, from + entry.rank);
    } else if (!IsZero(entry, row, 0, entry.rank)) {
      Throw(ErrorCode::kUnsupported,
            "adapter {}: {}: expected pairs that change queries alone, found a change of the gate "
            "whose rows lie between theirs; train it without q_proj, or with this program",
            file.name, AdapterEntryName(entry));
    }
  }
  return queries;
}

// Pairs of the queries are pairs of the whole that leave the gate as it is.
void WidenQueries(int64_t head_dim, AdapterEntry& entry) {
  std::vector<float> wide(2 * entry.b.size());
  for (int64_t row = 0; row < entry.out; ++row) {
    const int64_t to = row / head_dim * 2 * head_dim + row % head_dim;
    std::copy_n(entry.b.begin() + row * entry.rank, entry.rank, wide.begin() + to * entry.rank);
  }
  entry.b = std::move(wide);
  entry.out *= 2;
}

// One entry of those of a layer that lie together, in the order of their rows.
AdapterEntry Join(const AdapterFile& file, const Joined& joined, const ModelConfig& config,
                  const std::vector<const AdapterEntry*>& parts) {
  AdapterEntry whole;
  for (const AdapterEntry* part : parts) {
    if (part == nullptr) continue;
    whole.layer = part->layer;
    whole.in = part->in;
    whole.rank += part->rank;
    whole.alpha = static_cast<float>(AlphaOf(file, AdapterScale(file, *part), whole.rank));
    whole.a.insert(whole.a.end(), part->a.begin(), part->a.end());
    whole.magnitude.insert(whole.magnitude.end(), part->magnitude.begin(), part->magnitude.end());
  }
  whole.site = joined.site;
  int64_t first = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const int64_t rows = ShapeOf(config, {whole.layer, joined.parts[i]}).n;
    whole.out += rows;
    const size_t begin = whole.b.size();
    whole.b.resize(begin + static_cast<size_t>(rows * whole.rank));
    if (parts[i] == nullptr) continue;
    for (int64_t row = 0; row < rows; ++row) {
      std::copy_n(parts[i]->b.begin() + row * parts[i]->rank, parts[i]->rank,
                  whole.b.begin() + static_cast<int64_t>(begin) + row * whole.rank + first);
    }
    first += parts[i]->rank;
  }
  BAKESTONE_CHECK(whole.magnitude.empty() || std::ssize(whole.magnitude) == whole.out);
  return whole;
}

}  // namespace

std::optional<std::vector<AdapterEntry>> SplitEntry(const AdapterFile& file,
                                                    const AdapterEntry& entry,
                                                    const ModelConfig& config) {
  for (const Joined& joined : JoinedSites(config)) {
    if (joined.site == entry.site) return SplitJoined(file, entry, joined, config);
  }
  if (!config.output_gate || entry.site != AdapterSite::kQProj) return std::nullopt;
  const LinearId id = {entry.layer, Site::kQ};
  if (!HasSite(config, id) || entry.out != 2 * ShapeOf(config, id).n) return std::nullopt;
  return std::vector{QueriesOf(file, entry, config.head_dim)};
}

void JoinEntries(const ModelConfig& config, AdapterFile& file) {
  for (AdapterEntry& entry : file.entries) {
    if (config.output_gate && entry.site == AdapterSite::kQProj) {
      WidenQueries(config.head_dim, entry);
    }
  }
  for (const Joined& joined : JoinedSites(config)) {
    std::map<int32_t, std::vector<const AdapterEntry*>> layers;
    std::vector<AdapterEntry> entries;
    for (const AdapterEntry& entry : file.entries) {
      const auto part = std::find_if(joined.parts.begin(), joined.parts.end(), [&](Site site) {
        return static_cast<AdapterSite>(site) == entry.site && entry.expert < 0;
      });
      if (part == joined.parts.end()) continue;
      auto& parts = layers[entry.layer];
      parts.resize(joined.parts.size());
      parts[static_cast<size_t>(part - joined.parts.begin())] = &entry;
    }
    for (const auto& [layer, parts] : layers) entries.push_back(Join(file, joined, config, parts));
    std::erase_if(file.entries, [&](const AdapterEntry& entry) {
      return entry.expert < 0 &&
             std::any_of(
                 joined.parts.begin(), joined.parts.end(),
                 [&](Site site) { return static_cast<AdapterSite>(site) == entry.site; });
    });
    file.entries.insert(file.entries.end(), std::make_move_iterator(entries.begin()),
                        std::make_move_iterator(entries.end()));
  }
}

}  // namespace bakestone
