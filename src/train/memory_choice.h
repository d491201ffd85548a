// How a stage fits into the memory that there is: what is kept for backward, and what is made
// again. The bits of the result do not depend on it.
#pragma once

#include <cstdint>
#include <string>

#include "model/train_memory.h"
#include "train/trainer.h"

namespace bakestone {

struct MemoryChoice {
  TrainMemory memory;
  TrainOptions options;  // with activation and weight_cache_bytes decided

  std::string Line() const;  // for people
};

// Bytes of weights as bf16 to keep between layers where so much is available: a quarter, and no
// less than TrainOptions has. What a smaller model does not need is not taken.
int64_t WeightCacheFor(int64_t available);

// available: bytes that may be taken now, beside what the loaded model takes. Throws kOutOfMemory
// with what would fit where nothing that was asked for does.
MemoryChoice ChooseMemory(const ModelConfig& config, const TrainLayout& layout,
                          const StageRecipe& stage, const StageData& data,
                          const TrainOptions& options, int64_t available);

}  // namespace bakestone
