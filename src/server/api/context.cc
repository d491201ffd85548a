#include "server/api/context.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "server/api/api_error.h"

namespace bakestone::api {
namespace {

bool Allowed(const http::Request& request, const std::string& id) {
  if (!request.key || request.key->models.empty()) return true;
  const auto& models = request.key->models;
  return std::find(models.begin(), models.end(), id) != models.end();
}

[[noreturn]] void WrongKind(std::string message) {
  ApiError error;
  error.message = std::move(message);
  error.param = "model";
  error.code = "unsupported_operation";
  throw error;
}

}  // namespace

ModelPtr Context::Find(const http::Request& request, const std::string& id) const {
  return !id.empty() && Allowed(request, id) ? models->Find(id) : nullptr;
}

// By its name or the key's alias, of any kind; else the key's default or the server's that does
// what is asked for.
ModelPtr Context::FindFor(const http::Request& request, const std::string& id, Does does) const {
  if (ModelPtr entry = Find(request, id)) return entry;
  if (request.key) {
    const auto alias = request.key->aliases.find(id);
    if (alias != request.key->aliases.end()) {
      if (ModelPtr entry = Find(request, alias->second)) return entry;
    }
  }
  const auto fits = [&](const ModelPtr& entry) {
    return entry && (does == Does::kEither || entry->embeds() == (does == Does::kEmbed));
  };
  if (request.key) {
    if (ModelPtr entry = Find(request, request.key->default_model); fits(entry)) return entry;
  }
  if (ModelPtr entry = Find(request, default_model); fits(entry)) return entry;
  ApiError error;
  error.status = 404;
  error.message = fmt::format("the model '{}' does not exist here; /v1/models lists those that do",
                              id.substr(0, 200));
  error.param = "model";
  error.code = "model_not_found";
  throw error;
}

ModelPtr Context::Select(const http::Request& request, const std::string& id) const {
  ModelPtr entry = FindFor(request, id, Does::kWrite);
  if (entry->embeds()) {
    WrongKind(
        fmt::format("model: '{}' computes embeddings and does not write; ask it at /v1/embeddings "
                    "or /api/embed",
                    entry->served.id));
  }
  return entry;
}

ModelPtr Context::SelectEmbedder(const http::Request& request, const std::string& id) const {
  ModelPtr entry = FindFor(request, id, Does::kEmbed);
  if (!entry->embeds()) {
    WrongKind(
        fmt::format("model: '{}' writes and is not served for embeddings; `bakestone serve "
                    "--embeddings MODEL` serves one that is",
                    entry->served.id));
  }
  return entry;
}

ModelPtr Context::SelectAny(const http::Request& request, const std::string& id) const {
  return FindFor(request, id, Does::kEither);
}

std::vector<ModelPtr> Context::List(const http::Request& request) const {
  std::vector<ModelPtr> list = models->List();
  std::erase_if(list, [&](const ModelPtr& entry) { return !Allowed(request, entry->served.id); });
  return list;
}

ModelPtr Context::First(const http::Request& request) const {
  const std::vector<ModelPtr> list = List(request);
  return list.empty() ? SelectAny(request, "") : list.front();
}

}  // namespace bakestone::api
