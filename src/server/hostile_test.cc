// Thousands of requests of which a part is wrong, to every route: each gets an answer, none of them
// a 500, and the server goes on as before.
#include <iterator>
#include <map>

#include <gtest/gtest.h>

#include "base/rng.h"
#include "engine/test_encoder.h"
#include "server/test_router.h"

namespace bakestone {
namespace {

using bakestone::testing::Json;
using bakestone::testing::RouterTest;

class HostileTest : public RouterTest {
 protected:
  // A context so small that whatever is generated ends soon.
  HostileTest()
      : RouterTest({.max_context = 160, .default_max_tokens = 4},
                   bakestone::testing::MakeTestEmbeddingLoop()) {}

  int64_t Below(size_t n) { return static_cast<int64_t>(rng_.Below(n)); }
  Json Value();
  void Mutate(Json* body);

  Rng rng_{7, 0};
};

Json HostileTest::Value() {
  static const std::vector<Json> kValues = [] {
    Json deep = 1;
    for (int i = 0; i < 58; ++i) deep = i % 2 ? Json::array({deep}) : Json{{"a", deep}};
    Json many = Json::array();
    for (int i = 0; i < 300; ++i) many.push_back(i % 3 ? Json(i) : Json{{"type", "text"}});
    return std::vector<Json>{nullptr,
                             true,
                             false,
                             0,
                             -1,
                             1,
                             2,
                             0.5,
                             -0.0,
                             1e308,
                             -1e308,
                             5e-324,
                             INT64_MAX,
                             INT64_MIN,
                             UINT64_MAX,
                             "",
                             "x",
                             "auto",
                             "none",
                             "required",
                             std::string(3000, 'x'),
                             std::string("\0\x01\x1f", 3),
                             "<|im_start|>system\n<|im_end|>",
                             "\xF0\x9F\x98\x80\xEF\xBF\xBF",
                             "../../etc/passwd",
                             Json::array(),
                             Json::object(),
                             Json::array({Json::array()}),
                             Json::array({nullptr}),
                             Json{{"type", "function"}},
                             Json{{"type", 5}},
                             Json{{"role", "tool"}},
                             Json{{"role", "assistant"}, {"tool_calls", {{{"id", "x"}}}}},
                             deep,
                             many};
  }();
  return kValues[static_cast<size_t>(Below(kValues.size()))];
}

void HostileTest::Mutate(Json* body) {
  Json flat = body->flatten();
  if (flat.empty()) return;
  auto at = flat.begin();
  std::advance(at, Below(flat.size()));
  Json::json_pointer place(at.key());
  if (place.empty()) return;
  while (Below(3) == 0 && !place.parent_pointer().empty()) {
    place = place.parent_pointer();  // a whole part of it
  }
  switch (Below(4)) {
    case 0: {
      Json& parent = place.parent_pointer().empty() ? *body : (*body)[place.parent_pointer()];
      if (parent.is_object()) parent.erase(place.back());
      break;
    }
    case 1:
      (*body)[Below(2) ? "n" : "made_up"] = Value();
      break;
    default:
      (*body)[place] = Value();
  }
}

TEST_F(HostileTest, NoRequestIsA500) {
  const Json tool = {
      {"type", "function"},
      {"function",
       {{"name", "f"},
        {"description", "d"},
        {"parameters", {{"type", "object"}, {"properties", {{"a", {{"type", "string"}}}}}}}}}};
  const Json call = {
      {"id", "c1"}, {"type", "function"}, {"function", {{"name", "f"}, {"arguments", "{}"}}}};
  const std::pair<const char*, Json> bodies[] = {
      {"/v1/chat/completions",
       {{"model", "base"},
        {"max_tokens", 2},
        {"stream", true},
        {"stream_options", {{"include_usage", true}}},
        {"logprobs", true},
        {"top_logprobs", 2},
        {"tools", Json::array({tool})},
        {"tool_choice", "auto"},
        {"stop", Json::array({"x"})},
        {"logit_bias", {{"5", 1}}},
        {"messages",
         Json::array(
             {{{"role", "system"}, {"content", "s"}},
              {{"role", "user"}, {"content", Json::array({{{"type", "text"}, {"text", "u"}}})}},
              {{"role", "assistant"}, {"content", "a"}, {"tool_calls", Json::array({call})}},
              {{"role", "tool"}, {"tool_call_id", "c1"}, {"content", "r"}}})}}},
      {"/v1/completions",
       {{"model", "base"},
        {"prompt", Json::array({"a", "b"})},
        {"max_tokens", 2},
        {"echo", true},
        {"logprobs", 2},
        {"n", 1},
        {"temperature", 0.5}}},
      {"/v1/responses",
       {{"model", "base"},
        {"max_output_tokens", 2},
        {"instructions", "i"},
        {"stream", true},
        {"reasoning", {{"effort", "low"}}},
        {"text", {{"format", {{"type", "text"}}}}},
        {"include", Json::array({"message.output_text.logprobs"})},
        {"tools",
         Json::array({{{"type", "function"}, {"name", "f"}, {"parameters", Json::object()}},
                      {{"type", "web_search"}}})},
        {"input",
         Json::array(
             {{{"role", "user"}, {"content", "u"}},
              {{"type", "function_call"}, {"call_id", "c"}, {"name", "f"}, {"arguments", "{}"}},
              {{"type", "function_call_output"}, {"call_id", "c"}, {"output", "r"}}})}}},
      {"/v1/messages",
       {{"model", "base"},
        {"max_tokens", 2},
        {"system", "s"},
        {"stream", true},
        {"thinking", {{"type", "enabled"}, {"budget_tokens", 9}}},
        {"tool_choice", {{"type", "auto"}}},
        {"tools", Json::array({{{"name", "f"}, {"input_schema", {{"type", "object"}}}}})},
        {"messages", Json::array({{{"role", "user"}, {"content", "u"}},
                                  {{"role", "assistant"},
                                   {"content", Json::array({{{"type", "tool_use"},
                                                             {"id", "t"},
                                                             {"name", "f"},
                                                             {"input", Json::object()}}})}},
                                  {{"role", "user"},
                                   {"content", Json::array({{{"type", "tool_result"},
                                                             {"tool_use_id", "t"},
                                                             {"content", "r"}}})}}})}}},
      {"/v1/messages/count_tokens",
       {{"model", "base"}, {"messages", Json::array({{{"role", "user"}, {"content", "u"}}})}}},
      {"/api/chat",
       {{"model", "base"},
        {"options", {{"num_predict", 2}, {"stop", "x"}}},
        {"think", true},
        {"tools", Json::array({tool})},
        {"messages",
         Json::array(
             {{{"role", "user"}, {"content", "u"}},
              {{"role", "assistant"},
               {"tool_calls",
                Json::array({{{"function", {{"name", "f"}, {"arguments", Json::object()}}}}})}},
              {{"role", "tool"}, {"content", "r"}, {"tool_name", "f"}}})}}},
      {"/api/generate",
       {{"model", "base"},
        {"prompt", "p"},
        {"system", "s"},
        {"raw", false},
        {"options", {{"num_predict", 2}}}}},
      {"/v1/embeddings",
       {{"model", "encoder"},
        {"input", Json::array({"a", "b", Json::array({4, 5})})},
        {"encoding_format", "base64"},
        {"dimensions", 32},
        {"user", "u"}}},
      {"/api/embed",
       {{"model", "encoder"},
        {"input", Json::array({"a", "b"})},
        {"truncate", true},
        {"options", {{"num_ctx", 64}}},
        {"keep_alive", "5m"}}},
      {"/api/embeddings", {{"model", "encoder"}, {"prompt", "a"}, {"options", {{"num_ctx", 64}}}}},
      {"/api/show", {{"model", "base"}}},
      {"/tokenize", {{"prompt", "the"}, {"add_special_tokens", true}}},
      {"/detokenize", {{"tokens", Json::array({1, 2, 3})}}},
  };
  std::map<int, int> statuses;
  for (const auto& [path, body] : bodies) {
    for (int i = 0; i < 250; ++i) {
      Json changed = body;
      for (int64_t n = 1 + Below(2); n > 0; --n) Mutate(&changed);
      std::string text = changed.dump(-1, ' ', false, Json::error_handler_t::ignore);
      if (Below(8) == 0) {
        text[static_cast<size_t>(Below(text.size()))] = static_cast<char>(Below(256));
      }
      if (Below(16) == 0) text.resize(static_cast<size_t>(Below(text.size())));
      const http::Response response = Call("POST", path, text);
      ++statuses[response.status];
      EXPECT_LT(response.status, 500) << path << " " << text << "\n" << response.body;
    }
  }
  EXPECT_GT(statuses[200], 100);
  EXPECT_GT(statuses[400], 300);
  EXPECT_EQ(Call("GET", "/ready").status, 200);
}

}  // namespace
}  // namespace bakestone
