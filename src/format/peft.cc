// A PEFT folder holds
//
//   adapter_config.json         how the adapter was made: only peft_type is mandatory
//   adapter_model.safetensors   base_model.model.MODULE.lora_A.weight [r, in], .lora_B.weight [out,
//   r],
//                               .lora_magnitude_vector [out] with DoRA; for embeddings
//                               .lora_embedding_A [r, vocabulary], .lora_embedding_B [hidden, r]
//
// MODULE is the path in the Hugging Face model: model.layers.3.self_attn.q_proj,
// model.embed_tokens, lm_head. Experts of a mixture (peft_experts.h) are modules of their own,
// model.layers.3.mlp.experts.5.gate_proj (Mixtral: block_sparse_moe.experts.5.w1), or stacked in
// two:
//
//   model.layers.3.mlp.experts.base_layer   gate_up_proj, where target_parameters has both
//   model.layers.3.mlp.experts              down_proj, or the one that is adapted
//
// A pattern of rank_pattern or alpha_pattern belongs to a module if it
// is the path or its end after a dot; the first that fits wins.
#include "format/peft.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <span>
#include <utility>

#include "base/checked.h"
#include "base/error.h"
#include "base/json_depth.h"
#include "base/file.h"
#include "base/quote.h"
#include "format/adapter_card.h"
#include "format/peft_experts.h"
#include "format/safetensors.h"
#include "tensor/dequantize.h"

namespace bakestone {
namespace {

using OrderedJson = nlohmann::ordered_json;

constexpr const char* kAdapterConfigName = "adapter_config.json";
constexpr const char* kCardName = "README.md";
constexpr const char* kAdapterTensorsName = "adapter_model.safetensors";
constexpr const char* kLicenceKey = "license";
constexpr const char* kHashKey = "bakestone.base_sha256";
constexpr const char* kNormsKey = "bakestone.base_norms_sha256";
constexpr int64_t kMaxConfigBytes = 4 << 20;
constexpr std::string_view kTensorPrefix = "base_model.model.";
// The version whose conventions the writer follows.
constexpr const char* kPeftVersion = "0.17.0";

// Reads fields of the configuration with errors that name file, field, expected and found.
class Config {
 public:
  explicit Config(const std::filesystem::path& path) : file_(path.string()) {
    const std::string text = ReadFile(path, kMaxConfigBytes);
    CheckJsonLevels(text, file_);
    json_ = OrderedJson::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!json_.is_object()) {
      Throw(ErrorCode::kCorrupt, "{}: expected a JSON object, found {}", file_,
            json_.is_discarded() ? "text that is no JSON" : json_.type_name());
    }
  }

  // Null when absent or JSON's null.
  const OrderedJson* Find(const char* field) const {
    const auto found = json_.find(field);
    return found == json_.end() || found->is_null() ? nullptr : &*found;
  }

  [[noreturn]] void Fail(const std::string& field, const char* expected,
                         const OrderedJson& found) const {
    Throw(ErrorCode::kCorrupt, "{}: field '{}': expected {}, found {}", file_, field, expected,
          Shown(found));
  }
  [[noreturn]] void Refuse(const char* field, const char* expected,
                           const OrderedJson& found) const {
    Throw(ErrorCode::kUnsupported, "{}: field '{}': expected {}, found {}; this is not supported",
          file_, field, expected, Shown(found));
  }

  bool Bool(const char* field) const {
    const OrderedJson* value = Find(field);
    if (value != nullptr && !value->is_boolean()) Fail(field, "true or false", *value);
    return value != nullptr && value->get<bool>();
  }
  std::string String(const char* field) const {
    const OrderedJson* value = Find(field);
    if (value != nullptr && !value->is_string()) Fail(field, "a string", *value);
    return value == nullptr ? "" : value->get<std::string>();
  }
  float Positive(const std::string& field, const OrderedJson& value) const {
    const double number = value.is_number() ? value.get<double>() : -1;
    const auto result = static_cast<float>(number);
    if (!(number > 0) || !std::isfinite(result)) Fail(field, "a number above 0", value);
    return result;
  }
  int64_t Rank(const std::string& field, const OrderedJson& value) const {
    const bool fits = value.is_number_unsigned() && value.get<uint64_t>() >= 1 &&
                      value.get<uint64_t>() <= (uint64_t{1} << 31);
    if (!fits) Fail(field, "an integer from 1 to 2^31", value);
    return value.get<int64_t>();
  }
  const std::string& file() const { return file_; }

