#include "model/pack_cache.h"

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/error.h"
#include "base/log.h"

namespace bakestone {
namespace {

constexpr const char* kExtension = ".panels";

// What a writer that was killed left behind (AtomicFile's temporary names begin with a dot).
bool IsAbandoned(const std::filesystem::directory_entry& entry) {
  constexpr auto kOld = std::chrono::hours(24);
  std::error_code code;
  const auto written = entry.last_write_time(code);
  return !code && entry.path().filename().string().starts_with(".") &&
         std::filesystem::file_time_type::clock::now() - written > kOld;
}

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
  return !code && space.available / 2 > static_cast<uintmax_t>(bytes);  // never more than half of what is free
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

// Oldest first, until the rest is within the limit; `keep` stays.
void PackCache::Evict(const std::filesystem::path& keep) const {
  struct Packed {
    std::filesystem::file_time_type written;
    int64_t bytes;
    std::filesystem::path path;
  };
  std::vector<Packed> files;
  int64_t total = 0;
  std::error_code code;
  for (const auto& entry : std::filesystem::directory_iterator(options_.folder, code)) {
    if (IsAbandoned(entry)) std::filesystem::remove(entry.path(), code);
    if (entry.path().extension() != kExtension) continue;
    const auto written = entry.last_write_time(code);
    const auto bytes = code ? 0 : entry.file_size(code);
    if (code) continue;  // another process removed it
    total += static_cast<int64_t>(bytes);
    if (entry.path() != keep) files.push_back({written, static_cast<int64_t>(bytes), entry.path()});
  }
  std::sort(files.begin(), files.end(), [](const Packed& a, const Packed& b) { return a.written < b.written; });
  for (const Packed& file : files) {
    if (total <= options_.max_bytes) return;
    std::filesystem::remove(file.path, code);
    total -= file.bytes;
  }
}

}  // namespace bakestone
