// A file of events as TensorBoard reads them (tensorboard --logdir FOLDER shows every stage as a
// run), beside the JSONL log and made from it: what a resumed run finds there is written anew from
// what its log has.
//
//   records: u64 length, u32 masked CRC-32C of the length's bytes, data[length], u32 masked CRC-32C
//   of the data masked: ((crc >> 15) | (crc << 17)) + 0xA282EAD8
//   data: a protocol buffer, Event{1: double wall_time, 2: int64 step, 3: string file_version,
//         5: Summary{1: Value{1: string tag, 2: float simple_value}...}}; the first has version
//         "brain.Event:2"
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace bakestone {

// Of Castagnoli's polynomial, as RFC 3720 has it.
uint32_t Crc32c(std::string_view bytes) noexcept;

class EventFile {
 public:
  // Starts the file with what log.jsonl of the folder says. start: seconds since 1970 at which the
  // run's own clock was zero. Throws kIo.
  EventFile(const std::filesystem::path& folder, double start);
  // One step; seconds on the run's own clock.
  void Append(int64_t step, double seconds,
              const std::vector<std::pair<std::string, double>>& values);

 private:
  void Write(std::string_view event);

  std::filesystem::path path_;
  const double start_;
  std::ofstream file_;
};

}  // namespace bakestone
