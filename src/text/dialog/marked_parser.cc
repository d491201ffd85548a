#include "text/dialog/marked_parser.h"

#include <algorithm>
#include <utility>

#include "text/dialog/call_values.h"
#include "text/dialog/written_calls.h"

namespace bakestone::dialog {
namespace {

constexpr const char* kSpace = " \n\t\r";

}  // namespace

std::string MarkedParser::Trimmed(const std::string& text) {
  const size_t begin = text.find_first_not_of(kSpace);
  return begin == std::string::npos ? ""
                                    : text.substr(begin, text.find_last_not_of(kSpace) + 1 - begin);
}

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