 private:
  static std::string Shown(const OrderedJson& value) {
    return Quote(value.dump(-1, ' ', true, OrderedJson::error_handler_t::replace));
  }

  std::string file_;
  OrderedJson json_;
};

bool IsEmpty(const OrderedJson& value) {
  return (value.is_boolean() && !value.get<bool>()) ||
         ((value.is_array() || value.is_object() || value.is_string()) && value.empty());
}

// Families whose modules are not called as Llama's, by GGUF's word for them; empty: as Llama's.
struct FamilyModules {
  const char* architecture;
  std::array<std::string_view, 7> sites;  // q, k, v, o, gate, up, down
};
constexpr FamilyModules kFamilyModules[] = {
    {"lfm2",
     {"", "", "", "self_attn.out_proj", "feed_forward.w1", "feed_forward.w3", "feed_forward.w2"}},
    {"starcoder2", {"", "", "", "", "", "mlp.c_fc", "mlp.c_proj"}}};

// Where a module of a layer has a name of a family's own: sets the site, and returns the family.
const FamilyModules* FindFamilyModule(std::string_view module, AdapterEntry& entry) {
  for (const FamilyModules& family : kFamilyModules) {
    for (size_t i = 0; i < family.sites.size(); ++i) {
      if (family.sites[i].empty() || family.sites[i] != module) continue;
      entry.site = static_cast<AdapterSite>(i);
      return &family;
    }
  }
  return nullptr;
}

// Everything that would change what the adapter computes and is not done here.
void RefuseUnsupported(const Config& config) {
  const OrderedJson* type = config.Find("peft_type");
  if (type == nullptr) config.Fail("peft_type", "\"LORA\"", OrderedJson());
  if (*type != "LORA") config.Refuse("peft_type", "\"LORA\"", *type);
  const OrderedJson* bias = config.Find("bias");
  if (bias != nullptr && *bias != "none") config.Refuse("bias", "\"none\"", *bias);
  for (const char* field :
       {"modules_to_save", "fan_in_fan_out", "layer_replication", "lora_bias",
        "trainable_token_indices", "use_qalora", "use_bdlora", "alora_invocation_tokens",
        "arrow_config", "kasa_config", "monteclora_config"}) {
    const OrderedJson* value = config.Find(field);
    if (value != nullptr && !IsEmpty(*value)) config.Refuse(field, "none", *value);
  }
  // These start by changing the base's weights, so the adapter does not fit the base as published.
  const OrderedJson* init = config.Find("init_lora_weights");
  if (init != nullptr && init->is_string()) {
    const auto name = init->get<std::string>();
    for (const char* changed : {"pissa", "olora", "corda", "loftq", "lora_ga"}) {
      if (name.starts_with(changed)) {
        config.Refuse("init_lora_weights", "a method that leaves the base unchanged", *init);
      }
    }
  }
}

constexpr std::string_view kAnyPath = ".*\\.";

// What target_parameters adapts of stacked experts.
StackedTargets ReadStackedTargets(const Config& config) {
  StackedTargets targets;
  const OrderedJson* list = config.Find("target_parameters");
  if (list == nullptr) return targets;
  if (!list->is_array()) config.Fail("target_parameters", "a list of names", *list);
  for (const OrderedJson& item : *list) {
    if (!item.is_string() || !targets.Add(item.get<std::string>())) {
      config.Refuse("target_parameters", "mlp.experts.gate_up_proj and mlp.experts.down_proj",
                    item);
    }
  }
  return targets;
}

// {pattern: value} of rank_pattern or alpha_pattern, in the file's order.
template <class Value>
using Patterns = std::vector<std::pair<std::string, Value>>;

template <class Value, class Convert>
Patterns<Value> ReadPatterns(const Config& config, const char* field, Convert convert) {
  Patterns<Value> patterns;
  const OrderedJson* object = config.Find(field);
  if (object == nullptr) return patterns;
  if (!object->is_object()) config.Fail(field, "an object", *object);
  for (const auto& [written, value] : object->items()) {
    // How PEFT itself writes a name that may follow any other.
    const std::string pattern =
        written.starts_with(kAnyPath) ? written.substr(kAnyPath.size()) : written;
    if (pattern.find_first_of("\\()[]{}|*+?$^") != std::string::npos) {
      config.Refuse(field, "names of modules", OrderedJson(written));
    }
    patterns.emplace_back(pattern, convert(fmt::format("{}.{}", field, pattern), value));
  }
  return patterns;
}

template <class Value>
Value Resolve(const Patterns<Value>& patterns, std::string_view module, Value fallback) {
  for (const auto& [pattern, value] : patterns) {
    if (!module.ends_with(pattern)) continue;
    const size_t before = module.size() - pattern.size();
    if (before == 0 || module[before - 1] == '.') return value;
  }
  return fallback;
}

enum class Part { kA, kB, kMagnitude };

struct TensorName {
  std::string_view module;  // without "base_model.model."
  Part part;
  bool embedding;
};

std::optional<TensorName> SplitTensorName(std::string_view name) {
  struct Suffix {
    std::string_view text;
    Part part;
    bool embedding;
  };
  static constexpr Suffix kSuffixes[] = {
      {".lora_A.weight", Part::kA, false},
      {".lora_B.weight", Part::kB, false},
      {".lora_embedding_A", Part::kA, true},
      {".lora_embedding_B", Part::kB, true},
      {".lora_magnitude_vector", Part::kMagnitude, false},
      {".lora_magnitude_vector.weight", Part::kMagnitude, false},
  };
  if (!name.starts_with(kTensorPrefix)) return std::nullopt;
  name.remove_prefix(kTensorPrefix.size());
  for (const Suffix& suffix : kSuffixes) {
    if (name.ends_with(suffix.text)) {
      name.remove_suffix(suffix.text.size());
      return TensorName{name, suffix.part, suffix.embedding};
    }
  }
  return std::nullopt;
}

// Sets layer and site from "model.layers.3.self_attn.q_proj" and the like, and the architecture if
// only one has such a name; false if it is none.
bool ParseModule(std::string_view module, AdapterEntry& entry, std::string* architecture) {
  for (const std::string_view prefix :
       {"model.language_model.", "language_model.model.", "model."}) {
    if (module.starts_with(prefix)) {
      module.remove_prefix(prefix.size());
      break;
    }
  }
  constexpr std::string_view kLayers = "layers.";
  if (module.starts_with(kLayers)) {
    module.remove_prefix(kLayers.size());
    const auto [end, error] =
        std::from_chars(module.data(), module.data() + module.size(), entry.layer);
    if (error != std::errc() || end == module.data() + module.size() || *end != '.') return false;
    module.remove_prefix(static_cast<size_t>(end - module.data()) + 1);
  }
  if (ParseExpertModule(module, entry)) return entry.layer >= 0;
  for (int i = 0; i < kNumAdapterSites; ++i) {
    entry.site = static_cast<AdapterSite>(i);
    if (module == AdapterSiteName(entry.site)) return IsLayerSite(entry.site) == (entry.layer >= 0);
  }
  const FamilyModules* family = FindFamilyModule(module, entry);
  if (family == nullptr || entry.layer < 0) return false;
  *architecture = family->architecture;
  return true;
}

std::vector<float> ReadValues(const std::string& file, const SafetensorsTensor& tensor) {
  const bool wanted =
      tensor.type == DType::kF32 || tensor.type == DType::kF16 || tensor.type == DType::kBF16;
  if (!wanted) {
    Throw(ErrorCode::kUnsupported, "{}: tensor {}: expected F32, F16 or BF16, found {}", file,
          Quote(tensor.name), tensor.dtype);
  }
  std::vector<float> values(static_cast<size_t>(tensor.elements()));
  DequantizeRow(*tensor.type, tensor.data.data(), values.data(), tensor.elements());
  return values;
}

// The tensors of one module, as found.
struct Group {
  const SafetensorsTensor *a = nullptr, *b = nullptr, *magnitude = nullptr;
  bool embedding = false;
};

// PEFT saves the base's own matrix beside an adapted embedding; it says nothing about the adapter.
bool IsBaseWeight(std::string_view name) {
  return name.ends_with("embed_tokens.base_layer.weight") ||
         name.ends_with("lm_head.base_layer.weight");
}

std::map<std::string, Group> GroupTensors(const SafetensorsFile& file) {
  std::map<std::string, Group> groups;
  for (const SafetensorsTensor& tensor : file.tensors()) {
    if (IsBaseWeight(tensor.name)) continue;
    const auto name = SplitTensorName(tensor.name);
    if (!name) {
      Throw(ErrorCode::kUnsupported,
            "{}: tensor {}: expected 'base_model.model.MODULE.lora_A.weight', '.lora_B.weight', "
            "'.lora_embedding_A', '.lora_embedding_B' or '.lora_magnitude_vector'",
            file.name(), Quote(tensor.name));
    }
    Group& group = groups[std::string(name->module)];
    const SafetensorsTensor*& slot = name->part == Part::kA   ? group.a
                                     : name->part == Part::kB ? group.b
                                                              : group.magnitude;
    if (slot != nullptr) {
      Throw(ErrorCode::kCorrupt, "{}: tensor {}: expected one of its kind, found {} too",
            file.name(), Quote(tensor.name), Quote(slot->name));
    }
    slot = &tensor;
    group.embedding |= name->embedding;
  }
  return groups;
}

AdapterEntry ReadEntry(const std::string& file, const std::string& module, const Group& group,
                       std::string* architecture) {
  AdapterEntry entry;
  if (!ParseModule(module, entry, architecture)) {
    Throw(ErrorCode::kUnsupported,
          "{}: module {}: expected a linear layer of attention, MLP or an expert, embed_tokens or "
          "lm_head",
          file, Quote(module));
  }
  if (group.a == nullptr || group.b == nullptr) {
    Throw(ErrorCode::kCorrupt, "{}: module {}: expected lora_A and lora_B, found {} missing", file,
          Quote(module), group.a == nullptr ? "lora_A" : "lora_B");
  }
  if (group.embedding != (entry.site == AdapterSite::kEmbedTokens)) {
    Throw(ErrorCode::kCorrupt,
          "{}: module {}: expected lora_embedding_A and _B for embed_tokens only", file,
          Quote(module));
  }
  const auto &a = group.a->shape, &b = group.b->shape;
  if (a.size() != 2 || b.size() != 2 || a[0] != b[1]) {
    Throw(ErrorCode::kCorrupt,
          "{}: module {}: expected A [rank, in] and B [out, rank], found [{}] and [{}]", file,
          Quote(module), fmt::join(a, ", "), fmt::join(b, ", "));
  }
  entry.rank = a[0];
  entry.in = a[1];
  entry.out = b[0];
  entry.a = ReadValues(file, *group.a);
  entry.b = ReadValues(file, *group.b);
  if (group.magnitude != nullptr) entry.magnitude = ReadValues(file, *group.magnitude);
  return entry;
}

// What the adapter's family calls a site's module, where not as Llama's; else empty.
std::string_view OwnName(const AdapterFile& adapter, AdapterSite site) {
  for (const FamilyModules& family : kFamilyModules) {
    if (family.architecture != adapter.architecture || !IsLayerSite(site)) continue;
    return family.sites[static_cast<size_t>(site)];
  }
  return "";
}

std::string ModuleOf(const AdapterFile& adapter, const AdapterEntry& entry) {
  if (entry.expert >= 0) return ExpertModuleOf(adapter, entry);
  if (const std::string_view own = OwnName(adapter, entry.site); !own.empty()) {
    return fmt::format("model.layers.{}.{}", entry.layer, own);
  }
  const std::string name = AdapterEntryName(entry);
  return entry.site == AdapterSite::kLmHead ? name : "model." + name;
}

// The entries of stacked experts: A [experts * rank, in] expert by expert, B [out, rank * experts]
// with an expert's columns `experts` apart.
void AddStacked(const std::string& file, const std::string& module, const Group& group,
                const StackedModule& stacked, int64_t rank, float alpha,
                std::vector<AdapterEntry>& entries) {
  AdapterEntry where;
  const std::string first = module.substr(0, module.find(".experts")) + ".experts.0.gate_proj";
  std::string architecture;
  const bool known = ParseModule(first, where, &architecture);
  if (!known || group.a == nullptr || group.b == nullptr || group.magnitude != nullptr ||
      group.embedding) {
    Throw(ErrorCode::kCorrupt,
          "{}: module {}: expected lora_A and lora_B of a layer's stacked experts alone", file,
          Quote(module));
  }
  const auto &a = group.a->shape, &b = group.b->shape;
  const bool halves = stacked.gate_up;
  const bool fits = a.size() == 2 && b.size() == 2 && a[0] == b[1] && a[0] % rank == 0 &&
                    a[0] / rank <= kMaxStackedExperts && (!halves || b[0] % 2 == 0);
  if (!fits) {
    Throw(ErrorCode::kCorrupt,
          "{}: module {}: expected A [experts * {}, in] and B [out, {} * experts], found [{}] and "
          "[{}]",
          file, Quote(module), rank, rank, fmt::join(a, ", "), fmt::join(b, ", "));
  }
  SplitStacked({.layer = where.layer,
                .gate_up = halves,
                .rank = rank,
                .experts = a[0] / rank,
                .in = a[1],
                .out = b[0],
                .alpha = alpha},
               ReadValues(file, *group.a), ReadValues(file, *group.b), entries);
}

OrderedJson NumberOf(float value) {
  const auto whole = static_cast<int64_t>(std::clamp(value, -1e9f, 1e9f));
  return static_cast<float>(whole) == value ? OrderedJson(whole) : OrderedJson(value);
}

OrderedJson MakeConfig(const AdapterFile& adapter) {
  std::set<std::string> targets;
  OrderedJson ranks = OrderedJson::object(), alphas = OrderedJson::object();
  for (const AdapterEntry& entry : adapter.entries) {
    const std::string module = ModuleOf(adapter, entry);
    const std::string_view own = entry.expert < 0 ? OwnName(adapter, entry.site) : "";
    // A family's own name with its part: what it calls out_proj may be elsewhere too.
    targets.emplace(!own.empty() ? own : module.substr(module.rfind('.') + 1));
    if (entry.rank != adapter.rank) ranks[module] = entry.rank;
    if (entry.alpha != adapter.alpha) alphas[module] = NumberOf(entry.alpha);
  }
  return OrderedJson{{"peft_type", "LORA"},
                     {"task_type", "CAUSAL_LM"},
                     {"base_model_name_or_path", adapter.base_name},
                     {"r", adapter.rank},
                     {"lora_alpha", NumberOf(adapter.alpha)},
                     {"lora_dropout", NumberOf(adapter.dropout)},
                     {"target_modules", targets},
                     {"bias", "none"},
                     {"fan_in_fan_out", false},
                     {"use_rslora", adapter.use_rslora},
                     {"use_dora", adapter.use_dora},
                     {"rank_pattern", ranks},
                     {"alpha_pattern", alphas},
                     {"modules_to_save", nullptr},
                     {"init_lora_weights", true},
                     {"inference_mode", true},
                     {"peft_version", kPeftVersion}};
}

std::span<const uint8_t> Bytes(const std::vector<float>& values) {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(float)};
}

}  // namespace

