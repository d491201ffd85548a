// How long a program takes to its first word: it is started as a child process, and the clock stops
// when the first byte arrives on its standard output.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace bakestone {

// Asks the system to drop the file's pages from its cache (those that are not mapped anywhere), as
// before a cold start. Throws kNotFound or kIo naming the path.
void DropFromPageCache(const std::filesystem::path& path);

struct StartTime {
  double seconds = 0;
  int64_t peak_bytes =
      0;  // its peak resident memory, at least this process's own at the time of the call
};

// Runs `program` with `arguments` (its name not among them) to its end; its standard input is
// empty, its standard error is ours. Throws kIo when it cannot be started, says nothing, or ends
// with another code than 0.
StartTime MeasureStart(const std::filesystem::path& program,
                       const std::vector<std::string>& arguments);

}  // namespace bakestone
