// HTTP/1.1 over TCP or TLS (Boost.Beast): accepts, limits, authenticates, parses, and hands
// requests to one handler. Knows nothing of models. Everything that a stranger can send ends in a
// 4xx or a closed connection: caps on headers, body, time and connections; one Content-Length or
// chunked, never both; no compressed bodies; only known Host names (DNS rebinding); no CORS headers
// unless asked for, and bodies must be JSON, so that a web page cannot make a browser post here.
//
// One I/O thread; handlers run on a few threads of their own. Thread-safe.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "server/http/message.h"

namespace bakestone::http {

struct HttpOptions {
  std::string address = "127.0.0.1";
  uint16_t port = 8080;               // 0: any free one
  int listen_fd = -1;                 // a socket that already listens, instead of address and port
  std::vector<std::string> api_keys;  // as lines of keys.h; empty: no authentication, loopback only
  bool allow_anyone = false;          // beyond loopback without keys
  std::string tls_certificate, tls_key;  // PEM files; empty: in the clear
  std::vector<std::string>
      allowed_origins;  // of pages that browsers may let ask; "*": all; empty: none
  std::vector<std::string> allowed_hosts;  // names beyond localhost and IP addresses
  std::vector<std::string> public_paths;   // need no key
  int64_t max_connections = 1024;
  int64_t max_header_bytes = 16 << 10;
  int64_t max_body_bytes = 8 << 20;
  int64_t max_unsent_bytes =
      16 << 20;  // of one streamed answer; a client that does not read is cut
  int handler_threads = 2;
  std::chrono::milliseconds header_deadline{10'000};
  std::chrono::milliseconds body_deadline{30'000};
  std::chrono::milliseconds idle_deadline{60'000};   // between requests of a connection
  std::chrono::milliseconds write_deadline{30'000};  // without a byte accepted by the client
  std::chrono::milliseconds keep_alive_every{15'000};
  // The body of an error answer that http/ itself gives: (path or "", status, message, code).
  std::function<std::string(std::string_view, int, const std::string&, const std::string&)>
      error_body;
};

class HttpServer {
 public:
  // Throws what the constructor would throw of these options; the port is free again afterwards.
  static void Check(const HttpOptions& options);

  // Throws kInvalidArgument (a bind beyond loopback without a key, a certificate that cannot be
  // read) or kIo (the port is taken).
  HttpServer(HttpOptions options, Handler handler);
  ~HttpServer();  // Stop()

  uint16_t port() const;
  int64_t connections() const;

  // For requests that come from now on. Throws as KeyRing, and for no keys where they are needed;
  // then the old ones stay.
  void SetKeys(const std::vector<std::string>& lines);

  // No new connections or requests; waits for answers in progress until the deadline, then closes.
  void Stop(std::chrono::milliseconds deadline = std::chrono::milliseconds{0});

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace bakestone::http
