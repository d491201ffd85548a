#include "train/references.h"

#include <cstring>
#include <span>

#include "base/file.h"
#include "base/sha256.h"

namespace bakestone {
namespace {

constexpr std::string_view kReferencesMagic = "BAKEREFS";
constexpr size_t kHeader = 8 + 4 + 4 + 8 + 8 + 32, kHash = 32;

template <class T>
void Append(const T* values, size_t count, std::string* to) {
  to->append(reinterpret_cast<const char*>(values), count * sizeof(T));
}

}  // namespace

void WriteReferences(const std::filesystem::path& path, const std::string& key,
                     const StageReferences& references) {
  std::string bytes(kReferencesMagic);
  const uint32_t version[2] = {1, 0};
  const uint64_t counts[2] = {references.train.chosen.size(), references.heldout.chosen.size()};
  Append(version, 2, &bytes);
  Append(counts, 2, &bytes);
  const Hash key_hash = HashOf(key);
  Append(key_hash.data(), key_hash.size(), &bytes);
  for (const References* side : {&references.train, &references.heldout}) {
    for (const auto* values : {&side->chosen, &side->rejected}) {
      Append(values->data(), values->size(), &bytes);
    }
  }
  const Hash hash = HashOf(bytes);
  Append(hash.data(), hash.size(), &bytes);
  WriteFileAtomically(path, bytes);
}

std::optional<StageReferences> ReadReferences(const std::filesystem::path& path,
                                              const std::string& key) {
  if (!std::filesystem::exists(path)) return std::nullopt;
  const std::string bytes = ReadFile(path);
  if (bytes.size() < kHeader + kHash || !bytes.starts_with(kReferencesMagic)) return std::nullopt;
  const Hash found = HashOf(std::string_view(bytes).substr(0, bytes.size() - kHash)),
             key_hash = HashOf(key);
  if (std::memcmp(found.data(), bytes.data() + bytes.size() - kHash, kHash) != 0 ||
      std::memcmp(key_hash.data(), bytes.data() + kHeader - kHash, kHash) != 0) {
    return std::nullopt;
  }
  uint64_t counts[2];
  std::memcpy(counts, bytes.data() + 16, sizeof counts);
  const uint64_t values = (bytes.size() - kHeader - kHash) / sizeof(double);
  if (counts[0] > values || counts[1] > values || 2 * (counts[0] + counts[1]) != values) {
    return std::nullopt;
  }
  StageReferences references;
  const char* next = bytes.data() + kHeader;
  for (const auto& [side, count] :
       {std::pair{&references.train, counts[0]}, std::pair{&references.heldout, counts[1]}}) {
    for (auto* to : {&side->chosen, &side->rejected}) {
      to->resize(count);
      if (count > 0) std::memcpy(to->data(), next, count * sizeof(double));
      next += count * sizeof(double);
    }
  }
  return references;
}

}  // namespace bakestone
