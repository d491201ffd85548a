// A request as the routes see it and the way to answer it, without sockets: what http/ and openai/
// have in common. openai/ is tested through these alone.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/http/keys.h"

namespace bakestone::http {

struct Request {
  std::string method;                                        // "GET"
  std::string path;                                          // "/v1/models", without the query
  std::string query;                                         // after '?', not decoded
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case
  std::string body;
  std::shared_ptr<const Key> key;  // the one that the client showed; null where none is asked for

  std::string_view Header(std::string_view lower_case_name) const;  // empty when absent
  std::string tenant() const {
    return key ? key->tenant : std::string();
  }  // whose request it is; empty without keys
  bool background() const { return key && key->background; }
};

struct Response {
  int status = 200;
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
};

// What an answer cost; for logs, metrics and limits.
struct Cost {
  std::string model;
  int64_t prompt_tokens = 0, cached_tokens = 0, completion_tokens = 0;
  double first_token_seconds = -1;  // since it joined the queue; negative: there was none
  double seconds_per_token =
      -1;  // of those after the first, in the mean; negative: there were none
  bool cancelled = false, failed = false;
};

// The answer to one request: one Send, or Begin, any number of Write, and End. Thread-safe; calls
// after the client has gone do nothing. Destroying it before an answer was given closes the
// connection.
class Responder {
 public:
  virtual ~Responder() = default;

  virtual void Send(Response response) = 0;

  // Starts a streamed answer. keep_alive is written when nothing else was for a while.
  virtual void Begin(Response head, std::string keep_alive) = 0;
  virtual void Write(std::string bytes) = 0;
  virtual void End() = 0;

  // At most once, before the answer is complete.
  virtual void Account(const Cost&) {}

  // Runs once when the client leaves before the answer is complete; at once if it already has.
  virtual void OnDisconnect(std::function<void()> callback) = 0;
};

using Handler = std::function<void(const Request&, std::shared_ptr<Responder>)>;

}  // namespace bakestone::http
