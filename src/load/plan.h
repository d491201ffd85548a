// Which requests a load consists of, and when each is due: drawn from a seed before anything is
// sent, so that two servers, or one before and after a change, get the very same load. Arrivals are
// a Poisson process and wait for nobody (open loop): a server that falls behind is asked as fast as
// before. Or so many streams run at any time, and the next request begins when one ends (closed
// loop): what a server can do, not how it bears what it is asked.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace bakestone::load {

// One of several values, drawn by weight.
template <class T>
struct Mix {
  struct Share {
    T value;
    double weight = 1;
  };
  std::vector<Share> shares;
};

// "64,512=3": 64 once for three times 512. Throws kInvalidArgument naming `what`.
Mix<int64_t> ParseLengths(std::string_view what, std::string_view text, int64_t least);
Mix<std::string> ParseNames(std::string_view what, std::string_view text);

struct PlanOptions {
  uint64_t seed = 1;
  double rate = 1;      // requests a second, in the mean
  double seconds = 10;  // arrivals after it are left out
  int64_t streams = 0;  // 0: an open loop; else as many run at any time, `requests` in all, and
                        // rate and seconds say nothing
  int64_t requests = 0;
  Mix<int64_t> prompt_tokens, answer_tokens;
  Mix<std::string> models;
  int64_t prefixes = 0;         // that prompts share; 0: each prompt is its own
  int64_t prefix_tokens = 256;  // of each, in front of the prompt's own
};

struct PlannedRequest {
  double due = 0;  // seconds from the start; in a closed loop 0
  std::string model;
  std::string prompt;  // about prefix_tokens + prompt_tokens tokens: as many short English words
  int64_t answer_tokens = 0;
};

// In order of time; at least one request. Throws kInvalidArgument for more than a million, or fewer
// requests than streams.
std::vector<PlannedRequest> MakePlan(const PlanOptions& options);

}  // namespace bakestone::load
