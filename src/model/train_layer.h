// One layer of the decoder for training: forward that keeps what backward needs (train_buffers.h),
// and backward. One thread at a time; the work is spread over the pool.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>

#include "base/thread_pool.h"
#include "kernels/train_kernels.h"
#include "model/config.h"
#include "model/experts.h"
#include "model/train_buffers.h"
#include "model/train_layout.h"
#include "model/train_linear.h"
#include "model/train_lora.h"
#include "model/train_weights.h"
#include "ops/rows.h"
#include "ops/train_attention.h"
#include "ops/train_products.h"
#include "ops/train_rows.h"
#include "ops/train_state.h"

namespace bakestone {

// Where a step's time goes, in seconds.
struct TrainPhases {
  double weights = 0, products = 0, attention = 0, rows = 0, head = 0;
};

// The rows that go through, and what they meet.
struct LayerBatch {
  int64_t rows;
  std::span<const int32_t> document_begins;
  const ops::RopeTable *rope, *local_rope;  // local_rope null: no layer has it
  const float* per_layer;  // [rows, num_layers * per_layer_dim] what layers are told; or null
  TrainWeights* weights;
  PackedPairs* pairs;
};

// What of a layer can be trained, from its input up.
enum class LayerStep : uint8_t { kAttentionNorm, kQkv, kO, kMlpNorm, kGateUp, kDown, kNone };
LayerStep LowestStep(const TrainLayout& layout, int64_t layer);

class TrainLayer : private LayerScratch {
 public:
  TrainLayer(const ModelConfig& config, const TrainKernels& kernels, ThreadPool& pool);

  void Reserve(int64_t rows) { LayerScratch::Reserve(config_, rows); }

  // x [T, hidden_dim] in place: the layer's input becomes its output.
  void Forward(int64_t layer, const LayerBatch& batch, float* x, LayerSaved& saved);

  struct Gradients {
    const TrainLayout* layout;
    float* out;        // accumulated
    float* dx;         // [T, hidden_dim], in: of the layer's output; out: of its input
    LayerStep lowest;  // the layer's lowest trained part
    bool below;        // something below this layer is trained: dx is wanted
  };
  // Call StartBackward() once before the topmost layer's.
  void Backward(int64_t layer, const LayerBatch& batch, const LayerSaved& saved,
                const Gradients& gradients);
  void StartBackward(int64_t rows, const float* dx);

  int64_t bytes() const noexcept;
  TrainPhases phases;

 private:
  // A layer, the rows that go through it, and its panels.
  struct At {
    int64_t layer;
    const LayerBatch& batch;
    const uint16_t* panels;
    int64_t rows() const { return batch.rows; }
    const TrainSource& source() const { return batch.weights->source(); }
  };
  // The rows that one expert computes.
  struct ExpertPart {
    int64_t expert, begin;  // begin: where its rows lie in LayerSaved
    const ExpertRows* chosen;
    const uint16_t* panels;  // TrainWeights::Expert
    int64_t rows() const { return static_cast<int64_t>(chosen->rows.size()); }
  };
  using AfterUnit = std::function<void(const ops::TrainUnit&)>;
  struct NormWeights {
    const float *weight, *bias;  // bias null: none
  };
  // A norm as its backward needs it.
  struct NormInput {
    const uint16_t* y;
    const float *inverse, *weight;
    int64_t offset;  // of the weight's gradient, -1: frozen
  };
  At Place(int64_t layer, const LayerBatch& batch);
  void RoundDx(int64_t rows, const float* dx);
  GroupShape ShapeAt(const At& at, TrainGroup group) const {
    return ShapeOf(config_, at.layer, group);
  }
  void MixForward(const At& at, float* x, LayerSaved& saved);
  void MixBackward(const At& at, const LayerSaved& saved, const Gradients& gradients);
  // What the output's matrix takes: what heads give, or the gated form of it in gated_.
  const uint16_t* HeadsOutput(const At& at, const LayerSaved& saved);
  // Queries, keys and values of a layer as its products give them. What reads another layer's keys
  // and values has none; where values are keys, they have a place of their own.
  struct QkvPlaces {
    int64_t q, kv, heads, kv_heads, head_dim;
    bool owns, apart;
    float *k, *v;
    int64_t stride, v_stride;
  };
  QkvPlaces PlacesOf(const At& at) const;
  void AddSharedGradients(const At& at, const QkvPlaces& places);
  void AttentionForward(const At& at, float* x, LayerSaved& saved);
  void AttentionBackward(const At& at, const LayerSaved& saved, const Gradients& gradients);
  void MlpForward(const At& at, float* x, LayerSaved& saved);
  void MlpBackward(const At& at, const LayerSaved& saved, const Gradients& gradients);
  // act_ of the normalized input.
  void MlpActivation(const At& at, const uint16_t* input, LayerSaved& saved);
  // dy, of the last product, to dh_ of the input; false if nothing below is trained.
  bool MlpInnerBackward(const At& at, const uint16_t* dy, const LayerSaved& saved,
                        const Gradients& gradients);

