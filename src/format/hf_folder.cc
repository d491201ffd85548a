#include "format/hf_folder.h"

#include <algorithm>
#include <map>
#include <set>
#include <sstream>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json_depth.h"
#include "base/file.h"
#include "base/quote.h"

namespace bakestone {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMaxSmallFile = 16 << 20;  // config.json and its like
constexpr int64_t kMaxIndexFile = 256 << 20;
constexpr const char* kConfigName = "config.json";
constexpr const char* kTensorsName = "model.safetensors";
constexpr const char* kIndexName = "model.safetensors.index.json";

Json ParseObject(std::string_view text, const std::filesystem::path& path) {
  CheckJsonLevels(text, path.string());
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    Throw(ErrorCode::kCorrupt, "{}: expected a JSON object, found {}", path.string(),
          json.is_discarded() ? "text that is no JSON" : json.type_name());
  }
  return json;
}

const Json* FieldOf(const Json& object, std::string_view field) {
  const auto found = object.find(field);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

// A pickle file or another format's weights in the folder; empty where there is none.
std::string OtherWeights(const std::filesystem::path& folder) {
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string file = entry.path().filename().string(),
                      ext = entry.path().extension().string();
    if (ext == ".bin" || ext == ".pt" || ext == ".pth" || ext == ".ckpt" || ext == ".pkl") {
      return file;
    }
  }
  return "";
}

void RefuseQuantized(const std::string& file, const Json& config) {
  const Json* quantization = FieldOf(config, "quantization_config");
  if (quantization == nullptr) return;
  const Json* method = quantization->is_object() ? FieldOf(*quantization, "quant_method") : nullptr;
  if (method != nullptr && *method == "mxfp4") return;  // of experts, whose loader knows it
  Throw(ErrorCode::kUnsupported,
        "{}: field 'quantization_config': expected none, found {}: weights of this kind are not "
        "read; "
        "take the model's unquantized folder (and --quantize, if it is too large), or a GGUF file "
        "of it",
        file,
        method != nullptr && method->is_string() ? Quote(method->get<std::string>())
                                                 : "one without a name");
}

// Where the decoder's tensors begin in models that hold more; the longest first.
constexpr std::string_view kDecoderPrefixes[] = {"model.language_model.", "language_model.model.",
                                                 "model.text_model.", "language_model.", "model."};
// The same of encoders below a head.
constexpr std::string_view kEncoderPrefixes[] = {"roberta.", "model.", "bert."};

}  // namespace

struct HfFolder::Documents {
  Json config;
  std::map<std::string, Json, std::less<>> others;  // by file
};

HfFolder::HfFolder() : documents_(std::make_unique<Documents>()) {}
HfFolder::~HfFolder() = default;
HfFolder::HfFolder(HfFolder&&) noexcept = default;

bool HfFolder::IsOne(const std::filesystem::path& path) {
  return std::filesystem::is_directory(path);
}

HfFolder HfFolder::Open(const std::filesystem::path& path) {
  HfFolder folder;
  folder.path_ = path;
  folder.name_ = path.string();
  if (!std::filesystem::exists(path / kConfigName)) {
    Throw(ErrorCode::kNotFound,
          "{}: expected a folder with config.json, as Hugging Face's libraries save a model, or a "
          "GGUF file; "
          "found no config.json",
          folder.name_);
  }
  folder.ReadConfig(ReadFile(path / kConfigName, kMaxSmallFile));
  for (const char* file :
       {"generation_config.json", "tokenizer_config.json", "special_tokens_map.json"}) {
    if (!std::filesystem::exists(path / file)) continue;
    folder.documents_->others.emplace(
        file, ParseObject(ReadFile(path / file, kMaxSmallFile), path / file));
  }
  folder.OpenShards();
  folder.OpenModules();
  folder.NameTensors();
  return folder;
}

HfFolder HfFolder::Parse(std::string_view config, std::span<const uint8_t> tensors,
                         std::string name) {
  HfFolder folder;
  folder.path_ = name;
  folder.name_ = name;
  folder.ReadConfig(config);
  folder.shards_.push_back(SafetensorsFile::Parse(tensors, (folder.path_ / kTensorsName).string()));
  folder.NameTensors();
  return folder;
}

void HfFolder::ReadConfig(std::string_view text) {
  documents_->config = ParseObject(text, path_ / kConfigName);
  const std::string file = (path_ / kConfigName).string();
  RefuseQuantized(file, documents_->config);
  const Json* nested = FieldOf(documents_->config, "text_config");
  if (nested == nullptr) return;
  if (!nested->is_object()) {
    Throw(ErrorCode::kCorrupt, "{}: field 'text_config': expected an object, found {}", file,
          nested->type_name());
  }
  RefuseQuantized(file, *nested);
}

