#include "server/openai/models.h"

#include "server/api/answer.h"

namespace bakestone::openai {
namespace {

using api::Json;

Json ModelJson(const api::ModelEntry& entry) {
  Json json;
  json["id"] = entry.served.id;
  json["object"] = "model";
  json["created"] = entry.created;
  json["owned_by"] = "local";
  json["parent"] = entry.served.parent.empty() ? Json(nullptr) : Json(entry.served.parent);
  json["max_model_len"] = entry.loop().max_context();
  json["fingerprint"] = entry.fingerprint;
  return json;
}

}  // namespace

void HandleModels(const api::Context& context, const http::Request& request,
                  std::shared_ptr<http::Responder> responder) {
  Json data = Json::array();
  for (const api::ModelPtr& entry : context.List(request)) data.push_back(ModelJson(*entry));
  responder->Send(
      {.headers = {}, .body = api::Dump({{"object", "list"}, {"data", std::move(data)}})});
}

void HandleModel(const api::Context& context, const http::Request& request,
                 std::shared_ptr<http::Responder> responder) {
  const std::string id = request.path.substr(std::string_view("/v1/models/").size());
  responder->Send({.headers = {}, .body = api::Dump(ModelJson(*context.SelectAny(request, id)))});
}

}  // namespace bakestone::openai
