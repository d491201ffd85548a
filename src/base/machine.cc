#include "base/machine.h"

#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <vector>

#include "base/control_groups.h"
#include "base/thread_pool.h"

namespace bakestone {
namespace {

// A "Name:   123 kB" line of /proc/meminfo, in bytes.
int64_t MeminfoBytes(const std::string& name) {
  std::ifstream file("/proc/meminfo");
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string key;
    int64_t kib = 0;
    if (words >> key >> kib && key == name + ":") return kib * 1024;
  }
  return 0;
}

std::string CpuName() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    if (line.starts_with("model name")) {
      const size_t colon = line.find(": ");
      if (colon != std::string::npos) return line.substr(colon + 2);
    }
  }
  return "unknown";
}

double CpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// Sum over packages; nullopt where the counters are absent or not readable.
std::optional<double> RaplMicrojoules() {
  double sum = 0;
  bool found = false;
  std::error_code code;
  for (const auto& zone : std::filesystem::directory_iterator("/sys/class/powercap", code)) {
    const std::string name = zone.path().filename().string();
    if (!name.starts_with("intel-rapl:") || name.find(':') != name.rfind(':')) continue;
    const auto value = ReadNumber(zone.path() / "energy_uj");
    if (!value) return std::nullopt;
    sum += static_cast<double>(*value);
    found = true;
  }
  if (!found) return std::nullopt;
  return sum;
}

}  // namespace

MachineInfo ReadMachine() {
  MachineInfo info;
  info.cpu = CpuName();
  info.cores = UsableCores();
  info.memory_bytes = MeminfoBytes("MemTotal");
  info.available_bytes = MeminfoBytes("MemAvailable");
  if (const auto group = ControlGroups().memory()) {
    info.memory_bytes = std::min(info.memory_bytes, group->limit);
    info.available_bytes = std::min(info.available_bytes, group->available);
  }
  return info;
}

MemoryProbe::MemoryProbe(int64_t bytes) : words_(static_cast<size_t>(bytes / 8), 1) {}

void MemoryProbe::EvictCaches(ThreadPool& pool) {
  constexpr int64_t kGrain = 1 << 16;  // words: 512 KiB, so that a thread that lags holds nobody up
  std::atomic<uint64_t> sink{0};
  pool.ParallelFor(static_cast<int64_t>(words_.size()), kGrain,
                   [&](int64_t begin, int64_t end, int) {
                     uint64_t sums[8] = {};
                     for (int64_t i = begin; i + 8 <= end; i += 8) {
                       for (int64_t lane = 0; lane < 8; ++lane) {
                         sums[lane] += words_[static_cast<size_t>(i + lane)];
                       }
                     }
                     uint64_t total = 0;
                     for (const uint64_t sum : sums) total += sum;
                     sink.fetch_add(total, std::memory_order_relaxed);
                   });
}

double MemoryProbe::ReadBandwidth(ThreadPool& pool) {
  constexpr int kPasses = 8;
  double best = 0;
  for (int pass = 0; pass < kPasses; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    EvictCaches(pool);
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::max(best, static_cast<double>(words_.size() * 8) / seconds);
  }
  return best;
}

int64_t PeakMemoryBytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return int64_t{usage.ru_maxrss} * 1024;
}

EnergyMeter::EnergyMeter()
    : start_microjoules_(RaplMicrojoules()), start_cpu_seconds_(CpuSeconds()) {}

double EnergyMeter::Joules() const {
  if (start_microjoules_) {
    const auto now = RaplMicrojoules();
    // The counter wraps every few hours at full load; then the estimate below serves.
    if (now && *now >= *start_microjoules_) return (*now - *start_microjoules_) * 1e-6;
  }
  return (CpuSeconds() - start_cpu_seconds_) * kWattsPerBusyCore;
}

}  // namespace bakestone
