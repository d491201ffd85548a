// Adapters that come, change and go while requests run.
#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "format/peft.h"
#include "model/load_adapter.h"
#include "server/adapter_folder.h"
#include "server/test_router.h"

namespace bakestone {
namespace {

namespace fs = std::filesystem;
using bakestone::testing::EngineBrake;
using bakestone::testing::Json;
using bakestone::testing::Recorder;
using bakestone::testing::RouterTest;
using bakestone::testing::SharedTestModel;
using ::testing::HasSubstr;

// An adapter that changes what the test model says: another one for every seed.
AdapterFile FileOf(uint64_t seed, int64_t out) {
  const ModelConfig& config = SharedTestModel()->config;
  AdapterEntry entry{.layer = 0,
                     .site = AdapterSite::kDownProj,
                     .rank = 2,
                     .in = config.ffn_dim,
                     .out = out,
                     .alpha = 64};
  Rng rng(seed, 9);
  for (int64_t i = 0; i < 2 * entry.in; ++i) entry.a.push_back(rng.Normal());
  for (int64_t i = 0; i < 2 * entry.out; ++i) entry.b.push_back(rng.Normal());
  AdapterFile file;
  file.name = "test";
  file.rank = 2;
  file.alpha = 64;
  file.entries.push_back(std::move(entry));
  return file;
}

class AdaptersTest : public RouterTest {
 protected:
  AdaptersTest() {
    fs::create_directories(folder_);
    router_with_folder_ =
        std::make_unique<Router>(std::vector<ServedModel>{{"base", engine_, nullptr, ""}},
                                 RouterOptions{.adapter_folder = folder_});
  }
  ~AdaptersTest() override { fs::remove_all(folder_); }

  void Write(const std::string& name, uint64_t seed) {
    Write(name, FileOf(seed, SharedTestModel()->config.hidden_dim));
  }
  void Write(const std::string& name, AdapterFile file) {
    fs::remove_all(folder_ / name);
    WritePeftAdapter(std::move(file), folder_ / name);
  }
  http::Response Ask(const std::string& method, const std::string& path, const Json& body = {},
                     std::shared_ptr<const http::Key> key = nullptr) {
    const auto recorder = Begin(method, path, body, std::move(key));
    return recorder->Wait();
  }
  std::shared_ptr<Recorder> Begin(const std::string& method, const std::string& path,
                                  const Json& body,
                                  std::shared_ptr<const http::Key> key = nullptr) {
    const auto recorder = std::make_shared<Recorder>();
    http::Request request;
    request.method = method;
    request.path = path;
    if (!body.is_null()) request.body = body.dump();
    request.key = std::move(key);
    router_with_folder_->Handle(request, recorder);
    return recorder;
  }
  Json Chat(const std::string& model, int tokens = 12) {
    Json body = ChatBody(tokens);
    body["model"] = model;
    const http::Response response = Ask("POST", "/v1/chat/completions", body);
    EXPECT_EQ(response.status, 200) << response.body;
    return Json::parse(response.body);
  }
  std::string Says(const std::string& model) {
    return Chat(model)["choices"][0]["message"]["content"];
  }
  Json Put(const std::string& name, const std::string& file) {
    const http::Response response = Ask("PUT", "/admin/adapters/" + name, {{"file", file}});
    EXPECT_EQ(response.status, 200) << response.body;
    return Json::parse(response.body);
  }

