// What TrainerPass does, over any source of weights (a loaded model; random values in tests and
// benchmarks). Contract: model/trainer_pass.h.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/train_head.h"
#include "model/train_layer.h"
#include "model/train_lora.h"
#include "model/train_weights.h"
#include "model/trainer_pass.h"
#include "ops/rows.h"

namespace bakestone {

class TrainEngine {
 public:
  // Keeps references to config, kernels and pool.
  TrainEngine(const ModelConfig& config, TrainSource source, const TrainKernels& kernels,
              ThreadPool& pool, PassOptions options);

  LossSums Evaluate(const TrainBatch& batch, const Adapter* adapter);
  LossSums ForwardBackward(const TrainBatch& batch, const Adapter& adapter, const LoraLayout& layout,
                           float gradient_scale, bool kl_to_base, std::span<float> gradients);

  int64_t peak_bytes() const noexcept { return peak_bytes_; }
  TrainPhases phases() const;  // since construction

 private:
  void Check(const TrainBatch& batch) const;
  void Start(const TrainBatch& batch);
  // x_ becomes the residual stream after the last layer. first_saved: layers from it on keep what
  // backward needs.
  void Forward(const PackedAdapter& adapter, int64_t first_saved);
  void Backward(const LoraLayout& layout, std::span<float> gradients);
  void NotePeak();

  const ModelConfig& config_;
  const TrainKernels& kernels_;
  ThreadPool& pool_;
  const PassOptions options_;
  TrainWeights weights_;
  TrainLayer layer_;
  TrainHead head_;
  ops::RopeTable rope_;
  PackedAdapter adapter_, no_adapter_;
  std::vector<LayerSaved> saved_;   // one a layer; recompute: only their inputs
  LayerSaved shared_;               // of layers that keep nothing
  Buffer<float> x_, dx_;            // [T, hidden_dim]
  Buffer<uint16_t> base_hidden_;
  LayerBatch batch_{};
  std::span<const int32_t> tokens_;
  double head_seconds_ = 0;
  int64_t peak_bytes_ = 0;
};

}  // namespace bakestone
