#include "engine/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace bakestone {

size_t StopMatcher::HeldBytes() const {
  size_t held = 0;
  for (const std::string& stop : stops_) {
    for (size_t n = std::min(stop.size() - 1, pending_.size()); n > held; --n) {
      if (pending_.compare(pending_.size() - n, n, stop, 0, n) == 0) held = n;
    }
  }
  return held;
}

std::string StopMatcher::Append(std::string_view piece) {
  if (matched_) return {};
  if (stops_.empty()) return std::string(piece);
  pending_ += piece;
  size_t best_end = std::string::npos, best_begin = 0;
  for (const std::string& stop : stops_) {
    const size_t begin = pending_.find(stop);
    if (begin == std::string::npos) continue;
    const size_t end = begin + stop.size();
    if (end < best_end || (end == best_end && begin < best_begin)) {
      best_end = end;
      best_begin = begin;
    }
  }
  size_t shown = pending_.size();
  if (best_end != std::string::npos) {
    matched_ = true;
    stop_ = pending_.substr(best_begin, best_end - best_begin);
    shown = best_begin;
  } else {
    shown -= HeldBytes();
  }
  std::string text = pending_.substr(0, shown);
  pending_.erase(0, matched_ ? std::string::npos : shown);
  return text;
}

std::string StopMatcher::Flush() { return std::exchange(pending_, {}); }

}  // namespace bakestone
