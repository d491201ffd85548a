// One HTTP answer that is fed by one or more generations of one engine. Subclasses know an API's
// forms. Events come on the engine's thread, one at a time; the answer is kept alive by the sinks.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "server/api/answer_form.h"
#include "server/api/fields.h"
#include "server/api/model_registry.h"
#include "server/http/message.h"

namespace bakestone::api {

class Answer : public std::enable_shared_from_this<Answer> {
 public:
  explicit Answer(std::shared_ptr<http::Responder> responder) : responder_(std::move(responder)) {}
  virtual ~Answer() = default;

  // Submits; choice i is request i. Throws as Engine::Submit, with nothing sent yet. The engine
  // must outlive the HTTP server.
  void Start(const ModelPtr& model, std::vector<GenerationRequest> requests);
  // The same once the form is compiled that every choice has to have, now or later on another
  // thread; what is wrong is sent in the form of the request's API.
  void StartInForm(const ModelPtr& model, std::vector<GenerationRequest> requests,
                   const std::optional<AnswerForm>& form, const http::Request& request);

 protected:
  using Clock = std::chrono::steady_clock;

  // All of these are called with the answer's lock held.
  virtual void Begin() {}  // before the first event: a stream opens
  virtual void OnEvent(int64_t choice, Event&& event) = 0;
  virtual void Complete() = 0;                // every choice has ended
  virtual void Fail(const Error& error) = 0;  // instead of all else that was to come

  // No more of this choice is wanted: what is still computed of it is not handed on.
  void EndChoice(int64_t choice);

  http::Responder& responder() { return *responder_; }
  int64_t num_choices() const { return static_cast<int64_t>(ended_.size()); }

 private:
  void Receive(int64_t choice, Event&& event);
  void Note(int64_t choice, const Event& event);  // for the account
  void Account(bool failed);
  void CountEnd(int64_t choice);

  const std::shared_ptr<http::Responder> responder_;
  std::mutex mutex_;  // orders Begin before events; guards what follows, and the subclass
  std::vector<bool> ended_;
  std::vector<Usage> usages_;        // by choice, so far
  std::vector<bool> shares_prompt_;  // with the choice before it
  bool cancelled_ = false;
  Clock::time_point start_, first_token_, last_token_;
  ModelPtr model_;
  int64_t unfinished_ = 0;
  bool over_ = false;
  std::vector<RequestId> ids_;
};

// Parts that several forms share.
std::string Dump(const Json& json);
std::string MakeId(std::string_view prefix);  // "chatcmpl-" and 16 hex digits
int64_t UnixTime();
std::string SseData(const Json& json);  // "data: {...}\n\n"
std::string SseEvent(std::string_view name, const Json& json);
inline constexpr const char* kEventStream = "text/event-stream";
std::string TokenString(const Tokenizer& tokenizer,
                        int32_t token);  // "bytes:\xe2" for a part of a character
int64_t CountCharacters(std::string_view utf8);

}  // namespace bakestone::api
