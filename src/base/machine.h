// What this machine is: read from the system, measured where a reading would not be enough.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace bakestone {

class ThreadPool;

struct MachineInfo {
  std::string cpu;              // "AMD EPYC 9R14", or "unknown"
  int cores = 1;                // usable by this process (affinity, cgroup quota)
  int64_t memory_bytes = 0;     // the smaller of physical memory and the cgroup's limit
  int64_t available_bytes = 0;  // without swapping, now
};

MachineInfo ReadMachine();

// A buffer far larger than the caches, to read from.
class MemoryProbe {
 public:
  explicit MemoryProbe(int64_t bytes = int64_t{256} << 20);

  // Bytes per second that the threads of the pool read together: the best of a few passes.
  double ReadBandwidth(ThreadPool& pool);
  // Reads all of it, so that the caches hold nothing else.
  void EvictCaches(ThreadPool& pool);

 private:
  std::vector<uint64_t> words_;
};

// Peak resident memory of this process so far, bytes.
int64_t PeakMemoryBytes();

// Joules used since construction. From the processor's own counters (RAPL) where they are readable,
// else estimated from the processor time used by this process.
class EnergyMeter {
 public:
  // Watts of one busy core, for the estimate: a server core with its share of memory and uncore.
  static constexpr double kWattsPerBusyCore = 8.0;

  EnergyMeter();
  double Joules() const;
  bool measured() const noexcept { return start_microjoules_.has_value(); }

 private:
  std::optional<double> start_microjoules_;
  double start_cpu_seconds_;
};

}  // namespace bakestone
