#include "base/start_time.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <optional>

#include "base/error.h"

extern char** environ;

namespace bakestone {
namespace {

using Clock = std::chrono::steady_clock;

// Reads to the end; the time of the first byte.
std::optional<Clock::time_point> FirstByte(int fd) {
  std::optional<Clock::time_point> first;
  char buffer[4096];
  while (true) {
    const ssize_t count = ::read(fd, buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return first;
    if (!first) first = Clock::now();
  }
}

}  // namespace

void DropFromPageCache(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    const int error = errno;
    Throw(error == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, "{}: cannot open: {}",
          path.string(), std::strerror(error));
  }
  ::fdatasync(fd);  // dirty pages would stay
  const int error = ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  ::close(fd);
  if (error != 0) {
    Throw(ErrorCode::kIo, "{}: cannot drop it from the page cache: {}", path.string(),
          std::strerror(error));
  }
}

StartTime MeasureStart(const std::filesystem::path& program,
                       const std::vector<std::string>& arguments) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    Throw(ErrorCode::kIo, "cannot make a pipe: {}", std::strerror(errno));
  }
  std::string name = program.string();
  std::vector<std::string> words = arguments;
  std::vector<char*> argv = {name.data()};
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  const Clock::time_point start = Clock::now();
  pid_t child = 0;
  // Asked first, because under an emulator a failed exec is no error of posix_spawn, only exit code
  // 127.
  const int error =
      ::access(name.c_str(), X_OK) != 0
          ? errno
          : ::posix_spawn(&child, name.c_str(), &actions, nullptr, argv.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ::close(ends[1]);
  const std::optional<Clock::time_point> first = error == 0 ? FirstByte(ends[0]) : std::nullopt;
  ::close(ends[0]);
  if (error != 0) Throw(ErrorCode::kIo, "{}: cannot start it: {}", name, std::strerror(error));
  int status = 0;
  rusage usage{};
  while (::wait4(child, &status, 0, &usage) < 0 && errno == EINTR) {
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    Throw(ErrorCode::kIo, "{}: expected exit code 0, found {} {}", name,
          WIFEXITED(status) ? "code" : "signal",
          WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
  }
  if (!first) Throw(ErrorCode::kIo, "{}: expected a word on its standard output, found none", name);
  return {std::chrono::duration<double>(*first - start).count(), int64_t{usage.ru_maxrss} * 1024};
}

}  // namespace bakestone
