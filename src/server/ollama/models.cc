#include "server/ollama/models.h"

#include <chrono>
#include <ctime>
#include <filesystem>
#include <utility>

#include <fmt/format.h>

#include "server/api/answer.h"
#include "server/api/api_error.h"
#include "tensor/dtype.h"

namespace bakestone::ollama {
namespace {

using api::Fields;
using api::Json;

// The version of Ollama whose API this is: editors refuse servers that say less than they need.
constexpr const char* kApiVersion = "0.13.0";
constexpr std::string_view kLatest = ":latest";

std::string FormatTime(std::chrono::system_clock::time_point time) {
  const auto since = time.time_since_epoch();
  const std::time_t seconds = std::chrono::duration_cast<std::chrono::seconds>(since).count();
  const int64_t micros =
      std::chrono::duration_cast<std::chrono::microseconds>(since).count() % 1'000'000;
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z", parts.tm_year + 1900,
                     parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec,
                     micros);
}

int64_t CountParameters(const Model& model) {
  int64_t count = (1 + 2 * model.config.num_layers) * model.config.hidden_dim;  // of norms
  model.weights->ForEach([&](const Weight& matrix) { count += matrix.n() * matrix.k(); });
  return count;
}

std::string HumanCount(int64_t count) {
  const double number = static_cast<double>(count);
  return number >= 1e9 ? fmt::format("{:.1f}B", number * 1e-9)
                       : fmt::format("{:.2f}M", number * 1e-6);
}

std::string Digest(const api::ModelEntry& entry) {
  if (entry.served.parent.empty()) return ToHex(entry.model().file_hash);
  Sha256 hash;
  hash.Update(entry.model().file_hash);
  hash.Update(entry.adapter_hash);
  return ToHex(hash.Finish());
}

Json Details(const api::ModelEntry& entry) {
  const Model& model = entry.model();
  return {{"parent_model", entry.served.parent},
          {"format", "gguf"},
          {"family", model.config.architecture},
          {"families", Json::array({model.config.architecture})},
          {"parameter_size", HumanCount(CountParameters(model))},
          {"quantization_level", DTypeName(model.weights->layers.front().down.disk_type())}};
}

Json ListEntry(const api::ModelEntry& entry) {
  const std::chrono::system_clock::time_point created{std::chrono::seconds(entry.created)};
  return {{"name", entry.served.id},
          {"model", entry.served.id},
          {"modified_at", FormatTime(created)},
          {"size", entry.model().weights->bytes()},
          {"digest", Digest(entry)},
          {"details", Details(entry)}};
}

Json ModelInfo(const Model& model) {
  const ModelConfig& config = model.config;
  const std::string& arch = config.architecture;
  return {{"general.architecture", arch},
          {"general.basename", config.name},
          {"general.parameter_count", CountParameters(model)},
          {arch + ".context_length", config.context_length},
          {arch + ".embedding_length", config.hidden_dim},
          {arch + ".block_count", config.num_layers},
          {arch + ".feed_forward_length", config.ffn_dim},
          {arch + ".attention.head_count", config.num_heads},
          {arch + ".attention.head_count_kv", config.num_kv_heads},
          {arch + ".rope.freq_base", config.rope.theta},
          {arch + ".vocab_size", config.vocab_size}};
}

Json Capabilities(const api::ModelEntry& entry) {
  if (entry.embeds()) return Json::array({"embedding"});
  Json capabilities = Json::array({"completion"});
  if (!entry.chat) return capabilities;
  const dialog::ReplyFormat& format = entry.chat->traits.format;
  if (format.calls.shape != dialog::CallShape::kNone) capabilities.push_back("tools");
  if (format.reasoning.present() || format.calls.shape == dialog::CallShape::kHarmony) {
    capabilities.push_back("thinking");
  }
  return capabilities;
}

void SendJson(http::Responder& responder, const Json& json) {
  responder.Send({.headers = {}, .body = api::Dump(json)});
}

}  // namespace

std::string Timestamp() { return FormatTime(std::chrono::system_clock::now()); }

std::string ServedName(const api::Context& context, const std::string& name) {
  const bool tagged = !context.models->Has(name) && name.ends_with(kLatest);
  return tagged ? name.substr(0, name.size() - kLatest.size()) : name;
}

void HandleTags(const api::Context& context, const http::Request& request,
                std::shared_ptr<http::Responder> responder) {
  Json models = Json::array();
  for (const api::ModelPtr& entry : context.List(request)) models.push_back(ListEntry(*entry));
  SendJson(*responder, {{"models", std::move(models)}});
}

void HandlePs(const api::Context& context, const http::Request& request,
              std::shared_ptr<http::Responder> responder) {
  Json models = Json::array();
  for (const api::ModelPtr& entry : context.List(request)) {
    Json json = ListEntry(*entry);
    json.erase("modified_at");
    json["expires_at"] = "2999-12-31T00:00:00Z";  // what is served stays
    json["size_vram"] = 0;
    json["context_length"] = entry->loop().max_context();
    models.push_back(std::move(json));
  }
  SendJson(*responder, {{"models", std::move(models)}});
}

void HandleShow(const api::Context& context, const http::Request& request,
                std::shared_ptr<http::Responder> responder) {
  const Json body = api::ParseBody(request.body);
  Fields fields(body);
  const auto name = fields.String("model"), older = fields.String("name");
  if (!name && !older) fields.Bad("model", "this field is required");
  fields.Bool("verbose");  // these do not change the answer
  fields.String("system");
  fields.String("template");
  fields.Object("options");
  fields.Finish();
  const api::ModelPtr entry =
      context.SelectAny(request, ServedName(context, name ? *name : *older));
  const Model& model = entry->model();
  SendJson(*responder, {{"license", model.licence.value_or("")},
                        {"modelfile", ""},
                        {"parameters", ""},
                        {"template", model.chat_template ? model.chat_template->source() : ""},
                        {"details", Details(*entry)},
                        {"model_info", ModelInfo(model)},
                        {"capabilities", Capabilities(*entry)},
                        {"modified_at", ListEntry(*entry)["modified_at"]}});
}

void HandleVersion(const api::Context&, const http::Request&,
                   std::shared_ptr<http::Responder> responder) {
  SendJson(*responder, {{"version", kApiVersion}});
}

}  // namespace bakestone::ollama
