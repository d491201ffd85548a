// The server: engines and named adapters behind HTTP, for clients of several APIs. What cli/serve
// and bake use. Thread-safe after construction.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "server/served_model.h"

namespace bakestone {

struct ServerOptions {
  std::string address = "127.0.0.1";
  uint16_t port = 8080;               // 0: any free one
  int listen_fd = -1;                 // a socket that already listens, instead of address and port
  std::vector<std::string> api_keys;  // lines of http/keys.h
  bool allow_anyone = false;          // an address beyond loopback needs no keys
  std::string tls_certificate, tls_key;      // PEM files; empty: no TLS
  std::vector<std::string> allowed_origins;  // of pages that browsers may let ask
  std::vector<std::string> allowed_hosts;    // Host names beyond localhost and IP addresses
  std::chrono::milliseconds header_deadline{10'000};
  int64_t max_connections = 1024;
  std::chrono::seconds stuck_after{60};  // /health fails when work waits this long without progress
  std::filesystem::path
      adapter_folder;  // its adapters are served, and may be loaded by name; empty: none
  int64_t adapter_bytes = int64_t{1} << 30;  // of adapters in memory that can be read again
  std::string default_model;  // answers where a request names a model that is not there; empty: 404
  std::vector<std::string>
      grammar_helper;  // a program that calls RunGrammarHelper; empty: answers have no given form
  std::function<void(const std::string&)>
      on_request;  // a line of JSON for every answer, without what was said
};

class Server {
 public:
  // Throws what the constructor would throw of these options, before models are loaded for it.
  static void Check(const ServerOptions& options);

  // Listens when it returns. Throws kInvalidArgument (no models, a name twice, a bind beyond
  // loopback without a key) or kIo (the port is taken).
  Server(ServerOptions options, std::vector<ServedModel> models);
  ~Server();  // Stop(0)

  uint16_t port() const;
  std::string url() const;  // "http://127.0.0.1:8080"

  // For requests that come from now on. Throws kInvalidArgument, and then the old keys stay.
  void SetKeys(const std::vector<std::string>& lines);

  // Serves what came into the adapter folder or changed there since the last call, and no longer
  // what went. The constructor does it once.
  void WatchAdapters();

  // Refuses new work with 503, lets admitted answers finish until the deadline (then they get an
  // error event), and closes. Returns true if none was cut. The engines are drained too.
  bool Stop(std::chrono::milliseconds deadline);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace bakestone
