#include "server/http/http_server.h"

#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>
#include <utility>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "base/error.h"
#include "server/http/connection.h"
#include "server/http/cors.h"
#include "server/http/exchange.h"
#include "server/http/keys.h"
#include "server/http/policy.h"

namespace bakestone::http {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

constexpr auto kAsTuple = asio::as_tuple(asio::use_awaitable);
constexpr std::chrono::milliseconds kAcceptRetry{100};

[[noreturn]] void ThrowListen(const HttpOptions& options, const error_code& error) {
  Throw(ErrorCode::kIo, "cannot listen on {} port {}: {}; choose another port with --port",
        options.address, options.port, error.message());
}

}  // namespace

struct HttpServer::Impl {
  Impl(HttpOptions options_in, Handler handler_in)
      : options(std::move(options_in)),
        handler(std::move(handler_in)),
        keys(options.api_keys),
        handlers(static_cast<size_t>(options.handler_threads)),
        acceptor(io),
        tls(MakeTls(options)),
        shared{options, handler, keys, handlers, tls.get()} {
    Listen();
    asio::co_spawn(io, Accept(), asio::detached);
    thread = std::thread([this] { io.run(); });
  }
  ~Impl() { Stop(std::chrono::milliseconds{0}); }

  static std::unique_ptr<asio::ssl::context> MakeTls(const HttpOptions& options);
  void Listen();
  static void CheckOpen(const HttpOptions& options, const std::string& address, bool no_keys);
  void Adopt();  // a socket that somebody else opened
  static void Bind(const HttpOptions& options, bool no_keys, tcp::acceptor& acceptor);
  asio::awaitable<void> Accept();
  void Add(tcp::socket socket);
  void Stop(std::chrono::milliseconds deadline);

  const HttpOptions options;
  const Handler handler;
  KeyStore keys;
  asio::io_context io{1};
  asio::thread_pool handlers;
  tcp::acceptor acceptor;
  const std::unique_ptr<asio::ssl::context> tls;  // null: in the clear
  ServerParts shared;
  std::set<std::shared_ptr<Connection>> connections;  // I/O thread
  std::string bound;                                  // address
  uint16_t port = 0;
  std::mutex mutex;
  std::condition_variable emptied;
  int64_t count = 0;  // of connections; under the mutex
  std::thread thread;
};

std::unique_ptr<asio::ssl::context> HttpServer::Impl::MakeTls(const HttpOptions& options) {
  if (options.tls_certificate.empty() != options.tls_key.empty()) {
    Throw(ErrorCode::kInvalidArgument,
          "TLS needs both a certificate and its key (--tls-certificate, --tls-key), found one of "
          "them");
  }
  if (options.tls_certificate.empty()) return nullptr;
  auto context = std::make_unique<asio::ssl::context>(asio::ssl::context::tls_server);
  ::SSL_CTX_set_min_proto_version(context->native_handle(), TLS1_2_VERSION);
  ::SSL_CTX_set_mode(context->native_handle(),
                     SSL_MODE_RELEASE_BUFFERS);  // an idle connection holds none
  error_code error;
  context->use_certificate_chain_file(options.tls_certificate, error);
  if (error) {
    Throw(ErrorCode::kInvalidArgument, "{}: expected a certificate in PEM form: {}",
          options.tls_certificate, error.message());
  }
  context->use_private_key_file(options.tls_key, asio::ssl::context::pem, error);
  if (error) {
    Throw(ErrorCode::kInvalidArgument, "{}: expected the certificate's private key in PEM form: {}",
          options.tls_key, error.message());
  }
  return context;
}

void HttpServer::Impl::Listen() {
  CheckOrigins(options);
  if (options.listen_fd >= 0) {
    Adopt();
  } else {
    Bind(options, keys.Current()->empty(), acceptor);
    error_code error;
    acceptor.listen(asio::socket_base::max_listen_connections, error);
    if (error) ThrowListen(options, error);
  }
  const tcp::endpoint endpoint = acceptor.local_endpoint();
  bound = endpoint.address().to_string();
  CheckOpen(options, bound, keys.Current()->empty());
  port = endpoint.port();
}

void HttpServer::Impl::CheckOpen(const HttpOptions& options, const std::string& address,
                                 bool no_keys) {
  if (IsLoopback(address) || !no_keys || options.allow_anyone) return;
  Throw(ErrorCode::kInvalidArgument,
        "address {}: other machines could reach the server without a key; give --api-key-file, "
        "bind to 127.0.0.1, or "
        "say --allow-anyone",
        address);
}

