// How MarkedParser reads the bodies of calls: an object, a name and its arguments, tagged
// parameters, or what can only be read as a whole.
#include <algorithm>

#include "text/dialog/call_values.h"
#include "text/dialog/marked_parser.h"

namespace bakestone::dialog {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMaxHead = 512;        // bytes between a marker and the arguments: more is no call
constexpr size_t kMaxWhole = 64 << 10;  // of a call that is read when it is complete

}  // namespace

bool MarkedParser::StepObject() {
  const size_t n = object_->Feed(pending_);
  if (!in_call_) taken_ += pending_.substr(0, n);
  pending_.erase(0, n);
  if (object_->has_name() && !in_call_) {
    // Without a marker, only a tool that the request has is a call: else it is JSON for the user.
    if (bare_ && !options_.tools.contains(object_->name())) {
      NotACall();
      return true;
    }
    BeginCall(object_->name());
  }
  if (in_call_) AddArguments(object_->TakeArguments());
  if (object_->failed() || (final_ && !object_->done())) {
    NotACall();
    return true;
  }
  if (!object_->done()) return false;
  if (!in_call_) {
    NotACall();
    return true;
  }
  if (!object_->saw_arguments()) AddArguments("{}");
  EndCall();
  state_ = State::kAfterCall;
  return true;
}

// The name among ids, indexes and markers: a tool that the request has, else the first identifier.
std::string MarkedParser::NameIn(const std::string& head) const {
  std::string first, known;
  for (size_t at = 0; at < head.size();) {
    size_t end = at;
    while (end < head.size() && IsNameChar(head[end])) ++end;
    std::string word = head.substr(at, end - at);
    if (word.starts_with("functions.")) word.erase(0, 10);
    const bool inside_marker = at > 0 && (head[at - 1] == '<' || head[at - 1] == '|' ||
                                          head[at - 1] == '[' || head[at - 1] == '`');
    if (!word.empty() && options_.tools.contains(word)) known = word;
    if (!word.empty() && first.empty() && !inside_marker) first = word;
    at = end + 1;
  }
  return known.empty() ? first : known;
}

bool MarkedParser::StepName() {
  if (syntax_.shape == CallShape::kNameThenJson) {
    const size_t open = pending_.find('{');
    const size_t length = name_.size() + std::min(open, pending_.size());
    name_ += pending_.substr(0, open);
    taken_ += pending_.substr(0, open);
    pending_.erase(0, open);
    const bool over = open == std::string::npos;
    if (length > kMaxHead || (over && final_)) {
      NotACall();
      return true;
    }
    if (over) return false;
    const std::string name = NameIn(name_);
    if (name.empty()) {
      NotACall();
      return true;
    }
    BeginCall(name);
    value_.emplace();
    state_ = State::kArguments;
    return true;
  }
  size_t n = 0;
  while (n < pending_.size() && IsNameChar(pending_[n])) ++n;
  name_ += pending_.substr(0, n);
  taken_ += pending_.substr(0, n);
  pending_.erase(0, n);
  if (name_.size() > kMaxHead || (pending_.empty() && final_)) {
    NotACall();
    return true;
  }
  if (pending_.empty()) return false;
  BeginCall(name_);
  AddArguments("{");
  first_parameter_ = true;
  state_ = State::kParameters;
  return true;
}

bool MarkedParser::StepArguments() {
  const size_t n = value_->Feed(pending_);
  AddArguments(std::string_view(pending_).substr(0, n));
  pending_.erase(0, n);
  if (!value_->done() && !value_->failed() && !final_) return false;
  EndCall();
  state_ = State::kAfterCall;
  return true;
}

bool MarkedParser::StepParameters() {
  const size_t key = pending_.find(key_begin_);
  const size_t end = parameters_end_.empty() ? std::string::npos : pending_.find(parameters_end_);
  if (end < key || (key == std::string::npos && final_)) {
    AddArguments("}");
    EndCall();
    if (end < key) pending_.erase(0, end);
    if (end == std::string::npos) pending_.clear();
    state_ = State::kAfterCall;
    return true;
  }
  if (key == std::string::npos) return false;
  const size_t value_end = pending_.find(value_end_, key);
  if (value_end == std::string::npos && !final_) return false;
  const std::string inside = pending_.substr(
      key + key_begin_.size(),
      (value_end == std::string::npos ? pending_.size() : value_end) - key - key_begin_.size());
  // k, the end of its tag, and v; an attribute may stand between the pieces of the tag's end.
  const size_t hole = syntax_.key_end.find('\x01');
  const std::string front = Trimmed(syntax_.key_end.substr(0, hole));
  const std::string back =
      hole == std::string::npos ? "" : Trimmed(syntax_.key_end.substr(hole + 1));
  const size_t tag = inside.find(front);
  size_t value = tag == std::string::npos ? std::string::npos : tag + front.size();
  if (value != std::string::npos && !back.empty()) {
    const size_t closing = inside.find(back, value);
    value = closing == std::string::npos ? value : closing + back.size();
  }
  pending_.erase(0,
                 value_end == std::string::npos ? pending_.size() : value_end + value_end_.size());
  if (value == std::string::npos) return true;  // a key without a value: dropped
  const std::string name = Trimmed(inside.substr(0, tag));
  std::string text = inside.substr(value);
  if (syntax_.key_end.ends_with('\n') && text.starts_with('\n')) text.erase(0, 1);
  if (syntax_.value_end.starts_with('\n') && text.ends_with('\n')) text.pop_back();
  const Json* schema = nullptr;
  if (const auto tool = options_.tools.find(name_);
      tool != options_.tools.end() && tool->is_object() && tool->contains("properties") &&
      (*tool)["properties"].is_object()) {
    const auto property = (*tool)["properties"].find(name);
    if (property != (*tool)["properties"].end()) schema = &*property;
  }
  const auto dumped = [](const Json& json) {
    return json.dump(-1, ' ', false, Json::error_handler_t::replace);
  };
  AddArguments((first_parameter_ ? "" : ", ") + dumped(name) + ": " +
               dumped(ParameterValue(text, schema)));
  first_parameter_ = false;
  return true;
}

bool MarkedParser::StepWhole() {
  const bool python = syntax_.shape != CallShape::kBraces;
  std::optional<ReadCall> call;
  bool cut = false;
  size_t skip = 0;
  if (pending_.size() > kMaxWhole) {
    NotACall();
    return true;
  }
  if (python) {
    call = ReadPythonCall(pending_, &cut);
  } else {
    const size_t open = pending_.find('{');
    if (open != std::string::npos) {
      call = ReadBraces(std::string_view(pending_).substr(open), syntax_.quote, &cut);
      std::string name = Trimmed(pending_.substr(0, open));
      if (name.starts_with("call:")) name.erase(0, 5);
      if (call) call->name = name;
      skip = open;
    }
  }
  // What cannot be read yet may be cut: its end marker outside of a value, or the reply's end, says
  // that it will not get better.
  const std::string& end = call_end_.empty() ? section_end_ : call_end_;
  if (!call && !final_ && (cut || end.empty() || pending_.find(end) == std::string::npos)) {
    return false;
  }
  const bool known = call && (!bare_ || options_.tools.contains(call->name));
  if (!call || call->name.empty() || !known) {
    NotACall();
    return true;
  }
  BeginCall(call->name);
  AddArguments(call->arguments);
  EndCall();
  pending_.erase(0, skip + call->end);
  state_ = State::kAfterCall;
  return true;
}

}  // namespace bakestone::dialog
