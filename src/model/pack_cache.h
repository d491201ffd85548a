// The folder of packed weights (packed_file.h): one file for each model and layout, named by the
// hash of the model's file; the oldest go when the folder outgrows its limit. Losing any of it
// costs only time, and whatever is wrong with it is logged and worked around. Any number of
// processes may share the folder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>

#include "base/hash_memory.h"
#include "model/packed_file.h"

namespace bakestone {

struct PackCacheOptions {
  std::filesystem::path folder;
  int64_t max_bytes = int64_t{32} << 30;  // of all packed files together
};

class PackCache {
 public:
  explicit PackCache(PackCacheOptions options);

  // SHA-256 of a model's file, remembered between starts.
  Hash SourceHash(const std::filesystem::path& model) const { return memory_.HashOf(model); }
  // The same if it is remembered, or the file is so small that computing it is no wait.
  std::optional<Hash> KnownHash(const std::filesystem::path& model) const;
  // Where the packed weights of that model are, or would be. source: LoadTypes::Identity.
  std::filesystem::path PathOf(const Hash& source) const;

  // The packed weights of the model; null where there are none.
  std::shared_ptr<const PackedFile> Open(const Hash& source) const;
  // Keeps them, unless there is no room. Failures are logged.
  void Keep(const Hash& source, std::span<const PackedPanel> panels) const;

 private:
  bool HasRoom(int64_t bytes) const;
  void Evict(const std::filesystem::path& keep) const;

  PackCacheOptions options_;
  HashMemory memory_;
};

}  // namespace bakestone
