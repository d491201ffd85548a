// For tests: a raw TCP client that says exactly what it is told to.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <string>
#include <string_view>

#include <fmt/format.h>

namespace bakestone::testing {

class RawClient {
 public:
  explicit RawClient(uint16_t port) {
    fd_ = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = ::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  }
  ~RawClient() { Close(); }
  RawClient(const RawClient&) = delete;

  bool connected() const { return connected_; }
  void Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return;  // the server has closed: what it said is still to be read
      bytes.remove_prefix(static_cast<size_t>(n));
    }
  }
  void Close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

  // Everything until the server closes, or nothing came for that long.
  std::string ReadAll(std::chrono::milliseconds quiet = std::chrono::seconds(20)) {
    while (ReadSome(quiet)) {
    }
    return buffer_;
  }
  // Until the text has arrived; false if the server closed before.
  bool ReadUntil(std::string_view text,
                 std::chrono::milliseconds quiet = std::chrono::seconds(20)) {
    while (buffer_.find(text) == std::string::npos) {
      if (!ReadSome(quiet)) return false;
    }
    return true;
  }
  // One response with a Content-Length; the rest stays for the next call.
  std::string ReadResponse() {
    if (!ReadUntil("\r\n\r\n")) return buffer_;
    const size_t head = buffer_.find("\r\n\r\n") + 4;
    const size_t field = buffer_.find("Content-Length: ");
    const size_t length =
        field < head ? std::strtoull(buffer_.c_str() + field + 16, nullptr, 10) : 0;
    while (buffer_.size() < head + length && ReadSome(std::chrono::seconds(20))) {
    }
    std::string response = buffer_.substr(0, head + length);
    buffer_.erase(0, head + length);
    return response;
  }
  const std::string& buffer() const { return buffer_; }

 private:
  bool ReadSome(std::chrono::milliseconds quiet) {
    pollfd ready{fd_, POLLIN, 0};
    if (::poll(&ready, 1, static_cast<int>(quiet.count())) <= 0) return false;
    char bytes[65536];
    const ssize_t n = ::recv(fd_, bytes, sizeof bytes, 0);
    if (n <= 0) return false;
    buffer_.append(bytes, static_cast<size_t>(n));
    return true;
  }

  int fd_ = -1;
  bool connected_ = false;
  std::string buffer_;
};

inline int StatusOf(std::string_view response) {
  return response.starts_with("HTTP/1.1 ") ? std::atoi(std::string(response.substr(9, 3)).c_str())
                                           : 0;
}
inline std::string BodyOf(const std::string& response) {
  const size_t end = response.find("\r\n\r\n");
  return end == std::string::npos ? "" : response.substr(end + 4);
}
inline std::string Get(std::string_view path, std::string_view headers = "") {
  return fmt::format("GET {} HTTP/1.1\r\nHost: localhost\r\n{}\r\n", path, headers);
}
inline std::string Post(std::string_view path, std::string_view body,
                        std::string_view headers = "") {
  return fmt::format(
      "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
      "Content-Length: {}\r\n{}\r\n{}",
      path, body.size(), headers, body);
}

}  // namespace bakestone::testing
