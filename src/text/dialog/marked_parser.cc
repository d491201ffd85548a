#include "text/dialog/marked_parser.h"

#include <algorithm>
#include <utility>

#include "text/dialog/call_values.h"
#include "text/dialog/written_calls.h"

namespace bakestone::dialog {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kSpace = " \n\t\r";
constexpr size_t kMaxHead = 512;        // bytes between a marker and the arguments: more is no call
constexpr size_t kMaxWhole = 64 << 10;  // of a call that is read when it is complete

std::string Trimmed(const std::string& text) {
  const size_t begin = text.find_first_not_of(kSpace);
  return begin == std::string::npos ? ""
                                    : text.substr(begin, text.find_last_not_of(kSpace) + 1 - begin);
}

}  // namespace

MarkedParser::MarkedParser(const ReplyFormat& format, ReplyParserOptions options)
    : syntax_(format.calls),
      reasoning_(format.reasoning),
      options_(std::move(options)),
      call_end_(Trimmed(syntax_.call_end)),
      section_end_(Trimmed(syntax_.section_end)),
      key_begin_(Trimmed(syntax_.key_begin)),
      value_end_(Trimmed(syntax_.value_end)) {
  if (options_.reads_calls && syntax_.shape != CallShape::kNone) {
    for (const std::string& part : {syntax_.section_begin, syntax_.call_begin}) {
      const OpeningMarkers markers = OpeningMarkersOf(syntax_, part);
      if (!markers.trigger.empty()) triggers_.push_back(markers.trigger);
      skippable_.insert(skippable_.end(), markers.all.begin(), markers.all.end());
    }
    bare_ = triggers_.empty();
    if (!syntax_.alternate_begin.empty()) triggers_.push_back(syntax_.alternate_begin);
  }
  const std::vector<std::string> ending = Lexemes(syntax_.call_end + syntax_.section_end);
  if (!ending.empty()) parameters_end_ = ending[0];
  if (options_.in_reasoning && reasoning_.present()) state_ = State::kReasoning;
}

void MarkedParser::EmitText(std::string_view text) {
  if (text.empty()) return;
  const size_t last = text.find_last_not_of(kSpace);
  if (strip_text_ && !anything_) {
    if (last == std::string_view::npos) return;
    text.remove_prefix(text.find_first_not_of(kSpace));
  }
  // White space before a call is not part of the text: it waits.
  const size_t solid = options_.reads_calls ? text.find_last_not_of(kSpace) + 1 : text.size();
  if (solid > 0) {
    delta_.text += held_space_;
    held_space_.clear();
    delta_.text += text.substr(0, solid);
    anything_ = true;
  }
  held_space_ += text.substr(solid);
}

void MarkedParser::EmitReasoning(std::string_view text) {
  const size_t solid = text.find_last_not_of(kSpace) + 1;
  if (solid > 0) {
    if (!reasoning_begun_) text.remove_prefix(text.find_first_not_of(kSpace));
    delta_.reasoning += std::exchange(held_reasoning_, {});
    delta_.reasoning += text.substr(0, text.find_last_not_of(kSpace) + 1);
    reasoning_begun_ = true;
  }
  if (reasoning_begun_) held_reasoning_ += text.substr(text.find_last_not_of(kSpace) + 1);
}

size_t MarkedParser::HeldBytes(const std::vector<std::string>& markers) const {
  size_t held = 0;
  for (const std::string& marker : markers) {
    for (size_t n = std::min(marker.size() - 1, pending_.size()); n > held; --n) {
      if (std::string_view(pending_).ends_with(std::string_view(marker).substr(0, n))) {
        held = n;
        break;
      }
    }
  }
  return final_ ? 0 : held;
}

bool MarkedParser::MayBegin(std::string_view marker) const {
  return !final_ && pending_.size() < marker.size() && marker.starts_with(pending_);
}

bool MarkedParser::TakeFront(const std::string& marker) {
  if (marker.empty() || !pending_.starts_with(marker)) return false;
  taken_ += marker;
  pending_.erase(0, marker.size());
  return true;
}

void MarkedParser::SkipSpace() {
  const size_t n = std::min(pending_.find_first_not_of(kSpace), pending_.size());
  taken_ += pending_.substr(0, n);
  pending_.erase(0, n);
}

