// A request as the routes see it and the way to answer it, without sockets: what http/ and openai/ have
// in common. openai/ is tested through these alone.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace bakestone::http {

struct Request {
  std::string method;   // "GET"
  std::string path;     // "/v1/models", without the query
  std::string query;    // after '?', not decoded
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case
  std::string body;
  std::string tenant;   // digest of the key that the client showed; empty without keys

  std::string_view Header(std::string_view lower_case_name) const;  // empty when absent
};

struct Response {
  int status = 200;
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
};

// The answer to one request: one Send, or Begin, any number of Write, and End. Thread-safe; calls after
// the client has gone do nothing. Destroying it before an answer was given closes the connection.
class Responder {
 public:
  virtual ~Responder() = default;

  virtual void Send(Response response) = 0;

  // Starts a streamed answer. keep_alive is written when nothing else was for a while.
  virtual void Begin(Response head, std::string keep_alive) = 0;
  virtual void Write(std::string bytes) = 0;
  virtual void End() = 0;

  // Runs once when the client leaves before the answer is complete; at once if it already has.
  virtual void OnDisconnect(std::function<void()> callback) = 0;
};

using Handler = std::function<void(const Request&, std::shared_ptr<Responder>)>;

}  // namespace bakestone::http
