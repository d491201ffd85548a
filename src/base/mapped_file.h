// A whole file mapped read-only. The pages are shared with other processes and cost nothing until
// touched. Immutable after construction, so any number of threads may read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

namespace bakestone {

class MappedFile {
 public:
  // Throws kNotFound or kIo naming the path. An empty file gives an empty span.
  static MappedFile Open(const std::filesystem::path& path);
  MappedFile() = default;
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const uint8_t> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }
  // Tells the kernel that these pages are not needed soon (weights that were packed).
  void Forget(std::span<const uint8_t> range) const noexcept;

 private:
  std::filesystem::path path_;
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace bakestone
