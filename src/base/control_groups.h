// What the control groups of a process allow it: Linux's cgroup v1 and v2, the process's own group
// and every one above it. A container usually sees its own group as the root of the hierarchy,
// whatever path /proc/self/cgroup names.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

namespace bakestone {

// The number that one of the system's small files begins with; nullopt: no such file, or a word
// ("max").
std::optional<int64_t> ReadNumber(const std::filesystem::path& path);

class ControlGroups {
 public:
  // `mount`: where the hierarchies are mounted; `membership`: the groups of the process, a line
  // each.
  explicit ControlGroups(std::filesystem::path mount = "/sys/fs/cgroup",
                         std::filesystem::path membership = "/proc/self/cgroup");

  // Processors' worth of time, the least of all groups; nullopt: no limit.
  std::optional<double> cpu_quota() const { return cpu_quota_; }

  struct Memory {
    int64_t limit = 0;
    int64_t available = 0;  // below the limit, counting cached files that the system may drop
  };
  // Of the group that has the least available; nullopt: no limit.
  std::optional<Memory> memory() const { return memory_; }

 private:
  void ReadFolder(const std::filesystem::path& folder);

  std::optional<double> cpu_quota_;
  std::optional<Memory> memory_;
};

}  // namespace bakestone
