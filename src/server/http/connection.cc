// The one unit that includes Boost.Beast (17 CPU seconds to compile).
#include "server/http/connection.h"

#include <utility>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

#include "base/error.h"
#include "base/log.h"
#include "server/http/cors.h"
#include "server/http/exchange.h"
#include "server/http/gate.h"
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

class HttpConnection : public Connection, public std::enable_shared_from_this<HttpConnection> {
 public:
  HttpConnection(tcp::socket socket, ServerParts& shared)
      : stream_(std::move(socket), shared.tls),
        socket_(stream_.socket()),
        shared_(shared),
        deadline_timer_(socket_.get_executor()),
        signal_(socket_.get_executor()),
        buffer_(static_cast<size_t>(shared.options.max_header_bytes) + (64 << 10)) {}

  asio::awaitable<void> Run() override;
  asio::awaitable<void> Watch() override;
  bool answering() const override { return exchange_ != nullptr; }
  void Close() override;

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
  ServerParts& shared_;
  asio::steady_timer deadline_timer_, signal_;
  beast::flat_buffer buffer_;
  Clock::time_point deadline_ = Clock::time_point::max();
  std::shared_ptr<Exchange> exchange_;
  std::string extra_;  // header lines of the answer to the request at hand
  bool timed_out_ = false, closed_ = false, reading_ahead_ = false, reader_running_ = false,
       gone_ = false;
};

void HttpConnection::Close() {
  closed_ = true;
  error_code ignored;
  socket_.close(ignored);
  deadline_timer_.cancel();
  signal_.cancel();
}

void HttpConnection::SetDeadline(Clock::duration after) {
  deadline_ = Clock::now() + after;
  if (deadline_timer_.expiry() > deadline_) deadline_timer_.cancel();
}

asio::awaitable<void> HttpConnection::Watch() {
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

asio::awaitable<void> HttpConnection::Run() {
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

asio::awaitable<bool> HttpConnection::ShakeHands() {
  if (!stream_.tls()) co_return true;
  SetDeadline(shared_.options.header_deadline);
  auto [error] = co_await stream_.tls()->async_handshake(asio::ssl::stream_base::server, kAsTuple);
  ClearDeadline();
  co_return !error && !timed_out_;
}

asio::awaitable<void> HttpConnection::SayGoodbye() {
  if (!stream_.tls() || closed_ || gone_) co_return;
  SetDeadline(kLinger);
  co_await stream_.tls()->async_shutdown(kAsTuple);
  ClearDeadline();
}

asio::awaitable<error_code> HttpConnection::WaitForBytes() {
  auto [error, n] = co_await stream_.async_read_some(buffer_.prepare(4096), kAsTuple);
  buffer_.commit(n);
  co_return error;
}

asio::awaitable<bool> HttpConnection::Serve(bool first) {
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
asio::awaitable<bool> HttpConnection::Answer(Request request, bool close, bool http10) {
  std::weak_ptr<HttpConnection> weak = weak_from_this();
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

asio::awaitable<void> HttpConnection::ReadAhead() {
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

asio::awaitable<void> HttpConnection::StopReadingAhead() {
  reading_ahead_ = false;
  error_code ignored;
  socket_.cancel(ignored);
  while (reader_running_) {
    signal_.expires_at(Clock::time_point::max());
    co_await signal_.async_wait(kAsTuple);
  }
}

asio::awaitable<bool> HttpConnection::WriteAll(std::string bytes) {
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

asio::awaitable<void> HttpConnection::RefuseParse(error_code error) {
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

asio::awaitable<void> HttpConnection::Refuse(Refusal refusal, std::string path) {
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

std::shared_ptr<Connection> MakeConnection(tcp::socket socket, ServerParts& parts) {
  return std::make_shared<HttpConnection>(std::move(socket), parts);
}

}  // namespace bakestone::http
