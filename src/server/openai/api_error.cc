#include "server/openai/api_error.h"

#include <utility>

#include <nlohmann/json.hpp>

namespace bakestone::openai {
namespace {

std::string_view TypeOf(int status) {
  if (status == 401) return "authentication_error";
  if (status == 403) return "permission_error";
  if (status == 429) return "rate_limit_error";
  return status >= 500 ? "server_error" : "invalid_request_error";
}

// "temperature: expected ..." names its field.
std::optional<std::string> FieldOf(std::string_view message) {
  const size_t colon = message.find(':');
  const std::string_view name = message.substr(0, colon);
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

std::string ErrorBody(const ApiError& error) {
  nlohmann::ordered_json body;
  body["message"] = error.message;
  body["type"] = TypeOf(error.status);
  body["param"] = error.param ? nlohmann::ordered_json(*error.param) : nullptr;
  body["code"] = error.code ? nlohmann::ordered_json(*error.code) : nullptr;
  return nlohmann::ordered_json{{"error", body}}.dump(-1, ' ', false,
                                                      nlohmann::ordered_json::error_handler_t::replace);
}

http::Response ToResponse(const ApiError& error) {
  http::Response response{.status = error.status, .headers = {}, .body = ErrorBody(error)};
  if (error.retry_after) response.headers.emplace_back("Retry-After", std::to_string(*error.retry_after));
  return response;
}

}  // namespace bakestone::openai
