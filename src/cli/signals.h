// Ctrl-C and SIGTERM: the first asks for a clean stop, a second ends the program at once.
#pragma once

#include <functional>

namespace bakestone::cli {

// Installs the handlers. Call before threads that wait are started.
void CatchSignals();
bool StopRequested() noexcept;
bool TerminateRequested() noexcept;  // by SIGTERM, which is never cleared
void ClearStopRequest() noexcept;    // an interactive chat goes on after Ctrl-C

// Waits until a stop is requested; now_and_then, if any, runs about once a second meanwhile.
void WaitForStop(const std::function<void()>& now_and_then = nullptr);

}  // namespace bakestone::cli
