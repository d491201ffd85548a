// The training half of the decoder: forward that keeps what backward needs, chunked loss, backward.
// Arithmetic: bf16 products with f32 sums over the same quantized weights that are served
// (dequantized tile by tile); deterministic: the bits do not depend on the number of threads.
//
// What is trained, and where it lies in the flat arrays of values and gradients:
// model/train_layout.h. What is frozen gets no gradient, and work stops below the lowest trained
// tensor.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "model/decoder.h"
#include "model/train_layout.h"

namespace bakestone {

// A packed batch: documents one after another, attention never crosses a boundary.
struct TrainBatch {
  std::span<const int32_t> tokens;     // [T]
  std::span<const int32_t> positions;  // [T], restarting at each document
  std::span<const int32_t>
      document_begins;  // ascending, first is 0; each document ends where the next begins
  std::span<const int32_t> loss_rows;  // ascending rows whose *next-token* target is trained
  std::span<const int32_t> targets;    // [loss_rows] token ids
  std::span<const float> weights;      // [loss_rows] weight of each row's loss; 1 for plain
};

// Two documents of a batch, of which one is to become likelier than the other. Both have loss rows.
struct PreferencePair {
  int32_t chosen = 0, rejected = 0;                     // indices of documents
  double reference_chosen = 0, reference_rejected = 0;  // their log-probabilities before training
};

// What ForwardBackward follows.
struct Objective {
  float gradient_scale = 1;  // gradients are of scale * the sum of losses
  // The loss of every loss row is KL(base || model) over the whole vocabulary instead of the
  // target's
  // -log p; the base is the same model as it was before any training.
  bool kl_to_base = false;
  // Direct preference optimization (Rafailov et al., 2023): the loss of a pair is
  //   -log sigmoid(beta * ((log p(chosen) - reference) - (log p(rejected) - reference)))
  // with log p the sum over the document's loss rows (their mean if length_normalized); row weights
  // are not used. Empty: the losses of rows.
  std::span<const PreferencePair> pairs;
  double beta = 0.1;
  bool length_normalized = false;
};

enum class ActivationPolicy : uint8_t { kStash, kRecompute };

struct PassOptions {
  // kRecompute: keep only layer inputs and compute each layer anew in backward. Less memory, about
  // a third slower, the same bits.
  ActivationPolicy activation = ActivationPolicy::kStash;
  // Spent on keeping weights as bf16 (two bytes a weight, four for the head); what does not fit is
  // made again at each use. The bits are the same.
  int64_t weight_cache_bytes = int64_t{1} << 30;
};

// Sums, so that any split into micro-batches adds up to the same quantities.
struct LossSums {
  double nll = 0;     // sum over loss rows of weight * -log p(target), nats
  double kl = 0;      // sum over loss rows of weight * KL(base || model), nats (KL rows only)
  double weight = 0;  // sum of weights
  int64_t rows = 0;
  int64_t correct = 0;  // rows whose argmax is the target
  // Only when evaluating: documents with loss rows, and those of them whose rows are all correct,
  // which is that the model's greedy answer is the document's.
  int64_t documents = 0, documents_right = 0;
  // Of preference pairs only.
  double preference = 0;                          // sum of the pairs' losses
  double chosen_reward = 0, rejected_reward = 0;  // sums of beta * (log p - reference)
  int64_t pairs = 0, pairs_right = 0;             // right: the chosen one's reward is larger

  LossSums& operator+=(const LossSums& other);
};

class TrainerPass {
 public:
  // References must outlive it. Not thread-safe; keeps scratch between calls. pair_scale: of every
  // pair.
  TrainerPass(const Decoder& decoder, const TrainLayout& layout, float pair_scale,
              const KernelTable& kernels, ThreadPool& pool, PassOptions options = {});
  ~TrainerPass();

  // The values of the layout's tensors [layout.size], which stay where they are and as they are
  // until the next call of this: it is called after every change.
  void SetValues(std::span<const float> values);

  // Loss only (evaluation): sums over the batch, of the objective's pairs if it has any, and beside
  // the nll the KL to the base if it asks for that.
  LossSums Evaluate(const TrainBatch& batch, const Objective& objective = {});
  // The same of the base: as it was before any training.
  LossSums EvaluateBase(const TrainBatch& batch);
  // Of every document: the sum over its loss rows of log p(target), their mean if
  // length_normalized; 0 without loss rows. out [documents].
  void DocumentLogProbs(const TrainBatch& batch, bool length_normalized, std::span<double> out);

  // One micro-batch: loss, and gradients ACCUMULATED into gradients [layout.size].
  LossSums ForwardBackward(const TrainBatch& batch, const Objective& objective,
                           std::span<float> gradients);

  int64_t peak_bytes() const noexcept;  // of scratch and saved activations

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace bakestone
