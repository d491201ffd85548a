// bakestone show MODEL: architecture, types, licence, context, and the memory it will need.
#include <cstdio>
#include <map>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "cli/environment.h"
#include "cli/flags.h"
#include "cli/verbs.h"
#include "format/gguf.h"
#include "model/config.h"
#include "model/sequence_state.h"
#include "store/licence.h"

namespace bakestone::cli {
namespace {

using Json = nlohmann::ordered_json;

Json Describe(const GgufFile& file) {
  const ModelConfig config = ReadConfig(file);
  std::map<std::string, int64_t> types;
  int64_t parameters = 0;
  for (const GgufTensor& tensor : file.tensors()) {
    ++types[DTypeName(tensor.type)];
    parameters += tensor.elements();
  }
  std::optional<std::string_view> licence;
  if (file.Has("general.license")) licence = file.GetString("general.license");
  const Licence parsed = ParseLicence(licence);
  const auto weights = static_cast<int64_t>(file.bytes().size());
  const auto kv_bytes = [&](KvType type) { return KvPageBytes(config, type) / kPageTokens; };
  const int64_t kv_token = kv_bytes(KvType::kBf16);
  return {{"file", file.name()},
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
          {"tokenizer", file.GetString("tokenizer.ggml.model", "")},
          {"pre_tokenizer", file.GetString("tokenizer.ggml.pre", "")},
          {"chat_template", file.Has("tokenizer.chat_template")},
          {"licence", parsed.id},
          {"licence_kind", LicenceKindName(parsed.kind)},
          {"gguf_version", file.version()},
          {"file_bytes", weights},
          {"kv_bytes_per_token", kv_token},
          {"kv_bytes_per_token_by_type",
           {{"bf16", kv_token}, {"f16", kv_bytes(KvType::kF16)}, {"q8_0", kv_bytes(KvType::kQ8_0)}}},
          {"memory_bytes_4096", weights + weights / 20 + 4096 * kv_token},
          {"memory_bytes_full_context", weights + weights / 20 + config.context_length * kv_token}};
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
  fmt::print("file           {} ({:.1f} MB, GGUF {})\n", text("file"), gigabytes("file_bytes") * 1e3,
             number("gguf_version"));
  fmt::print("architecture   {}: {} layers, {} wide, feed-forward {}, {} heads of {} ({} for keys and "
             "values)\n", text("architecture"), number("layers"), number("hidden"),
             number("feed_forward"), number("heads"), number("head_dim"), number("kv_heads"));
  fmt::print("parameters     {:.1f} million{}\n", static_cast<double>(number("parameters")) * 1e-6,
             model["tied_embedding"].get<bool>() ? ", embedding tied to the head" : "");
  fmt::print("tensor types   {}\n", types);
  fmt::print("tokenizer      {} ({}), {} tokens, {}\n", text("tokenizer"), text("pre_tokenizer"),
             number("vocabulary"),
             model["chat_template"].get<bool>() ? "with a chat template" : "no chat template");
  fmt::print("context        {} tokens\n", number("context"));
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
}

}  // namespace

int Show(const Arguments& arguments) {
  std::string model_name;
  bool json = false;
  Flags flags("show", "What a model file is: architecture, types, licence, context, memory.",
              "bakestone show smollm2-135m-instruct");
  flags.Positional("MODEL", &model_name, "A GGUF file, or the name of one in the home folder");
  flags.Add("--json", &json, "Print one JSON object");
  flags.Parse(arguments);
  const GgufFile file = GgufFile::Open(ResolveModel(model_name));
  const Json model = Describe(file);
  if (json) {
    fmt::print("{}\n", model.dump(2));
  } else {
    Print(model);
  }
  return 0;
}

}  // namespace bakestone::cli
