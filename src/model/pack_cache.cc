#include "model/pack_cache.h"

#include <utility>

#include <fmt/format.h>

#include "base/cache_folder.h"
#include "base/error.h"
#include "base/log.h"

namespace bakestone {
namespace {

constexpr const char* kExtension = ".panels";

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

std::shared_ptr<const PackedFile> PackCache::OpenOrMake(
    const Hash& source, int64_t source_bytes,
    const std::function<void(PackedFileWriter&)>& fill) const {
  const std::filesystem::path path = PathOf(source);
  if (auto packed = PackedFile::Open(path, source, memory_)) return packed;
  if (!HasRoom(source_bytes)) return nullptr;
  try {
    PackedFileWriter writer(path, source);
    fill(writer);
    writer.Commit();
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kIo) throw;
    LogWarning("packed weights are not kept: {}", error.what());
    return nullptr;
  }
  Evict(path);
  return PackedFile::Open(path, source, memory_);
}

void PackCache::Evict(const std::filesystem::path& keep) const {
  TrimFolder(options_.folder, kExtension, options_.max_bytes, keep);
}

}  // namespace bakestone
