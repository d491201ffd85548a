#include "server/key_limits.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "server/api/api_error.h"

namespace bakestone {
namespace {

[[noreturn]] void TooMuch(std::string message, double seconds) {
  api::ApiError error;
  error.status = 429;
  error.message = std::move(message);
  error.code = "rate_limit_exceeded";
  error.retry_after = static_cast<int>(std::clamp(std::ceil(seconds), 1.0, 60.0));
  throw error;
}

}  // namespace

void KeyLimits::Bucket::Fill(int64_t per_minute, Clock::time_point now) {
  const double full = static_cast<double>(per_minute);
  const double seconds = std::chrono::duration<double>(now - filled).count();
  level = filled == Clock::time_point{} ? full : std::min(full, level + seconds * full / 60);
  filled = now;
}

std::shared_ptr<void> KeyLimits::Admit(const http::Key* key, Clock::time_point now) {
  if (!key) return nullptr;
  std::lock_guard lock(mutex_);
  Use& use = uses_[key->tenant];
  if (key->max_requests > 0 && use.running >= key->max_requests) {
    TooMuch(fmt::format("this key may have {} requests at the same time", key->max_requests), 1);
  }
  if (key->tokens_per_minute > 0) {
    use.tokens.Fill(key->tokens_per_minute, now);
    const double rate = static_cast<double>(key->tokens_per_minute) / 60;
    if (use.tokens.level < 1) {
      TooMuch(fmt::format("this key may use {} tokens a minute", key->tokens_per_minute),
              (1 - use.tokens.level) / rate);
    }
  }
  if (key->requests_per_minute > 0) {
    use.requests.Fill(key->requests_per_minute, now);
    const double rate = static_cast<double>(key->requests_per_minute) / 60;
    if (use.requests.level < 1) {
      TooMuch(fmt::format("this key may make {} requests a minute", key->requests_per_minute),
              (1 - use.requests.level) / rate);
    }
    use.requests.level -= 1;
  }
  ++use.running;
  return std::shared_ptr<void>(
      nullptr, [self = shared_from_this(), tenant = key->tenant](void*) { self->Leave(tenant); });
}

void KeyLimits::Spend(const http::Key* key, int64_t tokens, Clock::time_point now) {
  if (!key || key->tokens_per_minute == 0) return;
  std::lock_guard lock(mutex_);
  Bucket& bucket = uses_[key->tenant].tokens;
  bucket.Fill(key->tokens_per_minute, now);
  bucket.level -= static_cast<double>(tokens);
}

void KeyLimits::Leave(const std::string& tenant) {
  std::lock_guard lock(mutex_);
  --uses_[tenant].running;
}

}  // namespace bakestone
