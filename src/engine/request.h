// What is asked of the engine and what it answers. Plain data; no thread owns it.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "engine/sampler.h"
#include "engine/token_mask.h"
#include "model/adapter.h"

namespace bakestone {

enum class FinishReason {
  kStop,       // an end-of-generation token, or a stop string
  kLength,     // max_tokens, or the context is full
  kCancelled,  // Cancel(), or the sink asked for it
  kError,      // Event::error says why
};

struct TokenInfo {
  int32_t token = 0;
  bool end_of_generation = false;            // it ended the answer; it has no text
  std::optional<RowLogprobs> logprobs = {};  // when asked for; absent for a prompt's first token
};

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;      // of the prompt, found in the prefix cache
  int64_t completion_tokens = 0;  // an end-of-generation token counts
  int64_t proposed_tokens = 0;    // by speculation, computed ahead
  int64_t accepted_tokens = 0;    // of those: they were the answer's; the others were dropped
};

// One step of an answer. Exactly one event of a request has finish; it is the last.
struct Event {
  std::string text;               // complete UTF-8, may be empty; stop strings never appear
  std::vector<TokenInfo> tokens;  // generated in this step, shown or held back
  std::vector<TokenInfo> prompt;  // with prompt_logprobs: once, in the first event
  std::optional<FinishReason> finish;
  std::string stop_string;  // the one that matched, if any
  Usage usage;              // so far
  std::optional<Error> error;
};

struct GenerationRequest {
  std::vector<int32_t> prompt;                  // at least one token
  std::shared_ptr<const Adapter> adapter = {};  // null: the base
  SamplingParams sampling = {};
  std::shared_ptr<const Constraint> constraint =
      {};                                  // null: any text; not with ignore_eos or min_tokens
  std::optional<int64_t> max_tokens = {};  // absent: the engine's default; 0: only prompt_logprobs
  std::vector<std::string> stop = {};      // at most 64, 1 to 1024 bytes each
  bool ignore_eos = false;
  int64_t min_tokens =
      0;  // before so many, no end-of-generation token is drawn and no stop string counts
  std::vector<int32_t> shown_control =
      {};  // control tokens whose text is part of the answer's; the others show nothing
  bool logprobs = false;         // of generated tokens
  int32_t top_logprobs = 0;      // [0, 64]
  bool prompt_logprobs = false;  // of the prompt too; such a request reads no cached prefix
  std::string tenant =
      {};  // whose it is: each has prefixes of its own in the cache, and its fair share
  bool background = false;  // gets what others leave: admitted after them, and makes room for them
  bool speculate = true;    // false: no proposals; the answer is the same, only its time differs
  std::vector<int32_t> expected = {};  // tokens that the answer may repeat, a file before its edit:
                                       // a hint for speculation, without influence on the answer

  // After it the request ends, wherever it is, with kUnavailable.
  std::optional<std::chrono::steady_clock::time_point> deadline = {};

  // Called on the engine's loop thread, in order; must be quick, must not throw, and
  // may call nothing of the engine but Cancel. May be called before Submit returns.
  std::function<void(Event&&)> sink = {};
};

}  // namespace bakestone
