// The end of the decoder for training: final norm, head and loss of the trained rows only, forward
// and backward, a few hundred rows at a time. One thread at a time.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/train_kernels.h"
#include "model/config.h"
#include "model/train_layout.h"
#include "model/train_weights.h"
#include "model/trainer_pass.h"
#include "ops/train_loss.h"
#include "tensor/buffer.h"

namespace bakestone {

class TrainHead {
 public:
  // At most, of loss rows whose head's rows are trained or not.
  static int64_t BytesOf(const ModelConfig& config, bool kl, bool trains_rows);

  TrainHead(const ModelConfig& config, const TrainKernels& kernels, ThreadPool& pool);

  // hidden [rows, hidden_dim] bf16: after the final norm, of the rows of x [T, hidden_dim] named.
  void Hidden(TrainWeights& weights, const float* x, std::span<const int32_t> rows,
              Buffer<uint16_t>& hidden);

  // What KL is measured to: the base's weights, and its hidden rows as Hidden() made them.
  struct Base {
    TrainWeights* weights;
    const uint16_t* hidden;
  };
  struct Gradient {
    float scale;  // of the sum of weighted losses
    const TrainLayout* layout;
    float* out;  // accumulated: rows of the head, the final norm
    float* dx;   // [T, hidden_dim]: written at the loss rows, untouched elsewhere
  };
  // [loss rows] each: -log p(target), and 1 where the target is the likeliest.
  struct Rows {
    std::vector<double> nll;
    std::vector<uint8_t> correct;
  };
  // Losses of the batch's loss rows. base null: -log p(target); else KL(base || model). gradient
  // null:
  // loss only. rows: filled unless null.
  LossSums Run(TrainWeights& weights, const float* x, const TrainBatch& batch, const Base* base,
               const Gradient* gradient, Rows* rows = nullptr);

  int64_t bytes() const noexcept;

 private:
  void Reserve(const Gradient* gradient);
  // The final norm's weight times the factor on logits.
  const float* NormWeight(TrainWeights& weights);
  void Normalize(TrainWeights& weights, const float* x, std::span<const int32_t> rows,
                 uint16_t* hidden);
  // nll_, kl_ and correct_ of `count` loss rows whose hidden rows are given; dh_ and d_logits
  // unless gradient is null.
  void ChunkLoss(TrainWeights& weights, const TrainBatch& batch, int64_t begin, int64_t count,
                 const uint16_t* hidden, const Base* base, const Gradient* gradient,
                 uint16_t* d_logits);
  // From dh_ to the rows of dx, and the final norm's gradient.
  void ChunkBackward(TrainWeights& weights, std::span<const int32_t> rows,
                     const Gradient& gradient);
  void RowsBackward(TrainWeights& weights, int64_t count, const Gradient& gradient);

  const ModelConfig& config_;
  const TrainKernels& kernels_;
  ThreadPool& pool_;
  ops::TrainLoss loss_;
  int64_t chunk_;  // rows at a time
  Buffer<float> x_, inverse_, dh_, dx_;
  Buffer<uint16_t> y_;  // [chunk, hidden_dim]
  Buffer<uint16_t> hidden_,
      d_logits_;  // of a chunk, or of several whose rows of the head are trained
  Buffer<uint16_t> hidden_pairs_, d_columns_;
  std::vector<float> factors_, scaled_norm_, logit_scales_;
  std::vector<double> nll_, kl_;
  std::vector<uint8_t> correct_;
};

}  // namespace bakestone
