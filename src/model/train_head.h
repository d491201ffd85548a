// The end of the decoder for training: final norm, head and loss of the trained rows only, forward and
// backward, in chunks so that the logits of a vocabulary never exist for more than a few hundred rows.
// One thread at a time.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/train_kernels.h"
#include "model/config.h"
#include "model/train_weights.h"
#include "model/trainer_pass.h"
#include "tensor/buffer.h"

namespace bakestone {

class TrainHead {
 public:
  TrainHead(const ModelConfig& config, TrainWeights& weights, const TrainKernels& kernels,
            ThreadPool& pool);

  // hidden [rows, hidden_dim] bf16: after the final norm, of the rows of x [T, hidden_dim] named.
  void Hidden(const float* x, std::span<const int32_t> rows, Buffer<uint16_t>& hidden);

  struct Gradient {
    float scale;  // of the sum of weighted losses
    float* dx;    // [T, hidden_dim]: written at the loss rows, untouched elsewhere
  };
  // Losses of the batch's loss rows. base_hidden null: -log p(target); else KL(base || model), with the
  // base's hidden rows as Hidden() made them. gradient null: loss only.
  LossSums Run(const float* x, const TrainBatch& batch, const uint16_t* base_hidden,
               const Gradient* gradient);

  int64_t bytes() const noexcept;

 private:
  void Reserve(bool base, bool gradient);
  void Normalize(const float* x, std::span<const int32_t> rows, uint16_t* hidden);
  void Logits(const uint16_t* hidden, int64_t rows, float* logits);
  void ChunkBackward(std::span<const int32_t> rows, float* dx);

  const ModelConfig& config_;
  TrainWeights& weights_;
  const TrainKernels& kernels_;
  ThreadPool& pool_;
  int64_t chunk_;                        // rows at a time
  Buffer<float> x_, inverse_, logits_, base_logits_, dh_, dx_;
  Buffer<uint16_t> y_, hidden_, d_logits_;
  std::vector<float> factors_;
  std::vector<double> nll_, kl_;
  std::vector<uint8_t> correct_;
};

}  // namespace bakestone
