// What is wrong with a request, and how each family of clients wants to hear it: OpenAI's
// {"error": {message, type, param, code}}, all four; Anthropic's {"type": "error", "error": {type,
// message}}; Ollama's {"error": message}.
#pragma once

#include <exception>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "server/http/message.h"

namespace bakestone::api {

struct ApiError : std::exception {
  int status = 400;
  std::string message;
  std::optional<std::string> param, code;
  std::optional<int> retry_after;    // seconds
  std::optional<std::string> allow;  // methods, of a 405

  const char* what() const noexcept override { return message.c_str(); }
};

// 400 that names the field.
[[noreturn]] void BadField(std::string_view param, std::string message);
// 400 for a field that is known but would change the answer in a way this server does not do.
[[noreturn]] void UnsupportedField(std::string_view param, std::string message);
[[noreturn]] void Fail(int status, std::string message, std::string code);

// What a lower layer's error means to a client.
ApiError FromError(const Error& error);

enum class Family { kOpenAi, kAnthropic, kOllama };
Family FamilyOf(std::string_view path);

std::string ErrorBody(const ApiError& error, Family family);  // the JSON
http::Response ToResponse(const ApiError& error, Family family);

}  // namespace bakestone::api
