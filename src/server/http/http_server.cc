// The one unit that includes Boost.Beast (17 CPU seconds to compile).
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
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

#include "base/error.h"
#include "base/log.h"
#include "server/http/cors.h"
#include "server/http/exchange.h"
#include "server/http/gate.h"
#include "server/http/policy.h"
#include "server/http/stream.h"

namespace bakestone::http {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace bhttp = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;
using Parser = bhttp::request_parser<bhttp::string_body>;

constexpr auto kAsTuple = asio::as_tuple(asio::use_awaitable);
// After an error answer the rest of the request is read and dropped this long: closing with unread
// bytes would reset the connection and take the answer with it.
constexpr std::chrono::milliseconds kLinger{1000};
constexpr std::chrono::milliseconds kAcceptRetry{100};

std::string_view View(beast::string_view text) { return {text.data(), text.size()}; }

// The request without its body.
Request MakeHead(const Parser& parser) {
  Request head;
  const auto& message = parser.get();
  head.method = std::string(View(message.method_string()));
  const std::string_view target = View(message.target());
  const size_t mark = target.find('?');
  head.path = std::string(target.substr(0, mark));
  if (mark != std::string_view::npos) head.query = std::string(target.substr(mark + 1));
  for (const auto& field : message) {
    std::string name(View(field.name_string()));
    for (char& c : name) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    head.headers.emplace_back(std::move(name), std::string(View(field.value())));
  }
  return head;
}

struct Shared {  // what a connection needs of the server
  const HttpOptions& options;
  const Handler& handler;
  const KeyStore& keys;
  asio::thread_pool& handlers;
  asio::ssl::context* tls;  // null: in the clear
  bool stopping = false;    // I/O thread
};

// One client. Lives on the I/O thread, kept alive by its coroutines.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(tcp::socket socket, Shared& shared)
      : stream_(std::move(socket), shared.tls),
        socket_(stream_.socket()),
        shared_(shared),
        deadline_timer_(socket_.get_executor()),
        signal_(socket_.get_executor()),
        buffer_(static_cast<size_t>(shared.options.max_header_bytes) + (64 << 10)) {}

  asio::awaitable<void> Run();
  asio::awaitable<void> Watch();  // enforces the deadline
  bool answering() const { return exchange_ != nullptr; }
  void Close();

 private:
  asio::awaitable<bool> ShakeHands();
  asio::awaitable<void>
  SayGoodbye();  // under TLS the end is said, so that nobody takes a cut answer for a whole one
  asio::awaitable<bool> Serve(bool first);  // one request; false: the connection ends
  asio::awaitable<error_code> WaitForBytes();
  asio::awaitable<bool> Answer(Request request, bool close, bool http10);
  asio::awaitable<void> ReadAhead();
  asio::awaitable<void> StopReadingAhead();
  asio::awaitable<bool> WriteAll(std::string bytes);
  asio::awaitable<void> Refuse(Refusal refusal, std::string path = {});
  asio::awaitable<void> RefuseParse(error_code error);
  void SetDeadline(Clock::duration after);
  void ClearDeadline() { deadline_ = Clock::time_point::max(); }

  Stream stream_;
  tcp::socket& socket_;  // under the stream
  Shared& shared_;
  asio::steady_timer deadline_timer_, signal_;
  beast::flat_buffer buffer_;
  Clock::time_point deadline_ = Clock::time_point::max();
  std::shared_ptr<Exchange> exchange_;
  std::string extra_;  // header lines of the answer to the request at hand
  bool timed_out_ = false, closed_ = false, reading_ahead_ = false, reader_running_ = false,
       gone_ = false;
};

void Connection::Close() {
  closed_ = true;
  error_code ignored;
  socket_.close(ignored);
  deadline_timer_.cancel();
  signal_.cancel();
}

void Connection::SetDeadline(Clock::duration after) {
  deadline_ = Clock::now() + after;
  if (deadline_timer_.expiry() > deadline_) deadline_timer_.cancel();
}

asio::awaitable<void> Connection::Watch() {
  const auto self = shared_from_this();
  while (!closed_) {
    deadline_timer_.expires_at(deadline_);
    co_await deadline_timer_.async_wait(kAsTuple);
    if (closed_ || Clock::now() < deadline_) continue;
    ClearDeadline();
    timed_out_ = true;
    error_code ignored;
    socket_.cancel(ignored);
  }
}

asio::awaitable<void> Connection::Run() {
  const auto self = shared_from_this();
  error_code ignored;
  socket_.set_option(tcp::no_delay(true), ignored);
  bool first = true;
  const bool ready = co_await ShakeHands();
  while (ready && !closed_) {
    const bool again = co_await Serve(first);
    if (!again || shared_.stopping) break;
    first = false;
  }
  if (ready) co_await SayGoodbye();
  if (exchange_) exchange_->Gone();
  exchange_.reset();
  Close();
}

