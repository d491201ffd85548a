// A GGUF adapter holds the keys general.type = "adapter", general.architecture, adapter.type =
// "lora", adapter.lora.alpha (FLOAT32), and for each matrix two tensors, in GGUF's order of
// dimensions:
//
//   blk.N.STEM.weight.lora_a [in, r]      blk.N.STEM.weight.lora_b [r, out]
//   output.weight.lora_a     [in, r]      output.weight.lora_b     [r, out]
//   token_embd.weight.lora_a [r, vocab]   token_embd.weight.lora_b [r, hidden]   (A is transposed)
//   blk.N.STEM_exps.weight.lora_a [in, r, experts]    .lora_b [r, out, experts]  (ffn_gate, ffn_up,
//   ffn_down)
#include "format/gguf_adapter.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <optional>
#include <span>
#include <tuple>
#include <utility>

#include "base/error.h"
#include "base/quote.h"
#include "format/gguf.h"
#include "format/gguf_writer.h"
#include "format/peft_experts.h"
#include "format/q_k_permute.h"
#include "tensor/dequantize.h"

namespace bakestone {
namespace {

constexpr const char* kHashKey = "bakestone.base.sha256";
constexpr const char* kNormsKey = "bakestone.base.norms_sha256";

bool IsQueryOrKey(AdapterSite site) {
  return site == AdapterSite::kQProj || site == AdapterSite::kKProj;
}

// Throws unless the entry's outputs are the heads of the base.
void CheckHeads(const std::string& file, const AdapterEntry& entry, const HeadShape& heads) {
  const int64_t count = entry.site == AdapterSite::kQProj ? heads.num_heads : heads.num_kv_heads;
  if (count <= 0 || heads.head_dim <= 0 || heads.head_dim % 2 != 0 ||
      entry.out % heads.head_dim != 0 || entry.out / heads.head_dim != count) {
    Throw(ErrorCode::kInvalidArgument,
          "{}: {}: expected {} rows of B ({} heads of {}, an even size), found {}; the adapter is "
          "for "
          "another base",
          file, AdapterEntryName(entry), count * heads.head_dim, count, heads.head_dim, entry.out);
  }
}

struct TensorName {
  int32_t layer = -1;
  AdapterSite site = AdapterSite::kQProj;
  bool stacked = false;  // of all experts of a layer
  bool is_a = false;
};
constexpr std::string_view kStackedSuffix = "_exps";

std::optional<TensorName> ParseTensorName(std::string_view name) {
  TensorName parsed;
  parsed.is_a = name.ends_with(".weight.lora_a");
  if (!parsed.is_a && !name.ends_with(".weight.lora_b")) return std::nullopt;
  name.remove_suffix(std::string_view(".weight.lora_a").size());
  if (name.starts_with("blk.")) {
    name.remove_prefix(4);
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), parsed.layer);
    if (error != std::errc() || parsed.layer < 0 || end == name.data() + name.size() ||
        *end != '.') {
      return std::nullopt;
    }
    name.remove_prefix(static_cast<size_t>(end - name.data()) + 1);
  }
  parsed.stacked = name.ends_with(kStackedSuffix);
  if (parsed.stacked) name.remove_suffix(kStackedSuffix.size());
  for (int i = 0; i < kNumAdapterSites; ++i) {
    parsed.site = static_cast<AdapterSite>(i);
    if (name == AdapterSiteGgufName(parsed.site) && (!parsed.stacked || IsMlpSite(parsed.site)) &&
        IsLayerSite(parsed.site) == (parsed.layer >= 0)) {
      return parsed;
    }
  }
  return std::nullopt;
}

std::string TensorNameOf(const AdapterEntry& entry, const char* part) {
  const std::string_view stem = AdapterSiteGgufName(entry.site);
  const std::string_view stacked = entry.expert < 0 ? "" : kStackedSuffix;
  return IsLayerSite(entry.site)
             ? fmt::format("blk.{}.{}{}.weight.{}", entry.layer, stem, stacked, part)
             : fmt::format("{}.weight.{}", stem, part);
}

