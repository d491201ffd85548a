// Layers that mix by a convolution alone, in the training pass (Mixer::kConvolution): b, c, h = in
// x; out(c * convolution(b * h)). Both matrices are frozen. Kept per row: b, c and h.
#include "model/phase_timer.h"
#include "model/train_layer.h"
#include "ops/train_rows.h"
#include "ops/train_state.h"
#include "tensor/half.h"

namespace bakestone {

// convolved_ [T, hidden_dim]: the convolution of b * h.
void TrainLayer::Convolve(const At& at, const LayerSaved& saved) {
  const int64_t width = config_.hidden_dim;
  const ConvolutionWeights& weights = *at.source().layer(at.layer).convolution;
  pool_.ParallelFor(at.rows(), kRowsOfAThread, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const uint16_t *b = saved.state_in.data() + row * 3 * width, *h = b + 2 * width;
      uint16_t* out = gated_.data() + row * width;
      for (int64_t i = 0; i < width; ++i) {
        out[i] = FloatToBF16(BF16ToFloat(b[i]) * BF16ToFloat(h[i]));
      }
    }
  });
  ops::TrainConvolve(kernels_, pool_, ConvolutionOf(at, weights), gated_.data(), width,
                     convolved_.data());
}

ops::TrainConvolution TrainLayer::ConvolutionOf(const At& at,
                                                const ConvolutionWeights& weights) const {
  return {.taps = weights.taps.data(),
          .bias = weights.bias.empty() ? nullptr : weights.bias.data(),
          .count = config_.taps,
          .rows = at.rows(),
          .channels = config_.hidden_dim,
          .document_begins = at.batch.document_begins};
}

void TrainLayer::ConvolutionForward(const At& at, float* x, LayerSaved& saved) {
  const int64_t rows = at.rows(), width = config_.hidden_dim;
  const uint16_t* input = BranchInput(x, AttentionNorm(at), rows, saved.y_attention.data(),
                                      saved.inverse_attention.data());
  Frozen(at, FrozenSite::kConvolutionIn, {input, saved.state_in.data(), TrainStore::kBF16});
  {
    const PhaseTimer timer(phases.rows);
    Convolve(at, saved);
    pool_.ParallelFor(rows, kRowsOfAThread, [&](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; ++row) {
        const uint16_t* c = saved.state_in.data() + row * 3 * width + width;
        const float* from = convolved_.data() + row * width;
        uint16_t* out = gated_.data() + row * width;
        for (int64_t i = 0; i < width; ++i) out[i] = FloatToBF16(BF16ToFloat(c[i]) * from[i]);
      }
    });
  }
  Frozen(at, FrozenSite::kConvolutionOut, {gated_.data(), x, TrainStore::kAddF32});
}

void TrainLayer::ConvolutionBackward(const At& at, const LayerSaved& saved,
                                     const Gradients& gradients) {
  const int64_t rows = at.rows(), width = config_.hidden_dim;
  const ConvolutionWeights& weights = *at.source().layer(at.layer).convolution;
  FrozenBackward(at, FrozenSite::kConvolutionOut,
                 {dx_bf16_.data(), d_gated_.data(), TrainStore::kBF16});
  {
    const PhaseTimer timer(phases.rows);
    Convolve(at, saved);
    // c, and the convolution's output; then its input, which is b * h.
    pool_.ParallelFor(rows, kRowsOfAThread, [&](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; ++row) {
        const uint16_t *c = saved.state_in.data() + row * 3 * width + width,
                       *d = d_gated_.data() + row * width;
        const float* made = convolved_.data() + row * width;
        uint16_t* dc = d_state_in_.data() + row * 3 * width + width;
        float* out = d_mixed_.data() + row * width;
        for (int64_t i = 0; i < width; ++i) {
          dc[i] = FloatToBF16(BF16ToFloat(d[i]) * made[i]);
          out[i] = BF16ToFloat(d[i]) * BF16ToFloat(c[i]);
        }
      }
    });
    ops::TrainConvolveBackward(kernels_, pool_, ConvolutionOf(at, weights), d_mixed_.data(),
                               convolved_.data());
    pool_.ParallelFor(rows, kRowsOfAThread, [&](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; ++row) {
        const uint16_t *b = saved.state_in.data() + row * 3 * width, *h = b + 2 * width;
        const float* d = convolved_.data() + row * width;
        uint16_t *db = d_state_in_.data() + row * 3 * width, *dh = db + 2 * width;
        for (int64_t i = 0; i < width; ++i) {
          db[i] = FloatToBF16(d[i] * BF16ToFloat(h[i]));
          dh[i] = FloatToBF16(d[i] * BF16ToFloat(b[i]));
        }
      }
    });
  }
  FrozenBackward(at, FrozenSite::kConvolutionIn,
                 {d_state_in_.data(), dh_.data(), TrainStore::kF32});
  BranchInputBackward(
      {saved.y_attention.data(), saved.inverse_attention.data(), AttentionNorm(at).weight, -1},
      rows, gradients, gradients.below);
}

}  // namespace bakestone
