#include "server/openai/service.h"

#include <algorithm>
#include <chrono>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "base/log.h"
#include "server/openai/answer.h"
#include "server/openai/api_error.h"
#include "server/openai/chat.h"
#include "server/openai/completions.h"

namespace bakestone::openai {
namespace {

constexpr std::string_view kModelsPrefix = "/v1/models/";

std::string FingerprintOf(const ServedModel& served) {
  Sha256 hash;
  hash.Update(served.engine->model().file_hash);
  if (served.adapter) hash.Update(served.adapter->hash());
  return "bs-" + ToHex(hash.Finish()).substr(0, 16);
}

void SendJson(http::Responder& responder, const Json& json, int status = 200) {
  responder.Send({.status = status, .headers = {}, .body = Dump(json)});
}

int RetryAfter(const EngineMetrics& metrics) {
  // About how long until a few of those that wait are done, from what was finished so far.
  const double each = metrics.finished > 0 ? metrics.busy_seconds / static_cast<double>(metrics.finished) : 1;
  return static_cast<int>(std::clamp(each * static_cast<double>(metrics.waiting) / 4, 1.0, 60.0));
}

}  // namespace

Service::Service(std::vector<ServedModel> models, std::chrono::seconds stuck_after)
    : stuck_after_(stuck_after),
      created_(std::chrono::duration_cast<std::chrono::seconds>(
                   std::chrono::system_clock::now().time_since_epoch())
                   .count()) {
  if (models.empty()) Throw(ErrorCode::kInvalidArgument, "a server needs at least one model");
  std::set<std::string> names;
  for (ServedModel& model : models) {
    BAKESTONE_CHECK(model.engine != nullptr);
    if (model.id.empty() || !names.insert(model.id).second) {
      Throw(ErrorCode::kInvalidArgument, "served models need different names, found '{}' twice or empty", model.id);
    }
    if (std::find(engines_.begin(), engines_.end(), model.engine.get()) == engines_.end()) {
      engines_.push_back(model.engine.get());
    }
    std::string fingerprint = FingerprintOf(model);
    entries_.push_back({std::move(model), std::move(fingerprint)});
  }
}

void Service::Handle(const http::Request& request, std::shared_ptr<http::Responder> responder) const {
  try {
    Dispatch(request, responder);
  } catch (const ApiError& error) {
    responder->Send(ToResponse(error));
  } catch (const Error& error) {
    ApiError api = FromError(error);
    const bool draining = std::any_of(engines_.begin(), engines_.end(), [](Engine* e) { return e->Draining(); });
    if (error.code() == ErrorCode::kUnavailable && !draining) {
      api.status = 429;
      api.code = "queue_full";
      api.retry_after = RetryAfter(engines_.front()->Metrics());
    }
    if (api.status >= 500) LogWarning("{} {}: {}", request.method, request.path, error.what());
    responder->Send(ToResponse(api));
  } catch (const std::exception& error) {
    LogError("{} {}: {}", request.method, request.path, error.what());
    ApiError api;
    api.status = 500;
    api.message = "the server failed on this request; its log says why";
    api.code = "internal_error";
    responder->Send(ToResponse(api));
  }
}

void Service::Dispatch(const http::Request& request, std::shared_ptr<http::Responder> responder) const {
  struct Known {
    const char *method, *path;
    Route route;
  };
  static constexpr Known kRoutes[] = {
      {"GET", "/v1/models", &Service::Models},
      {"POST", "/v1/chat/completions", &Service::Chat},
      {"POST", "/v1/completions", &Service::Completions},
      {"GET", "/health", &Service::Health},
      {"GET", "/tokenizer_info", &Service::TokenizerInfo},
      {"POST", "/tokenize", &Service::Tokenize},
      {"POST", "/detokenize", &Service::Detokenize},
  };
  for (const Known& known : kRoutes) {
    if (request.path != known.path) continue;
    if (request.method == known.method) return (this->*known.route)(request, std::move(responder));
    Fail(405, fmt::format("{} expects {}, not {}", known.path, known.method, request.method), "method_not_allowed");
  }
  if (request.path.starts_with(kModelsPrefix)) {
    if (request.method != "GET") Fail(405, "models can only be read", "method_not_allowed");
    return OneModel(request.path.substr(kModelsPrefix.size()), std::move(responder));
  }
  Fail(404, fmt::format("there is nothing at {}; see /v1/models, /v1/chat/completions, /v1/completions, /health",
                        request.path), "not_found");
}

Json Service::ModelJson(const Entry& entry) const {
  Json json;
  json["id"] = entry.served.id;
  json["object"] = "model";
  json["created"] = created_;
  json["owned_by"] = "local";
  json["parent"] = entry.served.parent.empty() ? Json(nullptr) : Json(entry.served.parent);
  json["max_model_len"] = entry.served.engine->max_context();
  json["fingerprint"] = entry.fingerprint;
  return json;
}

void Service::Models(const http::Request&, std::shared_ptr<http::Responder> responder) const {
  Json data = Json::array();
  for (const Entry& entry : entries_) data.push_back(ModelJson(entry));
  SendJson(*responder, {{"object", "list"}, {"data", std::move(data)}});
}

void Service::OneModel(const std::string& id, std::shared_ptr<http::Responder> responder) const {
  SendJson(*responder, ModelJson(Select(id)));
}

const Service::Entry& Service::Select(const std::string& id) const {
  for (const Entry& entry : entries_) {
    if (entry.served.id == id) return entry;
  }
  ApiError error;
  error.status = 404;
  error.message = fmt::format("the model '{}' does not exist here; /v1/models lists those that do",
                              id.substr(0, 200));
  error.param = "model";
  error.code = "model_not_found";
  throw error;
}

const Service::Entry& Service::SelectOptional(const Json& body) const {
  const auto id = Fields(body).String("model");
  return id ? Select(*id) : entries_.front();
}

void Service::RefuseWhenFull() const {
  for (Engine* engine : engines_) {
    if (!engine->Draining() && !engine->QueueFull()) return;
  }
  ApiError error;
  const bool draining = engines_.front()->Draining();
  error.status = draining ? 503 : 429;
  error.message = draining ? "the server is shutting down" : "too many requests are waiting; try again later";
  error.code = draining ? "unavailable" : "queue_full";
  error.retry_after = draining ? 5 : RetryAfter(engines_.front()->Metrics());
  throw error;
}

void Service::Chat(const http::Request& request, std::shared_ptr<http::Responder> responder) const {
  RefuseWhenFull();
  const Json body = ParseBody(request.body);
  const Entry& entry = Select(Fields(body).RequiredString("model"));
  HandleChat(entry.served, entry.fingerprint, body, request, std::move(responder));
}

void Service::Completions(const http::Request& request, std::shared_ptr<http::Responder> responder) const {
  RefuseWhenFull();
  const Json body = ParseBody(request.body);
  const Entry& entry = Select(Fields(body).RequiredString("model"));
  HandleCompletion(entry.served, entry.fingerprint, body, request, std::move(responder));
}

void Service::Health(const http::Request&, std::shared_ptr<http::Responder> responder) const {
  std::string status = "ok";
  int64_t running = 0, waiting = 0;
  for (Engine* engine : engines_) {
    const EngineMetrics metrics = engine->Metrics();
    running += metrics.running;
    waiting += metrics.waiting;
    if (metrics.seconds_since_progress > static_cast<double>(stuck_after_.count())) status = "stuck";
    if (status == "ok" && engine->Draining()) status = "draining";
  }
  SendJson(*responder, {{"status", status}, {"running", running}, {"waiting", waiting}}, status == "ok" ? 200 : 503);
}

void Service::TokenizerInfo(const http::Request&, std::shared_ptr<http::Responder> responder) const {
  const Model& model = entries_.front().served.engine->model();
  const Tokenizer& tokenizer = model.tokenizer;
  const auto name = [&](int32_t id) { return id < 0 ? Json(nullptr) : Json(std::string(tokenizer.TokenText(id))); };
  SendJson(*responder, {{"bos_token", name(tokenizer.bos())},
                        {"eos_token", name(tokenizer.eos())},
                        {"unk_token", name(tokenizer.unk())},
                        {"pad_token", name(tokenizer.pad())},
                        {"vocab_size", tokenizer.vocab_size()},
                        {"chat_template", model.chat_template ? Json(model.chat_template->source()) : Json(nullptr)}});
}

void Service::Tokenize(const http::Request& request, std::shared_ptr<http::Responder> responder) const {
  const Json body = ParseBody(request.body);
  const Entry& entry = SelectOptional(body);
  Fields fields(body);
  fields.Ignore({"model"});
  const std::string prompt = fields.RequiredString("prompt");
  const bool add_special = fields.Bool("add_special_tokens").value_or(true);
  fields.Finish();
  const auto tokens = entry.served.engine->model().tokenizer.Encode(prompt, {.add_special = add_special});
  SendJson(*responder, {{"count", tokens.size()},
                        {"max_model_len", entry.served.engine->max_context()},
                        {"tokens", tokens}});
}

void Service::Detokenize(const http::Request& request, std::shared_ptr<http::Responder> responder) const {
  const Json body = ParseBody(request.body);
  const Tokenizer& tokenizer = SelectOptional(body).served.engine->model().tokenizer;
  Fields fields(body);
  fields.Ignore({"model"});
  const Json* ids = fields.Find("tokens");
  if (!ids || !ids->is_array()) BadField("tokens", "tokens: expected a list of token ids");
  std::vector<int32_t> tokens;
  for (const Json& id : *ids) {
    if (!id.is_number_integer() || id < 0 || id >= tokenizer.vocab_size()) {
      BadField("tokens", fmt::format("tokens: expected ids from 0 to {}", tokenizer.vocab_size() - 1));
    }
    tokens.push_back(id.get<int32_t>());
  }
  fields.Finish();
  SendJson(*responder, {{"prompt", tokenizer.Decode(tokens, {.render_special = true})}});
}

}  // namespace bakestone::openai
