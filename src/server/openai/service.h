// The routes of the OpenAI-compatible API over engines and named adapters. Knows no sockets. Immutable
// and thread-safe after construction.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "server/http/message.h"
#include "server/openai/fields.h"
#include "server/server.h"

namespace bakestone::openai {

class Service {
 public:
  // Throws kInvalidArgument for no models, a name twice or an empty one.
  Service(std::vector<ServedModel> models, std::chrono::seconds stuck_after);

  // Answers every request, at once or later; never throws.
  void Handle(const http::Request& request, std::shared_ptr<http::Responder> responder) const;

 private:
  struct Entry {
    ServedModel served;
    std::string fingerprint;
  };
  using Route = void (Service::*)(const http::Request&, std::shared_ptr<http::Responder>) const;

  void Dispatch(const http::Request& request, std::shared_ptr<http::Responder> responder) const;
  void Models(const http::Request& request, std::shared_ptr<http::Responder> responder) const;
  void OneModel(const std::string& id, std::shared_ptr<http::Responder> responder) const;
  void Health(const http::Request& request, std::shared_ptr<http::Responder> responder) const;
  void Chat(const http::Request& request, std::shared_ptr<http::Responder> responder) const;
  void Completions(const http::Request& request, std::shared_ptr<http::Responder> responder) const;
  void TokenizerInfo(const http::Request& request, std::shared_ptr<http::Responder> responder) const;
  void Tokenize(const http::Request& request, std::shared_ptr<http::Responder> responder) const;
  void Detokenize(const http::Request& request, std::shared_ptr<http::Responder> responder) const;

  Json ModelJson(const Entry& entry) const;
  void RefuseWhenFull() const;  // 429 or 503 before the body is even parsed
  const Entry& Select(const std::string& id) const;
  // The body's model, or the first one when it names none.
  const Entry& SelectOptional(const Json& body) const;

  std::vector<Entry> entries_;
  std::vector<Engine*> engines_;  // each once
  std::chrono::seconds stuck_after_;
  int64_t created_;
};

}  // namespace bakestone::openai