bool MarkedParser::StepReasoning() {
  const size_t end = pending_.find(reasoning_.end);
  if (end == std::string::npos) {
    const size_t ready = pending_.size() - HeldBytes({reasoning_.end});
    EmitReasoning(std::string_view(pending_).substr(0, ready));
    pending_.erase(0, ready);
    return false;
  }
  EmitReasoning(std::string_view(pending_).substr(0, end));
  held_reasoning_.clear();
  reasoning_begun_ = false;
  pending_.erase(0, end + reasoning_.end.size());
  strip_text_ = true;
  state_ = State::kText;
  return true;
}

bool MarkedParser::StepText() {
  if (pending_.empty()) return false;
  const size_t solid = pending_.find_first_not_of(kSpace);
  const bool at_beginning = !anything_ && next_call_ == 0 && solid != std::string::npos;
  // Whether white space is the text's is known when something follows.
  if (!anything_ && solid == std::string::npos && reasoning_.present() && !final_) return false;
  if (at_beginning && reasoning_.present()) {
    const std::string_view front = std::string_view(pending_).substr(solid);
    if (front.starts_with(reasoning_.begin)) {
      pending_.erase(0, solid + reasoning_.begin.size());
      held_space_.clear();
      state_ = State::kReasoning;
      return true;
    }
    if (!final_ && front.size() < reasoning_.begin.size() && reasoning_.begin.starts_with(front)) {
      return false;
    }
  }
  if (bare_ && at_beginning &&
      (pending_[solid] == '{' ||
       (pending_[solid] == '[' && syntax_.shape != CallShape::kJsonObject))) {
    taken_ = pending_.substr(0, solid);
    pending_.erase(0, solid);
    state_ = State::kHead;
    return true;
  }
  size_t first = std::string::npos;
  for (const std::string& trigger : triggers_) {
    const size_t at = pending_.find(trigger);
    if (at < first) first = at;
  }
  if (first == std::string::npos) {
    const size_t ready = pending_.size() - HeldBytes(triggers_);
    EmitText(std::string_view(pending_).substr(0, ready));
    pending_.erase(0, ready);
    return false;
  }
  EmitText(std::string_view(pending_).substr(0, first));
  pending_.erase(0, first);
  taken_.clear();
  for (const std::string& trigger : triggers_) {
    if (TakeFront(trigger)) break;
  }
  state_ = State::kHead;
  return true;
}

bool MarkedParser::AtBodyOf(char c) const {
  switch (syntax_.shape) {
    case CallShape::kJsonObject:
    case CallShape::kNamedObject:
      return c == '{';
    default:
      return IsNameChar(c) || c == '\x01';
  }
}

bool MarkedParser::StepHead() {
  SkipSpace();
  if (pending_.empty()) {
    if (final_) NotACall();
    return final_;
  }
  for (const std::string& lexeme : skippable_) {
    if (TakeFront(lexeme)) return true;
  }
  if (pending_[0] == '[' || pending_[0] == ',') {
    TakeFront(pending_.substr(0, 1));
    return true;
  }
  for (const std::string& lexeme : skippable_) {
    if (MayBegin(lexeme)) return false;
  }
  const bool python = !syntax_.alternate_begin.empty() &&
                      taken_.ends_with(syntax_.alternate_begin) && IsNameChar(pending_[0]);
  if (python) {
    state_ = State::kWhole;
  } else if (AtBodyOf(pending_[0])) {
    BeginBody();
  } else {
    NotACall();
  }
  return true;
}

void MarkedParser::BeginBody() {
  switch (syntax_.shape) {
    case CallShape::kJsonObject:
    case CallShape::kNamedObject:
      object_.emplace(syntax_.name_key, syntax_.arguments_key);
      state_ = State::kObject;
      return;
    case CallShape::kNameThenJson:
    case CallShape::kNameThenParameters:
      name_.clear();
      state_ = State::kName;
      return;
    default:
      state_ = State::kWhole;
  }
}

void MarkedParser::NotACall() {
  if (in_call_) EndCall();
  EmitText(taken_);
  taken_.clear();
  state_ = State::kText;
}

void MarkedParser::BeginCall(const std::string& name) {
  delta_.calls.push_back({.index = next_call_++, .begins = true, .name = name});
  in_call_ = true;
  taken_.clear();
  held_space_.clear();
}