const Json* HfFolder::Config(std::string_view field) const {
  const Json& whole = documents_->config;
  const Json* text = FieldOf(whole, "text_config");
  const Json* found = text != nullptr ? FieldOf(*text, field) : nullptr;
  return found != nullptr ? found : FieldOf(whole, field);
}

bool HfFolder::Mentions(std::string_view field) const {
  const Json* text = FieldOf(documents_->config, "text_config");
  return documents_->config.contains(field) || (text != nullptr && text->contains(field));
}

const Json* HfFolder::Field(std::string_view file, std::string_view field) const {
  const auto found = documents_->others.find(file);
  return found == documents_->others.end() ? nullptr : FieldOf(found->second, field);
}

std::optional<std::string> HfFolder::Text(const char* file, int64_t max_bytes) const {
  if (!std::filesystem::exists(path_ / file)) return std::nullopt;
  return ReadFile(path_ / file, max_bytes);
}

std::optional<std::string> HfFolder::Licence() const {
  const std::optional<std::string> card = Text("README.md", kMaxSmallFile);
  if (!card || !card->starts_with("---")) return std::nullopt;
  std::istringstream lines(*card);
  std::string line;
  std::getline(lines, line);
  constexpr std::string_view kKey = "license:";
  while (std::getline(lines, line) && !line.starts_with("---")) {
    if (!line.starts_with(kKey)) continue;
    const size_t begin = line.find_first_not_of(" \t\"'", kKey.size());
    const size_t end = line.find_last_not_of(" \t\r\"'");
    if (begin == std::string::npos || end < begin) return std::nullopt;
    return line.substr(begin, end - begin + 1);
  }
  return std::nullopt;
}

const SafetensorsTensor* HfFolder::Find(std::string_view tensor_name) const {
  for (const HfTensor& tensor : module_tensors_) {
    if (tensor.name == tensor_name) return tensor.tensor;
  }
  const auto found = std::lower_bound(
      tensors_.begin(), tensors_.end(), tensor_name,
      [](const HfTensor& tensor, std::string_view name) { return tensor.name < name; });
  return found == tensors_.end() || found->name != tensor_name ? nullptr : found->tensor;
}

std::span<const SafetensorsFile> HfFolder::shards() const { return shards_; }

void HfFolder::OpenShards() {
  if (std::filesystem::exists(path_ / kTensorsName)) {
    shards_.push_back(SafetensorsFile::Open(path_ / kTensorsName));
    return;
  }
  const std::string index_file = (path_ / kIndexName).string();
  if (!std::filesystem::exists(path_ / kIndexName)) {
    const std::string other = OtherWeights(path_);
    if (!other.empty()) {
      Throw(ErrorCode::kUnsupported,
            "{}: expected {}, found {}: a pickle, which runs its author's code when it is read; "
            "take the "
            "model's safetensors, or convert it where that code may run: "
            "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(other, "
            "safe_serialization=True)",
            name_, kTensorsName, Quote(other));
    }
    Throw(ErrorCode::kNotFound, "{}: expected {} or {}, found neither", name_, kTensorsName,
          kIndexName);
  }
  const Json index = ParseObject(ReadFile(path_ / kIndexName, kMaxIndexFile), path_ / kIndexName);
  const Json* map = FieldOf(index, "weight_map");
  if (map == nullptr || !map->is_object() || map->empty()) {
    Throw(ErrorCode::kCorrupt, "{}: field 'weight_map': expected an object of file names",
          index_file);
  }
  std::set<std::string> files;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string()) {
      Throw(ErrorCode::kCorrupt, "{}: weight_map[{}]: expected a file's name, found {}", index_file,
            Quote(tensor), file.type_name());
    }
    files.insert(file.get<std::string>());
  }
  for (const std::string& file : files) {
    if (file.empty() || file.find('/') != std::string::npos ||
        file.find('\\') != std::string::npos) {
      Throw(ErrorCode::kCorrupt, "{}: weight_map: expected names of files beside it, found {}",
            index_file, Quote(file));
    }
    if (!std::filesystem::exists(path_ / file)) {
      Throw(ErrorCode::kNotFound,
            "{}: weight_map names the shard {}, which is not there: {} of {} shards "
            "are; download it again",
            index_file, Quote(file),
            std::count_if(files.begin(), files.end(),
                          [&](const std::string& f) { return std::filesystem::exists(path_ / f); }),
            files.size());
    }
    shards_.push_back(SafetensorsFile::Open(path_ / file));
  }
  for (const auto& [tensor, file] : map->items()) {
    const std::string shard = (path_ / file.get<std::string>()).string();
    const auto found = std::find_if(shards_.begin(), shards_.end(),
                                    [&](const SafetensorsFile& s) { return s.name() == shard; });
    if (found == shards_.end() || found->Find(tensor) == nullptr) {
      Throw(ErrorCode::kCorrupt, "{}: weight_map[{}]: expected in {}, found no such tensor there",
            index_file, Quote(tensor), Quote(file.get<std::string>()));
    }
  }
}

