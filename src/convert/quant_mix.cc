#include "convert/quant_mix.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <set>

#include "kernels/pack.h"

namespace bakestone {
namespace {

constexpr std::array<QuantMix, 16> kMixes = {{
    {"F32", DType::kF32, 0},
    {"F16", DType::kF16, 1},
    {"Q4_0", DType::kQ4_0, 2},
    {"Q4_1", DType::kQ4_1, 3},
    {"Q8_0", DType::kQ8_0, 7},
    {"Q5_0", DType::kQ5_0, 8},
    {"Q5_1", DType::kQ5_1, 9},
    {"Q4_K_S", DType::kQ4_K, 14},
    {"Q4_K_M", DType::kQ4_K, 15},
    {"Q5_K_S", DType::kQ5_K, 16},
    {"Q5_K_M", DType::kQ5_K, 17},
    {"Q6_K", DType::kQ6_K, 18},
    {"IQ4_NL", DType::kIQ4_NL, 25},
    {"IQ4_XS", DType::kIQ4_XS, 30},
    {"BF16", DType::kBF16, 32},
    {"MXFP4", DType::kMXFP4, 38},
}};

bool EqualsAnyCase(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) {
    const auto lower = [](char c) {
      return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    };
    return lower(x) == lower(y);
  });
}

// What a matrix is for, where that decides its type.
enum class Part : uint8_t { kOther, kHead, kEmbedding, kValue, kKey, kFusedQkv, kOutput, kDown };

struct Place {
  Part part = Part::kOther;
  int64_t layer = -1;
  bool expert = false;
};

// "blk.12.ffn_down.weight": layer 12, "ffn_down".
Place PlaceOf(std::string_view name) {
  Place place;
  if (name == "output.weight") return {.part = Part::kHead};
  if (name == "token_embd.weight") return {.part = Part::kEmbedding};
  if (!name.starts_with("blk.")) return place;
  name.remove_prefix(4);
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), place.layer);
  if (error != std::errc{}) return {};
  name.remove_prefix(static_cast<size_t>(end - name.data()));
  place.expert = name.find("_exps") != std::string_view::npos;
  if (name.starts_with(".attn_v.")) place.part = Part::kValue;
  if (name.starts_with(".attn_k.")) place.part = Part::kKey;
  if (name.starts_with(".attn_qkv.")) place.part = Part::kFusedQkv;
  if (name.starts_with(".attn_output.")) place.part = Part::kOutput;
  if (name.starts_with(".ffn_down")) place.part = Part::kDown;
  return place;
}

struct Shape {
  bool tied = false;
  int64_t experts = 0, heads_per_kv = 1;
  std::map<Part, std::vector<int64_t>> layers;  // that have the part, ascending
};

Shape ShapeOf(const ModelSource& source) {
  Shape shape;
  shape.tied = source.Find("output.weight") == nullptr;
  int64_t query = 0, value = 0;
  std::map<Part, std::set<int64_t>> layers;
  for (const SourceTensor& tensor : source.tensors) {
    if (!IsQuantizable(tensor)) continue;
    const Place place = PlaceOf(tensor.name);
    if (place.layer >= 0) layers[place.part].insert(place.layer);
    if (place.expert && tensor.ne.size() > 2) shape.experts = tensor.ne[2];
    if (place.part == Part::kValue) value = tensor.num_rows();
    if (tensor.name.ends_with(".attn_q.weight")) query = tensor.num_rows();
  }
  if (value > 0) shape.heads_per_kv = std::max<int64_t>(1, query / value);
  for (const auto& [part, set] : layers) shape.layers[part].assign(set.begin(), set.end());
  return shape;
}

// The first and last eighth, and every third between: where an error has the most layers to grow
// in, or the fewest to be corrected in.
bool GetsMoreBits(int64_t i, int64_t n) {
  return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
}

class Chooser {
 public:
  Chooser(const QuantMix& mix, const ModelSource& source, bool has_importance)
      : mix_(mix), shape_(ShapeOf(source)), has_importance_(has_importance) {}

  DType For(const SourceTensor& tensor) const {
    if (!IsQuantized(mix_.base)) return mix_.base;
    const Place place = PlaceOf(tensor.name);
    const bool head = place.part == Part::kHead || (place.part == Part::kEmbedding && shape_.tied);
    if (mix_.base == DType::kMXFP4) {
      return head || place.part == Part::kEmbedding ? DType::kQ8_0 : mix_.base;
    }
    if (head) return mix_.base == DType::kQ8_0 ? mix_.base : DType::kQ6_K;
    switch (place.part) {
      case Part::kValue:
        return Value(place);
      case Part::kKey:
        return shape_.experts == 8 && IsKOrIQ() ? DType::kQ8_0 : mix_.base;
      case Part::kFusedQkv:
        return Is("Q4_K_M") ? DType::kQ5_K : Is("Q5_K_M") ? DType::kQ6_K : mix_.base;
      case Part::kOutput:
        return shape_.experts == 8 && (mix_.base == DType::kQ4_K || mix_.base == DType::kIQ4_XS)
                   ? DType::kQ5_K
                   : mix_.base;
      case Part::kDown:
        return Down(place);
      default:
        return mix_.base;
    }
  }

