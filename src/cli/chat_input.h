// What a user types into a chat: lines of standard input, several of them where a line ends with a
// backslash or a block is opened by """. One thread.
#pragma once

#include <string>

namespace bakestone::cli {

enum class InputKind { kMessage, kEnd, kInterrupted };

struct Input {
  InputKind kind = InputKind::kEnd;
  std::string text;
};

class ChatInput {
 public:
  // Reads fd. show_prompt: ">>> " on stderr before each message.
  ChatInput(int fd, bool show_prompt) : fd_(fd), show_prompt_(show_prompt) {}

  // One message. kInterrupted: Ctrl-C (what was typed is dropped). A message that input ends in the
  // middle of is given out whole. Throws kInvalidArgument for one above 8 MiB, kIo.
  Input Read();

 private:
  InputKind ReadLine(std::string* line);
  void Prompt(const char* text) const;

  int fd_;
  bool show_prompt_;
  std::string buffer_;
  bool ended_ = false;
};

}  // namespace bakestone::cli
