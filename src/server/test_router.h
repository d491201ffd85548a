// For tests: the routes over a real engine with a tiny model, without sockets.
#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "engine/test_engine.h"
#include "grammar/test_grammar.h"
#include "server/api/fields.h"
#include "server/router.h"

namespace bakestone::testing {

using api::Json;

// Keeps what a handler says.
class Recorder : public http::Responder {
 public:
  void Send(http::Response response) override { Add(std::move(response), true); }
  void Begin(http::Response head, std::string) override { Add(std::move(head), false); }
  void Write(std::string bytes) override {
    std::lock_guard lock(mutex_);
    response_.body += bytes;
  }
  void End() override { Add(std::nullopt, true); }
  void OnDisconnect(std::function<void()> callback) override {
    std::lock_guard lock(mutex_);
    on_disconnect_ = std::move(callback);
  }
  void Leave() { on_disconnect_(); }
  http::Response Wait() {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(done_.wait_for(lock, std::chrono::seconds(300), [&] { return ended_; }));
    return response_;
  }

 private:
  void Add(std::optional<http::Response> response, bool end) {
    std::lock_guard lock(mutex_);
    EXPECT_FALSE(ended_);
    if (response) response_ = std::move(*response);
    ended_ = end;
    done_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable done_;
  http::Response response_;
  bool ended_ = false;
  std::function<void()> on_disconnect_;
};

class RouterTest : public ::testing::Test {
 protected:
  // embedder: served as "encoder"; null: nobody computes embeddings.
  explicit RouterTest(EngineOptions options = {}, std::shared_ptr<EmbeddingLoop> embedder = nullptr)
      : engine_(MakeTestEngine(options)),
        embedder_(std::move(embedder)),
        adapter_(
            MakeTestAdapter(SharedTestModel()->config, {Site::kQ, Site::kV, Site::kDown}, 4, 3)),
        router_(Served(), {.grammar_helper = TestGrammarOptions().helper}) {}

  std::shared_ptr<Recorder> Begin(const std::string& method, const std::string& path,
                                  const std::string& body,
                                  std::shared_ptr<const http::Key> key = nullptr) {
    const auto recorder = std::make_shared<Recorder>();
    http::Request request;
    request.method = method;
    request.path = path;
    request.body = body;
    request.key = std::move(key);
    router_.Handle(request, recorder);
    return recorder;
  }
  http::Response Call(const std::string& method, const std::string& path,
                      const std::string& body = "") {
    return Begin(method, path, body)->Wait();
  }
  Json Ok(const std::string& path, const Json& body) {
    const http::Response response = Call("POST", path, body.dump());
    EXPECT_EQ(response.status, 200) << response.body;
    return Json::parse(response.body);
  }
  // The error's body, after checking status and form.
  Json Refused(int status, const std::string& path, const std::string& body) {
    const http::Response response = Call("POST", path, body);
    EXPECT_EQ(response.status, status) << body << " -> " << response.body;
    const Json json = Json::parse(response.body, nullptr, false);
    for (const char* key : {"message", "type", "param", "code"}) {
      EXPECT_TRUE(json.is_object() && json["error"].contains(key)) << response.body;
    }
    return json.is_object() ? json["error"] : Json();
  }
  static Json ChatBody(int max_tokens = 8) {
    return {{"model", "base"},
            {"messages", Json::array({{{"role", "user"}, {"content", "hello"}}})},
            {"max_tokens", max_tokens},
            {"temperature", 0},
            {"ignore_eos", true}};
  }
  std::vector<ServedModel> Served() const {
    std::vector<ServedModel> served = {{"base", engine_, nullptr, ""},
                                       {"tuned", engine_, adapter_, "base"}};
    if (embedder_) served.push_back({.id = "encoder", .embedder = embedder_});
    return served;
  }
  // The data of each server-sent event.
  static std::vector<std::string> Frames(const std::string& stream) {
    std::vector<std::string> frames;
    for (size_t at = 0; at < stream.size();) {
      const size_t end = stream.find("\n\n", at);
      EXPECT_NE(end, std::string::npos);
      const std::string frame = stream.substr(at, end - at);
      EXPECT_TRUE(frame.starts_with("data: ")) << frame;
      frames.push_back(frame.substr(6));
      at = end + 2;
    }
    return frames;
  }

  std::shared_ptr<Engine> engine_;
  std::shared_ptr<EmbeddingLoop> embedder_;
  std::shared_ptr<const Adapter> adapter_;
  Router router_;
};

}  // namespace bakestone::testing
