// The routes of every API over the models: which handler answers which path, and in whose form an error is
// told. Knows no sockets. Thread-safe after construction.
#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "server/api/context.h"
#include "server/http/message.h"

namespace bakestone {

class Router {
 public:
  // Throws as api::ModelRegistry.
  Router(std::vector<ServedModel> models, std::chrono::seconds stuck_after);

  // Answers every request, at once or later; never throws.
  void Handle(const http::Request& request, std::shared_ptr<http::Responder> responder) const;

 private:
  void Dispatch(const http::Request& request, std::shared_ptr<http::Responder> responder) const;
  void RefuseWhenFull() const;  // 429 or 503 before the body is even parsed
  void Health(const http::Request& request, std::shared_ptr<http::Responder> responder) const;

  const api::Context context_;
  std::chrono::seconds stuck_after_;
};

}  // namespace bakestone
