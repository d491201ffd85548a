// A trie over bytes with one value a key, in one hash table of edges. Grows while it is built, then
// is read by any number of threads. A walk costs one probe a byte.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace bakestone {

class ByteTrie {
 public:
  static constexpr int32_t kRoot = 0;

  ByteTrie() : edges_(64), values_(1, -1) {}
  bool empty() const { return values_.size() == 1; }
  void Insert(std::string_view key, int32_t value) {  // value >= 0; the last one wins
    int32_t node = kRoot;
    for (const char c : key) node = ChildOrNew(node, static_cast<uint8_t>(c));
    values_[static_cast<size_t>(node)] = value;
  }
  int32_t Child(int32_t node, uint8_t byte) const {  // -1: none
    return edges_[Probe(Key(node, byte))].child;
  }
  int32_t value(int32_t node) const { return values_[static_cast<size_t>(node)]; }  // -1: none

 private:
  struct Edge {
    uint64_t key = 0;
    int32_t child = -1;
  };
  static uint64_t Key(int32_t node, uint8_t byte) {
    return uint64_t{static_cast<uint32_t>(node)} << 8 | byte;
  }
  size_t Probe(uint64_t key) const {
    const size_t mask = edges_.size() - 1;
    for (size_t at = (key * 0x9E3779B97F4A7C15) >> 32 & mask;; at = (at + 1) & mask) {
      if (edges_[at].child < 0 || edges_[at].key == key) return at;
    }
  }
  int32_t ChildOrNew(int32_t node, uint8_t byte) {
    const uint64_t key = Key(node, byte);
    size_t at = Probe(key);
    if (edges_[at].child >= 0) return edges_[at].child;
    if (2 * values_.size() >= edges_.size()) {
      std::vector<Edge> old(edges_.size() * 2);
      old.swap(edges_);
      for (const Edge& edge : old) {
        if (edge.child >= 0) edges_[Probe(edge.key)] = edge;
      }
      at = Probe(key);
    }
    edges_[at] = {key, static_cast<int32_t>(values_.size())};
    values_.push_back(-1);
    return edges_[at].child;
  }
  std::vector<Edge> edges_;
  std::vector<int32_t> values_;
};

}  // namespace bakestone
