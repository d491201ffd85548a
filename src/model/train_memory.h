// What a training pass will need, before it is built: the sizes that TrainEngine's parts reserve,
// added up. Within a few percent of TrainerPass::peak_bytes().
#pragma once

#include <cstdint>

#include "model/config.h"
#include "model/train_layout.h"
#include "model/trainer_pass.h"

namespace bakestone {

struct TrainMemory {
  int64_t values = 0;       // masters, gradients, two moments, and the pairs as bf16
  int64_t weights = 0;      // of the base as bf16 panels
  int64_t activations = 0;  // of a micro-batch
  int64_t loss = 0;         // logits and what belongs to them
  int64_t total() const { return values + weights + activations + loss; }
};

// rows: of a micro-batch. kl: some losses are KL to the base.
TrainMemory EstimateTrainMemory(const ModelConfig& config, const TrainLayout& layout, int64_t rows,
                                bool kl, const PassOptions& options);

}  // namespace bakestone
