#include "server/api/answer.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include <fmt/format.h>

#include "server/api/api_error.h"
#include "server/api/guard.h"

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

void Answer::Start(const ModelPtr& model, std::vector<GenerationRequest> requests) {
  ended_.assign(requests.size(), false);
  usages_.resize(requests.size());
  unfinished_ = static_cast<int64_t>(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    shares_prompt_.push_back(requests[i].sampling.stream > 0);
    requests[i].sink = [self = shared_from_this(), i](Event&& event) {
      self->Receive(static_cast<int64_t>(i), std::move(event));
    };
  }
  std::unique_lock lock(mutex_);  // events wait until the stream is open
  model_ = model;
  start_ = first_token_ = last_token_ = Clock::now();
  Engine& engine = model->engine();
  ids_ = engine.Submit(std::move(requests));
  Begin();
  lock.unlock();
  responder_->OnDisconnect([&engine, ids = ids_] {
    for (const RequestId id : ids) engine.Cancel(id);
  });
}

void Answer::StartInForm(const ModelPtr& model, std::vector<GenerationRequest> requests,
                         const std::optional<AnswerForm>& form, const http::Request& request) {
  if (!form) return Start(model, std::move(requests));
  // What is told of the request where it fails; its body is not kept.
  http::Request told{.method = request.method,
                     .path = request.path,
                     .query = {},
                     .headers = {},
                     .body = {},
                     .key = nullptr};
  auto waiting = std::make_shared<std::vector<GenerationRequest>>(std::move(requests));
  model->grammars->Compile(
      form->source,
      [self = shared_from_this(), model, waiting, field = form->field, told = std::move(told)](
          std::shared_ptr<const Constraint> constraint, std::exception_ptr error) {
        Guarded(model->engine(), told, self->responder(), [&] {
          try {
            if (error) std::rethrow_exception(error);
          } catch (const Error& refused) {
            const std::string why = refused.what();
            if (refused.code() == ErrorCode::kInvalidArgument && why.starts_with(field + "[")) {
              BadField(why.substr(0, why.find(':')), why);  // says where in the field
            }
            if (refused.code() == ErrorCode::kInvalidArgument) {
              BadField(field, fmt::format("{}: {}", field, refused.what()));
            }
            if (refused.code() == ErrorCode::kUnsupported) {
              UnsupportedField(field, fmt::format("{}: {}", field, refused.what()));
            }
            throw;
          }
          for (GenerationRequest& one : *waiting) one.constraint = constraint;
          self->Start(model, std::move(*waiting));
        });
      });
}

void Answer::Receive(int64_t choice, Event&& event) {
  std::lock_guard lock(mutex_);
  if (over_ || ended_[choice]) return;
  Note(choice, event);
  if (event.error) {
    over_ = true;
    for (const RequestId id : ids_) model_->engine().Cancel(id);
    Account(true);
    Fail(*event.error);
    return;
  }
  const bool last = event.finish.has_value();
  OnEvent(choice, std::move(event));
  if (last) CountEnd(choice);
}

void Answer::Note(int64_t choice, const Event& event) {
  usages_[choice] = event.usage;
  cancelled_ |= event.finish == FinishReason::kCancelled;
  if (event.tokens.empty()) return;
  last_token_ = Clock::now();
  if (first_token_ == start_) first_token_ = last_token_;
}

void Answer::Account(bool failed) {
  http::Cost cost{.model = model_->served.id, .cancelled = cancelled_, .failed = failed};
  int64_t longest = 0;
  for (size_t i = 0; i < usages_.size(); ++i) {
    cost.completion_tokens += usages_[i].completion_tokens;
    longest = std::max(longest, usages_[i].completion_tokens);
    if (shares_prompt_[i]) continue;
    cost.prompt_tokens += usages_[i].prompt_tokens;
    cost.cached_tokens += usages_[i].cached_tokens;
  }
  const auto seconds = [](Clock::duration time) {
    return std::chrono::duration<double>(time).count();
  };
  if (longest > 0) cost.first_token_seconds = seconds(first_token_ - start_);
  if (longest > 1) {
    cost.seconds_per_token = seconds(last_token_ - first_token_) / static_cast<double>(longest - 1);
  }
  responder_->Account(cost);
}

void Answer::EndChoice(int64_t choice) {
  model_->engine().Cancel(ids_[choice]);
  CountEnd(choice);
}

void Answer::CountEnd(int64_t choice) {
  if (ended_[choice]) return;
  ended_[choice] = true;
  if (--unfinished_ > 0) return;
  over_ = true;
  Account(false);
  Complete();
}

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string MakeId(std::string_view prefix) {
  return fmt::format("{}{:016x}", prefix, RandomSeed());
}

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