asio::awaitable<bool> Connection::ShakeHands() {
  if (!stream_.tls()) co_return true;
  SetDeadline(shared_.options.header_deadline);
  auto [error] = co_await stream_.tls()->async_handshake(asio::ssl::stream_base::server, kAsTuple);
  ClearDeadline();
  co_return !error && !timed_out_;
}

asio::awaitable<void> Connection::SayGoodbye() {
  if (!stream_.tls() || closed_ || gone_) co_return;
  SetDeadline(kLinger);
  co_await stream_.tls()->async_shutdown(kAsTuple);
  ClearDeadline();
}

asio::awaitable<error_code> Connection::WaitForBytes() {
  auto [error, n] = co_await stream_.async_read_some(buffer_.prepare(4096), kAsTuple);
  buffer_.commit(n);
  co_return error;
}

asio::awaitable<bool> Connection::Serve(bool first) {
  const HttpOptions& options = shared_.options;
  if (!first && buffer_.size() == 0) {
    SetDeadline(options.idle_deadline);
    const error_code error = co_await WaitForBytes();
    ClearDeadline();
    if (error) co_return false;
  }
  Parser parser;
  parser.header_limit(static_cast<uint32_t>(options.max_header_bytes));
  parser.body_limit(static_cast<uint64_t>(options.max_body_bytes));
  SetDeadline(options.header_deadline);
  auto [head_error, head_bytes] =
      co_await bhttp::async_read_header(stream_, buffer_, parser, kAsTuple);
  ClearDeadline();
  if (head_error) {
    co_await RefuseParse(head_error);
    co_return false;
  }
  Request request = MakeHead(parser);
  const Framing framing{static_cast<int>(parser.get().version()), parser.chunked()};
  extra_ = CorsHeaders(options, request);
  if (IsPreflight(options, request)) {
    const bool written = co_await WriteAll(Serialize(PreflightAnswer(request), false, extra_));
    co_return written&& parser.is_done() && parser.keep_alive();
  }
  const auto refusal = CheckHead(options, *shared_.keys.Current(), framing, request);
  if (refusal) {
    co_await Refuse(*refusal, request.path);
    co_return false;
  }
  if (!parser.is_done() && !request.Header("expect").empty()) {
    const bool written = co_await WriteAll("HTTP/1.1 100 Continue\r\n\r\n");
    if (!written) co_return false;
  }
  SetDeadline(options.body_deadline);
  auto [body_error, body_bytes] = co_await bhttp::async_read(stream_, buffer_, parser, kAsTuple);
  ClearDeadline();
  if (body_error) {
    co_await RefuseParse(body_error);
    co_return false;
  }
  const bool close = !parser.keep_alive();
  request.body = std::move(parser.get().body());
  const bool complete = co_await Answer(std::move(request), close, framing.version == 10);
  co_return complete && !close;
}

// Hands the request over and writes what comes back, while an outstanding read watches for the
// client's departure.
asio::awaitable<bool> Connection::Answer(Request request, bool close, bool http10) {
  std::weak_ptr<Connection> weak = weak_from_this();
  auto executor = socket_.get_executor();
  exchange_ =
      std::make_shared<Exchange>(Exchange::Options{close || shared_.stopping, !http10,
                                                   shared_.options.max_unsent_bytes, extra_},
                                 [weak, executor] {
                                   asio::post(executor, [weak] {
                                     if (const auto self = weak.lock()) self->signal_.cancel();
                                   });
                                 });
  std::shared_ptr<Responder> answer(exchange_.get(),
                                    [kept = exchange_](Responder*) { kept->Abandon(); });
  asio::post(shared_.handlers, [&handler = shared_.handler, request = std::move(request),
                                answer = std::move(answer)] {
    try {
      handler(request, answer);
    } catch (const std::exception& error) {
      LogError("{} {}: {}", request.method, request.path, error.what());
      answer->Send({.status = 500, .headers = {}, .body = {}});
    }
  });
  reading_ahead_ = reader_running_ = true;
  asio::co_spawn(executor, ReadAhead(), asio::detached);

  bool complete = false;
  while (!closed_ && !gone_) {
    Exchange::Taken taken = exchange_->Take();
    if (taken.broken) break;
    if (taken.bytes.empty()) {
      complete = taken.ended;
      if (complete) break;
      signal_.expires_after(shared_.options.keep_alive_every);
      auto [wait_error] = co_await signal_.async_wait(kAsTuple);
      if (!wait_error) taken.bytes = exchange_->KeepAlive();
    }
    if (taken.bytes.empty()) continue;
    const bool written = co_await WriteAll(std::move(taken.bytes));
    if (!written) break;
  }
  exchange_->Gone();
  exchange_.reset();
  if (!complete) Close();
  co_await StopReadingAhead();
  co_return complete && !closed_ && !gone_;
}

