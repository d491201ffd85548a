#include "cli/signals.h"

#include <csignal>

#include <chrono>
#include <thread>

#include <unistd.h>

namespace bakestone::cli {
namespace {

volatile std::sig_atomic_t stop_requested = 0;
volatile std::sig_atomic_t terminate_requested = 0;

void OnSignal(int signal) {
  if (stop_requested != 0) ::_exit(128 + signal);
  if (signal == SIGTERM) terminate_requested = 1;
  stop_requested = 1;
}

}  // namespace

void CatchSignals() {
  struct sigaction action{};
  action.sa_handler = OnSignal;
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
}

bool StopRequested() noexcept { return stop_requested != 0; }
bool TerminateRequested() noexcept { return terminate_requested != 0; }
void ClearStopRequest() noexcept { stop_requested = 0; }

void WaitForStop(const std::function<void()>& now_and_then) {
  constexpr int kTicksASecond = 20;
  for (int tick = 1; !StopRequested(); ++tick) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1000 / kTicksASecond));
    if (now_and_then && tick % kTicksASecond == 0) now_and_then();
  }
}

}  // namespace bakestone::cli
