#include "cli/signals.h"

#include <csignal>

#include <chrono>
#include <thread>

#include <unistd.h>

namespace bakestone::cli {
namespace {

volatile std::sig_atomic_t stop_requested = 0;

void OnSignal(int) {
  if (stop_requested != 0) ::_exit(130);
  stop_requested = 1;
}

}  // namespace

void CatchSignals() {
  struct sigaction action {};
  action.sa_handler = OnSignal;
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
}

bool StopRequested() noexcept { return stop_requested != 0; }
void ClearStopRequest() noexcept { stop_requested = 0; }

void WaitForStop() {
  while (!StopRequested()) std::this_thread::sleep_for(std::chrono::milliseconds(50));
}

}  // namespace bakestone::cli
