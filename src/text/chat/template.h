// A model's chat template: our own interpreter of the Jinja that such templates are written in,
// equal to Python's jinja2 in the settings of Hugging Face (sandboxed, values immutable,
// trim_blocks, lstrip_blocks, loop controls, {% generation %}).
//
// A template is a program by a stranger that runs on text by strangers. So: no host object is
// reachable, every resource is capped (Limits), an unknown construct is an error at Parse() and
// never skipped, and every byte of the result remembers whether the template wrote it or the
// context supplied it (Rendered::segments), so that a user can never forge a special token.
//
// A ChatTemplate is immutable: one instance may render in any number of threads at once.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace bakestone::chat {

// One run of rendered text. `from_template` is true where the text may contain special tokens: it
// was written in the template, or came from a trusted context key. Digits of numbers and the words
// True, False and None count as the template's. Where two runs meet, ordinary text goes on: the
// tokenizer looks for special tokens inside a from_template run only, and encodes what lies between
// two special tokens as one piece.
struct Segment {
  std::string text;
  bool from_template = false;
};

struct Rendered {
  std::string text;  // UTF-8
  std::vector<Segment>
      segments;  // concatenated they are `text`; neighbours differ in from_template
  // Byte ranges [begin, end) of `text` inside {% generation %} blocks: what the assistant says.
  std::vector<std::pair<std::size_t, std::size_t>> generation;
};

// Caps of one render. Passing any of them is an Error(kInvalidArgument) that names the line.
struct Limits {
  std::int64_t max_steps = 20'000'000;       // nodes evaluated, plus work in units of 64 bytes
  std::int64_t max_output_bytes = 32 << 20;  // the rendered text
  std::int64_t max_string_bytes = 64 << 20;  // any one string on the way
  std::int64_t max_total_bytes = std::int64_t{1} << 30;  // everything that was ever allocated
  std::int64_t max_items = 1'000'000;  // any one list or dict; range() is capped at 100,000
  int max_depth = 100;                 // macro calls and recursive loops
};

struct RenderOptions {
  // What strftime_now() sees: wall-clock time, without a zone.
  std::chrono::local_seconds now{};
  Limits limits{};
  // Top-level context keys whose strings may hold special tokens: the program supplies them.
  std::set<std::string, std::less<>> trusted_keys = {
      "bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token"};
  // Values of a "role" key that count as the template's text: templates build special tokens from
  // them ('<|' + message.role + '|>'). Any other role is the user's text.
  std::set<std::string, std::less<>> trusted_roles = {"system", "user",     "assistant", "tool",
                                                      "model",  "function", "developer", "ipython"};
};

class ChatTemplate {
 public:
  // `name` is used in messages ("chat template line 12: ..."). Throws Error(kInvalidArgument) for a
  // syntax error, Error(kUnsupported) for a filter, test, function, method or statement that is not
  // known; both name the line and the token.
  static ChatTemplate Parse(std::string_view source, std::string_view name = "chat template");

  const std::string& source() const;  // as it was parsed

  // `context` is a JSON object: messages, tools, add_generation_prompt, bos_token, ... Objects keep
  // the order of their keys. Throws Error(kInvalidArgument) with the template's own message when it
  // calls raise_exception, and with line and reason when it fails otherwise.
  Rendered Render(const nlohmann::ordered_json& context, const RenderOptions& options) const;

  // The top-level names that the template reads and never sets ("messages", "tools", "bos_token",
  // ...), sorted: what a caller may want to supply.
  const std::set<std::string>& variables() const;
  // True if an `if` compares or searches message content (a known place for a back door: "in" or
  // "==" between a literal of the template and a message's content). Worth a warning, no more.
  bool branches_on_content() const;

  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

 private:
  struct Program;
  explicit ChatTemplate(std::unique_ptr<const Program> program);
  std::unique_ptr<const Program> program_;
};

// The machine's local wall-clock time, for RenderOptions::now.
std::chrono::local_seconds LocalNow();
// "2026-03-01", "2026-03-01T09:30" or "2026-03-01T09:30:05" (a space may stand for the T).
std::chrono::local_seconds ParseLocalTime(std::string_view text);

}  // namespace bakestone::chat
