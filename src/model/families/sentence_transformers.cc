// What follows an encoder, as sentence-transformers lays it beside the model, or GGUF's keys and
// tensors say it:
//
//   modules.json         [{"idx", "name", "path": "2_Dense", "type":
//                        "sentence_transformers.models.Dense"}, ...]
//   1_Pooling/config.json  {"pooling_mode_mean_tokens": true, ...}, or {"pooling_mode": "mean"}
//   2_Dense/config.json    {"in_features", "out_features", "bias", "activation_function":
//                          "torch.nn.modules.linear.Identity"}
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json_depth.h"
#include "base/quote.h"
#include "model/families/families.h"

namespace bakestone {
namespace {

using Json = nlohmann::json;

Json ParseFile(const ConfigReader& in, const std::string& file) {
  const auto text = in.File(file.c_str());
  CheckJsonLevels(text, in.file() + ": " + file);
  return Json::parse(text, nullptr, false);
}

// The first module of a kind, or where it lies by custom.
std::string PathOf(const ConfigReader& in, std::string_view type, const char* custom) {
  for (const ConfigReader::Module& module : in.Modules()) {
    if (module.type == type) return module.path;
  }
  return custom;
}

Pooling PoolingOfFolder(const ConfigReader& in, const std::string& file, const Json& json) {
  constexpr std::pair<const char*, Pooling> kModes[] = {
      {"mean", Pooling::kMean}, {"cls", Pooling::kFirst}, {"lasttoken", Pooling::kLast}};
  constexpr std::pair<const char*, Pooling> kFlags[] = {
      {"pooling_mode_mean_tokens", Pooling::kMean},
      {"pooling_mode_cls_token", Pooling::kFirst},
      {"pooling_mode_lasttoken", Pooling::kLast}};
  const auto refuse = [&](const std::string& found) {
    Throw(ErrorCode::kUnsupported, "{}: {}: expected mean, cls or lasttoken, found {}", in.file(),
          file, Quote(found));
  };
  if (const auto mode = json.find("pooling_mode"); mode != json.end() && mode->is_string()) {
    for (const auto& [name, pooling] : kModes) {
      if (*mode == name) return pooling;
    }
    refuse(mode->get<std::string>());
  }
  for (const auto& [name, pooling] : kFlags) {
    if (json.value(name, Json()) == true) return pooling;
  }
  for (const auto& [name, value] : json.items()) {
    if (name.starts_with("pooling_mode_") && value == true) refuse(name);
  }
  return Pooling::kMean;
}

Pooling PoolingOf(const ConfigReader& in) {
  if (in.is_hf()) {
    const std::string file = PathOf(in, "Pooling", "1_Pooling") + "/config.json";
    const Json json = ParseFile(in, file);
    return json.is_object() ? PoolingOfFolder(in, file, json) : Pooling::kMean;
  }
  // 4: of files that score; for vectors they say nothing.
  const Field field = {"pooling_type", nullptr};
  const double type = in.Number(field).value_or(1);
  if (type == 1) return Pooling::kMean;
  if (type == 2 || type == 4) return Pooling::kFirst;
  if (type == 3) return Pooling::kLast;
  Throw(ErrorCode::kUnsupported,
        "{}: {}: expected 1 (mean), 2 (first), 3 (last) or 4 (scores), found {}", in.file(),
        in.Spelled(field), type);
}

std::vector<DenseConfig> DenseOf(const ConfigReader& in) {
  std::vector<DenseConfig> layers;
  if (!in.is_hf()) {
    for (const char* name : {"dense_2", "dense_3"}) {
      if (!in.HasTensor(std::string(name) + ".weight")) continue;
      const int64_t width = in.VocabularyRows(name);
      if (width < 1 || width > kMaxWidth) {
        Throw(ErrorCode::kCorrupt, "{}: tensor '{}.weight': expected 1 to {} rows, found {}",
              in.file(), name, kMaxWidth, width);
      }
      layers.push_back({.tensor = name, .width = width});
    }
    return layers;
  }
  for (const ConfigReader::Module& module : in.Modules()) {
    if (module.type == "Transformer" || module.type == "Pooling" || module.type == "Normalize") {
      continue;
    }
    if (module.type != "Dense") {
      Throw(ErrorCode::kUnsupported,
            "{}: modules.json: expected Transformer, Pooling, Dense and Normalize, found {}",
            in.file(), Quote(module.type));
    }
    const std::string file = module.path + "/config.json";
    const Json json = ParseFile(in, file);
    const Json width = json.is_object() ? json.value("out_features", Json()) : Json();
    const uint64_t out = width.is_number_unsigned() ? width.get<uint64_t>() : 0;
    if (out < 1 || out > static_cast<uint64_t>(kMaxWidth)) {
      Throw(ErrorCode::kCorrupt, "{}: {}: out_features: expected a number from 1 to {}, found {}",
            in.file(), file, kMaxWidth,
            Quote(width.dump(-1, ' ', true, Json::error_handler_t::replace)));
    }
    const Json activation =
        json.value("activation_function", Json("torch.nn.modules.activation.Tanh"));
    const std::string name = activation.is_string() ? activation.get<std::string>() : "";
    if (!name.ends_with(".Identity") && !name.ends_with(".Tanh")) {
      Throw(ErrorCode::kUnsupported,
            "{}: {}: activation_function: expected Identity or Tanh, found {}", in.file(), file,
            Quote(name));
    }
    const std::string tensor = "module:" + module.path + ".linear";
    if (!in.HasTensor(tensor + ".weight")) {
      Throw(ErrorCode::kNotFound,
            "{}: modules.json: expected model.safetensors in {} with the tensor linear.weight, "
            "found none",
            in.file(), Quote(module.path));
    }
    layers.push_back(
        {.tensor = tensor, .width = static_cast<int64_t>(out), .tanh = name.ends_with(".Tanh")});
  }
  return layers;
}

}  // namespace

void ReadPooling(const ConfigReader& in, ModelConfig& config) {
  config.encoder.pooling = PoolingOf(in);
  config.encoder.dense = DenseOf(in);
}

}  // namespace bakestone
