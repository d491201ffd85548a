#include "server/server.h"

#include <algorithm>
#include <future>
#include <utility>

#include <fmt/format.h>

#include "server/adapter_folder.h"
#include "server/http/http_server.h"
#include "server/api/api_error.h"
#include "server/router.h"

namespace bakestone {

struct Server::Impl {
  Impl(const ServerOptions& options, std::vector<ServedModel> models)
      : address(options.address),
        scheme(options.tls_certificate.empty() ? "http" : "https"),
        loops(LoopsOf(models)),
        router(std::move(models), {.stuck_after = options.stuck_after,
                                   .adapter_folder = options.adapter_folder,
                                   .adapter_bytes = options.adapter_bytes,
                                   .admin_without_key = !options.allow_anyone,
                                   .default_model = options.default_model,
                                   .grammar_helper = options.grammar_helper,
                                   .on_request = options.on_request}),
        folder(options.adapter_folder.empty()
                   ? nullptr
                   : std::make_unique<AdapterFolder>(options.adapter_folder, router.models())),
        http(HttpOptionsOf(options),
             [this](const http::Request& request, std::shared_ptr<http::Responder> responder) {
               router.Handle(request, std::move(responder));
             }) {}

  static std::vector<std::shared_ptr<ServingLoop>> LoopsOf(const std::vector<ServedModel>& models) {
    std::vector<std::shared_ptr<ServingLoop>> loops;
    for (const ServedModel& model : models) {
      if (std::find(loops.begin(), loops.end(), model.loop()) == loops.end()) {
        loops.push_back(model.loop());
      }
    }
    return loops;
  }
  static http::HttpOptions HttpOptionsOf(const ServerOptions& options) {
    http::HttpOptions http;
    http.address = options.address;
    http.port = options.port;
    http.listen_fd = options.listen_fd;
    http.api_keys = options.api_keys;
    http.allow_anyone = options.allow_anyone;
    http.tls_certificate = options.tls_certificate;
    http.tls_key = options.tls_key;
    http.allowed_origins = options.allowed_origins;
    http.allowed_hosts = options.allowed_hosts;
    http.public_paths = {"/health", "/ready"};
    http.header_deadline = options.header_deadline;
    http.max_connections = options.max_connections;
    http.error_body = [](std::string_view path, int status, const std::string& message,
                         const std::string& code) {
      api::ApiError error;
      error.status = status;
      error.message = message;
      error.code = code;
      return ErrorBody(error, api::FamilyOf(path));
    };
    return http;
  }

  const std::string address, scheme;
  const std::vector<std::shared_ptr<ServingLoop>> loops;  // outlive http: answers refer to them
  const Router router;
  const std::unique_ptr<AdapterFolder> folder;  // null: none is watched
  http::HttpServer http;
};

void Server::Check(const ServerOptions& options) {
  http::HttpServer::Check(Impl::HttpOptionsOf(options));
  if (!options.adapter_folder.empty()) AdapterFolder::Check(options.adapter_folder);
}

Server::Server(ServerOptions options, std::vector<ServedModel> models)
    : impl_(std::make_unique<Impl>(options, std::move(models))) {}

Server::~Server() = default;

uint16_t Server::port() const { return impl_->http.port(); }

std::string Server::url() const {
  const bool v6 = impl_->address.find(':') != std::string::npos;
  return v6 ? fmt::format("{}://[{}]:{}", impl_->scheme, impl_->address, port())
            : fmt::format("{}://{}:{}", impl_->scheme, impl_->address, port());
}

void Server::WatchAdapters() {
  if (impl_->folder) impl_->folder->Look();
}

void Server::SetKeys(const std::vector<std::string>& lines) { impl_->http.SetKeys(lines); }

bool Server::Stop(std::chrono::milliseconds deadline) {
  // First the answers, then the connections that carry them: what was written still goes out.
  // All at once, so that none takes a new request while another finishes.
  std::vector<std::future<bool>> drains;
  for (const auto& loop : impl_->loops) {
    drains.push_back(std::async(std::launch::async, [&] { return loop->Drain(deadline); }));
  }
  bool all = true;
  for (std::future<bool>& drain : drains) all &= drain.get();
  constexpr std::chrono::milliseconds kFlush{2000};
  impl_->http.Stop(kFlush);
  return all;
}

}  // namespace bakestone
