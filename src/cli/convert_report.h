// What the verbs that write models (quantize, merge, export) say before, while and after.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "convert/compare.h"
#include "convert/quantize.h"

namespace bakestone::cli {

// Throws kInvalidArgument where `out` is one of the files that are read, or a folder.
void RefuseToReplace(const ModelSource& source, const std::filesystem::path& out);

// Throws kCancelled after Ctrl-C.
void ThrowIfStopped();

// To stderr: how many tensors get which type, and each place where it is not the one of the mix.
void PrintPlan(const QuantizePlan& plan, std::string_view mix);

// WriteQuantized with a bar.
void WriteWithBar(const std::string& label, const ModelSource& source, const QuantizePlan& plan,
                  const std::filesystem::path& out, ThreadPool& pool, WriteOptions options);

// CompareModels with a bar.
std::vector<Compared> Compare(const Contender& original, const std::vector<Contender>& others,
                              const std::vector<std::string>& texts, int64_t max_tokens,
                              ThreadPool& pool);

struct Outcome {
  std::filesystem::path source, out;
  std::string original;  // what was compared with; empty: the source
  const QuantizePlan* plan = nullptr;
  std::vector<Compared> compared;  // empty: nothing was measured, and that is said
  bool json = false;
};
// To stdout.
void PrintOutcome(const Outcome& outcome);

}  // namespace bakestone::cli
