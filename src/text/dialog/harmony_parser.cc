#include "text/dialog/harmony_parser.h"

#include <algorithm>
#include <utility>

#include "text/dialog/marked_parser.h"

namespace bakestone::dialog {
namespace {

constexpr std::string_view kMessage = "<|message|>";
constexpr std::string_view kEnds[] = {"<|end|>", "<|call|>", "<|return|>", "<|start|>"};
constexpr size_t kMaxHeader = 512;

// The word behind the mark, up to white space or the next marker.
std::string WordAfter(const std::string& header, std::string_view mark) {
  const size_t at = header.find(mark);
  if (at == std::string::npos) return "";
  const size_t begin = at + mark.size();
  return header.substr(begin,
                       std::min(header.find_first_of(" \n\t<", begin), header.size()) - begin);
}

}  // namespace

void HarmonyParser::Begin(const std::string& header) {
  const std::string recipient = WordAfter(header, "to=");
  in_body_ = any_message_ = true;
  if (options_.reads_calls && recipient.starts_with("functions.")) {
    body_ = Body::kCall;
    delta_.calls.push_back({.index = next_call_++, .begins = true, .name = recipient.substr(10)});
  } else {
    body_ = WordAfter(header, "<|channel|>") == "analysis" ? Body::kReasoning : Body::kText;
  }
}

void HarmonyParser::Emit(std::string_view text) {
  if (text.empty()) return;
  if (body_ == Body::kReasoning) {
    delta_.reasoning += text;
  } else if (body_ == Body::kText) {
    delta_.text += text;
  } else {
    if (delta_.calls.empty()) delta_.calls.push_back({.index = next_call_ - 1});
    delta_.calls.back().arguments += text;
  }
}

bool HarmonyParser::StepHeader() {
  const size_t at = pending_.find(kMessage);
  if (at == std::string::npos) {
    const bool plain = pending_.size() > kMaxHeader || (final_ && !pending_.empty());
    if (!plain || any_message_) return false;
    in_body_ = true;  // no message at all: a reply without channels
    body_ = Body::kText;
    return true;
  }
  Begin(pending_.substr(0, at));
  pending_.erase(0, at + kMessage.size());
  return true;
}

bool HarmonyParser::StepBody() {
  size_t end = std::string::npos, length = 0, held = 0;
  for (const std::string_view mark : kEnds) {
    const size_t at = pending_.find(mark);
    if (at < end) {
      end = at;
      length = mark.size();
    }
    for (size_t n = std::min(mark.size() - 1, pending_.size()); n > held && !final_; --n) {
      if (std::string_view(pending_).ends_with(mark.substr(0, n))) held = n;
    }
  }
  const size_t ready = end == std::string::npos ? pending_.size() - held : end;
  Emit(std::string_view(pending_).substr(0, ready));
  pending_.erase(0, end == std::string::npos ? ready : end + length);
  if (end == std::string::npos) return false;
  if (body_ == Body::kCall) {
    if (delta_.calls.empty()) delta_.calls.push_back({.index = next_call_ - 1});
    delta_.calls.back().ends = true;
  }
  in_body_ = false;
  return true;
}

bool HarmonyParser::Step() { return in_body_ ? StepBody() : StepHeader(); }

ReplyDelta HarmonyParser::Append(std::string_view text) {
  pending_ += text;
  while (Step()) {
  }
  return std::exchange(delta_, {});
}

ReplyDelta HarmonyParser::Finish() {
  final_ = true;
  while (Step()) {
  }
  if (in_body_ && body_ == Body::kCall) {
    if (delta_.calls.empty()) delta_.calls.push_back({.index = next_call_ - 1});
    delta_.calls.back().ends = true;
  }
  in_body_ = false;
  return std::exchange(delta_, {});
}

std::unique_ptr<ReplyParser> MakeReplyParser(const ReplyFormat& format,
                                             ReplyParserOptions options) {
  if (format.calls.shape == CallShape::kHarmony) {
    return std::make_unique<HarmonyParser>(std::move(options));
  }
  return std::make_unique<MarkedParser>(format, std::move(options));
}

}  // namespace bakestone::dialog
