#include "server/openai/answer.h"

#include <chrono>
#include <iterator>
#include <utility>

#include <fmt/format.h>

#include "server/openai/api_error.h"

namespace bakestone::openai {
namespace {

int64_t UnixTime() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

bool IsUtf8(std::string_view text) {
  try {
    (void)Json(std::string(text)).dump();  // strict
    return true;
  } catch (const nlohmann::json::exception&) {
    return false;
  }
}

}  // namespace

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

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Answer::Answer(AnswerOptions options, const Tokenizer& tokenizer, std::shared_ptr<http::Responder> responder)
    : options_(std::move(options)), tokenizer_(tokenizer), responder_(std::move(responder)),
      id_(fmt::format("{}{:016x}", options_.id_prefix, RandomSeed())), created_(UnixTime()) {}

const char* Answer::FinishName(FinishReason reason) const {
  return reason == FinishReason::kLength ? "length" : "stop";
}

void Answer::Start(Engine& engine, std::vector<GenerationRequest> requests) {
  choices_.resize(requests.size());
  unfinished_ = static_cast<int64_t>(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].sink = [self = shared_from_this(), i](Event&& event) {
      self->OnEvent(static_cast<int64_t>(i), std::move(event));
    };
  }
  std::unique_lock lock(mutex_);  // events wait until the head is out
  engine_ = &engine;
  ids_ = engine.Submit(std::move(requests));
  if (options_.stream) {
    responder_->Begin({.content_type = "text/event-stream", .headers = {}, .body = {}}, ": ping\n\n");
    for (size_t i = 0; i < choices_.size(); ++i) {
      Json first = StreamStart(static_cast<int64_t>(i));
      if (!first.is_null()) responder_->Write(Frame(std::move(first)));
    }
  }
  lock.unlock();
  responder_->OnDisconnect([&engine, ids = ids_] {
    for (const RequestId id : ids) engine.Cancel(id);
  });
}

void Answer::OnEvent(int64_t i, Event&& event) {
  std::lock_guard lock(mutex_);
  if (failed_) return;
  if (event.error) {
    FailAll(*event.error);
    return;
  }
  Event& all = choices_[i].all;
  all.usage = event.usage;
  all.finish = event.finish;
  if (options_.stream) {
    StreamEvent(i, event);
  } else {
    all.text += event.text;
    std::move(event.tokens.begin(), event.tokens.end(), std::back_inserter(all.tokens));
    std::move(event.prompt.begin(), event.prompt.end(), std::back_inserter(all.prompt));
  }
  if (event.finish && --unfinished_ == 0) Finish();
}

void Answer::StreamEvent(int64_t i, const Event& event) {
  Json chunk = StreamChoice(i, event);
  if (!chunk.is_null()) responder_->Write(Frame(std::move(chunk)));
}

Json Answer::Envelope(bool chunk) const {
  Json json;
  json["id"] = id_;
  json["object"] = object_name(chunk);
  json["created"] = created_;
  json["model"] = options_.model;
  json["system_fingerprint"] = options_.fingerprint;
  return json;
}

std::string Answer::Frame(Json choice) {
  Json json = Envelope(true);
  json["choices"] = Json::array({std::move(choice)});
  if (options_.include_usage) json["usage"] = nullptr;
  return fmt::format("data: {}\n\n", Dump(json));
}

Json Answer::UsageJson() const {
  int64_t prompt = 0, cached = 0, completion = 0, proposed = 0, accepted = 0;
  for (size_t i = 0; i < choices_.size(); ++i) {
    const Usage& usage = choices_[i].all.usage;
    completion += usage.completion_tokens;
    proposed += usage.proposed_tokens;
    accepted += usage.accepted_tokens;
    if (i % options_.choices_per_prompt != 0) continue;  // the choices of a prompt share it
    prompt += usage.prompt_tokens;
    cached += usage.cached_tokens;
  }
  Json json = {{"prompt_tokens", prompt},
               {"completion_tokens", completion},
               {"total_tokens", prompt + completion},
               {"prompt_tokens_details", {{"cached_tokens", cached}}}};
  if (options_.prediction_usage) {
    json["completion_tokens_details"] = {{"accepted_prediction_tokens", accepted},
                                         {"rejected_prediction_tokens", proposed - accepted}};
  }
  return json;
}

void Answer::Finish() {
  if (options_.stream) {
    if (options_.include_usage) {
      Json json = Envelope(true);
      json["choices"] = Json::array();
      json["usage"] = UsageJson();
      responder_->Write(fmt::format("data: {}\n\n", Dump(json)));
    }
    responder_->Write("data: [DONE]\n\n");
    responder_->End();
    return;
  }
  Json json = Envelope(false);
  json["choices"] = Json::array();
  for (size_t i = 0; i < choices_.size(); ++i) {
    json["choices"].push_back(FullChoice(static_cast<int64_t>(i), choices_[i]));
  }
  json["usage"] = UsageJson();
  responder_->Send({.headers = {}, .body = Dump(json)});
}

void Answer::FailAll(const Error& error) {
  failed_ = true;
  for (const RequestId id : ids_) engine_->Cancel(id);
  const ApiError api = FromError(error);
  if (options_.stream) {
    responder_->Write(fmt::format("data: {}\n\n", ErrorBody(api)));
    responder_->End();
  } else {
    responder_->Send(ToResponse(api));
  }
}

}  // namespace bakestone::openai