 private:
  bool Is(std::string_view name) const { return mix_.name == name; }
  bool IsKOrIQ() const { return BlockSize(mix_.base) == 256 || mix_.base == DType::kIQ4_NL; }

  // Which of the layers that have the part it is, and of how many.
  std::pair<int64_t, int64_t> Rank(const Place& place) const {
    const std::vector<int64_t>& layers = shape_.layers.at(place.part);
    return {std::lower_bound(layers.begin(), layers.end(), place.layer) - layers.begin(),
            static_cast<int64_t>(layers.size())};
  }

  DType Value(const Place& place) const {
    const auto [i, n] = Rank(place);
    if (shape_.experts == 8 && IsKOrIQ()) return DType::kQ8_0;
    if ((Is("Q4_K_M") || Is("Q5_K_M")) && GetsMoreBits(i, n)) return DType::kQ6_K;
    if (Is("Q4_K_S") && i < 4) return DType::kQ5_K;
    const bool non_uniform = mix_.base == DType::kIQ4_XS || mix_.base == DType::kIQ4_NL;
    return non_uniform && shape_.heads_per_kv >= 4 ? DType::kQ5_K : mix_.base;
  }

  DType Down(const Place& place) const {
    const auto [i, n] = Rank(place);
    if ((Is("Q4_K_M") || Is("Q5_K_M")) && GetsMoreBits(i, n)) return DType::kQ6_K;
    if (i >= n / 8) return mix_.base;
    if (Is("Q4_K_S")) return DType::kQ5_K;
    const bool non_uniform = mix_.base == DType::kIQ4_XS || mix_.base == DType::kIQ4_NL;
    if (non_uniform && !has_importance_) return DType::kQ5_K;
    if (Is("Q4_0") && has_importance_) return DType::kQ4_1;
    if (Is("Q5_0") && has_importance_) return DType::kQ5_1;
    return mix_.base;
  }

  const QuantMix& mix_;
  const Shape shape_;
  const bool has_importance_;
};

}  // namespace

std::span<const QuantMix> QuantMixes() { return kMixes; }

const QuantMix* FindQuantMix(std::string_view name) {
  for (const QuantMix& mix : kMixes) {
    if (EqualsAnyCase(mix.name, name)) return &mix;
  }
  return nullptr;
}

std::optional<DType> FindWeightType(std::string_view name) {
  for (uint32_t i = 0; i < 64; ++i) {
    const auto type = static_cast<DType>(i);
    if (IsDType(i) && PanelTypeOf(type) && EqualsAnyCase(DTypeName(type), name)) return type;
  }
  return std::nullopt;
}

bool IsQuantizable(const SourceTensor& tensor) {
  if (tensor.ne.size() < 2 || !tensor.name.ends_with(".weight") || !PanelTypeOf(tensor.type)) {
    return false;
  }
  // Norms of several heads, routers, positions, and the small tensors of recurrent mixers: nothing
  // to save in them, and all to lose.
  static constexpr std::string_view kKept[] = {
      "_norm",          "ffn_gate_inp", "position_embd", "token_types",    "ssm_conv",
      "shortconv.conv", "_rel_b",       "rope_",         "mix_lerp",       "time_mix_ln",
      "time_mix_w",     "time_mix_a",   "time_mix_v0",   "time_mix_v1",    "time_mix_v2",
      "time_mix_g",     "time_mix_k_",  "time_mix_r_k",  "time_mix_first", "time_mix_decay"};
  return std::none_of(std::begin(kKept), std::end(kKept), [&](std::string_view part) {
    return tensor.name.find(part) != std::string::npos;
  });
}

std::vector<DType> ChooseTypes(const QuantMix& mix, const ModelSource& source,
                               bool has_importance) {
  const Chooser chooser(mix, source, has_importance);
  std::vector<DType> types;
  for (const SourceTensor& tensor : source.tensors) {
    types.push_back(IsQuantizable(tensor) ? chooser.For(tensor) : tensor.type);
  }
  return types;
}

DType FittingType(DType wanted, int64_t cols) {
  if (cols % BlockSize(wanted) == 0) return wanted;
  if (cols % 32 != 0) return DType::kF16;
  switch (wanted) {
    case DType::kQ2_K:
    case DType::kQ3_K:
    case DType::kIQ4_XS:
      return DType::kIQ4_NL;
    case DType::kQ4_K:
      return DType::kQ5_0;
    case DType::kQ5_K:
      return DType::kQ5_1;
    default:
      return DType::kQ8_0;
  }
}

}  // namespace bakestone
