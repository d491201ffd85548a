#include "base/cache_folder.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <system_error>
#include <vector>

namespace bakestone {
namespace {

bool IsAbandoned(const std::filesystem::directory_entry& entry) {
  constexpr auto kOld = std::chrono::hours(24);
  std::error_code code;
  const auto written = entry.last_write_time(code);
  return !code && entry.path().filename().string().starts_with(".") &&
         std::filesystem::file_time_type::clock::now() - written > kOld;
}

}  // namespace

void TrimFolder(const std::filesystem::path& folder, std::string_view extension, int64_t max_bytes,
                const std::filesystem::path& keep) {
  struct Cached {
    std::filesystem::file_time_type written;
    int64_t bytes;
    std::filesystem::path path;
  };
  std::vector<Cached> files;
  int64_t total = 0;
  std::error_code code;
  for (const auto& entry : std::filesystem::directory_iterator(folder, code)) {
    if (IsAbandoned(entry)) std::filesystem::remove(entry.path(), code);
    if (entry.path().extension() != extension) continue;
    const auto written = entry.last_write_time(code);
    const auto bytes = code ? 0 : entry.file_size(code);
    if (code) continue;  // another process removed it
    total += static_cast<int64_t>(bytes);
    if (entry.path() != keep) files.push_back({written, static_cast<int64_t>(bytes), entry.path()});
  }
  std::sort(files.begin(), files.end(),
            [](const Cached& a, const Cached& b) { return a.written < b.written; });
  for (const Cached& file : files) {
    if (total <= max_bytes) return;
    std::filesystem::remove(file.path, code);
    total -= file.bytes;
  }
}

}  // namespace bakestone
