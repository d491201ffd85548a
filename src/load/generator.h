// Sends a plan's requests to a server when they are due and measures what comes back. One thread,
// sockets by epoll:
// it has to measure the server and not itself, so it tells its own share of the CPU and how late it
// was.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "load/plan.h"
#include "load/stream_reader.h"

namespace bakestone::load {

struct Target {
  std::string url;          // "http://127.0.0.1:8080", with or without /v1
  std::string api_key;      // empty: none is shown
  std::string certificate;  // PEM file to trust; empty: the system's
  bool plain = false;       // only OpenAI's own fields: without ignore_eos an answer may end early
  double timeout = 600;     // seconds that one request may take
};

struct Outcome {
  double due = 0, sent = 0, ended = 0;  // seconds from the start
  int status = 0;                       // of HTTP; 0: there was no answer
  StreamResult stream;
  std::string error;  // empty: the whole answer came
};

struct LoadRun {
  std::vector<Outcome>
      outcomes;  // one for each of the plan's, in its order; of a stopped run as far as it came
  double seconds = 0;      // until the last answer
  double cpu_seconds = 0;  // of this thread
};

// The models that the server lists. Throws kIo or kUnavailable naming the address.
std::vector<std::string> ListModels(const Target& target);

// streams: of a closed loop; 0: requests leave when they are due. progress: (sent, ended), about
// ten times a second; returns false to stop at once. Throws kIo when the system lacks what it
// needs; what a server does wrong is in the outcomes.
LoadRun Run(const Target& target, const std::vector<PlannedRequest>& plan, int64_t streams,
            const std::function<bool(int64_t, int64_t)>& progress);

}  // namespace bakestone::load
