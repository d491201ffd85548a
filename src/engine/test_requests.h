// For tests: requests, and what comes of them.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "engine/test_engine.h"

namespace bakestone::testing {

// Collects the events of one request; Wait returns them merged.
class Collector {
 public:
  std::function<void(Event&&)> Sink() {
    return [state = state_](Event&& event) {
      std::lock_guard lock(state->mutex);
      if (state->all.finish) state->after_the_end = true;
      state->all.text += event.text;
      for (auto& info : event.tokens) state->all.tokens.push_back(info);
      for (auto& info : event.prompt) state->all.prompt.push_back(info);
      state->all.usage = event.usage;
      state->all.error = event.error;
      state->all.finish = event.finish;
      state->arrived.notify_all();
    };
  }
  Event Wait() {
    std::unique_lock lock(state_->mutex);
    EXPECT_TRUE(state_->arrived.wait_for(lock, std::chrono::seconds(300),
                                         [&] { return state_->all.finish.has_value(); }));
    EXPECT_FALSE(state_->after_the_end);
    return state_->all;
  }
  void WaitForTokens(size_t n) {
    std::unique_lock lock(state_->mutex);
    EXPECT_TRUE(state_->arrived.wait_for(lock, std::chrono::seconds(300),
                                         [&] { return state_->all.tokens.size() >= n; }));
  }

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable arrived;
    Event all;
    bool after_the_end = false;
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

inline std::vector<int32_t> Ids(const Event& event) {
  std::vector<int32_t> ids;
  for (const TokenInfo& info : event.tokens) ids.push_back(info.token);
  return ids;
}

inline GenerationRequest Ask(const std::string& text, int64_t max_tokens) {
  GenerationRequest request;
  request.prompt = TextTokens(text);
  request.max_tokens = max_tokens;
  request.ignore_eos = true;
  return request;
}

inline ErrorCode CodeOf(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.code();
  }
  return ErrorCode::kCancelled;  // "no error" where none of the tests expects it
}

inline std::vector<Event> RunAll(Engine& engine, std::vector<GenerationRequest> requests) {
  std::vector<Collector> collectors(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) requests[i].sink = collectors[i].Sink();
  engine.Submit(std::move(requests));
  std::vector<Event> events;
  for (Collector& collector : collectors) events.push_back(collector.Wait());
  return events;
}

}  // namespace bakestone::testing
