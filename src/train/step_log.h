// The log of a run: one JSON object a step in log.jsonl, and the same as TensorBoard reads it
// (event_file.h). On resumption it is cut back to what the checkpoint knew, so that every step
// stands in it once. Texts that are watched stand in it as "bits_per_byte/NAME" and
// "kl_to_base/NAME", from step 0 on (where "base_bits_per_byte/NAME" is, too).
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "train/event_file.h"

namespace bakestone {

struct StepReport;

class StepLog {
 public:
  // Keeps the first keep_bytes of an existing folder/log.jsonl. seconds: on the run's own clock,
  // now. Throws kIo.
  StepLog(const std::filesystem::path& folder, int64_t keep_bytes, double seconds);
  // Before the first step: only what the watched texts cost, and what they cost the base.
  void AppendStart(const StepReport& report);
  void Append(const StepReport& report);
  int64_t Sync();  // flushes; returns the length of log.jsonl, bytes

 private:
  using Values = std::vector<std::pair<std::string, double>>;
  void Write(const StepReport& report, Values values);

  std::filesystem::path path_;
  std::ofstream file_;
  std::optional<EventFile> events_;
};

}  // namespace bakestone
