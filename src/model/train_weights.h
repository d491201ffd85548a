// Weights in the form training multiplies with: bf16 panels of a layer's groups of matrices that
// share an input (q|k|v, o, gate|up, down; of a mixture the last two of each expert) and of the
// matrices that are never trained, rounded from the exact values of the quantized blocks, or from
// the f32 masters of what is itself trained. Panels are kept between layers as far as a budget
// allows; the others are rebuilt when asked for, some percent of the time of a micro-batch of 512
// rows. The transposed panels that the input gradient needs are always made on the spot: a
// transpose of bf16 costs 1 % of the product it serves. One thread at a time.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/kernel_table.h"
#include "model/config.h"
#include "model/linear_id.h"
#include "model/train_layout.h"
#include "model/train_panels.h"
#include "model/weights.h"
#include "tensor/buffer.h"
#include "tensor/matrix_view.h"

namespace bakestone {

// Where the values come from: rows of f32, called from any thread of the pool.
struct TrainSource {
  std::function<void(LinearId id, Range rows, MatrixView<float> out)> linear;
  std::function<void(int64_t layer, FrozenSite site, Range rows, MatrixView<float> out)> frozen;
  // What of a layer is no matrix and never trained, as it was loaded: asked for where the config
  // has it.
  std::function<const LayerWeights&(int64_t layer)> layer;
  std::function<void(Range rows, MatrixView<float> out)> embedding;  // [vocab_size, hidden_dim]
  std::function<void(Range rows, MatrixView<float> out)> head;       // [vocab_size, hidden_dim]
  std::function<const float*(LinearId id)> bias;                     // [out] or null
  std::function<const float*(int64_t layer)> attention_norm, mlp_norm;
  std::function<const float*(int64_t layer)> attention_post_norm, mlp_post_norm, q_norm,
      k_norm;                                                 // asked for where the config has them
  std::function<const float*()> final_norm, final_norm_bias;  // a bias: of layer norms
  // Of embeddings by layer: [vocab_size, num_layers * per_layer_dim], [num_layers * per_layer_dim,
  // hidden_dim], [per_layer_dim].
  std::function<void(Range rows, MatrixView<float> out)> per_layer_embedding, per_layer_projection;
  std::function<const float*()> per_layer_norm;
};

// Of a loaded model; both must outlive what is returned.
TrainSource SourceOf(const Weights& weights, const KernelTable& kernels);
// `base`, but for the layout's own tensors, which lie at *values. Rows of the embedding are rounded
// to bf16, as they are served; norms and biases are not. Keeps references.
TrainSource TrainedSource(TrainSource base, const TrainLayout& layout, const float* const* values);

class TrainWeights {
 public:
  // Keeps references. cache_bytes: how much to spend on kept panels; head and layers in order.
  // Throws kUnsupported naming the dimension that is no multiple of 16.
  TrainWeights(const ModelConfig& config, TrainSource source, const TrainKernels& kernels,
               ThreadPool& pool, int64_t cache_bytes);

  // Panels [out / 16][in / 2][16][2] of a layer's groups and frozen matrices, as plan(layer) has
  // them (rows up to a multiple of 16 are zero); valid until the next call.
  const uint16_t* Layer(int64_t layer);
  // Of one expert of a layer: gate|up, then down; valid until the next call of it.
  const uint16_t* Expert(int64_t layer, int64_t expert);
  const PanelPlan& plan(int64_t layer) const { return plans_[static_cast<size_t>(layer)]; }
  // Transposed panels [k / 16][n / 2][16][2] of the panels of a [n, k] matrix, n up to a multiple
  // of 16; valid until the next call.
  const uint16_t* Transposed(const uint16_t* panels, int64_t n, int64_t k);

  // Panels of what makes embeddings by layer [num_layers * per_layer_dim, hidden_dim].
  const uint16_t* PerLayerProjection();

  // The head [vocab_size, hidden_dim], vocabulary rounded up to 16 with zeros.
  const uint16_t* Head();
  const uint16_t* HeadTransposed();
  int64_t padded_vocab() const { return padded_vocab_; }
  // Gives back what the head needed if the budget did not cover it.
  void ReleaseHead();
  // The layout's tensors have new values: panels of the old ones are made anew when they are asked
  // for.
  void Changed(const TrainLayout& layout);

  const TrainSource& source() const { return source_; }
  int64_t bytes() const noexcept;

 private:
  template <class Read>
  void Build(int64_t rows, int64_t k, const Read& read, uint16_t* panels);
  void BuildGroup(int64_t layer, int64_t expert, TrainGroup group, uint16_t* panels);
  void BuildLayer(int64_t layer, uint16_t* panels);
  void BuildExpert(int64_t layer, int64_t expert, uint16_t* panels);

  const ModelConfig& config_;
  TrainSource source_;
  const TrainKernels& kernels_;
  ThreadPool& pool_;
  std::vector<PanelPlan> plans_;
  int64_t padded_vocab_ = 0;
  bool keep_head_ = false;
  std::vector<Buffer<uint16_t>> layers_;  // empty until first asked for
  std::vector<uint8_t> stale_;            // of layers_: 1, made from old values
  bool head_stale_ = false, head_transposed_stale_ = false;
  Buffer<uint16_t> current_, expert_, transposed_, head_, head_transposed_, per_layer_;
  struct RowScratch {
    Buffer<float> wide;
    Buffer<uint16_t> rounded;
  };
  std::vector<RowScratch> row_scratch_;  // one a thread
};

}  // namespace bakestone
