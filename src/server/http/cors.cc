#include "server/http/cors.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/error.h"

namespace bakestone::http {
namespace {

bool Allowed(const HttpOptions& options, std::string_view origin) {
  const auto& allowed = options.allowed_origins;
  return !origin.empty() &&
         std::any_of(allowed.begin(), allowed.end(),
                     [&](const std::string& name) { return name == origin || name == "*"; });
}

// A list of header names and nothing else, so that it may be said back.
bool IsNameList(std::string_view text) {
  return text.size() <= 1024 && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '-' || c == '_' || c == ',' || c == ' ';
         });
}

}  // namespace

void CheckOrigins(const HttpOptions& options) {
  for (const std::string& origin : options.allowed_origins) {
    const size_t host = origin.find("://");
    const bool whole = host != std::string::npos && host > 0 && host + 3 < origin.size() &&
                       origin.find('/', host + 3) == std::string::npos;
    if (whole || origin == "*") continue;
    Throw(
        ErrorCode::kInvalidArgument,
        "allowed origin: expected one such as https://page.example, without a path, or '*'; found "
        "'{}'",
        origin);
  }
}

std::string CorsHeaders(const HttpOptions& options, const Request& head) {
  const std::string_view origin = head.Header("origin");
  if (!Allowed(options, origin)) return "";
  return fmt::format(
      "Access-Control-Allow-Origin: {}\r\nAccess-Control-Expose-Headers: X-Request-Id, "
      "Retry-After\r\nVary: Origin\r\n",
      origin);
}

bool IsPreflight(const HttpOptions& options, const Request& head) {
  return head.method == "OPTIONS" && !head.Header("access-control-request-method").empty() &&
         Allowed(options, head.Header("origin"));
}

Response PreflightAnswer(const Request& head) {
  Response response{.status = 204,
                    .headers = {{"Access-Control-Allow-Methods", "GET, POST, DELETE"},
                                {"Access-Control-Max-Age", "600"}},
                    .body = {}};
  const std::string_view names = head.Header("access-control-request-headers");
  if (!names.empty() && IsNameList(names)) {
    response.headers.emplace_back("Access-Control-Allow-Headers", std::string(names));
  }
  return response;
}

}  // namespace bakestone::http
