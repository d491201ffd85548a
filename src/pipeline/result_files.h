// What was trained, as people use it: adapter/ (PEFT) and adapter.gguf, served beside the base; or,
// where no adapter can hold it, model.gguf (with DoRA and nothing else beside its PEFT folder). The
// result of a run, and values kept on the way to it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/kernel_table.h"
#include "model/model.h"
#include "model/train_layout.h"
#include "store/licence.h"
#include "train/recipe.h"

namespace bakestone {

struct ResultFilesOptions {
  std::string licence;  // SPDX identifier of the result; empty: unknown
  std::function<void(int64_t done, int64_t total)> progress = {};  // bytes of model.gguf
};

// Writes them into the folder, each whole or not at all. values: the layout's. Returns their names
// in it.
std::vector<std::string> WriteResultFiles(const Model& model, const TrainLayout& layout,
                                          std::span<const float> values, const Recipe& recipe,
                                          const std::filesystem::path& folder,
                                          const KernelTable& kernels, ThreadPool& pool,
                                          const ResultFilesOptions& options);

// The folder of a stage's values after a step.
std::filesystem::path KeptFolder(const std::filesystem::path& kept, const std::string& stage,
                                 int64_t step);
// Removes a stage's folders up to `step` but for the last `keep` of them and that of best_step (-1:
// none).
void DropOldKept(const std::filesystem::path& kept, const std::string& stage, int64_t step,
                 int64_t keep, int64_t best_step);

}  // namespace bakestone
