// The base of a recipe with [add_tokens] or [chat]: the model that it names with more tokens or
// another chat template, as a GGUF file of its own, which is what is trained, scored and served
// from then on. Made once and found again by what it was made from.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/kernel_table.h"
#include "train/recipe.h"

namespace bakestone {

struct GrownBase {
  std::filesystem::path model;
  int64_t first_new = 0;           // id of the first new token
  int64_t num_new = 0;             // tokens that the base does not have
  std::vector<std::string> lines;  // for people: what was added; empty where it was there already
};

// model: the base's GGUF. file: where the grown one is, or is to be. Learns from the side of the
// sources that is trained on. Throws as reading the sources, ChatTemplate::Parse and AddTokens
// (convert/add_tokens.h) do.
GrownBase GrowBase(const Recipe& recipe, const std::filesystem::path& model,
                   const std::filesystem::path& file, const KernelTable& kernels, ThreadPool& pool,
                   const std::function<void(int64_t done, int64_t total)>& progress);

}  // namespace bakestone