void HfFolder::OpenModules() {
  const std::string file = (path_ / "modules.json").string();
  const std::optional<std::string> text = Text("modules.json", kMaxSmallFile);
  if (!text) return;
  CheckJsonLevels(*text, file);
  const Json list = Json::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (!list.is_array()) Throw(ErrorCode::kCorrupt, "{}: expected a list of modules", file);
  for (const Json& one : list) {
    const Json type = one.is_object() ? one.value("type", Json()) : Json();
    const Json path = one.is_object() ? one.value("path", Json()) : Json();
    if (!type.is_string() || !path.is_string()) {
      Throw(ErrorCode::kCorrupt, "{}: expected modules with a type and a path, found {}", file,
            Quote(one.dump(-1, ' ', true, Json::error_handler_t::replace)));
    }
    const std::string whole = type.get<std::string>(), name = path.get<std::string>();
    if (name.find_first_of("/\\") != std::string::npos || name == "..") {
      Throw(ErrorCode::kCorrupt, "{}: expected paths of folders beside it, found {}", file,
            Quote(name));
    }
    modules_.push_back({whole.substr(whole.rfind('.') + 1), name});
  }
  num_model_shards_ = shards_.size();
  std::vector<std::string> of_shards;
  for (const HfModule& module : modules_) {
    const std::filesystem::path tensors = path_ / module.path / kTensorsName;
    if (module.type != "Dense" || !std::filesystem::exists(tensors)) continue;
    shards_.push_back(SafetensorsFile::Open(tensors));
    of_shards.push_back(module.path);
  }
  for (size_t i = 0; i < of_shards.size(); ++i) {
    for (const SafetensorsTensor& tensor : shards_[*num_model_shards_ + i].tensors()) {
      module_tensors_.push_back(
          {.name = "module:" + of_shards[i] + "." + tensor.name, .tensor = &tensor});
    }
  }
}

// Brings the decoder's tensors to the names that a text-only model has.
void HfFolder::NameTensors() {
  std::string_view prefix;
  bool has_head_beside = false;
  for (const SafetensorsFile& shard : ModelShards()) {
    for (const SafetensorsTensor& tensor : shard.tensors()) {
      for (const std::string_view candidate : kDecoderPrefixes) {
        if (!tensor.name.starts_with(candidate) || candidate.size() <= prefix.size()) continue;
        const std::string_view rest = std::string_view(tensor.name).substr(candidate.size());
        if (rest.starts_with("embed_tokens.") || rest == "embeddings.weight") prefix = candidate;
      }
      for (const std::string_view candidate : kEncoderPrefixes) {
        if (!tensor.name.starts_with(candidate)) continue;
        if (tensor.name.compare(candidate.size(), 11, "embeddings.") == 0) prefix = candidate;
      }
      has_head_beside = has_head_beside || tensor.name.starts_with("language_model.lm_head.");
    }
  }
  for (const SafetensorsFile& shard : ModelShards()) {
    for (const SafetensorsTensor& tensor : shard.tensors()) {
      HfTensor named{.name = tensor.name, .tensor = &tensor};
      if (!prefix.empty() && tensor.name.starts_with(prefix)) {
        named.name = "model." + tensor.name.substr(prefix.size());
      } else if (has_head_beside && tensor.name.starts_with("language_model.lm_head.")) {
        named.name = tensor.name.substr(sizeof "language_model." - 1);
      } else if (prefix.empty() && !tensor.name.starts_with("lm_head.")) {
        named.name = "model." + tensor.name;  // saved without its head: "embed_tokens.weight"
      }
      tensors_.push_back(std::move(named));
    }
  }
  std::sort(tensors_.begin(), tensors_.end(),
            [](const HfTensor& a, const HfTensor& b) { return a.name < b.name; });
  for (size_t i = 1; i < tensors_.size(); ++i) {
    if (tensors_[i].name != tensors_[i - 1].name) continue;
    Throw(ErrorCode::kCorrupt, "{}: tensor {}: expected once, found in two shards", name_,
          Quote(tensors_[i].name));
  }
}

}  // namespace bakestone
