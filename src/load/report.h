// What a load's answers come to: times at p50, p95 and p99, tokens a second, and goodput, the
// requests a second that were answered as fast as was asked for.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "load/generator.h"

namespace bakestone::load {

struct Percentiles {
  int64_t count = 0;  // 0: nothing was measured, and all is 0
  double p50 = 0, p95 = 0, p99 = 0, most = 0;
};
// Of the values at ceil(p * count), so always one that was measured.
Percentiles PercentilesOf(std::vector<double> values);

struct Goals {                                // seconds
  double first_token = 1, inter_token = 0.1;  // the latter in the mean of a request
};

struct LoadSummary {
  int64_t requests = 0, complete = 0, failed = 0,
          refused = 0;  // refused: 429 and 503, not among the failed
  int64_t prompt_tokens = 0, cached_tokens = 0,
          completion_tokens = 0;  // of complete answers, as the server counts
  Percentiles first_token;  // from when a request was due, so that a late client does not flatter
  Percentiles inter_token;  // between the texts of a stream
  Percentiles whole;        // until the answer's end
  double good_per_second = 0, complete_per_second = 0, tokens_per_second = 0;
  std::map<std::string, int64_t> errors;  // what went wrong, how often
};

struct LoadReport {
  LoadSummary all;
  std::map<std::string, LoadSummary> models;  // by name, where there are several
  double seconds = 0;
  double cpu_share = 0;  // of a core, by this tool
  double most_late = 0;  // seconds that a request was sent after it was due
};

LoadReport Summarize(const std::vector<PlannedRequest>& plan, const LoadRun& run,
                     const Goals& goals);

}  // namespace bakestone::load
