#include "train/memory_choice.h"

#include <algorithm>
#include <optional>

#include <fmt/core.h>

#include "base/error.h"

namespace bakestone {
namespace {

constexpr double kUsable =
    0.9;  // of what is available: the allocator, threads' stacks, the file cache

double Gigabytes(int64_t bytes) { return static_cast<double>(bytes) * 1e-9; }

int64_t LongestUnit(const Dataset& data) {
  int64_t longest = 0;
  for (int64_t unit = 0; unit < data.size(); ++unit) {
    int64_t tokens = 0;
    for (int64_t which = 0; which < data.unit(); ++which) {
      tokens += static_cast<int64_t>(data.At(unit, which).tokens.size());
    }
    longest = std::max(longest, tokens);
  }
  return longest;
}

}  // namespace

std::string MemoryChoice::Line() const {
  return fmt::format(
      "memory: {:.2f} GB for training ({:.2f} values and optimizer, {:.2f} weights, {:.2f} "
      "activations of {} tokens{}, "
      "{:.2f} loss)",
      Gigabytes(memory.total()), Gigabytes(memory.values), Gigabytes(memory.weights),
      Gigabytes(memory.activations), options.batch_tokens,
      options.activation == Activation::kRecompute ? ", recomputed" : "", Gigabytes(memory.loss));
}

int64_t WeightCacheFor(int64_t available) {
  return std::max(TrainOptions{}.weight_cache_bytes, available / 4);
}

MemoryChoice ChooseMemory(const ModelConfig& config, const TrainLayout& layout,
                          const StageRecipe& stage, const StageData& data,
                          const TrainOptions& options, int64_t available) {
  const bool kl = (stage.replay && stage.replay->kl_weight > 0) || !data.watched.empty();
  int64_t longest =
      std::max({LongestUnit(data.train), LongestUnit(data.heldout), LongestUnit(data.replay)});
  for (const WatchedText& text : data.watched) {
    longest = std::max(longest, static_cast<int64_t>(text.pieces.front().tokens.size()));
  }
  const auto usable = static_cast<int64_t>(kUsable * static_cast<double>(available));
  const auto estimate = [&](int64_t batch_tokens, Activation activation, int64_t cache) {
    MemoryChoice choice{.memory = {}, .options = options};
    choice.options.batch_tokens = batch_tokens;
    choice.options.activation = activation;
    choice.options.weight_cache_bytes = cache;
    const PassOptions pass = {.activation = activation == Activation::kRecompute
                                                ? ActivationPolicy::kRecompute
                                                : ActivationPolicy::kStash,
                              .weight_cache_bytes = cache};
    choice.memory = EstimateTrainMemory(config, layout, std::max(batch_tokens, longest), kl, pass);
    return choice;
  };
  // Making weights again costs some percent of the time, making activations again about a third.
  const auto fitting = [&](int64_t batch_tokens) -> std::optional<MemoryChoice> {
    for (const Activation activation : {Activation::kStash, Activation::kRecompute}) {
      if (options.activation != Activation::kAuto && options.activation != activation) continue;
      const int64_t most = std::max(options.weight_cache_bytes, WeightCacheFor(available));
      for (const int64_t cache : {most, options.weight_cache_bytes, int64_t{0}}) {
        MemoryChoice choice = estimate(batch_tokens, activation, cache);
        if (choice.memory.total() <= usable) return choice;
      }
    }
    return std::nullopt;
  };
  if (auto choice = fitting(options.batch_tokens)) return std::move(*choice);
  const MemoryChoice wanted = estimate(
      options.batch_tokens,
      options.activation == Activation::kStash ? Activation::kStash : Activation::kRecompute, 0);
  std::string remedy;
  for (int64_t tokens = options.batch_tokens;
       remedy.empty() && tokens >= std::max<int64_t>(16, longest / 2); tokens /= 2) {
    const MemoryChoice smaller = estimate(std::max(tokens, longest), Activation::kRecompute, 0);
    if (smaller.memory.total() > usable) continue;
    remedy = fmt::format("--activation recompute --batch-tokens {} would fit ({:.2f} GB)",
                         std::max(tokens, longest), Gigabytes(smaller.memory.total()));
  }
  if (remedy.empty()) {
    remedy =
        layout.full()
            ? "train with [adapter] kind = \"lora\", which keeps 16 bytes only for each of its own "
              "values"
            : fmt::format(
                  "shorten 'sequence_length' (the longest sample has {} tokens), lower 'rank', or "
                  "name fewer 'targets'",
                  longest);
  }
  Throw(ErrorCode::kOutOfMemory,
        "stage '{}' needs {:.2f} GB beside the model ({:.2f} values and optimizer, {:.2f} "
        "activations), and {:.2f} GB are "
        "available: {}",
        stage.name, Gigabytes(wanted.memory.total()), Gigabytes(wanted.memory.values),
        Gigabytes(wanted.memory.activations), Gigabytes(available), remedy);
}

}  // namespace bakestone
