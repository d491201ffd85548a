// The one decoder, interpreted from ModelConfig. Serving half: Forward and Logits. The training
// half, with the same weights in bf16 arithmetic, is model/trainer_pass.h.
//
// A step mixes prefill, decode, drafts to verify and whole packed documents: T rows, each a token
// at a position of some sequence. What a row computes depends on its sequence, its position and its
// adapter only, never on what else is in the step (docs/numerics.md).
#pragma once

#include <cstdint>
#include <span>

#include "model/adapter.h"
#include "model/config.h"
#include "model/exec.h"
#include "model/sequence_state.h"
#include "model/weights.h"
#include "ops/rows.h"
#include "tensor/matrix_view.h"

namespace bakestone {

// Rows [begin, end) of the step belong to one sequence: they are its tokens length(), length() + 1,
// ... and see all before them. state null: attention stays within the run, from its first row on
// (scoring a text). A state appears once in a step.
struct SequenceRun {
  int32_t begin = 0, end = 0;
  SequenceState* state = nullptr;
};

// Sorted, disjoint, covering [0, T). adapter null: the base.
struct AdapterRun {
  int32_t begin = 0, end = 0;
  const Adapter* adapter = nullptr;
};

struct Step {
  std::span<const int32_t> tokens;            // [T]; each in [0, vocab_size)
  std::span<const int32_t> positions;         // [T], of the rotary embedding; >= 0
  std::span<const SequenceRun> sequences;     // covers [0, T)
  std::span<const AdapterRun> adapters;       // covers [0, T); empty: the base for all
  std::span<const int32_t> output_rows;       // ascending: last rows | every draft row | all
  std::span<const uint8_t> token_types = {};  // [T] of encoders, 0 or 1; empty: 0 for all
};

class Decoder {
 public:
  // Keeps references: both must outlive it. Immutable and thread-compatible afterwards.
  Decoder(const ModelConfig& config, const Weights& weights);

  // hidden [output_rows, hidden_dim]: after the final norm. Writes keys and values of every row
  // into the states as uncommitted tokens (the caller has called Reserve, and calls Commit).
  // Keys and values are in the states' type, in runs without a state bf16 (kServe) or f32 (kExact);
  // all states of a step have the same type. Adapters are published.
  // Throws kInvalidArgument for a token outside the vocabulary, kInternal if a NaN or Inf appears.
  void Forward(Exec& exec, const Step& step, MatrixView<float> hidden) const;

  // logits [rows, vocab_size] of hidden [rows, hidden_dim]. Callers chunk the rows.
  void Logits(Exec& exec, MatrixView<const float> hidden, MatrixView<float> logits) const;

  const ModelConfig& config() const noexcept { return config_; }
  const Weights& weights() const noexcept { return weights_; }

 private:
  const ModelConfig& config_;
  const Weights& weights_;
  RopeTables rope_;  // never Set: copied into each step's scratch
};

}  // namespace bakestone
