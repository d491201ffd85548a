// One request's answer on its way from a handler's thread to a connection's: turns Responder calls
// into bytes of HTTP/1.1 and keeps them until the connection takes them. Thread-safe; may outlive
// the connection and the server (an engine still holds it).
#pragma once

#include <functional>
#include <mutex>
#include <string>

#include "server/http/message.h"

namespace bakestone::http {

// Status line, headers and body.
// extra: header lines beyond the response's own.
std::string Serialize(const Response& response, bool close, const std::string& extra = {});
std::string_view ReasonOf(int status);

class Exchange : public Responder {
 public:
  struct Options {
    bool close = false;      // the connection ends after this answer
    bool chunked = true;     // false for HTTP/1.0: a streamed answer ends with the connection
    int64_t max_unsent = 0;  // bytes
    std::string extra = {};  // header lines
  };
  // notify: called, from any thread, when there is something to take.
  Exchange(Options options, std::function<void()> notify)
      : options_(options), notify_(std::move(notify)) {}

  void Send(Response response) override;
  void Begin(Response head, std::string keep_alive) override;
  void Write(std::string bytes) override;
  void End() override;
  void OnDisconnect(std::function<void()> callback) override;

  // For the connection.
  struct Taken {
    std::string bytes;
    bool ended = false;   // nothing will follow
    bool broken = false;  // abandoned, or the client does not read: close
  };
  Taken Take();
  std::string KeepAlive();  // what to write when nothing else was; empty before Begin
  void Gone();              // the client left, or the connection closes
  void Abandon();           // the handler let go; breaks an answer that was not completed
  bool begun();

 private:
  void Queue(std::string bytes);  // under the lock

  const Options options_;
  std::mutex mutex_;
  std::function<void()> notify_;  // null once detached
  std::function<void()> on_disconnect_;
  std::string unsent_, keep_alive_;
  bool begun_ = false, ended_ = false, gone_ = false, broken_ = false;
};

}  // namespace bakestone::http
