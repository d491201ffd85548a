// The merge step of byte-pair encoding, for merges given in rank order (byte-level BPE) and for
// pieces given by score (SentencePiece): of all neighbouring pairs, the one of lowest rank is
// merged, the leftmost first, until no pair has a rank. Immutable after Finish, thread-safe; O(n
// log n) for a word of n symbols, no recursion, about 20 bytes of heap a symbol for words over
// kShortWord symbols.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace bakestone {

class BpeMerges {
 public:
  struct Merge {
    uint32_t rank = kNoRank;
    int32_t result = -1;
  };
  static constexpr uint32_t kNoRank = UINT32_MAX;
  static constexpr size_t kShortWord = 48;

  // Room for `count` merges.
  explicit BpeMerges(size_t count);
  // False when the pair has a merge already. rank < kNoRank; symbols >= 0.
  bool Add(int32_t left, int32_t right, Merge merge);
  Merge Find(int32_t left, int32_t right) const {
    const uint64_t key = Key(left, right);
    return slots_[Probe(key)].merge;
  }

  // Replaces symbols[0, size) by the merged ones; returns how many they are.
  size_t Apply(int32_t* symbols, size_t size) const {
    return size <= kShortWord ? ApplyShort(symbols, size) : ApplyLong(symbols, size);
  }

 private:
  struct Slot {
    uint64_t key = kEmpty;
    Merge merge;
  };
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  static uint64_t Key(int32_t left, int32_t right) {
    return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  }
  size_t Probe(uint64_t key) const {
    const size_t mask = slots_.size() - 1;
    uint64_t hash = key * 0x9E3779B97F4A7C15;
    hash ^= hash >> 32;
    for (size_t at = (hash * 0x9E3779B97F4A7C15) >> shift_;; at = (at + 1) & mask) {
      if (slots_[at].key == key || slots_[at].key == kEmpty) return at;
    }
  }
  size_t ApplyShort(int32_t* symbols, size_t size) const;
  size_t ApplyLong(int32_t* symbols, size_t size) const;

  std::vector<Slot> slots_;
  int shift_ = 0;
};

}  // namespace bakestone
