#include "load/generator.h"

#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <memory>
#include <optional>
#include <utility>

#include <curl/curl.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/quote.h"

namespace bakestone::load {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;
using Handle = std::unique_ptr<CURL, decltype(&curl_easy_cleanup)>;
using List = std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)>;

constexpr size_t kMostErrorBytes = 4096;
constexpr double kProgressEvery = 0.1;

std::string Endpoint(const Target& target, std::string_view path) {
  std::string url = target.url;
  while (url.ends_with('/')) url.pop_back();
  if (!url.ends_with("/v1")) url += "/v1";
  return url.append(path);
}

List Headers(const Target& target) {
  List list(curl_slist_append(nullptr, "Content-Type: application/json"), curl_slist_free_all);
  BAKESTONE_CHECK(list != nullptr && curl_slist_append(list.get(), "Expect:"));
  if (!target.api_key.empty()) {
    BAKESTONE_CHECK(
        curl_slist_append(list.get(), ("Authorization: Bearer " + target.api_key).c_str()));
  }
  return list;
}

Handle NewHandle(const Target& target, const std::string& url, curl_slist* headers) {
  Handle handle(curl_easy_init(), curl_easy_cleanup);
  BAKESTONE_CHECK(handle != nullptr);
  curl_easy_setopt(handle.get(), CURLOPT_URL, url.c_str());
  curl_easy_setopt(handle.get(), CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(handle.get(), CURLOPT_NOPROXY, "*");  // a proxy would be measured
  curl_easy_setopt(handle.get(), CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(handle.get(), CURLOPT_HTTPHEADER, headers);
  curl_easy_setopt(handle.get(), CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
  curl_easy_setopt(handle.get(), CURLOPT_TIMEOUT_MS, std::lround(target.timeout * 1000));
  if (!target.certificate.empty()) {
    curl_easy_setopt(handle.get(), CURLOPT_CAINFO, target.certificate.c_str());
  }
  return handle;
}

std::string BodyOf(const Target& target, const PlannedRequest& request) {
  Json body = {{"model", request.model},
               {"messages", Json::array({{{"role", "user"}, {"content", request.prompt}}})},
               {"max_tokens", request.answer_tokens},
               {"temperature", 0},
               {"stream", true},
               {"stream_options", {{"include_usage", true}}}};
  if (!target.plain) body["ignore_eos"] = true;
  return body.dump();
}

double ThreadCpuSeconds() {
  rusage usage{};
  ::getrusage(RUSAGE_THREAD, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

size_t Append(char* data, size_t size, size_t count, void* out) {
  auto* text = static_cast<std::string*>(out);
  constexpr size_t kMost = 1 << 24;
  if (text->size() + size * count > kMost) return 0;
  text->append(data, size * count);
  return size * count;
}

class Generator {
 public:
  Generator(const Target& target, const std::vector<PlannedRequest>& plan, int64_t streams)
      : target_(target),
        plan_(plan),
        streams_(streams),
        url_(Endpoint(target, "/chat/completions")),
        headers_(Headers(target)),
        multi_(curl_multi_init()),
        epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
    BAKESTONE_CHECK(multi_ != nullptr);
    if (epoll_ < 0) Throw(ErrorCode::kIo, "cannot wait for sockets: epoll is not to be had");
    curl_multi_setopt(multi_, CURLMOPT_SOCKETFUNCTION, &OnSocket);
    curl_multi_setopt(multi_, CURLMOPT_SOCKETDATA, this);
    curl_multi_setopt(multi_, CURLMOPT_TIMERFUNCTION, &OnTimer);
    curl_multi_setopt(multi_, CURLMOPT_TIMERDATA, this);
    curl_multi_setopt(multi_, CURLMOPT_MAXCONNECTS, 1024L);
  }
  ~Generator() {
    for (auto& transfer : transfers_) {
      if (transfer && transfer->handle) curl_multi_remove_handle(multi_, transfer->handle.get());
    }
    transfers_.clear();
    curl_multi_cleanup(multi_);
    ::close(epoll_);
  }
  Generator(const Generator&) = delete;

  LoadRun Run(const std::function<bool(int64_t, int64_t)>& progress);

 private:
  struct Transfer {
    Generator* owner = nullptr;
    Handle handle{nullptr, curl_easy_cleanup};
    std::string body;
    StreamReader reader;
    std::string refusal;  // the body of an answer that is not 200
    Outcome outcome;
  };

  static int OnSocket(CURL*, curl_socket_t socket, int what, void* self, void* known);
  static int OnTimer(CURLM*, long milliseconds, void* self);
  static size_t OnBytes(char* data, size_t size, size_t count, void* transfer);

  double Now() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }
  bool Due() const;  // the plan's next request
  void Send();
  void Wait();
  void Collect();
  void Finish(Transfer& transfer, CURLcode code);

  const Target& target_;
  const std::vector<PlannedRequest>& plan_;
  const int64_t streams_;  // of a closed loop; 0: an open one
  const std::string url_;
  const List headers_;
  CURLM* multi_;
  const int epoll_;
  const Clock::time_point start_ = Clock::now();
  std::vector<std::unique_ptr<Transfer>>
      transfers_;                // of those that were sent; in the plan's order
  std::optional<double> timer_;  // when curl wants to be called
  double now_ = 0;               // when the bytes at hand arrived
  int64_t ended_ = 0;
};

int Generator::OnSocket(CURL*, curl_socket_t socket, int what, void* self, void* known) {
  auto* generator = static_cast<Generator*>(self);
  if (what == CURL_POLL_REMOVE) {
    ::epoll_ctl(generator->epoll_, EPOLL_CTL_DEL, socket, nullptr);
    return 0;
  }
  epoll_event event{};
  event.data.fd = socket;
  event.events = (what & CURL_POLL_IN ? EPOLLIN : 0U) | (what & CURL_POLL_OUT ? EPOLLOUT : 0U);
  ::epoll_ctl(generator->epoll_, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, socket, &event);
  if (!known) {
    curl_multi_assign(generator->multi_, socket, generator);  // any value that is not null
  }
  return 0;
}

int Generator::OnTimer(CURLM*, long milliseconds, void* self) {
  auto* generator = static_cast<Generator*>(self);
  generator->timer_.reset();
  if (milliseconds >= 0) {
    generator->timer_ = generator->Now() + static_cast<double>(milliseconds) * 1e-3;
  }
  return 0;
}

size_t Generator::OnBytes(char* data, size_t size, size_t count, void* out) {
  auto* transfer = static_cast<Transfer*>(out);
  const std::string_view bytes(data, size * count);
  if (transfer->outcome.status == 0) {
    long status = 0;
    curl_easy_getinfo(transfer->handle.get(), CURLINFO_RESPONSE_CODE, &status);
    transfer->outcome.status = static_cast<int>(status);
  }
  if (transfer->outcome.status == 200) {
    transfer->reader.Feed(bytes, transfer->owner->now_);
    if (!transfer->reader.result().error.empty()) return 0;  // ends the transfer
  } else {
    transfer->refusal +=
        bytes.substr(0, kMostErrorBytes - std::min(kMostErrorBytes, transfer->refusal.size()));
  }
  return bytes.size();
}

bool Generator::Due() const {
  if (transfers_.size() == plan_.size()) return false;
  return streams_ > 0 ? std::ssize(transfers_) - ended_ < streams_
                      : plan_[transfers_.size()].due <= Now();
}

void Generator::Send() {
  while (Due()) {
    const PlannedRequest& request = plan_[transfers_.size()];
    auto transfer = std::make_unique<Transfer>();
    transfer->owner = this;
    transfer->body = BodyOf(target_, request);
    transfer->handle = NewHandle(target_, url_, headers_.get());
    CURL* handle = transfer->handle.get();
    curl_easy_setopt(handle, CURLOPT_POSTFIELDS, transfer->body.c_str());
    curl_easy_setopt(handle, CURLOPT_POSTFIELDSIZE, static_cast<long>(transfer->body.size()));
    curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, &OnBytes);
    curl_easy_setopt(handle, CURLOPT_WRITEDATA, transfer.get());
    curl_easy_setopt(handle, CURLOPT_PRIVATE, transfer.get());
    transfer->outcome.sent = Now();
    transfer->outcome.due = streams_ > 0 ? transfer->outcome.sent : request.due;
    transfers_.push_back(std::move(transfer));
    BAKESTONE_CHECK(curl_multi_add_handle(multi_, handle) == CURLM_OK);
  }
}

void Generator::Wait() {
  double until = Now() + kProgressEvery;
  if (streams_ == 0 && transfers_.size() < plan_.size()) {
    until = std::min(until, plan_[transfers_.size()].due);
  }
  if (timer_) until = std::min(until, *timer_);
  std::array<epoll_event, 256> events;
  const int milliseconds = static_cast<int>(std::ceil(std::max(0.0, until - Now()) * 1000));
  const int count =
      ::epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), milliseconds);
  now_ = Now();
  int running = 0;
  for (int i = 0; i < count; ++i) {
    const uint32_t what = events[static_cast<size_t>(i)].events;
    const int mask = (what & EPOLLIN ? CURL_CSELECT_IN : 0) |
                     (what & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
                     (what & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0);
    curl_multi_socket_action(multi_, events[static_cast<size_t>(i)].data.fd, mask, &running);
  }
  if (timer_ && *timer_ <= now_) {
    timer_.reset();
    curl_multi_socket_action(multi_, CURL_SOCKET_TIMEOUT, 0, &running);
  }
}

void Generator::Collect() {
  int left = 0;
  while (const CURLMsg* message = curl_multi_info_read(multi_, &left)) {
    if (message->msg != CURLMSG_DONE) continue;
    const CURLcode code = message->data.result;
    Transfer* transfer = nullptr;
    curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &transfer);
    Finish(*transfer, code);
  }
}

