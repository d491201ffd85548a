#include "server/api/context.h"

#include <algorithm>

#include <fmt/format.h>

#include "server/api/api_error.h"

namespace bakestone::api {
namespace {

bool Allowed(const http::Request& request, const std::string& id) {
  if (!request.key || request.key->models.empty()) return true;
  const auto& models = request.key->models;
  return std::find(models.begin(), models.end(), id) != models.end();
}

}  // namespace

ModelPtr Context::Find(const http::Request& request, const std::string& id) const {
  return !id.empty() && Allowed(request, id) ? models->Find(id) : nullptr;
}

ModelPtr Context::Select(const http::Request& request, const std::string& id) const {
  if (ModelPtr entry = Find(request, id)) return entry;
  if (request.key) {
    const auto alias = request.key->aliases.find(id);
    if (alias != request.key->aliases.end()) {
      if (ModelPtr entry = Find(request, alias->second)) return entry;
    }
  }
  if (request.key) {
    if (ModelPtr entry = Find(request, request.key->default_model)) return entry;
  }
  if (ModelPtr entry = Find(request, default_model)) return entry;
  ApiError error;
  error.status = 404;
  error.message = fmt::format("the model '{}' does not exist here; /v1/models lists those that do", id.substr(0, 200));
  error.param = "model";
  error.code = "model_not_found";
  throw error;
}

std::vector<ModelPtr> Context::List(const http::Request& request) const {
  std::vector<ModelPtr> list = models->List();
  std::erase_if(list, [&](const ModelPtr& entry) { return !Allowed(request, entry->served.id); });
  return list;
}

ModelPtr Context::First(const http::Request& request) const {
  const std::vector<ModelPtr> list = List(request);
  return list.empty() ? Select(request, "") : list.front();
}

}  // namespace bakestone::api
