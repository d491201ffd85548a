// The document is true: every route is in it, and every field that it names is known to the route's
// reader.
#include <cctype>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/test_encoder.h"
#include "server/test_router.h"

namespace bakestone {
namespace {

using bakestone::testing::Json;
using bakestone::testing::RouterTest;
using ::testing::HasSubstr;
using ::testing::Not;

class OpenApiTest : public RouterTest {
 protected:
  // Answers without a limit of their own end soon.
  OpenApiTest()
      : RouterTest({.max_context = 256, .default_max_tokens = 2},
                   bakestone::testing::MakeTestEmbeddingLoop()) {}
};

TEST_F(OpenApiTest, NamesEveryRoute) {
  const Json document = Json::parse(Call("GET", "/openapi.json").body);
  EXPECT_EQ(document["openapi"], "3.1.0");
  std::set<std::string> told, served;
  for (const auto& [path, operations] : document["paths"].items()) {
    for (const auto& [method, unused] : operations.items()) told.insert(method + " " + path);
  }
  for (const auto& [method, path] : Router::Routes()) {
    std::string lower = method;
    for (char& c : lower) c = static_cast<char>(std::tolower(c));
    served.insert(lower + " " + path + (path.ends_with('/') ? "{id}" : ""));
  }
  EXPECT_EQ(told, served);
}

TEST_F(OpenApiTest, NamesOnlyFieldsThatAreKnown) {
  const Json document = Json::parse(Call("GET", "/openapi.json").body);
  const Json messages = Json::array({{{"role", "user"}, {"content", "x"}}});
  const Json values = {{"messages", messages},
                       {"prompt", "x"},
                       {"input", "x"},
                       {"max_tokens", 1},
                       {"tokens", Json::array({5})}};
  int fields = 0;
  for (const auto& [path, operations] : document["paths"].items()) {
    if (!operations.contains("post")) continue;
    const Json schema = operations["post"]["requestBody"]["content"]["application/json"]["schema"];
    EXPECT_EQ(schema["additionalProperties"], false);
    Json base = {{"model", path.find("/embed") == std::string::npos ? "base" : "encoder"}};
    for (const Json& name : schema.value("required", Json::array())) {
      if (name != "model") base[name.get<std::string>()] = values[name.get<std::string>()];
    }
    for (const auto& [name, unused] : schema["properties"].items()) {
      Json body = base;
      if (!body.contains(name)) body[name] = nullptr;
      const http::Response response = Call("POST", path, body.dump());
      EXPECT_EQ(response.status, 200) << path << " " << name << response.body;
      EXPECT_THAT(response.body, Not(HasSubstr("not known here"))) << path << " " << name;
      ++fields;
    }
    base["made_up_field"] = 1;
    EXPECT_EQ(Call("POST", path, base.dump()).status, 400) << path;
    for (const Json& name : schema.value("required", Json::array())) {
      Json body = base;
      body.erase("made_up_field");
      body.erase(name.get<std::string>());
      EXPECT_GE(Call("POST", path, body.dump()).status, 400) << path << " without " << name;
    }
  }
  EXPECT_GT(fields, 150);
}

}  // namespace
}  // namespace bakestone
