#include "server/router.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "server/admin.h"
#include "server/anthropic/messages.h"
#include "server/api/answer.h"
#include "server/api/api_error.h"
#include "server/api/guard.h"
#include "server/ollama/chat.h"
#include "server/ollama/embed.h"
#include "server/ollama/models.h"
#include "server/openai/chat.h"
#include "server/openai/completions.h"
#include "server/openai/embeddings.h"
#include "server/openai/models.h"
#include "server/openai/responses.h"
#include "server/openai/tokenizer_routes.h"
#include "server/openapi.h"

namespace bakestone {
namespace {

using api::ApiError;
using ResponderPtr = std::shared_ptr<http::Responder>;
using HandlerFunction = void (*)(const api::Context&, const http::Request&, ResponderPtr);

// Of these, a route is refused when the queue is full, before its body is read.
enum class RouteWork { kNone, kWrites, kEmbeds };

struct Route {
  const char* method;
  std::string_view path;  // one that ends with '/' stands for all that begin so
  HandlerFunction handler;
  RouteWork work = RouteWork::kNone;
};

constexpr Route kRoutes[] = {
    {"GET", "/v1/models", openai::HandleModels},
    {"GET", "/v1/models/", openai::HandleModel},
    {"POST", "/v1/chat/completions", openai::HandleChat, RouteWork::kWrites},
    {"POST", "/v1/completions", openai::HandleCompletion, RouteWork::kWrites},
    {"POST", "/v1/embeddings", openai::HandleEmbeddings, RouteWork::kEmbeds},
    {"POST", "/v1/responses", openai::HandleResponses, RouteWork::kWrites},
    {"GET", "/v1/responses/", openai::HandleGetResponse},
    {"DELETE", "/v1/responses/", openai::HandleDeleteResponse},
    {"POST", "/v1/messages", anthropic::HandleMessages, RouteWork::kWrites},
    {"POST", "/v1/messages/count_tokens", anthropic::HandleCountTokens},
    {"POST", "/api/chat", ollama::HandleChat, RouteWork::kWrites},
    {"POST", "/api/generate", ollama::HandleGenerate, RouteWork::kWrites},
    {"POST", "/api/embed", ollama::HandleEmbed, RouteWork::kEmbeds},
    {"POST", "/api/embeddings", ollama::HandleEmbeddings, RouteWork::kEmbeds},
    {"GET", "/api/tags", ollama::HandleTags},
    {"GET", "/api/ps", ollama::HandlePs},
    {"POST", "/api/show", ollama::HandleShow},
    {"GET", "/api/version", ollama::HandleVersion},
    {"GET", "/admin/adapters", HandleListAdapters},
    {"PUT", "/admin/adapters/", HandlePutAdapter},
    {"DELETE", "/admin/adapters/", HandleDeleteAdapter},
    {"GET", "/tokenizer_info", openai::HandleTokenizerInfo},
    {"POST", "/tokenize", openai::HandleTokenize},
    {"POST", "/detokenize", openai::HandleDetokenize},
};

bool Matches(const Route& route, const std::string& path) {
  if (!route.path.ends_with('/')) return path == route.path;
  return path.size() > route.path.size() && path.starts_with(route.path);
}

constexpr std::string_view kOwnRoutes[] = {"/health", "/ready", "/metrics", "/openapi.json"};

// The route that a path belongs to, for the metrics.
std::string RouteName(const std::string& path) {
  for (const std::string_view own : kOwnRoutes) {
    if (path == own) return path;
  }
  for (const Route& route : kRoutes) {
    if (Matches(route, path)) return std::string(route.path);
  }
  return "other";
}

// Where there are any.
template <class Loop>
bool AllFull(const std::vector<std::shared_ptr<Loop>>& loops) {
  return !loops.empty() && std::all_of(loops.begin(), loops.end(),
                                       [](const auto& loop) { return loop->QueueFull(); });
}

// 429 or 503 where none of them takes a request, before the body is even parsed.
template <class Loop>
void RefuseWhenFull(const std::vector<std::shared_ptr<Loop>>& loops) {
  const auto takes = [](const auto& loop) { return !loop->Draining() && !loop->QueueFull(); };
  if (loops.empty() || std::any_of(loops.begin(), loops.end(), takes)) return;
  const ServingLoop& first = *loops.front();
  const bool draining = first.Draining();
  ApiError error;
  error.status = draining ? 503 : 429;
  error.message =
      draining ? "the server is shutting down" : "too many requests are waiting; try again later";
  error.code = draining ? "unavailable" : "queue_full";
  error.retry_after = draining ? 5 : api::RetryAfter(first.Load());
  throw error;
}

[[noreturn]] void WrongMethod(const http::Request& request, const std::string& expected) {
  ApiError error;
  error.status = 405;
  error.message = fmt::format("{} expects {}, not {}", request.path, expected, request.method);
  error.code = "method_not_allowed";
  error.allow = expected;
  throw error;
}

}  // namespace

Router::Router(std::vector<ServedModel> models, RouterOptions options)
    : context_{.models = std::make_shared<api::ModelRegistry>(
                   std::move(models), options.adapter_bytes,
                   GrammarOptions{.helper = options.grammar_helper}),
               .adapter_folder = options.adapter_folder,
               .admin_without_key = options.admin_without_key,
               .default_model = options.default_model},
      stuck_after_(options.stuck_after),
      observers_(std::make_shared<Observers>()) {
  observers_->on_request = std::move(options.on_request);
  if (!options.default_model.empty() && !context_.models->Has(options.default_model)) {
    Throw(ErrorCode::kInvalidArgument, "the default model '{}' is not among those that are served",
          options.default_model);
  }
}

std::vector<std::pair<std::string, std::string>> Router::Routes() {
  std::vector<std::pair<std::string, std::string>> routes;
  for (const Route& route : kRoutes) routes.emplace_back(route.method, route.path);
  for (const std::string_view path : kOwnRoutes) routes.emplace_back("GET", path);
  return routes;
}

void Router::Handle(const http::Request& request, ResponderPtr inner) const {
  const auto responder = std::make_shared<ObservedResponder>(
      observers_, request, RouteName(request.path), std::move(inner));
  api::Guarded(*context_.models->loops().front(), request, *responder,
               [&] { Dispatch(request, responder); });
}

void Router::Dispatch(const http::Request& request,
                      const std::shared_ptr<ObservedResponder>& responder) const {
  for (const std::string_view path : kOwnRoutes) {
    if (request.path != path) continue;
    if (request.method != "GET") WrongMethod(request, "GET");
    if (path == "/metrics") return Scrape(*responder);
    if (path == "/openapi.json") {
      return responder->Send({.headers = {}, .body = api::Dump(OpenApiDocument())});
    }
    return Health(*responder, path == "/ready");
  }
  std::string other_methods;
  for (const Route& route : kRoutes) {
    if (!Matches(route, request.path)) continue;
    if (request.method != route.method) {
      other_methods += (other_methods.empty() ? "" : ", ") + std::string(route.method);
      continue;
    }
    if (route.work == RouteWork::kWrites) RefuseWhenFull(context_.models->engines());
    if (route.work == RouteWork::kEmbeds) RefuseWhenFull(context_.models->embedders());
    if (route.work != RouteWork::kNone) {
      responder->Hold(
          observers_->limits->Admit(request.key.get(), std::chrono::steady_clock::now()));
    }
    return route.handler(context_, request, responder);
  }
  if (!other_methods.empty()) WrongMethod(request, other_methods);
  api::Fail(404,
            fmt::format("there is nothing at {}; see /v1/models, /v1/chat/completions, "
                        "/v1/responses, /v1/completions, /v1/embeddings, /v1/messages, /api/chat, "
                        "/health",
                        request.path),
            "not_found");
}

// Live: the engines make progress, or have nothing to do. Ready: and new requests of every kind are
// taken.
void Router::Health(http::Responder& responder, bool ready) const {
  std::string status = "ok";
  int64_t running = 0, waiting = 0;
  for (const auto& loop : context_.models->loops()) {
    const LoopMetrics metrics = loop->Load();
    running += metrics.running;
    waiting += metrics.waiting;
    if (metrics.seconds_since_progress > static_cast<double>(stuck_after_.count())) {
      status = "stuck";
    }
    if (status == "ok" && loop->Draining()) status = "draining";
  }
  const bool full = AllFull(context_.models->engines()) || AllFull(context_.models->embedders());
  if (status == "ok" && ready && full) status = "full";
  const api::Json json = {{"status", status}, {"running", running}, {"waiting", waiting}};
  responder.Send({.status = status == "ok" ? 200 : 503, .headers = {}, .body = api::Dump(json)});
}

void Router::Scrape(http::Responder& responder) const {
  responder.Send({.content_type = "text/plain; version=0.0.4",
                  .headers = {},
                  .body = observers_->metrics.Text(*context_.models) +
                          Metrics::TextOf(context_.models->Stats())});
}

}  // namespace bakestone
