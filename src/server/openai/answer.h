// One HTTP answer that is fed by one or more generations of one engine: collects their events into one
// JSON body, or sends them on as a stream of server-sent events. Subclasses know the shapes of
// /v1/chat/completions and /v1/completions. Events come on the engine's thread; kept alive by the sinks.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "server/http/message.h"
#include "server/openai/fields.h"

namespace bakestone::openai {

struct AnswerOptions {
  std::string id_prefix;       // "chatcmpl-"
  std::string model;           // as the client named it
  std::string fingerprint;     // of weights and adapter: another one means another model
  int64_t choices_per_prompt = 1;
  bool stream = false;
  bool include_usage = false;
  bool prediction_usage = false;  // how much of a prediction came true is told too
};

class Answer : public std::enable_shared_from_this<Answer> {
 public:
  Answer(AnswerOptions options, const Tokenizer& tokenizer, std::shared_ptr<http::Responder> responder);
  virtual ~Answer() = default;

  // Submits; choice i is request i. Throws as Engine::Submit, with nothing sent yet. The engine must
  // outlive the HTTP server.
  void Start(Engine& engine, std::vector<GenerationRequest> requests);

 protected:
  struct Choice {
    Event all;                  // everything so far: text, tokens, prompt, finish, usage
    int64_t text_offset = 0;    // characters of the text that were sent
  };

  virtual Json StreamStart(int64_t choice) { (void)choice; return {}; }  // a choice's first chunk; null: none
  // A choice's chunk; null: nothing to say yet.
  virtual Json StreamChoice(int64_t choice, const Event& event) = 0;
  virtual Json FullChoice(int64_t choice, const Choice& collected) = 0;
  virtual const char* object_name(bool chunk) const = 0;

  Choice& choice(int64_t i) { return choices_[i]; }
  const Tokenizer& tokenizer() const { return tokenizer_; }
  const char* FinishName(FinishReason reason) const;

 private:
  void OnEvent(int64_t i, Event&& event);
  void StreamEvent(int64_t i, const Event& event);
  void Finish();
  void FailAll(const Error& error);
  Json Envelope(bool chunk) const;
  Json UsageJson() const;
  std::string Frame(Json choice);

  const AnswerOptions options_;
  const Tokenizer& tokenizer_;
  const std::shared_ptr<http::Responder> responder_;
  const std::string id_;
  const int64_t created_;
  std::mutex mutex_;  // orders Start's first chunks before events; guards what follows
  std::vector<Choice> choices_;
  int64_t unfinished_ = 0;
  bool failed_ = false;
  Engine* engine_ = nullptr;
  std::vector<RequestId> ids_;
};

// Parts of both forms.
std::string TokenString(const Tokenizer& tokenizer, int32_t token);  // "bytes:\xe2" for a part of a character
int64_t CountCharacters(std::string_view utf8);
std::string Dump(const Json& json);

}  // namespace bakestone::openai
