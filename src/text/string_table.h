// Byte strings by index, in one block of memory, and a hash index over some of them. Built once,
// then read by any number of threads. Lookups cost one probe as a rule: the index is at most half
// full.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace bakestone {

class StringTable {
 public:
  int32_t Add(std::string_view bytes) {
    if (blob_.size() + bytes.size() > UINT32_MAX) {
      Throw(ErrorCode::kCorrupt, "vocabulary: expected under 4 GiB of text");
    }
    blob_.append(bytes);
    offsets_.push_back(static_cast<uint32_t>(blob_.size()));
    return size() - 1;
  }
  std::string_view operator[](int32_t i) const {
    const uint32_t begin = offsets_[static_cast<size_t>(i)];
    return {blob_.data() + begin, offsets_[static_cast<size_t>(i) + 1] - begin};
  }
  int32_t size() const { return static_cast<int32_t>(offsets_.size()) - 1; }

 private:
  std::string blob_;
  std::vector<uint32_t> offsets_ = {0};
};

inline uint64_t HashBytes(std::string_view bytes) noexcept {
  constexpr uint64_t kMultiplier = 0x9E3779B97F4A7C15;
  uint64_t hash = bytes.size() * kMultiplier;
  const char* p = bytes.data();
  size_t left = bytes.size();
  const auto mix = [&](uint64_t word) {
    hash = (hash ^ word) * kMultiplier;
    hash ^= hash >> 32;
  };
  for (; left >= 8; left -= 8, p += 8) {
    uint64_t word;
    std::memcpy(&word, p, 8);
    mix(word);
  }
  if (left >= 4) {
    uint32_t low, high;
    std::memcpy(&low, p, 4);
    std::memcpy(&high, p + left - 4, 4);
    mix(uint64_t{high} << 32 | low);
  } else if (left > 0) {
    const auto byte = [p](size_t i) { return static_cast<uint64_t>(static_cast<uint8_t>(p[i])); };
    mix(byte(0) | byte(left / 2) << 8 | byte(left - 1) << 16 | uint64_t{1} << 24);
  }
  return hash * kMultiplier;
}

// bytes -> index into a StringTable that outlives it and does not move.
class StringIndex {
 public:
  StringIndex() = default;
  StringIndex(const StringTable* table, size_t capacity) : table_(table) {
    size_t slots = 16;
    while (slots < 2 * capacity) slots *= 2;
    slots_.assign(slots, Slot{});
  }
  // Returns the index already there, or -1 when `i` went in. At most `capacity` insertions.
  int32_t Insert(int32_t i) {
    const uint64_t hash = HashBytes((*table_)[i]);
    Slot& slot = slots_[Probe((*table_)[i], hash)];
    if (slot.index >= 0) return slot.index;
    slot = {static_cast<uint32_t>(hash), i};
    return -1;
  }
  int32_t Find(std::string_view bytes) const {  // -1: absent
    if (slots_.empty()) return -1;
    return slots_[Probe(bytes, HashBytes(bytes))].index;
  }

 private:
  struct Slot {
    uint32_t hash = 0;
    int32_t index = -1;
  };
  size_t Probe(std::string_view bytes, uint64_t hash) const {
    const size_t mask = slots_.size() - 1;
    for (size_t at = hash >> 32 & mask;; at = (at + 1) & mask) {
      const Slot& slot = slots_[at];
      if (slot.index < 0) return at;
      if (slot.hash == static_cast<uint32_t>(hash) && (*table_)[slot.index] == bytes) return at;
    }
  }
  const StringTable* table_ = nullptr;
  std::vector<Slot> slots_;
};

}  // namespace bakestone
