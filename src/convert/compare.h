// What a model lost on the way into another file: Kullback-Leibler divergence to the original, how
// often the likeliest token stayed, perplexity, size. Both at Precision::kExact, so that only the
// weights differ.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/thread_pool.h"
#include "eval/kl_score.h"
#include "format/adapter_file.h"
#include "kernels/kernel_table.h"

namespace bakestone {

struct Compared {
  std::string name;   // for people
  int64_t bytes = 0;  // of its files
  KlScore score;      // against the first, whose own is not filled
};

// The table that people read. The first row is the original.
std::string CompareTable(const std::string& original_name, int64_t original_bytes,
                         const std::vector<Compared>& others);
nlohmann::ordered_json CompareToJson(const std::string& original_name, int64_t original_bytes,
                                     const std::vector<Compared>& others);

struct Contender {
  std::string name;
  std::filesystem::path path;
  const AdapterFile* adapter = nullptr;  // served beside it; null for none
};

// Loads each model beside the original, one after the other, and scores it on `texts`. A path that
// is the original's is not loaded twice.
std::vector<Compared> CompareModels(const Contender& original, const std::vector<Contender>& others,
                                    const std::vector<std::string>& texts,
                                    const KernelTable& kernels, ThreadPool& pool,
                                    const KlOptions& options);

}  // namespace bakestone
