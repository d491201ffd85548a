// How fast a training step is, where its time goes, and what the arithmetic of this machine would
// allow.
#pragma once

#include <cstdint>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/kernel_table.h"
#include "model/model.h"
#include "model/train_layer.h"
#include "model/train_layout.h"
#include "model/trainer_pass.h"

namespace bakestone {

struct TrainSpeedOptions {
  int64_t rows = 512;      // of a step
  int64_t document = 512;  // tokens of each document in it; the last may be shorter
  // Instead: of 20 to 1,500 tokens, as many short ones as long ones in proportion, of which the
  // last 30 % are learned, as in chats; the last document may go beyond `rows`.
  bool chats = false;
  int64_t rank = 16;  // of pairs on every linear; 0: the whole model is trained
  int64_t steps = 5;
  ActivationPolicy activation = ActivationPolicy::kStash;
  int64_t weight_cache_bytes = int64_t{1} << 30;
};

struct TrainSpeed {
  std::vector<double> step_seconds;
  int64_t rows = 0;        // tokens of a step
  double flop = 0;         // floating-point operations that a step needs: TrainFlop
  TrainPhases phases;      // seconds of all steps by kind of work
  double optimizer = 0;    // likewise
  int64_t pass_bytes = 0;  // most memory of scratch and activations
};

// Multiply-adds of training on the layout's tensors, forward and backward.
struct TrainWork {
  double row = 0;       // products and pairs of one token
  double loss_row = 0;  // the head's, of a token whose next one is predicted
  double seen = 0;      // attention's, of a query and one key that it sees (states are not counted)
};
TrainWork WorkOf(const Model& model, const TrainLayout& layout);

// Tokens of each document of a step.
std::vector<int64_t> DocumentsOf(const TrainSpeedOptions& options);

// Operations of one step on the layout's tensors: products of linears and head, forward and
// backward, pairs, and attention within documents. What backward computes again, and what is no
// product, is not counted.
double TrainFlop(const Model& model, const TrainLayout& layout, const TrainSpeedOptions& options);

// Operations a second of the products of training on operands in L1, all threads together: what
// `product` of the table can do at best, strided loads and stores included.
double TrainProductLimit(const TrainKernels& kernels, ThreadPool& pool);

// Steps on random tokens: forward, backward, clipping, AdamW. Throws what a pass throws for a model
// that cannot be trained, kInvalidArgument for sizes below 1 (document: 2) or documents beyond the
// model's context.
TrainSpeed MeasureTraining(const Model& model, const KernelTable& kernels, ThreadPool& pool,
                           const TrainSpeedOptions& options);

}  // namespace bakestone
