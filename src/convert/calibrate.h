// An importance matrix from texts: the model reads them, and what enters each matrix product is
// squared and summed.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "convert/importance.h"
#include "model/exec.h"
#include "model/model.h"

namespace bakestone {

struct CalibrationText {
  std::string name, text;  // the name goes into the matrix as that of a dataset
};

struct CalibrateOptions {
  int64_t window = 512;        // tokens seen together; each window starts afresh
  int64_t max_tokens = 50000;  // of all texts together
  std::function<void(int64_t done, int64_t total)> progress;  // tokens; may throw to stop
};

// For every matrix of the layers; embedding and head are left out, as elsewhere. The sums do not
// depend on the number of threads. exec.precision is kExact. Throws kInvalidArgument where the
// texts hold no token.
ImportanceMatrix Calibrate(const Model& model, Exec& exec,
                           const std::vector<CalibrationText>& texts,
                           const CalibrateOptions& options = {});

}  // namespace bakestone
