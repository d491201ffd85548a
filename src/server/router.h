// The routes of every API over the models: which handler answers which path, and in whose form an
// error is told. Knows no sockets. Thread-safe after construction.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/api/context.h"
#include "server/http/message.h"
#include "server/observed_responder.h"

namespace bakestone {

struct RouterOptions {
  std::chrono::seconds stuck_after{60};  // work that waits this long without progress is stuck
  std::filesystem::path adapter_folder =
      {};  // whose adapters may be loaded while it runs; empty: none
  int64_t adapter_bytes = int64_t{1} << 30;  // of adapters in memory that can be read again
  bool admin_without_key = true;  // where no keys are asked for, anybody may load adapters
  std::string default_model =
      {};  // answers where a request names one that is not there; empty: 404
  std::vector<std::string> grammar_helper =
      {};  // a program that calls RunGrammarHelper; empty: answers have no given form
  std::function<void(const std::string&)> on_request =
      nullptr;  // a line of JSON for every answer; any thread
};

class Router {
 public:
  // Throws as api::ModelRegistry, and for a default model that is not there.
  explicit Router(std::vector<ServedModel> models, RouterOptions options = {});

  // (method, path) of all that is served; a path that ends with '/' stands for all that begin so.
  static std::vector<std::pair<std::string, std::string>> Routes();

  api::ModelRegistry& models() const { return *context_.models; }

  // Answers every request, at once or later; never throws.
  void Handle(const http::Request& request, std::shared_ptr<http::Responder> responder) const;

 private:
  void Dispatch(const http::Request& request,
                const std::shared_ptr<ObservedResponder>& responder) const;
  void Health(http::Responder& responder, bool ready) const;
  void Scrape(http::Responder& responder) const;

  const api::Context context_;
  const std::chrono::seconds stuck_after_;
  const std::shared_ptr<Observers> observers_;
};

}  // namespace bakestone