  // ---- train_beside.cc ----
  void BesideForward(const At& at, float* x, LayerSaved& saved);
  void BesideBackward(const At& at, const LayerSaved& saved, const Gradients& gradients);
  void PerLayerForward(const At& at, float* x, LayerSaved& saved);
  void PerLayerBackward(const At& at, const LayerSaved& saved, const Gradients& gradients);
  // d_branch_: of what a norm took, from d of what it gave.
  void OuterNormBackward(const At& at, const float* d, const float* weight, const uint16_t* y,
                         const float* inverse);

  // ---- train_experts.cc ----
  void ExpertsForward(const At& at, float* x, LayerSaved& saved);
  void ExpertsBackward(const At& at, const LayerSaved& saved, const Gradients& gradients);
  void RunExperts(const At& at, const uint16_t* input, std::span<const ExpertRows> chosen,
                  LayerSaved& saved, float* out);
  // From dy, of what the experts give, to dh_ (added) and d_share_rows_; h_ is their input.
  void RunExpertsBackward(const At& at, const uint16_t* dy, std::span<const ExpertRows> chosen,
                          const LayerSaved& saved, const Gradients& gradients);
  void ExpertBackward(const ExpertPart& part, const At& at, const uint16_t* dy,
                      const LayerSaved& saved, const Gradients& gradients, float* d_shares);
  void RouteRows(const At& at, const uint16_t* input, LayerSaved& saved);
  // What an expert's share is multiplied with.
  float ShareFactor(const At& at, int64_t expert) const;
  bakestone::LinearBackward ExpertLinear(const ExpertPart& part, TrainGroup group, const At& at,
                                         const LayerSaved& saved, const Gradients& gradients) const;
  void SharedForward(const At& at, const uint16_t* input, float* x, LayerSaved& saved);
  void SharedBackward(const At& at, const LayerSaved& saved);
  // dh_ += what the shares' gradients say of the router's input.
  void RouterBackward(const At& at, const LayerSaved& saved, std::span<const ExpertRows> chosen,
                      const float* d_shares);
  std::vector<ExpertRows> ChoiceOf(const At& at, const LayerSaved& saved) const;
  const float* ExpertBias(const At& at, Site site, int64_t expert) const;  // null: none
  const uint16_t* ExpertPanels(const At& at, int64_t expert);
  void ActivateExpert(int64_t rows, int64_t dim, const uint16_t* gate_up, uint16_t* act);
  void ActivateExpertBackward(int64_t rows, int64_t dim, const uint16_t* gate_up);

  // ---- train_delta.cc ----
  struct DeltaGate {
    float decay, decay_slope, rate;  // decay_slope: of its logarithm, by alpha
  };
  void DeltaForward(const At& at, float* x, LayerSaved& saved);
  void DeltaBackward(const At& at, const LayerSaved& saved, const Gradients& gradients);
  void DeltaInputs(const At& at, const LayerSaved& saved);
  void DeltaInputsBackward(const At& at);
  ops::TrainStateShape DeltaShape(const At& at) const;
  ops::TrainConvolution DeltaConvolution(const At& at) const;
  DeltaGate DeltaGateOf(const At& at, const LayerSaved& saved, int64_t row, int64_t head) const;
  int64_t KeyHeadOf(int64_t head) const;
  ops::TrainState::Fill DeltaFill(const At& at, const LayerSaved& saved) const;
  ops::TrainState::Take DeltaTake(const At& at, const LayerSaved& saved);

  // ---- train_convolution.cc ----
  void ConvolutionForward(const At& at, float* x, LayerSaved& saved);
  void ConvolutionBackward(const At& at, const LayerSaved& saved, const Gradients& gradients);
  void Convolve(const At& at, const LayerSaved& saved);
  ops::TrainConvolution ConvolutionOf(const At& at, const ConvolutionWeights& weights) const;

  // ---- train_latent.cc ----
  void LatentForward(const At& at, float* x, LayerSaved& saved);
  void LatentBackward(const At& at, const LayerSaved& saved, const Gradients& gradients);
  void LatentKeysAndValues(const At& at, const uint16_t* input, LayerSaved& saved);
  void LatentQueries(const At& at, const uint16_t* input, LayerSaved& saved);
  const uint16_t* LatentOutput(const At& at, const LayerSaved& saved);
  void LatentKeysBackward(const At& at, const LayerSaved& saved);
  void LatentQueriesBackward(const At& at, const LayerSaved& saved);
  void NormLatent(const float* x, int64_t stride, int64_t width, int64_t rows,
                  const std::vector<float>& weight, uint16_t* y, float* inverse);
  void NormLatentBackward(int64_t width, int64_t rows, const std::vector<float>& weight,
                          const uint16_t* y, const float* inverse);

