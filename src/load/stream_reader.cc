#include "load/stream_reader.h"

#include <nlohmann/json.hpp>

#include "base/quote.h"

namespace bakestone::load {
namespace {

using Json = nlohmann::json;

constexpr size_t kMostLineBytes = 1 << 20;

const Json* Member(const Json& json, const char* key) {
  if (!json.is_object()) return nullptr;
  const auto found = json.find(key);
  return found == json.end() || found->is_null() ? nullptr : &*found;
}

int64_t Integer(const Json& json, const char* key, int64_t otherwise) {
  const Json* value = Member(json, key);
  return value && value->is_number_integer() ? value->get<int64_t>() : otherwise;
}

bool HasText(const Json& delta) {
  for (const char* key : {"content", "reasoning_content", "reasoning"}) {
    const Json* text = Member(delta, key);
    if (text && text->is_string() && !text->get_ref<const std::string&>().empty()) return true;
  }
  const Json* calls = Member(delta, "tool_calls");
  return calls && !calls->empty();
}

}  // namespace

void StreamReader::Feed(std::string_view bytes, double now) {
  while (result_.error.empty()) {
    const size_t end = bytes.find('\n');
    if (end == std::string_view::npos) break;
    if (rest_.empty()) {
      Line(bytes.substr(0, end), now);
    } else {
      rest_ += bytes.substr(0, end);
      Line(rest_, now);
      rest_.clear();
    }
    bytes.remove_prefix(end + 1);
  }
  if (!result_.error.empty()) return;
  rest_ += bytes;
  if (rest_.size() > kMostLineBytes) result_.error = "a line of the stream is longer than a MiB";
}

void StreamReader::Line(std::string_view line, double now) {
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  if (!line.starts_with("data:")) return;  // comments, and names of events
  line.remove_prefix(5);
  if (line.starts_with(' ')) line.remove_prefix(1);
  if (line == "[DONE]") {
    result_.done = true;
  } else {
    Event(line, now);
  }
}

void StreamReader::Event(std::string_view data, double now) {
  const Json json = Json::parse(data, nullptr, false);
  if (!json.is_object()) {
    result_.error = "an event is not a JSON object: " + Quote(data);
    return;
  }
  if (const Json* error = Member(json, "error")) {
    const Json* message = Member(*error, "message");
    result_.error = Quote(message && message->is_string() ? message->get_ref<const std::string&>()
                                                          : error->dump(-1, ' ', true));
    return;
  }
  if (const Json* usage = Member(json, "usage")) {
    result_.prompt_tokens = Integer(*usage, "prompt_tokens", result_.prompt_tokens);
    result_.completion_tokens = Integer(*usage, "completion_tokens", result_.completion_tokens);
    if (const Json* details = Member(*usage, "prompt_tokens_details")) {
      result_.cached_tokens = Integer(*details, "cached_tokens", 0);
    }
  }
  const Json* choices = Member(json, "choices");
  if (!choices || !choices->is_array() || choices->empty()) return;
  const Json& choice = choices->front();
  if (const Json* delta = Member(choice, "delta"); delta && HasText(*delta)) {
    result_.text_times.push_back(now);
  }
  if (const Json* reason = Member(choice, "finish_reason"); reason && reason->is_string()) {
    result_.finish_reason = *reason;
  }
}

}  // namespace bakestone::load
