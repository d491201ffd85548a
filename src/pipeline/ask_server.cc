#include "pipeline/ask_server.h"

#include <curl/curl.h>

#include <memory>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace bakestone {
namespace {

constexpr size_t kMaxReplyBytes = 1 << 20;
constexpr long kTimeoutSeconds = 120;

size_t Append(char* data, size_t size, size_t count, void* out) {
  auto* reply = static_cast<std::string*>(out);
  if (reply->size() + size * count > kMaxReplyBytes) return 0;
  reply->append(data, size * count);
  return size * count;
}

}  // namespace

std::string AskServer(const std::string& url, const std::string& model, const std::string& messages,
                      int64_t max_tokens) {
  const std::string body = nlohmann::json{{"model", model},
                                          {"messages", nlohmann::json::parse(messages)},
                                          {"max_tokens", max_tokens},
                                          {"temperature", 0}}
                               .dump();
  const std::string target = url + "/v1/chat/completions";
  std::string reply;
  const std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> curl(curl_easy_init(),
                                                                 curl_easy_cleanup);
  const std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)> headers(
      curl_slist_append(nullptr, "Content-Type: application/json"), curl_slist_free_all);
  BAKESTONE_CHECK(curl != nullptr && headers != nullptr);
  curl_easy_setopt(curl.get(), CURLOPT_URL, target.c_str());
  curl_easy_setopt(curl.get(), CURLOPT_NOPROXY, "*");
  curl_easy_setopt(curl.get(), CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl.get(), CURLOPT_TIMEOUT, kTimeoutSeconds);
  curl_easy_setopt(curl.get(), CURLOPT_HTTPHEADER, headers.get());
  curl_easy_setopt(curl.get(), CURLOPT_POSTFIELDS, body.c_str());
  curl_easy_setopt(curl.get(), CURLOPT_WRITEFUNCTION, Append);
  curl_easy_setopt(curl.get(), CURLOPT_WRITEDATA, &reply);
  const CURLcode code = curl_easy_perform(curl.get());
  if (code != CURLE_OK) {
    Throw(ErrorCode::kIo, "{}: {}", target, curl_easy_strerror(code));
  }
  const auto json = nlohmann::json::parse(reply, nullptr, false);
  if (json.is_object() && json.contains("error")) {
    Throw(ErrorCode::kUnavailable, "{}: {}", target, json["error"].dump());
  }
  try {
    return json.at("choices").at(0).at("message").at("content").get<std::string>();
  } catch (const nlohmann::json::exception& error) {
    Throw(ErrorCode::kInternal, "{}: the reply is not a chat completion: {}", target, error.what());
  }
}

}  // namespace bakestone
