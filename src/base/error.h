// The one exception type. It is thrown where a fact is known (which file, which field, what was
// expected, what was found) and caught at the boundaries: a CLI verb, a request, the engine loop, a
// worker thread. Nothing below cli/ prints, exits or aborts.
//
// A message is one sentence a user can act on: "model.gguf: tensor 'blk.0.attn_q.weight': expected
// offset + size <= 91,731,200 bytes (the file's size), found 9,223,372,036,854,775,807; the file is
// cut short or damaged: fetch it again".
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

#include <fmt/core.h>

namespace bakestone {

enum class ErrorCode {
  kInvalidArgument,  // the caller's input (a flag, a recipe, a request) is wrong
  kNotFound,
  kCorrupt,      // bytes that do not follow their format
  kUnsupported,  // well-formed, but not something this program does
  kOutOfMemory,  // would not fit: memory, KV cache, context
  kIo,           // the system refused: open, read, write, bind
  kUnavailable,  // try again later: the queue is full, shutting down
  kCancelled,    // the user or the client went away
  kInternal,     // a broken invariant: a defect in this program
};

const char* ErrorCodeName(ErrorCode code);

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, std::string message)
      : std::runtime_error(std::move(message)), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

template <class... Args>
[[noreturn]] void Throw(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

[[noreturn]] void CheckFailed(const char* condition, const char* file, int line);

}  // namespace bakestone

// For programmer error only, never for what a user can send. Throws Error(kInternal).
#define BAKESTONE_CHECK(condition) \
  ((condition) ? (void)0 : ::bakestone::CheckFailed(#condition, __FILE__, __LINE__))