AdapterFile ReadPeftAdapter(const std::filesystem::path& folder) {
  const Config config(folder / kAdapterConfigName);
  RefuseUnsupported(config);
  AdapterFile adapter;
  adapter.base_name = config.String("base_model_name_or_path");
  adapter.use_rslora = config.Bool("use_rslora");
  adapter.use_dora = config.Bool("use_dora");
  const auto rank = [&](const std::string& f, const OrderedJson& v) { return config.Rank(f, v); };
  const auto alpha = [&](const std::string& f, const OrderedJson& v) {
    return config.Positive(f, v);
  };
  const OrderedJson default_value = 8;  // PEFT's default for both
  const OrderedJson *r = config.Find("r"), *a = config.Find("lora_alpha"),
                    *d = config.Find("lora_dropout");
  adapter.rank = rank("r", r != nullptr ? *r : default_value);
  adapter.alpha = alpha("lora_alpha", a != nullptr ? *a : default_value);
  if (d != nullptr && d->is_number()) adapter.dropout = d->get<float>();
  const auto ranks = ReadPatterns<int64_t>(config, "rank_pattern", rank);
  const auto alphas = ReadPatterns<float>(config, "alpha_pattern", alpha);

  const SafetensorsFile file = SafetensorsFile::Open(folder / kAdapterTensorsName);
  adapter.base_hash = file.Metadata(kHashKey);
  adapter.base_norms = file.Metadata(kNormsKey);
  adapter.licence = file.Metadata(kLicenceKey);
  const StackedTargets stacked_targets = ReadStackedTargets(config);
  for (const auto& [module, group] : GroupTensors(file)) {
    if (const auto stacked = stacked_targets.Find(module)) {
      AddStacked(file.name(), module, group, *stacked,
                 Resolve(ranks, stacked->parameter, adapter.rank),
                 Resolve(alphas, stacked->parameter, adapter.alpha), adapter.entries);
      continue;
    }
    if (IsMixtralModule(module)) adapter.architecture = kMixtralArchitecture;
    AdapterEntry entry = ReadEntry(file.name(), module, group, &adapter.architecture);
    entry.alpha = Resolve(alphas, module, adapter.alpha);
    const int64_t expected = Resolve(ranks, module, adapter.rank);
    if (entry.rank != expected) {
      Throw(ErrorCode::kCorrupt, "{}: module {}: expected rank {} ({}), found {}", file.name(),
            Quote(module), expected, kAdapterConfigName, entry.rank);
    }
    adapter.entries.push_back(std::move(entry));
  }
  NormalizeAdapter(adapter, file.name());
  return adapter;
}

