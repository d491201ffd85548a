#include "server/api/answer.h"

#include <chrono>
#include <utility>

#include <fmt/format.h>

namespace bakestone::api {
namespace {

bool IsUtf8(std::string_view text) {
  try {
    (void)Json(std::string(text)).dump();  // strict
    return true;
  } catch (const nlohmann::json::exception&) {
    return false;
  }
}

}  // namespace

void Answer::Start(Engine& engine, std::vector<GenerationRequest> requests) {
  ended_.assign(requests.size(), false);
  unfinished_ = static_cast<int64_t>(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].sink = [self = shared_from_this(), i](Event&& event) {
      self->Receive(static_cast<int64_t>(i), std::move(event));
    };
  }
  std::unique_lock lock(mutex_);  // events wait until the stream is open
  engine_ = &engine;
  ids_ = engine.Submit(std::move(requests));
  Begin();
  lock.unlock();
  responder_->OnDisconnect([&engine, ids = ids_] {
    for (const RequestId id : ids) engine.Cancel(id);
  });
}

void Answer::Receive(int64_t choice, Event&& event) {
  std::lock_guard lock(mutex_);
  if (over_ || ended_[choice]) return;
  if (event.error) {
    over_ = true;
    for (const RequestId id : ids_) engine_->Cancel(id);
    Fail(*event.error);
    return;
  }
  const bool last = event.finish.has_value();
  OnEvent(choice, std::move(event));
  if (last) CountEnd(choice);
}

void Answer::EndChoice(int64_t choice) {
  engine_->Cancel(ids_[choice]);
  CountEnd(choice);
}

void Answer::CountEnd(int64_t choice) {
  if (ended_[choice]) return;
  ended_[choice] = true;
  if (--unfinished_ > 0) return;
  over_ = true;
  Complete();
}

std::string Dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

std::string MakeId(std::string_view prefix) { return fmt::format("{}{:016x}", prefix, RandomSeed()); }

int64_t UnixTime() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::seconds>(now).count();
}

std::string SseData(const Json& json) { return "data: " + Dump(json) + "\n\n"; }

std::string SseEvent(std::string_view name, const Json& json) {
  return fmt::format("event: {}\ndata: {}\n\n", name, Dump(json));
}

std::string TokenString(const Tokenizer& tokenizer, int32_t token) {
  const std::string_view bytes = tokenizer.TokenBytes(token);
  if (IsUtf8(bytes)) return std::string(bytes);
  std::string text = "bytes:";
  for (const char c : bytes) text += fmt::format("\\x{:02x}", static_cast<uint8_t>(c));
  return text;
}

int64_t CountCharacters(std::string_view utf8) {
  int64_t count = 0;
  for (const char c : utf8) count += (static_cast<uint8_t>(c) & 0xC0) != 0x80;
  return count;
}

}  // namespace bakestone::api
