// Ctrl-C and SIGTERM: the first asks for a clean stop, a second ends the program at once.
#pragma once

namespace bakestone::cli {

// Installs the handlers. Call before threads that wait are started.
void CatchSignals();
bool StopRequested() noexcept;
bool TerminateRequested() noexcept;  // by SIGTERM, which is never cleared
void ClearStopRequest() noexcept;    // an interactive chat goes on after Ctrl-C

// Waits until a stop is requested.
void WaitForStop();

}  // namespace bakestone::cli