void Generator::Finish(Transfer& transfer, CURLcode code) {
  Outcome& outcome = transfer.outcome;
  outcome.ended = Now();
  long status = 0;
  curl_easy_getinfo(transfer.handle.get(), CURLINFO_RESPONSE_CODE, &status);
  outcome.status = static_cast<int>(status);
  outcome.stream = transfer.reader.result();
  if (!outcome.stream.error.empty()) {
    outcome.error = outcome.stream.error;
  } else if (code != CURLE_OK) {
    outcome.error = curl_easy_strerror(code);
  } else if (status != 200) {
    outcome.error = fmt::format("HTTP {}: {}", status, Quote(transfer.refusal));
  } else if (outcome.stream.finish_reason.empty()) {
    outcome.error = "the stream ended without a finish_reason";
  }
  curl_multi_remove_handle(multi_, transfer.handle.get());
  transfer.handle.reset();
  transfer.body = {};
  ++ended_;
}

LoadRun Generator::Run(const std::function<bool(int64_t, int64_t)>& progress) {
  const double cpu = ThreadCpuSeconds();
  double told = 0;
  while (ended_ < static_cast<int64_t>(plan_.size())) {
    Send();
    Wait();
    Collect();
    if (now_ - told < kProgressEvery) continue;
    told = now_;
    if (!progress(static_cast<int64_t>(transfers_.size()), ended_)) break;
  }
  LoadRun run{.outcomes = {}, .seconds = Now(), .cpu_seconds = ThreadCpuSeconds() - cpu};
  for (const auto& transfer : transfers_) {
    if (transfer->handle) {
      transfer->outcome.ended = run.seconds;
      transfer->outcome.error = "stopped";
    }
    run.outcomes.push_back(std::move(transfer->outcome));
  }
  return run;
}

}  // namespace

