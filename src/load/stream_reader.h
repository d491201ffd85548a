// Reads the stream of one chat completion as it comes, in pieces of any size: when text arrived,
// the usage, and whether it ended as it should. Takes whatever an OpenAI-compatible server may say.
// One thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace bakestone::load {

struct StreamResult {
  std::vector<double> text_times;  // of events with text, reasoning or a tool call in them; seconds
  int64_t prompt_tokens = -1, cached_tokens = 0,
          completion_tokens = -1;  // -1: the server did not say
  std::string finish_reason;       // empty: the stream had none
  std::string error;  // what the server said, or what is wrong with what it said; empty: nothing
  bool done = false;  // [DONE] came
};

class StreamReader {
 public:
  // bytes arrived at `now`. Keeps at most a line; a longer one than a MiB is an error and ends the
  // reading.
  void Feed(std::string_view bytes, double now);
  const StreamResult& result() const { return result_; }

 private:
  void Line(std::string_view line, double now);
  void Event(std::string_view data, double now);

  std::string rest_;
  StreamResult result_;
};

}  // namespace bakestone::load
