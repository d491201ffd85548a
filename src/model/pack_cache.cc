#include "model/pack_cache.h"

#include <utility>

#include <fmt/format.h>

#include "base/cache_folder.h"
#include "base/error.h"
#include "base/log.h"

namespace bakestone {
namespace {

constexpr const char* kExtension = ".panels";
constexpr uintmax_t kHashedAtOnce = uintmax_t{64} << 20;  // 40 ms

}  // namespace

PackCache::PackCache(PackCacheOptions options)
    : options_(std::move(options)), memory_(options_.folder) {}

std::filesystem::path PackCache::PathOf(const Hash& source) const {
  return options_.folder / fmt::format("{}-{}{}", ToHex(source), kPanelVersion, kExtension);
}

bool PackCache::HasRoom(int64_t bytes) const {
  if (bytes > options_.max_bytes) return false;
  std::error_code code;
  std::filesystem::create_directories(options_.folder, code);
  const std::filesystem::space_info space = std::filesystem::space(options_.folder, code);
  return !code && space.available / 2 >
                      static_cast<uintmax_t>(bytes);  // never more than half of what is free
}

std::optional<Hash> PackCache::KnownHash(const std::filesystem::path& model) const {
  std::error_code code;
  const uintmax_t bytes = std::filesystem::file_size(model, code);
  if (!code && bytes <= kHashedAtOnce) return SourceHash(model);
  return memory_.Recall(model);
}

std::shared_ptr<const PackedFile> PackCache::Open(const Hash& source) const {
  return PackedFile::Open(PathOf(source), source, memory_);
}

void PackCache::Keep(const Hash& source, std::span<const PackedPanel> panels) const {
  const std::filesystem::path path = PathOf(source);
  int64_t bytes = 0;
  for (const PackedPanel& panel : panels) bytes += panel.bytes();
  if (!HasRoom(bytes)) return;
  try {
    PackedFileWriter writer(path, source);
    for (const PackedPanel& panel : panels) writer.Add(panel.key(), panel.data);
    writer.Commit(memory_);
  } catch (const Error& error) {
    LogWarning("packed weights are not kept: {}", error.what());
    return;
  }
  Evict(path);
}

void PackCache::Evict(const std::filesystem::path& keep) const {
  TrimFolder(options_.folder, kExtension, options_.max_bytes, keep);
}

}  // namespace bakestone
