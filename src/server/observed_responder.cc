#include "server/observed_responder.h"

#include <algorithm>
#include <utility>

#include "server/api/answer.h"
#include "server/api/api_error.h"

namespace bakestone {
namespace {

// The client's own id where it is fit to be said back, else a new one.
std::string IdOf(const http::Request& request) {
  constexpr size_t kMost = 128;
  const std::string_view given = request.Header("x-request-id");
  const bool fit = !given.empty() && given.size() <= kMost &&
                   std::all_of(given.begin(), given.end(), [](char c) {
                     return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                            (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
                   });
  return fit ? std::string(given) : api::MakeId("req_");
}

}  // namespace

ObservedResponder::ObservedResponder(std::shared_ptr<Observers> observers,
                                     const http::Request& request, std::string route,
                                     std::shared_ptr<http::Responder> inner)
    : observers_(std::move(observers)),
      inner_(std::move(inner)),
      key_(request.key),
      method_(request.method),
      path_(request.path),
      route_(std::move(route)),
      id_(IdOf(request)),
      start_(std::chrono::steady_clock::now()) {}

ObservedResponder::~ObservedResponder() { Done(); }

void ObservedResponder::Hold(std::shared_ptr<void> ticket) {
  std::lock_guard lock(mutex_);
  ticket_ = std::move(ticket);
}

void ObservedResponder::AddId(http::Response* response) const {
  response->headers.emplace_back("X-Request-Id", id_);
  if (api::FamilyOf(path_) == api::Family::kAnthropic) {
    response->headers.emplace_back("Request-Id", id_);
  }
}

void ObservedResponder::Send(http::Response response) {
  AddId(&response);
  {
    std::lock_guard lock(mutex_);
    if (status_ == 0) status_ = response.status;
  }
  Done();  // before the client can know, so that its next request finds the place free
  inner_->Send(std::move(response));
}

void ObservedResponder::Begin(http::Response head, std::string keep_alive) {
  AddId(&head);
  {
    std::lock_guard lock(mutex_);
    if (status_ == 0) status_ = head.status;
  }
  inner_->Begin(std::move(head), std::move(keep_alive));
}

void ObservedResponder::End() {
  Done();
  inner_->End();
}

void ObservedResponder::Account(const http::Cost& cost) {
  const std::string name = key_ ? key_->name : "";
  observers_->metrics.CountCost(name, cost);
  observers_->limits->Spend(key_.get(), cost.prompt_tokens + cost.completion_tokens,
                            std::chrono::steady_clock::now());
  std::lock_guard lock(mutex_);
  cost_ = cost;
}

void ObservedResponder::OnDisconnect(std::function<void()> callback) {
  inner_->OnDisconnect(std::move(callback));
}

void ObservedResponder::Done() {
  constexpr int kClientLeft = 499;
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  std::shared_ptr<void> ticket;  // let go after the lock
  api::Json line;
  {
    std::lock_guard lock(mutex_);
    if (std::exchange(done_, true)) return;
    ticket = std::move(ticket_);
    const bool left = status_ == 0 || (cost_ && cost_->cancelled);
    const int status = left ? kClientLeft : status_;
    observers_->metrics.CountRequest(route_, status, seconds);
    if (!observers_->on_request) return;
    line = {{"time", api::UnixTime()}, {"id", id_},     {"key", key_ ? key_->name : ""},
            {"method", method_},       {"path", path_}, {"status", status},
            {"seconds", seconds}};
    if (cost_) {
      line["model"] = cost_->model;
      line["prompt_tokens"] = cost_->prompt_tokens;
      line["cached_tokens"] = cost_->cached_tokens;
      line["completion_tokens"] = cost_->completion_tokens;
      if (cost_->first_token_seconds >= 0) line["first_token_seconds"] = cost_->first_token_seconds;
      if (cost_->failed) line["failed"] = true;
    }
  }
  observers_->on_request(api::Dump(line));
}

}  // namespace bakestone