std::vector<std::string> ListModels(const Target& target) {
  const std::string url = Endpoint(target, "/models");
  const List headers = Headers(target);
  const Handle handle = NewHandle(target, url, headers.get());
  std::string body;
  curl_easy_setopt(handle.get(), CURLOPT_WRITEFUNCTION, &Append);
  curl_easy_setopt(handle.get(), CURLOPT_WRITEDATA, &body);
  const CURLcode code = curl_easy_perform(handle.get());
  if (code != CURLE_OK) Throw(ErrorCode::kIo, "{}: {}", url, curl_easy_strerror(code));
  long status = 0;
  curl_easy_getinfo(handle.get(), CURLINFO_RESPONSE_CODE, &status);
  if (status != 200) {
    Throw(ErrorCode::kUnavailable, "{}: expected the list of models, found HTTP {}: {}", url,
          status, Quote(body));
  }
  std::vector<std::string> models;
  try {
    const auto json = nlohmann::json::parse(body);
    for (const auto& model : json.at("data")) models.push_back(model.at("id").get<std::string>());
  } catch (const nlohmann::json::exception&) {
    models.clear();
  }
  if (models.empty()) {
    Throw(ErrorCode::kUnavailable, "{}: expected a list of models with at least one, found {}", url,
          Quote(body));
  }
  return models;
}

LoadRun Run(const Target& target, const std::vector<PlannedRequest>& plan, int64_t streams,
            const std::function<bool(int64_t, int64_t)>& progress) {
  return Generator(target, plan, streams).Run(progress);
}

}  // namespace bakestone::load
