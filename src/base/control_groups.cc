#include "base/control_groups.h"

#include <algorithm>
#include <fstream>
#include <sstream>

namespace bakestone {

std::optional<int64_t> ReadNumber(const std::filesystem::path& path) {
  std::ifstream file(path);
  int64_t value = 0;
  if (file >> value) return value;
  return std::nullopt;
}

namespace {

// "name value" lines.
int64_t ReadField(const std::filesystem::path& path, const std::string& name) {
  std::ifstream file(path);
  std::string key;
  for (int64_t value = 0; file >> key >> value;) {
    if (key == name) return value;
  }
  return 0;
}

// cpu.max: "quota period" in microseconds, or "max period"; v1 has a file for each, -1 for no
// limit.
std::optional<double> QuotaOf(const std::filesystem::path& folder) {
  int64_t quota = 0, period = 0;
  std::ifstream file(folder / "cpu.max");
  if (!(file >> quota >> period)) {
    quota = ReadNumber(folder / "cpu.cfs_quota_us").value_or(-1);
    period = ReadNumber(folder / "cpu.cfs_period_us").value_or(0);
  }
  if (quota <= 0 || period <= 0) return std::nullopt;
  return static_cast<double>(quota) / static_cast<double>(period);
}

std::optional<ControlGroups::Memory> MemoryOf(const std::filesystem::path& folder) {
  constexpr int64_t kNoLimit = int64_t{1} << 60;  // v1 says so with a number near 2^63
  auto limit = ReadNumber(folder / "memory.max");
  auto used = ReadNumber(folder / "memory.current");
  int64_t cached = ReadField(folder / "memory.stat", "inactive_file");
  if (!limit) {
    limit = ReadNumber(folder / "memory.limit_in_bytes");
    used = ReadNumber(folder / "memory.usage_in_bytes");
    cached = ReadField(folder / "memory.stat", "total_inactive_file");
  }
  if (!limit || *limit >= kNoLimit) return std::nullopt;
  const int64_t held = std::max<int64_t>(0, used.value_or(0) - cached);
  return ControlGroups::Memory{*limit, std::max<int64_t>(0, *limit - held)};
}

}  // namespace

ControlGroups::ControlGroups(std::filesystem::path mount, std::filesystem::path membership) {
  std::ifstream lines(membership);
  for (std::string line; std::getline(lines, line);) {  // "number:controllers:/path"
    std::istringstream fields(line);
    std::string number, controllers, path;
    if (!std::getline(fields, number, ':') || !std::getline(fields, controllers, ':')) continue;
    std::getline(fields, path);
    std::filesystem::path group = std::filesystem::path(path).relative_path().lexically_normal();
    const auto named = [&](const char* name) {
      return ("," + controllers + ",").find("," + std::string(name) + ",") != std::string::npos;
    };
    for (const std::string& hierarchy :
         {std::string(), std::string("cpu"), std::string("memory")}) {
      if (hierarchy.empty() ? !controllers.empty() : !named(hierarchy.c_str())) continue;
      for (std::filesystem::path at = group;; at = at.parent_path()) {
        ReadFolder(mount / hierarchy / at);
        if (at.empty() || at == ".") break;
      }
    }
  }
}

void ControlGroups::ReadFolder(const std::filesystem::path& folder) {
  if (const auto quota = QuotaOf(folder)) {
    cpu_quota_ = cpu_quota_ ? std::min(*cpu_quota_, *quota) : quota;
  }
  const auto memory = MemoryOf(folder);
  if (memory && (!memory_ || memory->available < memory_->available)) memory_ = memory;
}

}  // namespace bakestone
