// Stands between a handler and the connection, and sees how a request was answered: gives the
// answer its id, counts it in the metrics and against its key's limits, and reports one line of
// JSON about it, which never holds what was said. Thread-safe; may outlive the router.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "server/http/message.h"
#include "server/key_limits.h"
#include "server/metrics.h"

namespace bakestone {

// What answers report to; shared by all of them.
struct Observers {
  Metrics metrics;
  std::shared_ptr<KeyLimits> limits = std::make_shared<KeyLimits>();
  std::function<void(const std::string&)> on_request;  // a line of JSON; null: nobody asked
};

class ObservedResponder : public http::Responder {
 public:
  // route: for the metrics, of a bounded set.
  ObservedResponder(std::shared_ptr<Observers> observers, const http::Request& request,
                    std::string route, std::shared_ptr<http::Responder> inner);
  ~ObservedResponder() override;

  // Kept until the answer is complete.
  void Hold(std::shared_ptr<void> ticket);

  void Send(http::Response response) override;
  void Begin(http::Response head, std::string keep_alive) override;
  void Write(std::string bytes) override { inner_->Write(std::move(bytes)); }
  void End() override;
  void Account(const http::Cost& cost) override;
  void OnDisconnect(std::function<void()> callback) override;

 private:
  void AddId(http::Response* response) const;
  void Done();  // once; under no lock

  const std::shared_ptr<Observers> observers_;
  const std::shared_ptr<http::Responder> inner_;
  const std::shared_ptr<const http::Key> key_;
  const std::string method_, path_, route_, id_;
  const std::chrono::steady_clock::time_point start_;
  std::mutex mutex_;
  int status_ = 0;  // 0: nothing was answered
  bool done_ = false;
  std::optional<http::Cost> cost_;
  std::shared_ptr<void> ticket_;
};

}  // namespace bakestone