std::vector<float> ReadValues(const GgufTensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.elements()));
  DequantizeRow(tensor.type, tensor.data.data(), values.data(), tensor.elements());
  return values;
}

// [rows, cols] -> [cols, rows].
std::vector<float> Transposed(const std::vector<float>& values, int64_t rows, int64_t cols) {
  std::vector<float> result(values.size());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      result[static_cast<size_t>(c * rows + r)] = values[static_cast<size_t>(r * cols + c)];
    }
  }
  return result;
}

AdapterEntry ReadEntry(const GgufFile& file, const TensorName& name, const GgufTensor* a,
                       const GgufTensor* b) {
  AdapterEntry entry;
  entry.layer = name.layer;
  entry.site = name.site;
  if (a == nullptr || b == nullptr) {
    Throw(ErrorCode::kCorrupt, "{}: {}: expected lora_a and lora_b, found {} missing", file.name(),
          AdapterEntryName(entry), a == nullptr ? "lora_a" : "lora_b");
  }
  const bool embedding = name.site == AdapterSite::kEmbedTokens;
  const int64_t rank = embedding ? a->ne[0] : a->ne[1];
  if (a->num_dims != 2 || b->num_dims != 2 || b->ne[0] != rank) {
    Throw(ErrorCode::kCorrupt,
          "{}: {}: expected lora_a {} and lora_b [r, out], found [{}] and [{}]", file.name(),
          AdapterEntryName(entry), embedding ? "[r, vocabulary]" : "[in, r]",
          fmt::join(std::span(a->ne).first(static_cast<size_t>(a->num_dims)), ", "),
          fmt::join(std::span(b->ne).first(static_cast<size_t>(b->num_dims)), ", "));
  }
  entry.rank = rank;
  entry.in = embedding ? a->ne[1] : a->ne[0];
  entry.out = b->ne[1];
  entry.a = ReadValues(*a);
  entry.b = ReadValues(*b);
  if (embedding) entry.a = Transposed(entry.a, entry.in, rank);
  return entry;
}

// One entry for each expert of a layer.
void AddStacked(const GgufFile& file, const TensorName& name, const GgufTensor* a,
                const GgufTensor* b, float alpha, std::vector<AdapterEntry>& entries) {
  AdapterEntry entry;
  entry.layer = name.layer;
  entry.site = name.site;
  entry.expert = 0;
  const bool there = a != nullptr && b != nullptr && a->num_dims == 3 && b->num_dims == 3;
  if (!there || b->ne[0] != a->ne[1] || b->ne[2] != a->ne[2] || a->ne[2] > kMaxStackedExperts) {
    Throw(ErrorCode::kCorrupt,
          "{}: {}: expected lora_a [in, r, experts] and lora_b [r, out, experts] of at most {} "
          "experts",
          file.name(), TensorNameOf(entry, "lora_a"), kMaxStackedExperts);
  }
  entry.in = a->ne[0];
  entry.rank = a->ne[1];
  entry.out = b->ne[1];
  entry.alpha = alpha == 0 ? static_cast<float>(entry.rank) : alpha;
  const std::vector<float> all_a = ReadValues(*a), all_b = ReadValues(*b);
  for (int64_t expert = 0; expert < a->ne[2]; ++expert) {
    const auto first_a = all_a.begin() + expert * entry.rank * entry.in;
    const auto first_b = all_b.begin() + expert * entry.rank * entry.out;
    entry.expert = static_cast<int32_t>(expert);
    entry.a.assign(first_a, first_a + entry.rank * entry.in);
    entry.b.assign(first_b, first_b + entry.rank * entry.out);
    entries.push_back(entry);
  }
}

void ExpectString(const GgufFile& file, const char* key, std::string_view expected) {
  const std::string_view found = file.GetString(key);
  if (found != expected) {
    Throw(ErrorCode::kUnsupported, "{}: key '{}': expected '{}', found {}", file.name(), key,
          expected, Quote(found));
  }
}

}  // namespace