asio::awaitable<void> Connection::ReadAhead() {
  const auto self = shared_from_this();
  // What arrives now is the next request (pipelining): kept, up to a header's worth.
  while (reading_ahead_ && buffer_.size() < static_cast<size_t>(shared_.options.max_header_bytes)) {
    const error_code error = co_await WaitForBytes();
    if (!error) continue;
    gone_ = gone_ || reading_ahead_;
    break;
  }
  reader_running_ = false;
  signal_.cancel();
}

asio::awaitable<void> Connection::StopReadingAhead() {
  reading_ahead_ = false;
  error_code ignored;
  socket_.cancel(ignored);
  while (reader_running_) {
    signal_.expires_at(Clock::time_point::max());
    co_await signal_.async_wait(kAsTuple);
  }
}

asio::awaitable<bool> Connection::WriteAll(std::string bytes) {
  size_t sent = 0;
  while (sent < bytes.size()) {
    SetDeadline(shared_.options.write_deadline);
    auto [error, n] = co_await stream_.async_write_some(
        asio::buffer(bytes.data() + sent, bytes.size() - sent), kAsTuple);
    ClearDeadline();
    if (error) co_return false;
    sent += n;
  }
  co_return true;
}

asio::awaitable<void> Connection::RefuseParse(error_code error) {
  Refusal refusal{400, "the request is not valid HTTP/1.1: " + error.message(), "invalid_request"};
  if (timed_out_) {
    refusal = {408, "the request took too long to arrive", "request_timeout"};
  } else if (error == bhttp::error::header_limit || error == bhttp::error::buffer_overflow) {
    refusal = {431,
               fmt::format("headers are limited to {} bytes", shared_.options.max_header_bytes),
               "headers_too_large"};
  } else if (error == bhttp::error::body_limit) {
    refusal = {413, fmt::format("bodies are limited to {} bytes", shared_.options.max_body_bytes),
               "body_too_large"};
  } else if (error == bhttp::error::end_of_stream ||
             error.category() != bhttp::make_error_code(bhttp::error::end_of_stream).category()) {
    co_return;  // the client closed, or the network failed: nobody to tell
  }
  co_await Refuse(std::move(refusal));
}

asio::awaitable<void> Connection::Refuse(Refusal refusal, std::string path) {
  Response response{.status = refusal.status, .headers = {}, .body = {}};
  if (refusal.status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  const auto& body = shared_.options.error_body;
  response.body =
      body ? body(path, refusal.status, refusal.message, refusal.code) : refusal.message;
  timed_out_ = false;
  const bool written = co_await WriteAll(Serialize(response, true, extra_));
  if (!written) co_return;
  error_code error;
  if (!stream_.tls()) socket_.shutdown(tcp::socket::shutdown_send, error);
  SetDeadline(kLinger);
  while (!error && !timed_out_) {
    buffer_.clear();
    error = co_await WaitForBytes();
  }
  ClearDeadline();
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
  void CheckOpen(const std::string& address, bool no_keys) const;
  void Adopt();  // a socket that somebody else opened
  void Bind();
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
  Shared shared;
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
  if (options.listen_fd >= 0) {
    Adopt();
  } else {
    Bind();
  }
  const tcp::endpoint endpoint = acceptor.local_endpoint();
  bound = endpoint.address().to_string();
  CheckOpen(bound, keys.Current()->empty());
  port = endpoint.port();
}

void HttpServer::Impl::CheckOpen(const std::string& address, bool no_keys) const {
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

void HttpServer::Impl::Bind() {
  const std::string name = options.address == "localhost" ? "127.0.0.1" : options.address;
  error_code error;
  const auto address = asio::ip::make_address(name, error);
  if (error) {
    Throw(ErrorCode::kInvalidArgument, "address: expected an IP address or localhost, found '{}'",
          options.address);
  }
  CheckOpen(name, keys.Current()->empty());  // before anybody could connect
  const tcp::endpoint endpoint(address, options.port);
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) {
    Throw(ErrorCode::kIo, "cannot listen on {} port {}: {}; choose another port with --port", name,
          options.port, error.message());
  }
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
  const auto connection = std::make_shared<Connection>(std::move(socket), shared);
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
  impl_->CheckOpen(impl_->bound, KeyRing(lines).empty());
  impl_->keys.Replace(lines);
}
void HttpServer::Stop(std::chrono::milliseconds deadline) { impl_->Stop(deadline); }

}  // namespace bakestone::http
