#include "server/api/api_error.h"

#include <utility>

#include <nlohmann/json.hpp>

namespace bakestone::api {
namespace {

std::string_view TypeOf(int status) {
  if (status == 401) return "authentication_error";
  if (status == 403) return "permission_error";
  if (status == 429) return "rate_limit_error";
  return status >= 500 ? "server_error" : "invalid_request_error";
}

std::string_view AnthropicTypeOf(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 413:
      return "request_too_large";
    case 429:
      return "rate_limit_error";
    case 503:
      return "overloaded_error";
    default:
      return status >= 500 ? "api_error" : "invalid_request_error";
  }
}

// "temperature: expected ..." and "input[3]: expected ..." name their fields.
std::optional<std::string> FieldOf(std::string_view message) {
  const size_t colon = message.find(':');
  const std::string_view place = message.substr(0, colon), name = place.substr(0, place.find('['));
  if (colon == std::string_view::npos || name.empty() ||
      name.find_first_not_of("abcdefghijklmnopqrstuvwxyz_") != std::string_view::npos) {
    return std::nullopt;
  }
  return std::string(name);
}

}  // namespace

void BadField(std::string_view param, std::string message) {
  ApiError error;
  error.message = std::move(message);
  error.param = std::string(param);
  error.code = "invalid_value";
  throw error;
}

void UnsupportedField(std::string_view param, std::string message) {
  ApiError error;
  error.message = std::move(message);
  error.param = std::string(param);
  error.code = "unsupported_parameter";
  throw error;
}

void Fail(int status, std::string message, std::string code) {
  ApiError error;
  error.status = status;
  error.message = std::move(message);
  error.code = std::move(code);
  throw error;
}

ApiError FromError(const Error& error) {
  ApiError result;
  result.message = error.what();
  switch (error.code()) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kUnsupported:
      result.status = 400;
      result.param = FieldOf(result.message);
      result.code = "invalid_value";
      break;
    case ErrorCode::kOutOfMemory:
      result.status = 400;
      result.param = FieldOf(result.message);
      result.code = "context_length_exceeded";
      break;
    case ErrorCode::kUnavailable:
      result.status = 503;
      result.code = "unavailable";
      result.retry_after = 5;
      break;
    default:
      result.status = 500;
      result.code = "internal_error";
  }
  return result;
}

Family FamilyOf(std::string_view path) {
  if (path.starts_with("/v1/messages")) return Family::kAnthropic;
  return path.starts_with("/api/") ? Family::kOllama : Family::kOpenAi;
}

std::string ErrorBody(const ApiError& error, Family family) {
  using Json = nlohmann::ordered_json;
  Json body;
  if (family == Family::kOllama) {
    body["error"] = error.message;
  } else if (family == Family::kAnthropic) {
    body = {{"type", "error"},
            {"error", {{"type", AnthropicTypeOf(error.status)}, {"message", error.message}}}};
  } else {
    body["error"] = {{"message", error.message},
                     {"type", TypeOf(error.status)},
                     {"param", nullptr},
                     {"code", nullptr}};
    if (error.param) body["error"]["param"] = *error.param;
    if (error.code) body["error"]["code"] = *error.code;
  }
  return body.dump(-1, ' ', false, Json::error_handler_t::replace);
}

http::Response ToResponse(const ApiError& error, Family family) {
  http::Response response{.status = error.status, .headers = {}, .body = ErrorBody(error, family)};
  if (error.retry_after) {
    response.headers.emplace_back("Retry-After", std::to_string(*error.retry_after));
  }
  if (error.allow) response.headers.emplace_back("Allow", *error.allow);
  return response;
}

}  // namespace bakestone::api
