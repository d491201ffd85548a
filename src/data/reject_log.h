// The rows that are not used, one JSON object a line: {"line": 12, "reason": "...", "row": "its
// beginning"}. The file is there only if there is such a row. One thread.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "base/file.h"
#include "data/row_source.h"

namespace bakestone {

class RejectLog {
 public:
  // path empty: nothing is written.
  explicit RejectLog(std::filesystem::path path) : path_(std::move(path)) {}
  void Add(const RawRow& row, const std::string& reason);
  // Throws kIo. Without any row an older file is removed.
  void Finish();
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  std::optional<AtomicFile> file_;
};

}  // namespace bakestone
