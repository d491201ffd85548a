#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <random>
#include <utility>

#include "engine/engine.h"

namespace bakestone {
namespace {

// How often Generate lets its caller cancel while no text comes.
constexpr std::chrono::milliseconds kPollInterval{50};

}  // namespace

uint64_t RandomSeed() {
  std::random_device device;
  return (uint64_t{device()} << 32) | device();
}

Event Generate(Engine& engine, GenerationRequest request,
               const std::function<bool(const std::string&)>& on_text) {
  struct Mailbox {
    std::mutex mutex;
    std::condition_variable arrived;
    std::deque<Event> events;
  };
  const auto box = std::make_shared<Mailbox>();
  request.sink = [box](Event&& event) {
    {
      std::lock_guard lock(box->mutex);
      box->events.push_back(std::move(event));
    }
    box->arrived.notify_one();
  };
  const RequestId id = engine.Submit(std::move(request));
  Event all;
  bool asked_to_stop = false;
  while (true) {
    std::unique_lock lock(box->mutex);
    box->arrived.wait_for(lock, kPollInterval, [&] { return !box->events.empty(); });
    Event event;
    if (!box->events.empty()) {
      event = std::move(box->events.front());
      box->events.pop_front();
      all.usage = event.usage;
    }
    lock.unlock();
    if (on_text && !asked_to_stop && !on_text(event.text)) {
      asked_to_stop = true;
      engine.Cancel(id);
    }
    all.text += event.text;
    std::move(event.tokens.begin(), event.tokens.end(), std::back_inserter(all.tokens));
    std::move(event.prompt.begin(), event.prompt.end(), std::back_inserter(all.prompt));
    if (!event.finish) continue;
    if (event.error) throw *event.error;
    all.finish = event.finish;
    all.stop_string = event.stop_string;
    return all;
  }
}

}  // namespace bakestone
