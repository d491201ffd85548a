#include "grammar/helper_process.h"

#include <poll.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include <fmt/format.h>

#include "base/error.h"

namespace bakestone::grammar {
namespace {

std::string WhyEnded(int status) {
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGXCPU) {
    return "compiling it takes longer than is allowed";
  }
  if (WIFSIGNALED(status)) {
    return fmt::format("it is too large or nested too deeply for the grammar library (signal {})",
                       WTERMSIG(status));
  }
  return "compiling it takes more memory than is allowed";
}

}  // namespace

HelperProcess::HelperProcess(const std::vector<std::string>& command, const SetUp& set_up) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    Throw(ErrorCode::kIo, "the grammar helper: socketpair: {}", std::strerror(errno));
  }
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, ends[1], STDIN_FILENO);
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  // A group of its own, so that Ctrl-C in a terminal is the server's alone; and no signal is
  // blocked.
  sigset_t none, ended;
  ::sigemptyset(&none);
  ::sigemptyset(&ended);
  ::sigaddset(&ended, SIGXCPU);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &ended);
  ::posix_spawnattr_setpgroup(&attributes, 0);
  ::posix_spawnattr_setflags(
      &attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  std::vector<char*> argv;
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  const int failed =
      command.empty() ? ENOENT
                      : ::posix_spawn(&pid_, argv[0], &actions, &attributes, argv.data(), environ);
  ::posix_spawnattr_destroy(&attributes);
  ::posix_spawn_file_actions_destroy(&actions);
  ::close(ends[1]);
  socket_ = ends[0];
  if (failed != 0) pid_ = -1;
  if (failed != 0 || !WriteFrame(socket_, PackSetUp(set_up))) {
    End();
    Throw(ErrorCode::kIo, "the grammar helper cannot be started: {}",
          failed != 0 ? std::strerror(failed) : "it ended at once");
  }
}

HelperProcess::~HelperProcess() { End(); }

int HelperProcess::End() {
  int status = 0;
  if (socket_ >= 0) ::close(socket_);
  socket_ = -1;
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) continue;
  }
  pid_ = -1;
  return status;
}

bool HelperProcess::WaitReadable(std::chrono::steady_clock::time_point until) const {
  while (true) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
                          until - std::chrono::steady_clock::now())
                          .count();
    if (left <= 0) return false;
    pollfd wanted{.fd = socket_, .events = POLLIN, .revents = 0};
    const int ready = ::poll(&wanted, 1, static_cast<int>(std::min<int64_t>(left, 60'000)));
    if (ready > 0) return true;
  }
}

std::string HelperProcess::Compile(const std::string& request, size_t max_bytes,
                                   std::chrono::seconds deadline) {
  std::string reply;
  const auto until = std::chrono::steady_clock::now() + deadline;
  bool read = false;
  try {
    if (WriteFrame(socket_, request)) {
      if (!WaitReadable(until)) {
        End();
        Throw(ErrorCode::kInvalidArgument, "compiling it takes longer than is allowed");
      }
      read = ReadFrame(socket_, max_bytes, &reply);
    }
  } catch (const Error& error) {
    End();
    if (error.code() != ErrorCode::kCorrupt) throw;
    Throw(ErrorCode::kInvalidArgument, "it is too large once it is compiled");
  }
  if (!read || reply.empty()) {
    // It has ended, or is about to: its own status says more than being killed.
    int status = 0;
    ::close(socket_);
    socket_ = -1;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) continue;
    pid_ = -1;
    Throw(ErrorCode::kInvalidArgument, "{}", WhyEnded(status));
  }
  if (reply[0] != 'k') Throw(ErrorCode::kInvalidArgument, "{}", std::string_view(reply).substr(1));
  reply.erase(0, 1);
  return reply;
}

}  // namespace bakestone::grammar