  // ---- train_frozen.cc: products with matrices that are never trained ----
  // out (op)= x W^T; x [rows, k] with x_stride, out [rows, n] with out_stride (0: dense).
  struct FrozenProduct {
    const uint16_t* x;
    void* out;
    TrainStore store;
    int64_t x_stride = 0, out_stride = 0;
  };
  void Frozen(const At& at, FrozenSite site, const FrozenProduct& product);
  // out (op)= x W, the gradient of the input: x [rows, n up to a multiple of 16], zero beyond n.
  void FrozenBackward(const At& at, FrozenSite site, const FrozenProduct& product);

  // ---- train_norms.cc ----
  // Of what the branches take.
  NormWeights AttentionNorm(const At& at) const;
  NormWeights MlpNorm(const At& at) const;
  bool centred() const { return config_.norm_kind == NormKind::kLayer; }
  void Normalize(const float* x, const NormWeights& norm, int64_t rows, uint16_t* y,
                 float* inverse);
  // dh_ to the norm's weight (offset -1: frozen) and, if wanted, to dx.
  void NormBackward(const NormInput& norm, int64_t rows, const Gradients& gradients, bool wants_dx);
  // Queries and keys in qkv_.
  void NormHeads(const At& at, const QkvPlaces& places, LayerSaved& saved);
  void NormHeadsBackward(const At& at, const QkvPlaces& places, const LayerSaved& saved);
  // What a branch takes: bf16 of the normalized x, kept in y; forward from x, backward from y.
  const uint16_t* BranchInput(const float* x, const NormWeights& norm, int64_t rows, uint16_t* y,
                              float* inverse);
  const uint16_t* BranchInputAgain(const uint16_t* y, const NormWeights& norm, int64_t rows);
  // x += the branch's last product, normalized where the family does.
  void BranchOutput(const At& at, TrainGroup group, const uint16_t* input, LayerSaved& saved,
                    float* x);
  // The gradient of the branch's last product, from that of the layer's stream.
  const uint16_t* BranchOutputBackward(const At& at, TrainGroup group, const LayerSaved& saved,
                                       const Gradients& gradients);
  // dh_, of what a branch takes, to the stream's gradient.
  void BranchInputBackward(const NormInput& norm, int64_t rows, const Gradients& gradients,
                           bool wants_dx);

  // The biases of a group's matrices in the rows of out, zero where there are none; false when
  // there are none at all, and then nothing is written.
  bool FillBias(const At& at, TrainGroup group, float* out) const;
  bool HasBias(const At& at, TrainGroup group) const;
  // The same of gate and up, added to some rows and columns of either.
  void AddMlpBias(const At& at, const ops::TrainUnit& unit, uint16_t* gate_up) const;
  // The layer's table; null where queries and keys are not rotated.
  const ops::RopeTable* RopeOf(const At& at) const;
  // Rounds to bf16; with a table also rotates, by sign.
  void Rotate(const At& at, const float* x, int64_t x_stride, int64_t heads, int64_t head_dim,
              const ops::RopeTable* table, float sign, uint16_t* out, int64_t out_stride);
  void LinearForward(const At& at, TrainGroup group, const uint16_t* x, LayerSaved& saved,
                     void* out, TrainStore store, const AfterUnit* after = nullptr);
  // out [T, out] f32 += the product; with DoRA by way of saved.y.
  void LinearAdd(const At& at, TrainGroup group, const uint16_t* x, LayerSaved& saved, float* out);
  // dx null: only the gradients of what is trained.
  void LinearBackward(const At& at, TrainGroup group, const uint16_t* dy, const uint16_t* x,
                      const LayerSaved& saved, const Gradients& gradients, void* dx,
                      TrainStore store, const AfterUnit* after = nullptr);
  // gate and up [rows, width] each by itself; act in place of up.
  static TrainActivationArgs GateOf(const uint16_t* gate, uint16_t* up, int64_t rows,
                                    int64_t width);
  // gate_up with gate and up [rows, dim] side by side, or up alone.
  TrainActivationArgs SideBySide(const uint16_t* gate_up, int64_t rows, int64_t dim) const;
  // act_ of the MLP from what was saved, and d_gate_up_ from d_act_.
  TrainActivationArgs Activation(const At& at, const LayerSaved& saved);
  TrainGate gate() const;
  ops::TrainAttentionShape AttentionOf(const At& at) const;
  static bool Ends(LayerStep step, const Gradients& gradients) {
    return !gradients.below && step == gradients.lowest;
  }

  const ModelConfig& config_;
  const TrainKernels& kernels_;
  ThreadPool& pool_;
  ops::TrainAttention attention_;
  ops::TrainState state_;
  LinearScratch linear_;
  std::vector<std::vector<float>> row_scratch_;  // one a thread
};

}  // namespace bakestone