  const fs::path folder_ =
      fs::temp_directory_path() / fmt::format("bakestone-adapters-{}", ::getpid());
  std::unique_ptr<Router> router_with_folder_;
};

TEST_F(AdaptersTest, ComeAndGoWhileRunning) {
  Write("one", 1);
  EXPECT_EQ(Ask("POST", "/v1/chat/completions",
                [] {
                  Json body = ChatBody(2);
                  body["model"] = "mine";
                  return body;
                }())
                .status,
            404);
  const Json put = Put("mine", "one");
  EXPECT_EQ(put["base"], "base");
  EXPECT_EQ(put["loaded"], true);
  EXPECT_NE(Says("mine"), Says("base"));
  EXPECT_EQ(Json::parse(Ask("GET", "/v1/models").body)["data"].size(), 2u);
  EXPECT_EQ(Ask("DELETE", "/admin/adapters/mine").status, 200);
  EXPECT_EQ(Ask("DELETE", "/admin/adapters/mine").status, 404);
  EXPECT_EQ(Ask("DELETE", "/admin/adapters/base").status, 404);
  EXPECT_EQ(Json::parse(Ask("GET", "/v1/models").body)["data"].size(), 1u);
}

// The prompt is cached by the adapter's numbers, so that the new one never reads what the old one
// computed.
TEST_F(AdaptersTest, ReplacedOneAnswersAsItselfAndRunningStreamsStayOnTheOld) {
  Write("one", 1);
  Write("two", 2);
  Put("first", "one");
  Put("second", "two");
  const std::string one = Says("first"), two = Says("second");
  ASSERT_NE(one, two);
  Put("mine", "one");
  EXPECT_EQ(Says("mine"), one);
  Json body = ChatBody(60);
  body["model"] = "mine";
  const std::string whole = Json::parse(
      Ask("POST", "/v1/chat/completions", body).body)["choices"][0]["message"]["content"];
  std::shared_ptr<Recorder> running;
  {
    const EngineBrake brake(*engine_);
    running = Begin("POST", "/v1/chat/completions", body);
    Put("mine", "two");
  }
  EXPECT_EQ(Says("mine"), two);
  const Json old = Json::parse(running->Wait().body);
  EXPECT_EQ(old["choices"][0]["message"]["content"], whole);
  EXPECT_NE(old["system_fingerprint"], Chat("mine")["system_fingerprint"]);
  EXPECT_EQ(Chat("mine")["system_fingerprint"], Chat("second")["system_fingerprint"]);
}

TEST_F(AdaptersTest, WrongOnesAreRefusedAndChangeNothing) {
  Write("one", 1);
  Put("mine", "one");
  const std::string before = Says("mine");
  Write("other-base", FileOf(1, SharedTestModel()->config.hidden_dim * 2));
  fs::create_directories(folder_ / "broken");
  std::ofstream(folder_ / "broken" / "adapter_config.json") << "{";
  for (const char* file : {"other-base", "broken", "none", "../adapters", "one/adapter_config.json",
                           "/etc", "", "."}) {
    const http::Response response = Ask("PUT", "/admin/adapters/mine", {{"file", file}});
    EXPECT_EQ(response.status, 400) << file << response.body;
  }
  EXPECT_EQ(Ask("PUT", "/admin/adapters/base", {{"file", "one"}}).status, 400);
  EXPECT_EQ(Ask("PUT", "/admin/adapters/.x", {{"file", "one"}}).status, 400);
  EXPECT_EQ(Ask("PUT", "/admin/adapters/x", {{"file", "one"}, {"base", "nobody"}}).status, 400);
  EXPECT_EQ(Ask("PUT", "/admin/adapters/x", {{"file", "one"}, {"path", "/etc"}}).status, 400);
  EXPECT_EQ(Says("mine"), before);
}

TEST_F(AdaptersTest, OnlyAdminsMay) {
  Write("one", 1);
  const auto user = std::make_shared<const http::Key>(
      http::Key{.tenant = "u", .name = "u", .aliases = {{"gpt-4o", "mine"}}});
  const auto admin =
      std::make_shared<const http::Key>(http::Key{.tenant = "a", .name = "a", .admin = true});
  for (const char* method : {"PUT", "DELETE"}) {
    EXPECT_EQ(Ask(method, "/admin/adapters/mine", {{"file", "one"}}, user).status, 403);
  }
  EXPECT_EQ(Ask("GET", "/admin/adapters", {}, user).status, 403);
  EXPECT_EQ(Ask("PUT", "/admin/adapters/mine", {{"file", "one"}}, admin).status, 200);
  EXPECT_EQ(Ask("GET", "/admin/adapters", {}, admin).status, 200);
  Json body = ChatBody(2);
  body["model"] = "gpt-4o";
  EXPECT_EQ(Json::parse(Ask("POST", "/v1/chat/completions", body, user).body)["model"], "mine");
  EXPECT_EQ(Ask("POST", "/v1/chat/completions", body, admin).status, 404);
  router_with_folder_ = std::make_unique<Router>(
      std::vector<ServedModel>{{"base", engine_, nullptr, ""}},
      RouterOptions{.adapter_folder = folder_, .admin_without_key = false});
  EXPECT_EQ(Ask("PUT", "/admin/adapters/mine", {{"file", "one"}}).status, 403);
}

TEST_F(AdaptersTest, OneOfAnotherModelOfTheSameShapeIsRefused) {
  const Model& base = *SharedTestModel();
  AdapterFile file = FileOf(1, base.config.hidden_dim);
  file.base_name = "other/model";
  file.base_hash = std::string(64, 'a');  // another file
  file.base_norms = NormsHash(*base.weights);
  Write("quantized", file);
  EXPECT_EQ(Ask("PUT", "/admin/adapters/quantized", {{"file", "quantized"}}).status,
            200);  // of the same model
  file.base_norms = std::string(64, 'b');
  Write("other", file);
  const http::Response refused = Ask("PUT", "/admin/adapters/other", {{"file", "other"}});
  EXPECT_EQ(refused.status, 400);
  EXPECT_THAT(refused.body, HasSubstr("other/model"));
  EXPECT_THAT(refused.body, HasSubstr("trained on another model"));
  EXPECT_FALSE(router_with_folder_->models().Has("other"));
}

TEST_F(AdaptersTest, FolderIsWatched) {
  api::ModelRegistry& models = router_with_folder_->models();
  Write("one", 1);
  AdapterFolder folder(folder_, models);
  ASSERT_TRUE(models.Has("one"));
  const std::string hash = models.Adapters().at(0).hash;
  Write("two", 2);
  folder.Look();
  EXPECT_FALSE(models.Has("two"));  // somebody may still be writing it
  folder.Look();
  EXPECT_TRUE(models.Has("two"));
  Write("one", 3);
  folder.Look();
  folder.Look();
  EXPECT_NE(models.Adapters().at(0).hash, hash);
  fs::remove_all(folder_ / "one");
  Write("two",
        FileOf(1, SharedTestModel()->config.hidden_dim * 2));  // of another base: the old one stays
  folder.Look();
  folder.Look();
  EXPECT_FALSE(models.Has("one"));
  EXPECT_TRUE(models.Has("two"));
  EXPECT_NE(Says("two"), Says("base"));
  EXPECT_THROW(AdapterFolder(folder_ / "none", models), Error);
}

TEST_F(AdaptersTest, MemoryIsBoundedAndThoseInUseStay) {
  for (int i = 0; i < 4; ++i) Write(fmt::format("a{}", i), static_cast<uint64_t>(i));
  api::ModelRegistry probe({{"base", engine_, nullptr, ""}});
  probe.Put("a0", folder_ / "a0");
  const int64_t each = probe.Stats().bytes;
  ASSERT_GT(each, 0);
  api::ModelRegistry models({{"base", engine_, nullptr, ""}}, 2 * each);
  for (int i = 0; i < 4; ++i) models.Put(fmt::format("a{}", i), folder_ / fmt::format("a{}", i));
  EXPECT_EQ(models.Stats().registered, 4);
  EXPECT_EQ(models.Stats().loaded, 2);
  EXPECT_LE(models.Stats().bytes, 2 * each);
  EXPECT_EQ(models.List().size(), 5u);
  {
    const api::ModelPtr first = models.Find("a0"), second = models.Find("a1");
    EXPECT_TRUE(first->adapter() && second->adapter());
    EXPECT_THROW(models.Find("a2"), Error);  // both places are in use
    models.Remove("a0");
    EXPECT_THROW(models.Find("a2"), Error);  // gone by name, but a request still reads it
  }
  const api::ModelPtr third = models.Find("a2");
  EXPECT_TRUE(third->adapter());
  EXPECT_LE(models.Stats().bytes, 2 * each);
  EXPECT_GT(models.Stats().evictions, 0);
  EXPECT_EQ(models.Find("none"), nullptr);
}

}  // namespace
}  // namespace bakestone
