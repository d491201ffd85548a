#include "server/http/gate.h"

#include <algorithm>
#include <utility>

#include "server/http/policy.h"

namespace bakestone::http {
namespace {

int64_t Count(const Request& head, std::string_view name) {
  return std::count_if(head.headers.begin(), head.headers.end(),
                       [&](const auto& header) { return header.first == name; });
}

Refusal Refuse(int status, std::string message, std::string code) {
  return {status, std::move(message), std::move(code)};
}

std::optional<Refusal> CheckHost(const HttpOptions& options, int version, const Request& head) {
  const int64_t hosts = Count(head, "host");
  if (hosts > 1 || (version == 11 && hosts != 1)) {
    return Refuse(400, "expected exactly one Host header", "invalid_host");
  }
  if (hosts == 1 && !HostAllowed(head.Header("host"), options.allowed_hosts)) {
    return Refuse(403, "this Host name is not served here; add it with --allowed-host",
                  "invalid_host");
  }
  return std::nullopt;
}

std::optional<Refusal> CheckKey(const HttpOptions& options, const KeyRing& keys, Request& head) {
  const auto& open = options.public_paths;
  if (keys.empty() || std::find(open.begin(), open.end(), head.path) != open.end()) {
    return std::nullopt;
  }
  // OpenAI's clients send the first, Anthropic's the second, some both.
  constexpr std::string_view kScheme = "Bearer ";
  const std::string_view authorization = head.Header("authorization");
  const bool bearer = authorization.size() > kScheme.size() &&
                      EqualIgnoringCase(authorization.substr(0, kScheme.size()), kScheme);
  if (bearer) head.key = keys.Find(authorization.substr(kScheme.size()));
  if (!head.key) head.key = keys.Find(head.Header("x-api-key"));
  if (!head.key || Count(head, "authorization") > 1 || Count(head, "x-api-key") > 1) {
    return Refuse(401,
                  "a valid API key is required: 'Authorization: Bearer KEY' or 'X-Api-Key: KEY'",
                  "invalid_api_key");
  }
  return std::nullopt;
}

std::optional<Refusal> CheckBody(Framing framing, const Request& head) {
  if (Count(head, "transfer-encoding") > 0 &&
      (!framing.chunked || framing.version != 11 || Count(head, "transfer-encoding") > 1 ||
       Count(head, "content-length") > 0 ||
       !EqualIgnoringCase(head.Header("transfer-encoding"), "chunked"))) {
    return Refuse(400, "a body is sent with one Content-Length or as chunked, nothing else",
                  "invalid_request");
  }
  if (Count(head, "content-encoding") > 0 &&
      !EqualIgnoringCase(head.Header("content-encoding"), "identity")) {
    return Refuse(415, "compressed bodies are not accepted", "unsupported_content_encoding");
  }
  // A page can make a browser post a form's types, or no type, to any address. Programs that leave
  // it out are not browsers: those always say where a post comes from.
  const std::string_view type = head.Header("content-type");
  const bool has_body = framing.chunked || (!head.Header("content-length").empty() &&
                                            head.Header("content-length") != "0");
  const bool browser = !head.Header("origin").empty() || !head.Header("sec-fetch-site").empty();
  const bool json =
      EqualIgnoringCase(type.substr(0, type.find_first_of("; \t")), "application/json") ||
      (type.empty() && !browser);
  if (has_body && !json) {
    return Refuse(415, "expected 'Content-Type: application/json'", "unsupported_content_type");
  }
  const std::string_view expect = head.Header("expect");
  if (!expect.empty() && !EqualIgnoringCase(expect, "100-continue")) {
    return Refuse(417, "only 'Expect: 100-continue' is known", "invalid_request");
  }
  return std::nullopt;
}

}  // namespace

std::string_view Request::Header(std::string_view lower_case_name) const {
  for (const auto& [name, value] : headers) {
    if (name == lower_case_name) return value;
  }
  return {};
}

std::optional<Refusal> CheckHead(const HttpOptions& options, const KeyRing& keys, Framing framing,
                                 Request& head) {
  if (!head.path.starts_with('/')) {
    return Refuse(400, "the request target must be a path that begins with '/'", "invalid_request");
  }
  std::optional<Refusal> refusal = CheckHost(options, framing.version, head);
  if (!refusal) refusal = CheckKey(options, keys, head);
  if (!refusal) refusal = CheckBody(framing, head);
  return refusal;
}

}  // namespace bakestone::http
