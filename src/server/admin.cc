#include "server/admin.h"

#include <utility>

#include <fmt/format.h>

#include "base/log.h"
#include "base/quote.h"
#include "server/adapter_folder.h"
#include "server/api/answer.h"
#include "server/api/api_error.h"
#include "server/api/fields.h"

namespace bakestone {
namespace {

using api::Json;

constexpr std::string_view kPath = "/admin/adapters/";

void CheckAdmin(const api::Context& context, const http::Request& request) {
  if (request.key ? request.key->admin : context.admin_without_key) return;
  api::Fail(403,
            request.key ? "this key may not change what is served: its line in the key file lacks "
                          "the word 'admin'"
                        : "without keys nobody may change what is served beyond loopback; give the "
                          "server --api-key-file",
            "permission_denied");
}

std::string NameIn(const http::Request& request) {
  const std::string name = request.path.substr(kPath.size());
  if (!AdapterFolder::IsName(name)) {
    api::Fail(400,
              "an adapter's name has 1 to 128 letters, digits, '.', '_', '-' or ':', and does not "
              "begin with '.'",
              "invalid_name");
  }
  return name;
}

Json ToJson(const api::AdapterInfo& info) {
  return {{"id", info.id},        {"base", info.parent}, {"file", info.source.filename().string()},
          {"sha256", info.hash},  {"bytes", info.bytes}, {"loaded", info.loaded},
          {"in_use", info.in_use}};
}

}  // namespace

void HandleListAdapters(const api::Context& context, const http::Request& request,
                        std::shared_ptr<http::Responder> responder) {
  CheckAdmin(context, request);
  Json data = Json::array();
  for (const api::AdapterInfo& info : context.models->Adapters()) data.push_back(ToJson(info));
  responder->Send(
      {.headers = {}, .body = api::Dump({{"object", "list"}, {"data", std::move(data)}})});
}

void HandlePutAdapter(const api::Context& context, const http::Request& request,
                      std::shared_ptr<http::Responder> responder) {
  CheckAdmin(context, request);
  const std::string name = NameIn(request);
  if (context.adapter_folder.empty()) {
    api::Fail(400, "adapters are loaded from one folder: start the server with --adapter-folder",
              "unsupported_operation");
  }
  const Json body = api::ParseBody(request.body);
  api::Fields fields(body);
  const std::string file = fields.RequiredString("file"), base = fields.String("base").value_or("");
  fields.Finish();
  const std::filesystem::path path = context.adapter_folder / file;
  if (!AdapterFolder::IsName(file) || !AdapterFolder::IsAdapter(path)) {
    api::BadField("file", fmt::format("file: expected the name of a GGUF adapter or a PEFT folder "
                                      "in the adapter folder, found {}",
                                      Quote(file)));
  }
  try {
    context.models->Put(name, path, base);
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kNotFound) api::BadField("base", error.what());
    if (error.code() != ErrorCode::kCorrupt && error.code() != ErrorCode::kInvalidArgument &&
        error.code() != ErrorCode::kUnsupported) {
      throw;
    }
    api::Fail(400, error.what(), "invalid_adapter");
  }
  LogInfo("serving {} (adapter), from {}", name, Quote(file));
  for (const api::AdapterInfo& info : context.models->Adapters()) {
    if (info.id == name) return responder->Send({.headers = {}, .body = api::Dump(ToJson(info))});
  }
  api::Fail(409, fmt::format("the adapter '{}' was unloaded at once", name), "conflict");
}

void HandleDeleteAdapter(const api::Context& context, const http::Request& request,
                         std::shared_ptr<http::Responder> responder) {
  CheckAdmin(context, request);
  const std::string name = NameIn(request);
  if (!context.models->Remove(name)) {
    api::Fail(404, fmt::format("there is no adapter '{}'", name), "model_not_found");
  }
  LogInfo("no longer serving {}", name);
  responder->Send({.headers = {}, .body = api::Dump({{"id", name}, {"deleted", true}})});
}

}  // namespace bakestone
