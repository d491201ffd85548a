// Chat templates: any source (up to a NUL byte), rendered on the JSON context that follows it, or
// on a fixed one. The interpreter may refuse with bakestone::Error and nothing else, within its
// limits. What it renders is valid UTF-8, its segments add up to the text, and a character that
// only the context holds never lands in a segment that may contain special tokens.
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/error.h"
#include "text/chat/template.h"
#include "text/chat/unicode.h"

namespace {

using bakestone::chat::ChatTemplate;
using Json = nlohmann::ordered_json;

constexpr std::string_view kOnlyContext = "\xEE\x80\x80";  // U+E000, in every string of the context
constexpr const char* kContext = R"({
  "bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": true, "n": 7, "f": -2.5,
  "s": "Ab \ue000 cd", "x": " \ue000,\ue000\n", "xs": [3, 1, "\ue000"], "d": {"a\ue000": [null, true, "\ue000"]},
  "messages": [{"role": "user", "content": "hi\ue000"},
               {"role": "assistant", "content": "\ue000", "tool_calls": [{"id": "\ue000", "function":
                 {"name": "\ue000", "arguments": {"q\ue000": "\ue000", "k": 1}}}]}],
  "tools": [{"type": "function\ue000", "function": {"name": "\ue000", "parameters": {"type": "object\ue000"}}}]
})";

bakestone::chat::RenderOptions Options() {
  bakestone::chat::RenderOptions options;
  options.limits = {.max_steps = 200'000,
                    .max_output_bytes = 1 << 20,
                    .max_string_bytes = 1 << 20,
                    .max_total_bytes = 32 << 20,
                    .max_items = 20'000,
                    .max_depth = 50};
  return options;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::string_view source = input.substr(0, input.find('\0'));
  static const Json fixed = Json::parse(kContext);
  Json given;
  if (source.size() < input.size()) {
    given = Json::parse(input.substr(source.size() + 1), nullptr, false);
  }
  const bool use_given = given.is_object();
  try {
    const auto parsed = ChatTemplate::Parse(source);
    const auto rendered = parsed.Render(use_given ? given : fixed, Options());
    BAKESTONE_CHECK(bakestone::chat::ToValidUtf8(rendered.text) == rendered.text);
    // The template itself may spell the character: as it is, escaped, or by its number.
    const bool spelled = source.find(kOnlyContext) != std::string_view::npos ||
                         source.find('\\') != std::string_view::npos ||
                         source.find("c}") != std::string_view::npos ||
                         source.find("%c") != std::string_view::npos;
    std::string whole;
    for (const auto& segment : rendered.segments) {
      whole += segment.text;
      BAKESTONE_CHECK(use_given || spelled || !segment.from_template ||
                      segment.text.find(kOnlyContext) == std::string::npos);
    }
    BAKESTONE_CHECK(whole == rendered.text);
  } catch (const bakestone::Error& error) {
    if (error.code() == bakestone::ErrorCode::kInternal) throw;
  }
  return 0;
}
