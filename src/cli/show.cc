// bakestone show MODEL: architecture, types, licence, context, and the memory it will need.
#include <cstdio>
#include <functional>
#include <map>
#include <numeric>
#include <optional>
#include <utility>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "cli/environment.h"
#include "cli/flags.h"
#include "cli/verbs.h"
#include "convert/gguf_keys.h"
#include "convert/hf_config_writer.h"
#include "format/gguf.h"
#include "format/hf_folder.h"
#include "model/config.h"
#include "model/families/families.h"
#include "model/model_file.h"
#include "model/sequence_state.h"
#include "store/licence.h"

namespace bakestone::cli {
namespace {

using Json = nlohmann::ordered_json;

// The tokenizer's kind and pre-tokenizer as the format names them.
std::pair<std::string, std::string> TokenizerNames(const ModelFile& file) {
  if (file.gguf() != nullptr) {
    return {std::string(file.gguf()->GetString("tokenizer.ggml.model", "")),
            std::string(file.gguf()->GetString("tokenizer.ggml.pre", ""))};
  }
  const nlohmann::json* found = file.folder()->Field("tokenizer_config.json", "tokenizer_class");
  return {found != nullptr && found->is_string() ? found->get<std::string>() : "tokenizer.json",
          ""};
}

Json Describe(const ModelFile& file) {
  const ModelConfig config = file.Config();
  std::map<std::string, int64_t> types;
  int64_t parameters = 0;
  const TensorSource tensors = file.Tensors();
  for (const StoredTensor& tensor : tensors.tensors()) {
    ++types[std::string(tensor.type_name)];
    parameters +=
        std::accumulate(tensor.shape.begin(), tensor.shape.end(), int64_t{1}, std::multiplies<>());
  }
  const std::optional<std::string> licence = file.Licence();
  const Licence parsed = ParseLicence(licence);
  const int64_t weights = file.bytes();
  const auto [tokenizer, pre_tokenizer] = TokenizerNames(file);
  const std::string untrained = TrainingLacks(config);
  const auto kv_bytes = [&](KvType type) { return KvPageBytes(config, type) / kPageTokens; };
  const int64_t kv_token = kv_bytes(KvType::kBf16), states = 2 * LayerStateBytes(config);
  return {
      {"file", file.name()},
      {"name", config.name},
      {"architecture", config.architecture},
      {"parameters", parameters},
      {"layers", config.num_layers},
      {"hidden", config.hidden_dim},
      {"feed_forward", config.ffn_dim},
      {"heads", config.num_heads},
      {"kv_heads", config.num_kv_heads},
      {"head_dim", config.head_dim},
      {"vocabulary", config.vocab_size},
      {"tied_embedding", config.tied_embedding},
      {"context", config.context_length},
      {"rope_theta", config.rope.theta},
      {"tensor_types", types},
      {"tokenizer", tokenizer},
      {"pre_tokenizer", pre_tokenizer},
      {"chat_template", file.ChatTemplate().has_value()},
      {"trainable", untrained.empty()},
      {"training_lacks", untrained},
      {"licence", parsed.id},
      {"licence_kind", LicenceKindName(parsed.kind)},
      {"format",
       file.gguf() != nullptr ? fmt::format("GGUF {}", file.gguf()->version()) : "Hugging Face"},
      {"gguf_version", file.gguf() != nullptr ? Json(file.gguf()->version()) : Json()},
      {"file_bytes", weights},
      {"kv_bytes_per_token", kv_token},
      {"kv_bytes_per_token_by_type",
       {{"bf16", kv_token}, {"f16", kv_bytes(KvType::kF16)}, {"q8_0", kv_bytes(KvType::kQ8_0)}}},
      {"state_bytes_per_sequence", states},
      {"memory_bytes_4096", weights + weights / 20 + 4096 * kv_token + states},
      {"memory_bytes_full_context",
       weights + weights / 20 + config.context_length * kv_token + states}};
}

void Print(const Json& model) {
  const auto gigabytes = [&](const char* key) {
    return static_cast<double>(model[key].get<int64_t>()) * 1e-9;
  };
  std::string types;
  for (const auto& [type, count] : model["tensor_types"].items()) {
    types += fmt::format("{}{} x {}", types.empty() ? "" : ", ", type, count.get<int64_t>());
  }
  const auto text = [&](const char* key) { return model[key].get<std::string>(); };
  const auto number = [&](const char* key) { return model[key].get<int64_t>(); };
  fmt::print("name           {}\n", text("name"));
  fmt::print("file           {} ({:.1f} MB, {})\n", text("file"), gigabytes("file_bytes") * 1e3,
             text("format"));
  fmt::print(
      "architecture   {}: {} layers, {} wide, feed-forward {}, {} heads of {} ({} for keys and "
      "values)\n",
      text("architecture"), number("layers"), number("hidden"), number("feed_forward"),
      number("heads"), number("head_dim"), number("kv_heads"));
  fmt::print("parameters     {:.1f} million{}\n", static_cast<double>(number("parameters")) * 1e-6,
             model["tied_embedding"].get<bool>() ? ", embedding tied to the head" : "");
  fmt::print("tensor types   {}\n", types);
  const std::string pre = text("pre_tokenizer");
  fmt::print("tokenizer      {}{}, {} rows, {}\n", text("tokenizer"),
             pre.empty() ? "" : " (" + pre + ")", number("vocabulary"),
             model["chat_template"].get<bool>() ? "with a chat template" : "no chat template");
  fmt::print("context        {} tokens\n", number("context"));
  if (!model["trainable"].get<bool>()) {
    fmt::print("training       not supported: it lacks {}\n", text("training_lacks"));
  }
  fmt::print("licence        {} ({})\n", text("licence"), text("licence_kind"));
  if (text("licence_kind") != "permissive" && text("licence_kind") != "public domain") {
    fmt::print("               warning: find out what it allows before you build on it\n");
  }
  fmt::print("memory         {:.2f} GB with a context of 4,096 tokens, {:.2f} GB with all {}\n",
             gigabytes("memory_bytes_4096"), gigabytes("memory_bytes_full_context"),
             number("context"));
  const Json& by_type = model["kv_bytes_per_token_by_type"];
  fmt::print("keys, values   {} bytes a token in bf16 or f16, {} in q8_0 (--kv-type)\n",
             by_type["bf16"].get<int64_t>(), by_type["q8_0"].get<int64_t>());
  if (number("state_bytes_per_sequence") > 0) {
    fmt::print("states         {} bytes a sequence, of layers without keys and values\n",
               number("state_bytes_per_sequence"));
  }
}

Json DescribeFamilies() {
  Json families = Json::array();
  for (const Family& family : Families()) {
    const ModelConfig typical = TypicalConfig(family);
    const std::string lacks = TrainingLacks(typical);
    const std::string in_gguf = LostInGguf(typical).value_or(""),
                      in_folder = LostInFolder(typical).value_or("");
    Json types = Json::array();
    for (const std::string_view type : family.hf_types) {
      if (!type.empty()) types.push_back(type);
    }
    families.push_back(
        {{"architecture", family.architecture},
         {"model_types", types},
         {"models", family.models},
         {"run", true},
         {"quantize", in_gguf.empty() ? Json::array({"GGUF", "folder"}) : Json::array({"GGUF"})},
         {"lost_in_gguf", in_gguf},
         {"to_folder", in_folder.empty()},
         {"lost_in_folder", in_folder},
         {"train", lacks.empty()},
         {"train_whole",
          lacks.empty() && FrozenPart(typical) == nullptr && typical.has_pre_norms()},
         {"training_lacks", lacks}});
  }
  return families;
}

void PrintFamilies(bool json) {
  const Json families = DescribeFamilies();
  if (json) {
    fmt::print("{}\n", families.dump(2));
    return;
  }
  fmt::print("{:<16} {:<4} {:<6} {:<9} {:<10} {}\n", "family", "run", "train", "quantize",
             "to folder", "models");
  for (const Json& family : families) {
    const auto yes = [&](const char* what) { return family[what].get<bool>() ? "yes" : "no"; };
    const char* train =
        family["train"].get<bool>() && !family["train_whole"].get<bool>() ? "pairs" : yes("train");
    fmt::print("{:<16} {:<4} {:<6} {:<9} {:<10} {}\n", family["architecture"].get<std::string>(),
               yes("run"), train, family["quantize"].size() > 1 ? "yes" : "from GGUF",
               yes("to_folder"), family["models"].get<std::string>());
  }
  fmt::print(
      "\nEach runs as GGUF and as a Hugging Face folder; \"from GGUF\": a folder of it cannot be "
      "quantized or\n"
      "written as GGUF yet. \"to folder\": a GGUF file of it can be written as a folder. "
      "\"pairs\": LoRA and rsLoRA,\n"
      "not the whole model. Why not: --json.\n");
}

}  // namespace

int Show(const Arguments& arguments) {
  std::optional<std::string> model_name;
  bool json = false, families = false;
  Flags flags("show", "What a model file is: architecture, types, licence, context, memory.",
              "bakestone show smollm2-135m-instruct");
  flags.OptionalPositional(
      "MODEL", &model_name,
      "A GGUF file, a Hugging Face folder, or the name of one in the home folder");
  flags.Add("--json", &json, "Print one JSON object");
  flags.Add("--families", &families,
            "List the families of models that are known, and what works with each");
  flags.Parse(arguments);
  if (families) {
    PrintFamilies(json);
    return 0;
  }
  if (!model_name) throw UsageError("show: expected MODEL, or --families");
  const Json model = Describe(ModelFile::Open(ResolveModel(*model_name)));
  if (json) {
    fmt::print("{}\n", model.dump(2));
  } else {
    Print(model);
  }
  return 0;
}

}  // namespace bakestone::cli
