// Types for each tensor so that the file fits a size and predictions move least.
//
// Measured: with one band of layers at a time in a small type (the first two and the last two
// layers by themselves), one part of all layers (their queries, their down projections, ...), the
// embedding, the head, Kullback-Leibler divergence to the original says how sensitive each is; a
// part of a band gets what makes these sums true. Encoding a sample of each tensor's rows in every
// type gives its squared error, weighted by importance; divergence is taken as proportional to it
// within a part of a band, and as the sum over all. From all tensors in their smallest type, what
// saves most divergence for a byte is then made larger for as long as it fits. At the end the plan
// is held against the largest mixes that fit, and the best is taken.
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
  // What the importance was divided by, for each matrix of a tensor (ImportanceWeights::ScalesOf):
  // errors of tensors are compared. May be empty.
  ImportanceSource scales;
  std::filesystem::path scratch;  // a file's name for models that are tried; it is gone afterwards
  std::function<void(int64_t done, int64_t total, const std::string& group)>
      progress;  // may throw to stop
};

struct TargetPlan {
  QuantizePlan plan;
  double kl = 0;    // on the texts
  std::string mix;  // that was taken as it is, because nothing better was found; empty: none
};

// original: the file that the source was opened from. Throws kInvalidArgument where even the
// smallest types do not fit, naming the least size.
TargetPlan PlanForSize(const ModelSource& source, const std::filesystem::path& original,
                       const KernelTable& kernels, ThreadPool& pool, const TargetOptions& options);

// "90MB", "4.5GB", "900MiB", or plain bytes. Throws kInvalidArgument.
int64_t ParseSize(const std::string& text);

}  // namespace bakestone
