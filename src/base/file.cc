#include "base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace bakestone {
namespace {

[[noreturn]] void ThrowIo(const std::filesystem::path& path, const char* what, int error) {
  Throw(ErrorCode::kIo, "{}: {}: {}{}", path.string(), what, std::strerror(error),
        error == ENOSPC ? "; free some room and run again, what was there before is unharmed" : "");
}

void SyncFolder(const std::filesystem::path& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) ThrowIo(folder, "cannot open folder", errno);
  const int result = ::fsync(fd);
  const int error = errno;
  ::close(fd);
  if (result != 0 && error != EINVAL) ThrowIo(folder, "cannot sync folder", error);
}

}  // namespace

AtomicFile::AtomicFile(std::filesystem::path path) : path_(std::move(path)) {
  const std::filesystem::path parent =
      path_.has_parent_path() ? path_.parent_path() : std::filesystem::path(".");
  std::error_code code;
  std::filesystem::create_directories(parent, code);
  if (code) ThrowIo(parent, "cannot create folder", code.value());
  std::string pattern = (parent / ("." + path_.filename().string() + ".XXXXXX")).string();
  fd_ = ::mkostemp(pattern.data(), O_CLOEXEC);
  if (fd_ < 0) ThrowIo(path_, "cannot create a temporary file beside it", errno);
  temporary_ = pattern;
  ::fchmod(fd_, 0644);
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::Write(std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      ThrowIo(path_, "cannot write", errno);
    }
    size_ += written;
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
}

void AtomicFile::Write(std::string_view text) {
  Write(std::span(reinterpret_cast<const uint8_t*>(text.data()), text.size()));
}

void AtomicFile::Commit() {
  if (::fsync(fd_) != 0) ThrowIo(path_, "cannot sync", errno);
  const int result = ::close(fd_);
  fd_ = -1;
  if (result != 0) ThrowIo(path_, "cannot close", errno);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) ThrowIo(path_, "cannot rename to", errno);
  temporary_.clear();
  SyncFolder(path_.has_parent_path() ? path_.parent_path() : std::filesystem::path("."));
}

void WriteFileAtomically(const std::filesystem::path& path, std::string_view contents) {
  AtomicFile file(path);
  file.Write(contents);
  file.Commit();
}

std::string ReadFile(const std::filesystem::path& path, int64_t max_bytes) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    const int error = errno;
    Throw(error == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, "{}: cannot open: {}",
          path.string(), std::strerror(error));
  }
  std::string contents;
  char buffer[1 << 16];
  while (true) {
    const ssize_t count = ::read(fd, buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      const int error = errno;
      ::close(fd);
      if (count < 0) ThrowIo(path, "cannot read", error);
      return contents;
    }
    contents.append(buffer, static_cast<size_t>(count));
    if (static_cast<int64_t>(contents.size()) > max_bytes) {
      ::close(fd);
      Throw(ErrorCode::kInvalidArgument, "{}: expected at most {} bytes, found more", path.string(),
            max_bytes);
    }
  }
}

}  // namespace bakestone