void WritePeftAdapter(AdapterFile adapter, const std::filesystem::path& folder) {
  NormalizeAdapter(adapter, "the adapter");
  if (adapter.rank <= 0) adapter.rank = adapter.entries.front().rank;
  if (!(adapter.alpha > 0)) adapter.alpha = adapter.entries.front().alpha;
  SafetensorsWriter writer;
  writer.AddMetadata("format", "pt");
  if (!adapter.base_hash.empty()) writer.AddMetadata(kHashKey, adapter.base_hash);
  if (!adapter.base_norms.empty()) writer.AddMetadata(kNormsKey, adapter.base_norms);
  if (!adapter.licence.empty()) writer.AddMetadata(kLicenceKey, adapter.licence);
  for (const AdapterEntry& entry : adapter.entries) {
    const std::string module = std::string(kTensorPrefix) + ModuleOf(adapter, entry);
    const bool embedding = entry.site == AdapterSite::kEmbedTokens;
    const int64_t a[] = {entry.rank, entry.in}, b[] = {entry.out, entry.rank}, m[] = {entry.out};
    writer.AddTensor(module + (embedding ? ".lora_embedding_A" : ".lora_A.weight"), DType::kF32, a,
                     Bytes(entry.a));
    writer.AddTensor(module + (embedding ? ".lora_embedding_B" : ".lora_B.weight"), DType::kF32, b,
                     Bytes(entry.b));
    if (adapter.use_dora) {
      writer.AddTensor(module + ".lora_magnitude_vector", DType::kF32, m, Bytes(entry.magnitude));
    }
  }
  writer.Write(folder / kAdapterTensorsName);
  WriteFileAtomically(folder / kCardName, AdapterCard(adapter));
  WriteFileAtomically(folder / kAdapterConfigName, MakeConfig(adapter).dump(2) + "\n");
}

}  // namespace bakestone