void MarkedParser::AddArguments(std::string_view text) {
  if (text.empty()) return;
  if (delta_.calls.empty() || delta_.calls.back().index != next_call_ - 1) {
    delta_.calls.push_back({.index = next_call_ - 1});
  }
  delta_.calls.back().arguments += text;
}

void MarkedParser::EndCall() {
  if (delta_.calls.empty() || delta_.calls.back().index != next_call_ - 1) {
    delta_.calls.push_back({.index = next_call_ - 1});
  }
  delta_.calls.back().ends = true;
  in_call_ = false;
  taken_.clear();
}

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

bool MarkedParser::StepAfterCall() {
  SkipSpace();
  taken_.clear();
  if (pending_.empty()) return false;
  if (TakeFront(section_end_) || TakeFront(call_end_)) return true;
  for (const std::string& trigger : triggers_) {
    if (!TakeFront(trigger)) continue;
    state_ = State::kHead;
    return true;
  }
  const bool object =
      syntax_.shape == CallShape::kJsonObject || syntax_.shape == CallShape::kNamedObject;
  // Another call of a list, or on the next line.
  const bool listed = !syntax_.section_begin.empty() || bare_;
  if (listed && (pending_[0] == ',' || pending_[0] == ';' || (object && pending_[0] == '{') ||
                 (syntax_.shape == CallShape::kPython && IsNameChar(pending_[0])))) {
    if (pending_[0] == ',' || pending_[0] == ';') TakeFront(pending_.substr(0, 1));
    SkipSpace();
    if (pending_.empty()) return false;
    if (AtBodyOf(pending_[0])) {
      taken_.clear();
      BeginBody();
      return true;
    }
  }
  for (const std::string& lexeme : Lexemes(syntax_.section_end + " " + syntax_.call_end)) {
    if (TakeFront(lexeme)) return true;
    if (MayBegin(lexeme)) return false;
    if (lexeme.starts_with(pending_)) {  // cut by the reply's end
      pending_.clear();
      return false;
    }
  }
  for (const std::string& trigger : triggers_) {
    if (MayBegin(trigger)) return false;
  }
  taken_.clear();
  state_ = State::kText;
  return true;
}

bool MarkedParser::Step() {
  switch (state_) {
    case State::kReasoning:
      return StepReasoning();
    case State::kText:
      return StepText();
    case State::kHead:
      return StepHead();
    case State::kObject:
      return StepObject();
    case State::kName:
      return StepName();
    case State::kArguments:
      return StepArguments();
    case State::kParameters:
      return StepParameters();
    case State::kWhole:
      return StepWhole();
    case State::kAfterCall:
      return StepAfterCall();
  }
  return false;
}

ReplyDelta MarkedParser::Append(std::string_view text) {
  pending_ += text;
  while (Step()) {
  }
  return std::exchange(delta_, {});
}

ReplyDelta MarkedParser::Finish() {
  final_ = true;
  while (Step()) {
  }
  if (in_call_) EndCall();
  if (next_call_ == 0) delta_.text += held_space_;
  return std::exchange(delta_, {});
}

std::string WriteCall(const CallSyntax& syntax, const std::string& name,
                      const std::string& arguments) {
  std::string text = syntax.section_begin + syntax.call_begin + syntax.before_name + name +
                     syntax.after_name + arguments + syntax.after_arguments + syntax.call_end +
                     syntax.section_end;
  for (char& c : text) c = c == '\x01' || c == '\x02' ? '0' : c;
  return text;
}

std::vector<std::string> MarkersOf(const ReplyFormat& format) {
  std::vector<std::string> markers;
  if (format.calls.shape == CallShape::kHarmony) {
    return {"<|start|>",     "<|end|>",    "<|message|>", "<|channel|>",
            "<|constrain|>", "<|return|>", "<|call|>"};
  }
  const CallSyntax& calls = format.calls;
  for (const std::string* part :
       {&format.reasoning.begin, &format.reasoning.end, &calls.section_begin, &calls.section_end,
        &calls.call_begin, &calls.call_end, &calls.separator, &calls.alternate_begin,
        &calls.before_name, &calls.after_name, &calls.after_arguments, &calls.key_begin,
        &calls.key_end, &calls.value_end, &calls.quote}) {
    if (!part->empty()) markers.push_back(*part);
  }
  return markers;
}

}  // namespace bakestone::dialog
