#include "server/http/exchange.h"

#include <utility>

#include <fmt/format.h>

#include "base/error.h"

namespace bakestone::http {
namespace {

std::string Head(const Response& response, bool close, std::string_view length,
                 const std::string& extra) {
  std::string head = fmt::format("HTTP/1.1 {} {}\r\nContent-Type: {}\r\n{}", response.status,
                                 ReasonOf(response.status), response.content_type, length);
  head += "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n";
  for (const auto& [name, value] : response.headers) head += fmt::format("{}: {}\r\n", name, value);
  if (close) head += "Connection: close\r\n";
  return head + extra + "\r\n";
}

std::string Chunk(const std::string& bytes, bool chunked) {
  return chunked ? fmt::format("{:x}\r\n{}\r\n", bytes.size(), bytes) : bytes;
}

}  // namespace

std::string_view ReasonOf(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 204:
      return "No Content";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 413:
      return "Content Too Large";
    case 415:
      return "Unsupported Media Type";
    case 417:
      return "Expectation Failed";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 503:
      return "Service Unavailable";
    default:
      return "Status";
  }
}

std::string Serialize(const Response& response, bool close, const std::string& extra) {
  const std::string length =
      response.status == 204 ? "" : fmt::format("Content-Length: {}\r\n", response.body.size());
  return Head(response, close, length, extra) + response.body;
}

void Exchange::Queue(std::string bytes) {
  if (gone_ || broken_) return;
  if (options_.max_unsent > 0 && begun_ &&
      static_cast<int64_t>(unsent_.size() + bytes.size()) > options_.max_unsent) {
    broken_ = true;
  } else {
    unsent_ += bytes;
  }
  if (notify_) notify_();
}

void Exchange::Send(Response response) {
  std::lock_guard lock(mutex_);
  if (begun_ || ended_) return;
  ended_ = true;
  Queue(Serialize(response, options_.close, options_.extra));
}

void Exchange::Begin(Response head, std::string keep_alive) {
  std::lock_guard lock(mutex_);
  if (begun_ || ended_) return;
  const std::string_view length = options_.chunked ? "Transfer-Encoding: chunked\r\n" : "";
  Queue(Head(head, options_.close || !options_.chunked, length, options_.extra));
  begun_ = true;
  keep_alive_ = Chunk(keep_alive, options_.chunked);
}

void Exchange::Write(std::string bytes) {
  std::lock_guard lock(mutex_);
  if (!begun_ || ended_ || bytes.empty()) return;
  Queue(Chunk(bytes, options_.chunked));
}

void Exchange::End() {
  std::lock_guard lock(mutex_);
  if (!begun_ || ended_) return;
  ended_ = true;
  Queue(options_.chunked ? "0\r\n\r\n" : "");
}

void Exchange::OnDisconnect(std::function<void()> callback) {
  {
    std::lock_guard lock(mutex_);
    if (!gone_) {
      on_disconnect_ = std::move(callback);
      return;
    }
  }
  callback();
}

Exchange::Taken Exchange::Take() {
  std::lock_guard lock(mutex_);
  Taken taken;
  taken.bytes = std::exchange(unsent_, {});
  taken.ended = ended_;
  taken.broken = broken_;
  return taken;
}

std::string Exchange::KeepAlive() {
  std::lock_guard lock(mutex_);
  return begun_ && !ended_ ? keep_alive_ : std::string();
}

void Exchange::Abandon() {
  std::lock_guard lock(mutex_);
  if (ended_ || gone_) return;
  broken_ = true;
  if (notify_) notify_();
}

bool Exchange::begun() {
  std::lock_guard lock(mutex_);
  return begun_;
}

void Exchange::Gone() {
  std::function<void()> callback;
  {
    std::lock_guard lock(mutex_);
    if (gone_) return;
    gone_ = true;
    notify_ = nullptr;
    unsent_.clear();
    callback = ended_ ? nullptr : std::exchange(on_disconnect_, nullptr);
    on_disconnect_ = nullptr;
  }
  if (callback) callback();
}

}  // namespace bakestone::http
