// Types for each tensor so that the file fits a size and predictions move least.
//
// Measured: matrices are taken in groups (one part of the layers' first, middle or last third;
// embedding; head). With one group at a time in a small type, Kullback-Leibler divergence to the
// original says how sensitive it is. Encoding a sample of each tensor's rows in every type gives
// its squared error, weighted by importance; divergence is taken as proportional to it within a
// group, and as the sum over groups. From all tensors in their smallest type, what saves most
// divergence for a byte is then made larger for as long as it fits.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "convert/quantize.h"

namespace bakestone {

struct TargetOptions {
  int64_t max_bytes = 0;           // of the whole file
  std::vector<std::string> texts;  // to measure on
  int64_t tokens = 1000;           // of each
  ImportanceSource importance;     // may be empty
  std::filesystem::path scratch;   // a file's name for models that are tried; it is gone afterwards
  std::function<void(int64_t done, int64_t total, const std::string& group)>
      progress;  // may throw to stop
};

struct TargetPlan {
  QuantizePlan plan;
  double expected_kl = 0;  // on the texts
};

// original: the file that the source was opened from. Throws kInvalidArgument where even the
// smallest types do not fit, naming the least size.
TargetPlan PlanForSize(const ModelSource& source, const std::filesystem::path& original,
                       const KernelTable& kernels, ThreadPool& pool, const TargetOptions& options);

// "90MB", "4.5GB", "900MiB", or plain bytes. Throws kInvalidArgument.
int64_t ParseSize(const std::string& text);

}  // namespace bakestone