AdapterFile ReadGgufAdapter(const std::filesystem::path& path, const HeadShape& heads) {
  return ReadGgufAdapter(GgufFile::Open(path), heads);
}

AdapterFile ReadGgufAdapter(const GgufFile& file, const HeadShape& heads) {
  ExpectString(file, "general.type", "adapter");
  ExpectString(file, "adapter.type", "lora");
  AdapterFile adapter;
  adapter.architecture = file.GetString("general.architecture");
  adapter.name = file.GetString("general.name", "");
  adapter.licence = file.GetString("general.license", "");
  adapter.base_name = file.GetString("general.base_model.0.name", "");
  adapter.base_hash = file.GetString(kHashKey, "");
  adapter.base_norms = file.GetString(kNormsKey, "");
  adapter.alpha = file.GetF32("adapter.lora.alpha");

  std::map<std::tuple<int32_t, AdapterSite, bool>, std::pair<const GgufTensor*, const GgufTensor*>>
      pairs;
  for (const GgufTensor& tensor : file.tensors()) {
    const auto name = ParseTensorName(tensor.name);
    if (!name) {
      Throw(ErrorCode::kUnsupported,
            "{}: tensor {}: expected '.weight.lora_a' or '.weight.lora_b' of a linear layer of "
            "attention, MLP or stacked "
            "experts, token_embd or output",
            file.name(), Quote(tensor.name));
    }
    auto& [a, b] = pairs[{name->layer, name->site, name->stacked}];
    (name->is_a ? a : b) = &tensor;
  }
  const bool permuted = GgufPermutesQueryKey(adapter.architecture);
  const bool has_gate = std::any_of(pairs.begin(), pairs.end(), [](const auto& pair) {
    return std::get<AdapterSite>(pair.first) == AdapterSite::kGateProj;
  });
  for (const auto& [where, tensors] : pairs) {
    auto [layer, site, stacked] = where;
    // Phi-3's ffn_up is gate and up.
    if (adapter.architecture == "phi3" && site == AdapterSite::kUpProj && !has_gate) {
      site = AdapterSite::kGateUpProj;
    }
    const TensorName name = {.layer = layer, .site = site, .stacked = stacked};
    if (stacked) {
      AddStacked(file, name, tensors.first, tensors.second, adapter.alpha, adapter.entries);
      continue;
    }
    AdapterEntry entry = ReadEntry(file, name, tensors.first, tensors.second);
    // An alpha of 0 stands for "no scaling" in this format.
    entry.alpha = adapter.alpha == 0 ? static_cast<float>(entry.rank) : adapter.alpha;
    if (permuted && IsQueryOrKey(entry.site)) {
      CheckHeads(file.name(), entry, heads);
      std::vector<float> b(entry.b.size());
      QueryKeyRowsFromGguf(entry.b.data(), b.data(), entry.out,
                           entry.rank * static_cast<int64_t>(sizeof(float)), heads.head_dim);
      entry.b = std::move(b);
    }
    adapter.entries.push_back(std::move(entry));
  }
  NormalizeAdapter(adapter, file.name());
  adapter.rank = adapter.entries.front().rank;
  adapter.alpha = adapter.entries.front().alpha;
  return adapter;
}

