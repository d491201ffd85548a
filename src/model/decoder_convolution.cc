// Convolutions over the last few tokens, and the layers that mix by nothing else. A row's sum runs
// over taps in one order, whatever the step holds.
#include "model/decoder_pass.h"
#include "ops/rows.h"

namespace bakestone {

const float* DecoderPass::StateOf(int64_t layer, size_t run) const {
  const SequenceState* sequence = step_.sequences[run].state;
  const float* state = sequence != nullptr ? sequence->State(layer) : nullptr;
  return state != nullptr ? state : zero_state_;
}

float* DecoderPass::NextStateOf(int64_t layer, size_t run) const {
  SequenceState* state = step_.sequences[run].state;
  return state != nullptr ? state->NextState(layer) : lost_states_[run];
}

void DecoderPass::Convolve(int64_t layer, MatrixView<const float> in, std::span<const float> taps,
                           std::span<const float> bias, MatrixView<float> out) {
  const int64_t back = config_.taps - 1, channels = in.cols;
  for (size_t i = 0; i < all_.runs.size(); ++i) {
    const KvRun& run = all_.runs[i];
    const float* before = StateOf(layer, i);
    // The input of the token at `offset` of the run; negative: before it.
    const auto input = [&](int64_t offset) {
      return offset >= 0 ? in.Row(run.row_begin + offset) : before + (back + offset) * channels;
    };
    const int64_t length = run.row_end - run.row_begin;
    exec_.pool.ParallelFor(length, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t offset = begin; offset < end; ++offset) {
        float* y = out.Row(run.row_begin + offset);
        for (int64_t c = 0; c < channels; ++c) {
          y[c] = bias.empty() ? 0.0f : bias[static_cast<size_t>(c)];
        }
        for (int64_t tap = 0; tap <= back; ++tap) {
          const float *x = input(offset - back + tap), *w = taps.data() + tap * channels;
          for (int64_t c = 0; c < channels; ++c) y[c] += w[c] * x[c];
        }
      }
    });
    float* after = NextStateOf(layer, i);
    for (int64_t j = 0; j < back; ++j) {
      std::copy_n(input(length - back + j), channels, after + j * channels);
    }
  }
}

void DecoderPass::AddProduct(MatrixView<float> x, const Weight& weight, bool only_outputs,
                             MatrixView<float> y) {
  if (y.rows == 0) return;
  const MatrixView<float> rows = only_outputs ? GatherOutputs(x) : x;
  const MatrixView<float> product = arena_.TakeMatrix<float>(y.rows, y.cols);
  ProductsOf(rows, {{weight, product}}, "mixed tokens");
  ops::Add(exec_.context, product, y);
}

MatrixView<float> DecoderPass::Convolution(int64_t layer, MatrixView<float> x, bool only_outputs) {
  const MatrixView<float> y = only_outputs ? GatherOutputs(x) : x;
  Arena::Scope scope(arena_);
  const ConvolutionWeights& weights = *Layer(layer).convolution;
  const int64_t rows = x.rows, width = x.cols;
  const MatrixView<float> normed = arena_.TakeMatrix<float>(rows, width);
  const MatrixView<float> parts = arena_.TakeMatrix<float>(rows, 3 * width);
  const MatrixView<float> mixed = arena_.TakeMatrix<float>(rows, width);
  ops::RmsNorm(exec_.context, x, Layer(layer).attention_norm, config_.norm_eps, normed);
  ProductsOf(normed, {{weights.in, parts}}, "convolution input");
  exec_.pool.ParallelFor(rows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const float *b = parts.Row(row), *h = b + 2 * width;
      for (int64_t i = 0; i < width; ++i) normed(row, i) = b[i] * h[i];
    }
  });
  Convolve(layer, normed, weights.taps, weights.bias, mixed);
  exec_.pool.ParallelFor(rows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const float* c = parts.Row(row) + width;
      for (int64_t i = 0; i < width; ++i) mixed(row, i) *= c[i];
    }
  });
  AddProduct(mixed, weights.out, only_outputs, y);
  return y;
}

}  // namespace bakestone
