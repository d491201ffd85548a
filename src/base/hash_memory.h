// SHA-256 of large files, computed once: the hash is kept in a folder beside what stat() said of
// the file (size, times of change to the nanosecond, inode, device), and holds as long as stat()
// says the same. A file that changed within the last moments is hashed again each time, since a
// second change could bear the same time. A folder that cannot be written only means that nothing
// is remembered.
//
// Any number of processes may share the folder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "base/sha256.h"

namespace bakestone {

class HashMemory {
 public:
  explicit HashMemory(std::filesystem::path folder);

  // Of the file without its last `without_last` bytes. Throws kNotFound or kIo naming the file.
  Hash HashOf(const std::filesystem::path& file, int64_t without_last = 0) const;
  // The same if it is remembered; reads nothing of the file.
  std::optional<Hash> Recall(const std::filesystem::path& file, int64_t without_last = 0) const;
  // Remembers the hash of a file that the caller has just written, and waits the moment that it
  // takes to be sure of the file's times.
  void Remember(const std::filesystem::path& file, const Hash& hash,
                int64_t without_last = 0) const;

 private:
  std::filesystem::path NoteOf(const std::filesystem::path& path, int64_t without_last) const;
  void Write(const std::filesystem::path& note, const std::string& identity,
             const Hash& hash) const;

  std::filesystem::path folder_;
};

}  // namespace bakestone
