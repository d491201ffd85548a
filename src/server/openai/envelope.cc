#include "server/openai/envelope.h"

#include <utility>

#include <fmt/format.h>

#include "server/api/api_error.h"

namespace bakestone::openai {

Envelope::Envelope(EnvelopeOptions options, const api::ModelEntry& model)
    : options_(std::move(options)),
      id_(api::MakeId(options_.id_prefix)),
      model_(model.served.id),
      fingerprint_(model.fingerprint),
      created_(api::UnixTime()) {}

Json Envelope::Base(const char* object) const {
  Json json;
  json["id"] = id_;
  json["object"] = object;
  json["created"] = created_;
  json["model"] = model_;
  json["system_fingerprint"] = fingerprint_;
  return json;
}

Json Envelope::UsageJson(const Usage& usage, int64_t reasoning_tokens) const {
  Json json = {{"prompt_tokens", usage.prompt_tokens},
               {"completion_tokens", usage.completion_tokens},
               {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
               {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}}};
  if (options_.reasoning_usage) {
    json["completion_tokens_details"]["reasoning_tokens"] = reasoning_tokens;
  }
  if (options_.prediction_usage) {
    json["completion_tokens_details"]["accepted_prediction_tokens"] = usage.accepted_tokens;
    json["completion_tokens_details"]["rejected_prediction_tokens"] =
        usage.proposed_tokens - usage.accepted_tokens;
  }
  return json;
}

Json Envelope::Whole(Json choices, const Usage& usage, int64_t reasoning_tokens) const {
  Json json = Base(options_.object);
  json["choices"] = std::move(choices);
  json["usage"] = UsageJson(usage, reasoning_tokens);
  return json;
}

std::string Envelope::Chunk(Json choice) const {
  Json json = Base(options_.chunk_object);
  json["choices"] = Json::array({std::move(choice)});
  if (options_.include_usage) json["usage"] = nullptr;
  return api::SseData(json);
}

std::string Envelope::Ending(const Usage& usage, int64_t reasoning_tokens) const {
  std::string text;
  if (options_.include_usage) {
    Json json = Base(options_.chunk_object);
    json["choices"] = Json::array();
    json["usage"] = UsageJson(usage, reasoning_tokens);
    text = api::SseData(json);
  }
  return text + "data: [DONE]\n\n";
}

void SendFailure(const Error& error, bool stream, http::Responder& responder) {
  const api::ApiError api = api::FromError(error);
  if (!stream) {
    responder.Send(ToResponse(api, api::Family::kOpenAi));
    return;
  }
  responder.Write(fmt::format("data: {}\n\n", ErrorBody(api, api::Family::kOpenAi)));
  responder.End();
}

const char* FinishName(FinishReason reason) {
  return reason == FinishReason::kLength ? "length" : "stop";
}

}  // namespace bakestone::openai
