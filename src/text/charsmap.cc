#include "text/charsmap.h"

#include "base/error.h"

namespace bakestone {
namespace {

// A unit: bit 31 marks a leaf (bits 0-30 its value); else bits 0-7 the label, bit 8 "a leaf hangs
// here", bits 10-30 the offset to the children, shifted left by 8 more where bit 9 is set.
bool HasLeaf(uint32_t unit) { return unit >> 8 & 1; }
uint32_t Value(uint32_t unit) { return unit & 0x7FFFFFFF; }
uint32_t Label(uint32_t unit) { return unit & 0x800000FF; }
uint32_t Offset(uint32_t unit) { return (unit >> 10) << ((unit & 0x200) >> 6); }

}  // namespace

Charsmap::Charsmap(std::string_view source, std::span<const uint8_t> bytes) {
  if (bytes.empty()) return;
  const auto word = [&](size_t at) {
    return uint32_t{bytes[at]} | uint32_t{bytes[at + 1]} << 8 | uint32_t{bytes[at + 2]} << 16 |
           uint32_t{bytes[at + 3]} << 24;
  };
  if (bytes.size() < 4) {
    Throw(ErrorCode::kCorrupt, "{}: precompiled_charsmap: expected 4 bytes or more, found {}",
          source, bytes.size());
  }
  const size_t trie_bytes = word(0);
  if (trie_bytes == 0 || trie_bytes % 4 != 0 || trie_bytes >= bytes.size() - 4 ||
      bytes.back() != 0) {
    Throw(
        ErrorCode::kCorrupt,
        "{}: precompiled_charsmap: expected a trie of a multiple of 4 bytes and then replacements "
        "ended by NUL within {} bytes, found a trie of {} bytes and a last byte of {}",
        source, bytes.size() - 4, trie_bytes, bytes.back());
  }
  units_.reserve(trie_bytes / 4);
  for (size_t at = 4; at < 4 + trie_bytes; at += 4) units_.push_back(word(at));
  replacements_.assign(bytes.begin() + static_cast<ptrdiff_t>(4 + trie_bytes), bytes.end());
}

Charsmap::Rule Charsmap::Find(std::string_view text, bool shortest) const {
  Rule rule;
  if (units_.empty()) return rule;
  size_t node = Offset(units_[0]);
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    node ^= byte;
    if (node >= units_.size() || Label(units_[node]) != byte) break;
    const bool leaf = HasLeaf(units_[node]);
    node ^= Offset(units_[node]);
    if (node >= units_.size()) break;
    if (!leaf) continue;
    const uint32_t value = Value(units_[node]);
    if (value < replacements_.size()) rule = {i + 1, replacements_.c_str() + value};
    if (shortest && rule.length > 0) break;
  }
  return rule;
}

}  // namespace bakestone
