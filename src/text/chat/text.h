// A string of a template: UTF-8 that remembers, byte by byte, whether the template wrote it
// (trusted: it may hold special tokens) or the context supplied it. Every operation on strings is
// made of Append and Slice, so the memory is never lost on the way. A value type.
//
// `markup` marks the result of the filter `safe` (Python's Markup): joining ordinary text to it
// with + or % escapes that text for HTML, which templates that write `x|safe + y` rely on.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace bakestone::chat {

class Text {
 public:
  struct Run {
    std::size_t end;  // byte offset; a run begins where the one before it ends
    bool trusted;
  };

  Text() = default;
  Text(std::string bytes, bool trusted);
  static Text Trusted(std::string bytes) { return Text(std::move(bytes), true); }

  const std::string& bytes() const { return bytes_; }
  std::string_view view() const { return bytes_; }
  std::size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  const std::vector<Run>& runs() const { return runs_; }
  bool markup() const { return markup_; }
  void set_markup(bool markup) { markup_ = markup; }
  std::size_t length() const;  // code points

  void Append(std::string_view bytes, bool trusted);
  void Append(const Text& text);
  void Append(const Text& text, std::size_t begin, std::size_t end);
  Text Slice(std::size_t begin, std::size_t end) const;  // byte offsets
  // Whether the byte at `offset` (< size()) is trusted. A cursor makes a walk linear.
  bool TrustedAt(std::size_t offset) const;

  class Cursor {
   public:
    explicit Cursor(const Text& text) : text_(text) {}
    bool Trusted(std::size_t offset) {  // offsets must not decrease
      while (text_.runs_[run_].end <= offset) ++run_;
      return text_.runs_[run_].trusted;
    }

   private:
    const Text& text_;
    std::size_t run_ = 0;
  };

 private:
  std::string bytes_;
  std::vector<Run> runs_;
  bool markup_ = false;
};

}  // namespace bakestone::chat
