// The JSONL log of a run: one object a step. On resumption it is cut back to what the checkpoint knew,
// so that every step stands in it once.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>

namespace bakestone {

struct StepReport;

class StepLog {
 public:
  // Keeps the first keep_bytes of an existing file. Throws kIo.
  StepLog(const std::filesystem::path& path, int64_t keep_bytes);
  void Append(const StepReport& report);
  int64_t Sync();  // flushes; returns the file's length, bytes

 private:
  std::filesystem::path path_;
  std::ofstream file_;
};

}  // namespace bakestone
