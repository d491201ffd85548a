// The log of a run: one JSON object a step in log.jsonl, and the same as TensorBoard reads it (event_file.h). On
// resumption it is cut back to what the checkpoint knew, so that every step stands in it once.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <optional>

#include "train/event_file.h"

namespace bakestone {

struct StepReport;

class StepLog {
 public:
  // Keeps the first keep_bytes of an existing folder/log.jsonl. seconds: on the run's own clock, now. Throws kIo.
  StepLog(const std::filesystem::path& folder, int64_t keep_bytes, double seconds);
  void Append(const StepReport& report);
  int64_t Sync();  // flushes; returns the length of log.jsonl, bytes

 private:
  std::filesystem::path path_;
  std::ofstream file_;
  std::optional<EventFile> events_;
};

}  // namespace bakestone