void HttpServer::Impl::Adopt() {
  sockaddr_storage name{};
  socklen_t length = sizeof name;
  error_code error;
  if (::getsockname(options.listen_fd, reinterpret_cast<sockaddr*>(&name), &length) != 0 ||
      (name.ss_family != AF_INET && name.ss_family != AF_INET6)) {
    Throw(ErrorCode::kInvalidArgument, "the inherited file descriptor {} is not a TCP socket",
          options.listen_fd);
  }
  acceptor.assign(name.ss_family == AF_INET ? tcp::v4() : tcp::v6(), options.listen_fd, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) Throw(ErrorCode::kIo, "cannot listen on the inherited socket: {}", error.message());
}

void HttpServer::Impl::Bind(const HttpOptions& options, bool no_keys, tcp::acceptor& acceptor) {
  const std::string name = options.address == "localhost" ? "127.0.0.1" : options.address;
  error_code error;
  const auto address = asio::ip::make_address(name, error);
  if (error) {
    Throw(ErrorCode::kInvalidArgument, "address: expected an IP address or localhost, found '{}'",
          options.address);
  }
  CheckOpen(options, name, no_keys);  // before anybody could connect
  const tcp::endpoint endpoint(address, options.port);
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (error) ThrowListen(options, error);
}

void HttpServer::Check(const HttpOptions& options) {
  CheckOrigins(options);
  const KeyStore keys(options.api_keys);
  Impl::MakeTls(options);
  if (options.listen_fd >= 0) return;
  asio::io_context io{1};
  tcp::acceptor acceptor(io);
  Impl::Bind(options, keys.Current()->empty(), acceptor);
}

asio::awaitable<void> HttpServer::Impl::Accept() {
  while (acceptor.is_open()) {
    auto [error, socket] = co_await acceptor.async_accept(kAsTuple);
    if (!acceptor.is_open()) co_return;
    if (error) {  // out of file descriptors, or the client gave up already
      asio::steady_timer pause(io, kAcceptRetry);
      co_await pause.async_wait(kAsTuple);
      continue;
    }
    Add(std::move(socket));
  }
}

void HttpServer::Impl::Add(tcp::socket socket) {
  if (static_cast<int64_t>(connections.size()) >= options.max_connections) {
    error_code ignored;
    if (tls) return;  // to say so would take a handshake
    socket.non_blocking(true, ignored);
    Response busy{.status = 503, .headers = {{"Retry-After", "1"}}, .body = {}};
    if (options.error_body) {
      busy.body = options.error_body("", 503, "too many connections", "overloaded");
    }
    socket.write_some(asio::buffer(Serialize(busy, true)), ignored);
    return;
  }
  const auto connection = MakeConnection(std::move(socket), shared);
  connections.insert(connection);
  {
    std::lock_guard lock(mutex);
    ++count;
  }
  asio::co_spawn(io, connection->Watch(), asio::detached);
  asio::co_spawn(io, connection->Run(), [this, connection](std::exception_ptr error) {
    if (error) connection->Close();
    connections.erase(connection);
    std::lock_guard lock(mutex);
    --count;
    emptied.notify_all();
  });
}

void HttpServer::Impl::Stop(std::chrono::milliseconds deadline) {
  if (!thread.joinable()) return;
  asio::post(io, [this] {
    shared.stopping = true;
    error_code ignored;
    acceptor.close(ignored);
    for (const auto& connection : std::vector(connections.begin(), connections.end())) {
      if (!connection->answering()) connection->Close();
    }
  });
  {
    std::unique_lock lock(mutex);
    emptied.wait_for(lock, deadline, [this] { return count == 0; });
  }
  asio::post(io, [this] {
    for (const auto& connection : std::vector(connections.begin(), connections.end())) {
      connection->Close();
    }
  });
  thread.join();  // io.run() returns when the last coroutine ended
  handlers.join();
}

HttpServer::HttpServer(HttpOptions options, Handler handler)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(handler))) {}
HttpServer::~HttpServer() = default;
uint16_t HttpServer::port() const { return impl_->port; }
int64_t HttpServer::connections() const {
  std::lock_guard lock(impl_->mutex);
  return impl_->count;
}
void HttpServer::SetKeys(const std::vector<std::string>& lines) {
  Impl::CheckOpen(impl_->options, impl_->bound, KeyRing(lines).empty());
  impl_->keys.Replace(lines);
}
void HttpServer::Stop(std::chrono::milliseconds deadline) { impl_->Stop(deadline); }

}  // namespace bakestone::http
