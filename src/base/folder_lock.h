// Keeps a folder for one process: two that write the same files into it would leave a mixture.
#pragma once

#include <filesystem>

namespace bakestone {

// Held from construction to destruction, or to the process's end however it comes (flock on the
// folder itself, which leaves no file). One thread.
class FolderLock {
 public:
  // Creates missing folders. Throws kIo, and kInvalidArgument where another process holds it.
  explicit FolderLock(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int fd_ = -1;
};

}  // namespace bakestone
