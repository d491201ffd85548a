// Finds stop strings in text that arrives in pieces, wherever the borders between tokens fall. Text
// is held back exactly as long as it could begin a stop string. What is released does not depend on
// how the text was cut into pieces. The stop string that is complete first wins (of two that end
// together, the longer), and the text before it is the answer.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace bakestone {

class StopMatcher {
 public:
  // Empty strings are not allowed (the request's check refuses them).
  explicit StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  // Returns the text that may be shown now. After a match it returns nothing more.
  std::string Append(std::string_view piece);
  std::string Flush();  // the end of generation: what was held back
  bool matched() const { return matched_; }
  const std::string& stop() const { return stop_; }  // the one that matched

 private:
  size_t HeldBytes() const;  // the longest end of pending_ that begins a stop string

  std::vector<std::string> stops_;
  std::string pending_, stop_;
  bool matched_ = false;
};

}  // namespace bakestone
