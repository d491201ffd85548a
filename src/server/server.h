// The server: engines and named adapters behind HTTP, for clients of several APIs. What cli/serve and bake use.
// Thread-safe after construction.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "server/served_model.h"

namespace bakestone {

struct ServerOptions {
  std::string address = "127.0.0.1";
  uint16_t port = 8080;                    // 0: any free one
  std::vector<std::string> api_keys;       // must not be empty for an address beyond loopback
  std::vector<std::string> allowed_hosts;  // Host names beyond localhost and IP addresses
  std::chrono::milliseconds header_deadline{10'000};
  int64_t max_connections = 1024;
  std::chrono::seconds stuck_after{60};    // /health fails when work waits this long without progress
};

class Server {
 public:
  // Listens when it returns. Throws kInvalidArgument (no models, a name twice, a bind beyond loopback
  // without a key) or kIo (the port is taken).
  Server(ServerOptions options, std::vector<ServedModel> models);
  ~Server();  // Stop(0)

  uint16_t port() const;
  std::string url() const;  // "http://127.0.0.1:8080"

  // Refuses new work with 503, lets admitted answers finish until the deadline (then they get an error
  // event), and closes. Returns true if none was cut. The engines are drained too.
  bool Stop(std::chrono::milliseconds deadline);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace bakestone
