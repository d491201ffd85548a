// What TrainerPass does, over any source of weights (a loaded model; random values in tests and
// benchmarks). Contract: model/trainer_pass.h.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "model/train_head.h"
#include "model/train_layer.h"
#include "model/train_layout.h"
#include "model/train_lora.h"
#include "model/train_weights.h"
#include "model/trainer_pass.h"
#include "ops/rows.h"

namespace bakestone {

class TrainEngine {
 public:
  // Keeps references to config, layout, kernels and pool.
  TrainEngine(const ModelConfig& config, const TrainSource& source, const TrainLayout& layout,
              float pair_scale, const TrainKernels& kernels, ThreadPool& pool, PassOptions options);
  // What is captured by address stays where it is.
  TrainEngine(const TrainEngine&) = delete;
  TrainEngine& operator=(const TrainEngine&) = delete;

  void SetValues(std::span<const float> values);
  LossSums Evaluate(const TrainBatch& batch, const Objective& objective = {});
  LossSums EvaluateBase(const TrainBatch& batch);
  void DocumentLogProbs(const TrainBatch& batch, bool length_normalized, std::span<double> out);
  LossSums ForwardBackward(const TrainBatch& batch, const Objective& objective,
                           std::span<float> gradients);

  int64_t peak_bytes() const noexcept { return peak_bytes_; }
  TrainPhases phases() const;  // since construction

 private:
  void Check(const TrainBatch& batch) const;
  void Start(const TrainBatch& batch);
  // The weights before any training: the trained ones where all that is trained are pairs.
  TrainWeights& BaseWeights();
  // base: of the model before any training. kl: KL to it beside the loss.
  LossSums Score(const TrainBatch& batch, bool base, bool kl = false);
  // Runs the base over the batch; what KL is measured to.
  TrainHead::Base RunBase(const TrainBatch& batch);
  void ReleaseHeads();
  // x_ becomes the residual stream after the last layer. first_saved: layers from it on keep what
  // backward needs.
  void Forward(TrainWeights& weights, PackedPairs& pairs, int64_t first_saved);
  // What layers are told of their tokens, from the first layer's rows in x_.
  void PlanPerLayer(TrainWeights& weights);
  void Backward(std::span<float> gradients);
  void EmbeddingBackward(std::span<float> gradients);
  LossSums LossBackward(const TrainBatch& batch, const Objective& objective,
                        const TrainHead::Base* base, std::span<float> gradients);
  void AddPairs(const TrainBatch& batch, const Objective& objective, LossSums* sums);
  LossSums PreferenceBackward(const TrainBatch& batch, const Objective& objective,
                              const TrainHead::Gradient& gradient);
  void NotePeak();

  const ModelConfig& config_;
  const TrainLayout& layout_;
  const float pair_scale_;
  const TrainKernels& kernels_;
  ThreadPool& pool_;
  const PassOptions options_;
  const float* values_ = nullptr;  // of the last SetValues
  const TrainSource base_source_;
  TrainWeights weights_;
  std::unique_ptr<TrainWeights>
      base_weights_;  // made when the base is asked for, unless it is weights_
  TrainLayer layer_;
  TrainHead head_;
  ops::RopeTable rope_;
  std::optional<ops::RopeTable> local_rope_;
  PackedPairs pairs_, no_pairs_;
  std::vector<LayerSaved> saved_;  // one a layer; recompute: only their inputs
  LayerSaved shared_;              // of layers that keep nothing
  Buffer<float> x_, dx_;           // [T, hidden_dim]
  Buffer<uint16_t> base_hidden_;
  Buffer<float> per_layer_, projected_;  // [T, num_layers * per_layer_dim]
  Buffer<uint16_t> rounded_, y_;         // [T, hidden_dim], and scratch of a norm
  Buffer<float> inverse_;
  LayerBatch batch_{};
  std::span<const int32_t> tokens_;
  TrainHead::Rows rows_;            // of the last loss that asked for them
  std::vector<float> row_weights_;  // of preference pairs
  std::vector<uint8_t> far_;        // [T] whether the row's document is rotated by the far factors
  double head_seconds_ = 0;
  int64_t peak_bytes_ = 0;
};

}  // namespace bakestone
