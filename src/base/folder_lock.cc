#include "base/folder_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cstring>
#include <system_error>

#include "base/error.h"

namespace bakestone {

FolderLock::FolderLock(const std::filesystem::path& folder) {
  std::error_code code;
  std::filesystem::create_directories(folder, code);
  if (code) {
    Throw(ErrorCode::kIo, "{}: cannot create folder: {}", folder.string(), code.message());
  }
  fd_ = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd_ < 0) {
    Throw(ErrorCode::kIo, "{}: cannot open folder: {}", folder.string(), std::strerror(errno));
  }
  if (::flock(fd_, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return;  // or none to be had
  ::close(fd_);
  Throw(ErrorCode::kInvalidArgument,
        "{}: another run works in this folder: wait until it ends, or choose another one",
        folder.string());
}

FolderLock::~FolderLock() { ::close(fd_); }

}  // namespace bakestone