namespace {

// The alpha for which alpha / rank is the entry's scale.
double EffectiveAlpha(const AdapterFile& adapter, const AdapterEntry& entry) {
  return adapter.use_rslora ? entry.alpha * std::sqrt(static_cast<double>(entry.rank))
                            : entry.alpha;
}

bool IsPowerOfTwo(double x) {
  int exponent = 0;
  return std::frexp(x, &exponent) == 0.5;
}

// Zeros up to the rank at which the file's one alpha means the entry's scale times a power of two,
// if it is near: B is then scaled without rounding, whatever type it is kept in later.
void PadRank(const AdapterFile& adapter, double file_alpha, AdapterEntry& entry) {
  const double scale = AdapterScale(adapter, entry);
  if (IsPowerOfTwo(EffectiveAlpha(adapter, entry) / file_alpha)) return;
  double rank = file_alpha / scale;
  while (rank < static_cast<double>(entry.rank)) rank *= 2;
  if (rank != std::floor(rank) || rank >= static_cast<double>(2 * entry.rank)) return;
  const auto padded = static_cast<int64_t>(rank);
  entry.a.resize(static_cast<size_t>(padded * entry.in));
  std::vector<float> b(static_cast<size_t>(padded * entry.out));
  for (int64_t row = 0; row < entry.out; ++row) {
    std::copy_n(entry.b.begin() + row * entry.rank, entry.rank, b.begin() + row * padded);
  }
  entry.b = std::move(b);
  entry.rank = padded;
  entry.alpha = static_cast<float>(scale * (adapter.use_rslora ? std::sqrt(rank) : rank));
}

// B as the file holds it: scaled where the file's one alpha is not the entry's, rows permuted.
std::vector<float> FileB(const AdapterFile& adapter, const AdapterEntry& entry, double file_alpha,
                         const HeadShape& heads) {
  std::vector<float> b = entry.b;
  const double alpha = EffectiveAlpha(adapter, entry);
  if (alpha != file_alpha) {
    const double factor = alpha / file_alpha;
    for (float& value : b) value = static_cast<float>(value * factor);
  }
  if (GgufPermutesQueryKey(adapter.architecture) && IsQueryOrKey(entry.site)) {
    CheckHeads("the adapter", entry, heads);
    const std::vector<float> hf = std::move(b);
    b.resize(hf.size());
    QueryKeyRowsToGguf(hf.data(), b.data(), entry.out,
                       entry.rank * static_cast<int64_t>(sizeof(float)), heads.head_dim);
  }
  return b;
}

// The pairs of one matrix of a layer's experts as one tensor: ranks up to the largest are filled
// with zeros, and so are experts that have none.
struct StackedPairs {
  std::vector<const AdapterEntry*> experts;  // null: none
  const AdapterEntry* first = nullptr;
  int64_t rank = 0;

  std::vector<float> A() const {
    std::vector<float> a(experts.size() * static_cast<size_t>(rank * first->in));
    for (size_t i = 0; i < experts.size(); ++i) {
      if (!experts[i]) continue;
      std::copy(experts[i]->a.begin(), experts[i]->a.end(),
                a.begin() + static_cast<int64_t>(i) * rank * first->in);
    }
    return a;
  }
  template <class Scaled>
  std::vector<float> B(const Scaled& scaled) const {
    std::vector<float> b(experts.size() * static_cast<size_t>(rank * first->out));
    for (size_t i = 0; i < experts.size(); ++i) {
      if (!experts[i]) continue;
      std::vector<float> own = scaled(*experts[i]);
      const int64_t own_rank = experts[i]->rank;
      const double factor =
          static_cast<double>(rank) / static_cast<double>(own_rank);  // readers divide by `rank`
      if (factor != 1) {
        for (float& value : own) value = static_cast<float>(value * factor);
      }
      for (int64_t o = 0; o < first->out; ++o) {
        const int64_t row = static_cast<int64_t>(i) * first->out + o;
        std::copy_n(own.begin() + o * own_rank, own_rank, b.begin() + row * rank);
      }
    }
    return b;
  }
};

std::map<std::pair<int32_t, AdapterSite>, StackedPairs> StackExperts(const AdapterFile& adapter) {
  int64_t count = adapter.num_experts;
  for (const AdapterEntry& entry : adapter.entries) {
    count = std::max<int64_t>(count, entry.expert + 1);
  }
  std::map<std::pair<int32_t, AdapterSite>, StackedPairs> stacked;
  for (const AdapterEntry& entry : adapter.entries) {
    if (entry.expert < 0) continue;
    StackedPairs& pairs = stacked[{entry.layer, entry.site}];
    pairs.experts.resize(static_cast<size_t>(count));
    pairs.experts[static_cast<size_t>(entry.expert)] = &entry;
    if (pairs.first == nullptr) pairs.first = &entry;
    pairs.rank = std::max(pairs.rank, entry.rank);
  }
  return stacked;
}

void AddKeys(GgufWriter& writer, const AdapterFile& adapter, double alpha) {
  writer.AddString("general.type", "adapter");
  writer.AddString("general.architecture", adapter.architecture);
  if (!adapter.name.empty()) writer.AddString("general.name", adapter.name);
  if (!adapter.licence.empty()) writer.AddString("general.license", adapter.licence);
  if (!adapter.base_name.empty()) {
    writer.AddU32("general.base_model.count", 1);
    writer.AddString("general.base_model.0.name", adapter.base_name);
  }
  if (!adapter.base_hash.empty()) writer.AddString(kHashKey, adapter.base_hash);
  if (!adapter.base_norms.empty()) writer.AddString(kNormsKey, adapter.base_norms);
  writer.AddString("adapter.type", "lora");
  writer.AddF32("adapter.lora.alpha", static_cast<float>(alpha));
}

}  // namespace

