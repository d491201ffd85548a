#include "engine/prompt_lookup.h"

#include <algorithm>

#include "base/error.h"

namespace bakestone {
namespace {

constexpr int32_t kSeparator = -1;  // no token: nothing matches across it
constexpr int64_t kMaxPlaces = 32;  // looked at in one chain: a comparison each, about 1 us in all
constexpr size_t kFirstHeads = 1024;

}  // namespace

void PromptLookup::Expect(std::span<const int32_t> tokens) {
  BAKESTONE_CHECK(history_.empty());
  if (tokens.empty()) return;
  for (const int32_t token : tokens) Push(token);
  expected_ = static_cast<int64_t>(tokens.size());
  Push(kSeparator);
  text_begin_ = static_cast<int64_t>(history_.size());
}

void PromptLookup::Append(std::span<const int32_t> tokens) {
  for (const int32_t token : tokens) Push(token);
}

void PromptLookup::BeginAnswer() {
  if (expected_ > 0) followed_ = {-1, 0};
}

void PromptLookup::Push(int32_t token) {
  if (followed_.end != kNowhere) {
    const int64_t next = followed_.end + 1;
    if (token != kSeparator && history_[static_cast<size_t>(next)] == token) {
      followed_ = {next, std::min(followed_.match + 1, kMaxMatch)};
    } else {
      followed_ = {};
    }
  }
  history_.push_back(token);
  const auto end = static_cast<int64_t>(history_.size()) - 1;
  for (Index& index : indexes_) {
    // The last position is left out until the next token: it would only find itself.
    index.previous.push_back(-1);
    if (index.heads.size() < history_.size()) {
      index.heads.assign(std::max(kFirstHeads, 2 * index.heads.size()), -1);
      for (int64_t i = 0; i < end; ++i) Insert(index, i);
    } else if (end > 0) {
      Insert(index, end - 1);
    }
  }
}

void PromptLookup::Insert(Index& index, int64_t end) {
  if (end + 1 < index.gram) return;
  int32_t& head = index.heads[HashAt(index.gram, end) & (index.heads.size() - 1)];
  index.previous[static_cast<size_t>(end)] = head;
  head = static_cast<int32_t>(end);
}

uint64_t PromptLookup::HashAt(int64_t gram, int64_t end) const {
  uint64_t hash = 0;
  for (int64_t i = end - gram + 1; i <= end; ++i) {
    hash = (hash ^ static_cast<uint32_t>(history_[static_cast<size_t>(i)])) * 0x9E3779B97F4A7C15u;
    hash ^= hash >> 29;
  }
  return hash;
}

int64_t PromptLookup::MatchLength(int64_t earlier_end) const {
  const int32_t* a = history_.data() + earlier_end;
  const int32_t* b = history_.data() + history_.size() - 1;
  const int64_t most = std::min(earlier_end + 1, kMaxMatch);
  int64_t n = 0;
  while (n < most && a[-n] == b[-n] && b[-n] != kSeparator) ++n;
  return n;
}

PromptLookup::Place PromptLookup::Find() const {
  // What was the longest match before is still the longest while its tokens come true.
  if (followed_.end != kNowhere) return followed_;
  Place best;
  const auto last = static_cast<int64_t>(history_.size()) - 1;
  for (const Index& index : indexes_) {
    if (last + 1 < index.gram || best.match > 0) continue;
    int64_t place = index.heads[HashAt(index.gram, last) & (index.heads.size() - 1)];
    for (int64_t seen = 0; place >= 0 && seen < kMaxPlaces && best.match < kMaxMatch; ++seen) {
      const int64_t match = MatchLength(place);
      if (match >= kMinMatch && match > best.match) best = {place, match};
      place = index.previous[static_cast<size_t>(place)];
    }
  }
  return best;
}

PromptLookup::Guess PromptLookup::Propose(int64_t n) {
  followed_ = Find();
  Guess guess;
  if (followed_.end == kNowhere) return guess;
  guess.match = followed_.match;
  const auto size = static_cast<int64_t>(history_.size());
  for (int64_t i = followed_.end + 1; static_cast<int64_t>(guess.tokens.size()) < n; ++i) {
    // A match that reaches the end of the text goes on in the guess itself: a period is continued.
    const int32_t token =
        i < size ? history_[static_cast<size_t>(i)] : guess.tokens[static_cast<size_t>(i - size)];
    if (token == kSeparator) break;
    guess.tokens.push_back(token);
  }
  return guess;
}

}  // namespace bakestone
