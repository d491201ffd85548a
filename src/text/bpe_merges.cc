#include "text/bpe_merges.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <map>

namespace bakestone {
namespace {

// Positions that wait under one rank, smallest first. They mostly arrive in order: those go to a
// plain queue, so that a long run of one character costs no sorting; the others go to a heap.
class PositionQueue {
 public:
  bool empty() const { return head_ == in_order_.size() && heap_.empty(); }
  void Push(int32_t position) {
    if (in_order_.empty() || position >= in_order_.back()) {
      in_order_.push_back(position);
    } else {
      heap_.push_back(position);
      std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
    }
  }
  int32_t Pop() {
    if (heap_.empty() || (head_ < in_order_.size() && in_order_[head_] <= heap_.front())) {
      return in_order_[head_++];
    }
    std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
    const int32_t position = heap_.back();
    heap_.pop_back();
    return position;
  }

 private:
  std::vector<int32_t> in_order_;
  std::vector<int32_t> heap_;
  size_t head_ = 0;
};

}  // namespace

BpeMerges::BpeMerges(size_t count) {
  size_t slots = 16;
  while (slots < 2 * count) slots *= 2;
  slots_.assign(slots, Slot{});
  shift_ = 64 - std::countr_zero(slots);
}

bool BpeMerges::Add(int32_t left, int32_t right, Merge merge) {
  const uint64_t key = Key(left, right);
  Slot& slot = slots_[Probe(key)];
  if (slot.key == key) return false;
  slot = {key, merge};
  return true;
}

// Few symbols: look at all ranks for each merge, which beats any queue.
size_t BpeMerges::ApplyShort(int32_t* symbols, size_t size) const {
  if (size < 2) return size;
  Merge merges[kShortWord];
  for (size_t i = 0; i + 1 < size; ++i) merges[i] = Find(symbols[i], symbols[i + 1]);
  for (;;) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < size; ++i) {
      if (merges[i].rank < merges[best].rank) best = i;
    }
    if (merges[best].rank == kNoRank) return size;
    symbols[best] = merges[best].result;
    std::copy(symbols + best + 2, symbols + size, symbols + best + 1);
    std::copy(merges + best + 1, merges + size - 1, merges + best);
    if (--size < 2) return size;
    if (best > 0) merges[best - 1] = Find(symbols[best - 1], symbols[best]);
    if (best + 1 < size) merges[best] = Find(symbols[best], symbols[best + 1]);
  }
}

// Many symbols: a linked list of them, and for each rank the positions of its pairs. A position
// whose pair has changed since it was queued is recognized by its rank and skipped.
size_t BpeMerges::ApplyLong(int32_t* symbols, size_t size) const {
  const auto count = static_cast<int32_t>(size);
  std::vector<int32_t> next(size), previous(size);
  for (int32_t i = 0; i < count; ++i) {
    next[static_cast<size_t>(i)] = i + 1;
    previous[static_cast<size_t>(i)] = i - 1;
  }
  const auto merge_at = [&](int32_t i) {
    const int32_t right = next[static_cast<size_t>(i)];
    return right < count ? Find(symbols[i], symbols[right]) : Merge{};
  };
  std::map<uint32_t, PositionQueue> queues;
  const auto queue = [&](int32_t i) {
    const Merge merge = merge_at(i);
    if (merge.rank != kNoRank) queues[merge.rank].Push(i);
  };
  for (int32_t i = 0; i + 1 < count; ++i) queue(i);
  while (!queues.empty()) {
    const auto first = queues.begin();
    if (first->second.empty()) {
      queues.erase(first);
      continue;
    }
    const int32_t i = first->second.Pop();
    if (symbols[i] < 0) continue;  // merged into its left neighbour
    const Merge merge = merge_at(i);
    if (merge.rank != first->first) continue;
    const int32_t gone = next[static_cast<size_t>(i)];
    const int32_t after = next[static_cast<size_t>(gone)];
    symbols[i] = merge.result;
    symbols[gone] = -1;
    next[static_cast<size_t>(i)] = after;
    if (after < count) previous[static_cast<size_t>(after)] = i;
    if (previous[static_cast<size_t>(i)] >= 0) queue(previous[static_cast<size_t>(i)]);
    queue(i);
  }
  size_t left = 0;
  for (size_t i = 0; i < size; ++i) {
    if (symbols[i] >= 0) symbols[left++] = symbols[i];
  }
  return left;
}

}  // namespace bakestone