void WriteGgufAdapter(AdapterFile adapter, const HeadShape& heads,
                      const std::filesystem::path& path) {
  NormalizeAdapter(adapter, "the adapter");
  if (adapter.architecture.empty()) {
    Throw(ErrorCode::kInvalidArgument, "{}: expected the base's architecture, found none",
          path.string());
  }
  if (adapter.use_dora) {
    Throw(ErrorCode::kUnsupported,
          "{}: GGUF adapters cannot hold DoRA magnitudes; export a PEFT folder, or merge",
          path.string());
  }
  const double alpha = EffectiveAlpha(adapter, adapter.entries.front());
  for (AdapterEntry& entry : adapter.entries) {
    if (entry.expert < 0) PadRank(adapter, alpha, entry);
  }
  GgufWriter writer;
  AddKeys(writer, adapter, alpha);
  std::vector<float> current;  // the one tensor being written
  const auto source = [&current](auto make) {
    return [&current, make] {
      current = make();
      return std::span(reinterpret_cast<const uint8_t*>(current.data()),
                       current.size() * sizeof(float));
    };
  };
  const auto stacked = StackExperts(adapter);
  for (const auto& [where, pairs] : stacked) {
    const auto count = static_cast<int64_t>(pairs.experts.size());
    const int64_t a[] = {pairs.first->in, pairs.rank, count},
                  b[] = {pairs.rank, pairs.first->out, count};
    writer.AddTensor(TensorNameOf(*pairs.first, "lora_a"), DType::kF32, a,
                     source([&pairs = pairs] { return pairs.A(); }));
    writer.AddTensor(
        TensorNameOf(*pairs.first, "lora_b"), DType::kF32, b, source([&, &pairs = pairs] {
          return pairs.B(
              [&](const AdapterEntry& entry) { return FileB(adapter, entry, alpha, heads); });
        }));
  }
  for (const AdapterEntry& entry : adapter.entries) {
    if (entry.expert >= 0) continue;
    const bool embedding = entry.site == AdapterSite::kEmbedTokens;
    const int64_t a[] = {embedding ? entry.rank : entry.in, embedding ? entry.in : entry.rank};
    const int64_t b[] = {entry.rank, entry.out};
    writer.AddTensor(TensorNameOf(entry, "lora_a"), DType::kF32, a, source([&entry, embedding] {
                       return embedding ? Transposed(entry.a, entry.rank, entry.in) : entry.a;
                     }));
    writer.AddTensor(TensorNameOf(entry, "lora_b"), DType::kF32, b,
                     source([&] { return FileB(adapter, entry, alpha, heads); }));
  }
  writer.Write(path);
}

}  // namespace bakestone
