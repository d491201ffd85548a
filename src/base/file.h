// Files that survive a crash: the one way in which this program writes something that matters.
// Temporary name in the same folder, write, fsync, rename, fsync of the folder. After a kill -9 or
// a full disk the old file is there, whole; a reader never sees half of a new one.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace bakestone {

class AtomicFile {
 public:
  // Creates missing parent folders. Throws kIo naming the path.
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();  // removes the temporary file unless Commit() was reached
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void Write(std::span<const uint8_t> bytes);
  void Write(std::string_view text);
  int64_t size() const { return size_; }
  void Commit();

 private:
  std::filesystem::path path_, temporary_;
  int fd_ = -1;
  int64_t size_ = 0;
};

void WriteFileAtomically(const std::filesystem::path& path, std::string_view contents);

// Throws kNotFound or kIo naming the path, and kInvalidArgument above max_bytes.
std::string ReadFile(const std::filesystem::path& path, int64_t max_bytes = int64_t{1} << 30);

}  // namespace bakestone
