// What each key may use at once and by the minute. Thread-safe; tickets keep it alive.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "server/http/keys.h"

namespace bakestone {

class KeyLimits : public std::enable_shared_from_this<KeyLimits> {
 public:
  using Clock = std::chrono::steady_clock;

  // Counts one request until the ticket goes. Throws ApiError 429 with Retry-After. A null key has
  // no limits.
  std::shared_ptr<void> Admit(const http::Key* key, Clock::time_point now);
  // Tokens are known when they were made: a key may go over its limit once, and waits for it
  // afterwards.
  void Spend(const http::Key* key, int64_t tokens, Clock::time_point now);

 private:
  // A bucket that holds a minute's worth and fills evenly.
  struct Bucket {
    double level = 0;
    Clock::time_point filled = {};
    void Fill(int64_t per_minute, Clock::time_point now);
  };
  struct Use {
    int64_t running = 0;
    Bucket requests, tokens;
  };
  void Leave(const std::string& tenant);

  std::mutex mutex_;
  std::map<std::string, Use> uses_;  // by tenant
};

}  // namespace bakestone
