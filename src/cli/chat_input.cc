#include "cli/chat_input.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include <fmt/core.h>

#include "base/error.h"

namespace bakestone::cli {
namespace {

constexpr size_t kMaxMessage = 8 << 20;
constexpr const char* kQuotes = "\"\"\"";

}  // namespace

void ChatInput::Prompt(const char* text) const {
  if (!show_prompt_) return;
  fmt::print(stderr, "{}", text);
  std::fflush(stderr);
}

InputKind ChatInput::ReadLine(std::string* line) {
  while (true) {
    const size_t newline = buffer_.find('\n');
    if (newline != std::string::npos || (ended_ && !buffer_.empty())) {
      *line = buffer_.substr(0, newline);
      buffer_.erase(0, newline == std::string::npos ? buffer_.size() : newline + 1);
      if (!line->empty() && line->back() == '\r') line->pop_back();
      return InputKind::kMessage;
    }
    if (ended_) return InputKind::kEnd;
    if (buffer_.size() > kMaxMessage) {
      Throw(ErrorCode::kInvalidArgument, "a message is limited to {} bytes", kMaxMessage);
    }
    char bytes[4096];
    const ssize_t n = ::read(fd_, bytes, sizeof bytes);
    if (n < 0 && errno == EINTR) return InputKind::kInterrupted;
    if (n < 0) Throw(ErrorCode::kIo, "standard input: {}", std::strerror(errno));
    if (n == 0) ended_ = true;
    buffer_.append(bytes, static_cast<size_t>(n));
  }
}

Input ChatInput::Read() {
  Prompt(">>> ");
  std::string line;
  InputKind kind = ReadLine(&line);
  if (kind != InputKind::kMessage) return {kind, ""};
  std::string text;
  bool block = line.starts_with(kQuotes);
  if (block) line.erase(0, 3);
  while (true) {
    bool more = false;
    if (block && line.ends_with(kQuotes)) {
      line.erase(line.size() - 3);
      block = false;
    } else if (block) {
      more = true;
    } else if (line.ends_with('\\')) {
      line.pop_back();
      more = true;
    }
    text += line;
    if (text.size() > kMaxMessage) {
      Throw(ErrorCode::kInvalidArgument, "a message is limited to {} bytes", kMaxMessage);
    }
    if (!more) return {InputKind::kMessage, text};
    text += '\n';
    Prompt("... ");
    kind = ReadLine(&line);
    if (kind == InputKind::kInterrupted) return {kind, ""};
    if (kind == InputKind::kEnd) return {InputKind::kMessage, text};
  }
}

}  // namespace bakestone::cli
