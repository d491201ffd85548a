#include "data/min_hash.h"

#include <algorithm>
#include <string>

#include "base/rng.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace bakestone {
namespace {

uint64_t Mix(uint64_t x) {  // splitmix64's finalizer
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

struct Permutation {
  uint64_t multiply, add;
};

const std::array<Permutation, kMinHashes>& Permutations() {
  static const auto permutations = [] {
    std::array<Permutation, kMinHashes> made{};
    Rng rng(0x4D696E48617368, 0);
    for (Permutation& permutation : made) permutation = {rng.Next() | 1, rng.Next()};
    return made;
  }();
  return permutations;
}

// Capital letters of Latin, Greek and Cyrillic to small ones; enough to see that two texts are one.
uint32_t Lower(uint32_t c) {
  if ((c >= 'A' && c <= 'Z') || (c >= 0xC0 && c <= 0xDE && c != 0xD7)) return c + 32;
  if (c >= 0x391 && c <= 0x3A9) return c + 32;
  if (c >= 0x410 && c <= 0x42F) return c + 32;
  if (c >= 0x400 && c <= 0x40F) return c + 80;
  if (c >= 0x100 && c <= 0x137) return c | 1;
  return c;
}

// Languages that write words together: Han, kana, Thai, Lao, Khmer, Burmese.
bool IsUnspaced(uint32_t c) {
  return (c >= 0x0E00 && c <= 0x0EFF) || (c >= 0x1000 && c <= 0x109F) ||
         (c >= 0x1780 && c <= 0x17FF) || (c >= 0x3040 && c <= 0x30FF) ||
         (c >= 0x3400 && c <= 0x9FFF) || (c >= 0x20000 && c <= 0x3FFFF);
}

// Hashes of the words; a character of an unspaced script is a word of its own.
std::vector<uint64_t> Words(std::string_view text, bool* unspaced) {
  const CharClasses& classes = CharClasses::Get();
  std::vector<uint64_t> words;
  uint64_t word = 0;
  int64_t characters = 0, alone = 0;
  const auto close = [&] {
    if (word != 0) words.push_back(word);
    word = 0;
  };
  const char* const end = text.data() + text.size();
  for (const char* p = text.data(); p < end;) {
    uint32_t c;
    const int length = DecodeUtf8(p, end, &c);
    if (length == 0) {
      ++p;
      close();
      continue;
    }
    p += length;
    if ((classes[c] & (kLetter | kNumber | kMark)) == 0) {
      close();
      continue;
    }
    ++characters;
    if (IsUnspaced(c)) {
      ++alone;
      close();
      words.push_back(Mix(c + 1));
      continue;
    }
    word = Mix(word + Lower(c) + 1);
  }
  close();
  *unspaced = 2 * alone > characters;
  return words;
}

}  // namespace

std::vector<uint32_t> Shingles(std::string_view text) {
  bool unspaced = false;
  const std::vector<uint64_t> words = Words(text, &unspaced);
  const size_t width = unspaced ? 5 : 3;
  std::vector<uint32_t> shingles;
  if (words.empty()) return shingles;
  const size_t count = words.size() < width ? 1 : words.size() - width + 1;
  shingles.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    uint64_t hash = 0;
    for (size_t j = i; j < std::min(words.size(), i + width); ++j) hash = Mix(hash ^ words[j]);
    shingles.push_back(static_cast<uint32_t>(hash >> 32));
  }
  std::sort(shingles.begin(), shingles.end());
  shingles.erase(std::unique(shingles.begin(), shingles.end()), shingles.end());
  return shingles;
}

Signature MinHash(std::span<const uint32_t> shingles) {
  const auto& permutations = Permutations();
  Signature signature;
  signature.fill(UINT32_MAX);
  for (const uint32_t shingle : shingles) {
    for (size_t i = 0; i < signature.size(); ++i) {
      const auto hash =
          static_cast<uint32_t>((shingle * permutations[i].multiply + permutations[i].add) >> 32);
      signature[i] = std::min(signature[i], hash);
    }
  }
  return signature;
}

uint64_t BandHash(const Signature& signature, int band) {
  uint64_t hash = static_cast<uint64_t>(band) + 1;
  for (int row = 0; row < kBandRows; ++row) {
    hash = Mix(hash ^ signature[static_cast<size_t>(band * kBandRows + row)]);
  }
  return hash;
}

double Jaccard(std::span<const uint32_t> a, std::span<const uint32_t> b) {
  size_t both = 0;
  for (size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    if (a[i] == b[j]) ++both;
    const bool take_a = a[i] <= b[j], take_b = b[j] <= a[i];
    i += take_a;
    j += take_b;
  }
  const size_t either = a.size() + b.size() - both;
  return either == 0 ? 1 : static_cast<double>(both) / static_cast<double>(either);
}

}  // namespace bakestone
