// One call of Decoder::Forward: T rows of the step, R output rows. Internal to the decoder; a
// mechanism of its own has a file of its own: decoder_plan.cc lays the step out,
// decoder_attention.cc, decoder_latent.cc, decoder_convolution.cc, decoder_delta.cc,
// decoder_rwkv.cc, decoder_mlp.cc and decoder_beside.cc are the branches, decoder_encoder.cc is
// what only encoders have, decoder.cc puts them together. Used by one thread, for one step.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>

#include "model/decoder.h"
#include "model/experts.h"
#include "ops/attention.h"
#include "ops/linear.h"

namespace bakestone {

class DecoderPass {
 public:
  DecoderPass(const ModelConfig& config, const Weights& weights, const RopeTables& rope, Exec& exec,
              const Step& step);
  void Run(MatrixView<float> hidden);

 private:
  // A set of rows that go through the network together, with everything that depends on which rows
  // they are. A step has two: all rows, and after the last layer's keys and values only the output
  // rows.
  struct RowSet {
    int64_t rows = 0;
    std::span<const AdapterRun> adapters;  // of these rows; none for the base
    std::span<const KvRun> runs;
    const RopeTables* rope = nullptr;
  };

  // One layer's pages of a run.
  struct RunPages {
    uint8_t **k, **v;
    int64_t count;
  };

  // What a layer's attention has of its own.
  struct LayerShape {
    int64_t kv_heads, head_dim;
    size_t temporary;  // which of a run's temporary pages hold its keys and values
  };

  struct SiteOutput {
    Site site;
    MatrixView<float> y;
  };

  struct PlainOutput {  // y = W x, without adapters
    const Weight& weight;
    MatrixView<float> y;
  };
  static constexpr size_t kMostPlainOutputs = 4;

  // What the layers of RWKV make of a step's rows, each [T, hidden]; removal is kk.
  struct RwkvRows {
    MatrixView<float> receptance, decay, key, value, removal, rate;
  };

  // A norm of what a branch takes; no scale where the family has none there.
  struct Norm {
    std::span<const float> scale, bias;
  };

  // The forms of activations that a few products need, each once.
  class Forms {
   public:
    void Add(ActType type) {
      if (std::find(types_.begin(), types_.begin() + count_, type) == types_.begin() + count_) {
        types_[count_++] = type;
      }
    }
    std::span<const ActType> span() const { return {types_.data(), count_}; }

   private:
    std::array<ActType, kNumActTypes> types_{};
    size_t count_ = 0;
  };

  int64_t num_outputs() const { return static_cast<int64_t>(step_.output_rows.size()); }
  const LayerWeights& Layer(int64_t layer) const {
    return weights_.layers[static_cast<size_t>(layer)];
  }

  // ---- decoder_plan.cc ----
  void CheckStep() const;
  // By row, whether its sequence is rotated by the far factors; empty where the model has none.
  std::span<const uint8_t> PlanFar();
  // The type of keys and values, and room for those of runs without a state.
  void PlanPages();
  void PlanLayers();
  void SetLayer(int64_t layer);  // attention_ is the layer's from here on
  // The pages of runs are filled in layer by layer (LoadPages).
  std::span<const KvRun> PlanRuns();
  void LoadPages(int64_t layer) const;
  // The output rows as a set of their own: rows that follow each other in a run stay one run.
  void PlanOutputs(const RopeTables& rope);

  // ---- decoder.cc ----
  Forms FormsFor(int64_t layer, const RowSet& set, std::span<const SiteOutput> outputs) const;
  static bool Adapted(int64_t layer, const RowSet& set, Site site);
  // What adapters add to the products of these matrices; in the arena.
  std::span<const ops::LoraRun> Terms(std::span<const AdapterRun> adapters,
                                      std::span<const LinearId> ids);
  // y = W x (+ bias) or y += W x, then the adapters; the input is in scratch.rows.
  void Products(int64_t layer, const RowSet& set, std::span<const SiteOutput> outputs,
                Epilogue epilogue);
  // x, normalized, as the input of products.
  void QuantizeNormed(MatrixView<const float> x, const Norm& norm, const Forms& forms,
                      const char* what);
  // The products of x, normalized; `more`: another of the same input, without adapters.
  void NormedProducts(int64_t layer, const RowSet& set, MatrixView<const float> x, const Norm& norm,
                      std::span<const SiteOutput> outputs, const char* what,
                      const PlainOutput* more = nullptr);
  // The end of a branch: x += the product of what is in scratch.rows; where the family wants it,
  // after a norm and times a factor.
  void AddBranch(int64_t layer, const RowSet& set, Site site, std::span<const float> post_norm,
                 MatrixView<float> x);
  // Products of one input, which is put into their forms once.
  void ProductsOf(MatrixView<const float> x, std::initializer_list<PlainOutput> outputs,
                  const char* what);

  // ---- decoder_encoder.cc ----
  // x += positions + token type, normalized, as the family has them: the rows of the step.
  void AddEmbeddingParts(MatrixView<float> x);
  // x = norm(x + the product of what is in scratch.rows).
  void AddAndNorm(int64_t layer, const RowSet& set, Site site, std::span<const float> norm,
                  MatrixView<float> x);
  // Runs by which every row of a set sees all of its text, or of it a window to both sides.
  std::span<const KvRun> BothWays(const RowSet& set, int64_t window);

  // ---- decoder_attention.cc ----
  // x [T, hidden] plus attention, in place; only_outputs: the output rows alone, as a new matrix
  // (of no rows where keys and values were all that was asked for).
  MatrixView<float> Attention(int64_t layer, MatrixView<float> x, bool only_outputs);
  // Queries or keys of the rows of a set, as attention takes them.
  void NormAndRotate(int64_t layer, const RowSet& set, std::span<const float> norm,
                     MatrixView<float> x);
  // Keys and values as projected, into pages.
  void KeepKeysAndValues(int64_t layer, MatrixView<float> k, MatrixView<float> v);
  MatrixView<float> GatherOutputs(MatrixView<const float> x);

  // The same by the layer's mixer.
  MatrixView<float> Mix(int64_t layer, MatrixView<float> x, bool only_outputs);

  // ---- decoder_convolution.cc ----
  MatrixView<float> Convolution(int64_t layer, MatrixView<float> x, bool only_outputs);
  // out = sum over taps of the row's and the rows before it, in [T, channels], by run; the first
  // (taps - 1) * channels floats of the layer's state hold those before a run. Not in place.
  void Convolve(int64_t layer, MatrixView<const float> in, std::span<const float> taps,
                std::span<const float> bias, MatrixView<float> out);
  // y += W x of all rows, or of the output rows alone.
  void AddProduct(MatrixView<float> x, const Weight& weight, bool only_outputs,
                  MatrixView<float> y);
  // Of a run: the layer's state before it, and where that after it goes.
  const float* StateOf(int64_t layer, size_t run) const;
  float* NextStateOf(int64_t layer, size_t run) const;

  // ---- decoder_delta.cc ----
  MatrixView<float> DeltaRule(int64_t layer, MatrixView<float> x, bool only_outputs);
  // qkv [T, channels] convolved and through silu; out [T, value_heads * value_dim].
  void RunDelta(int64_t layer, MatrixView<float> qkv, MatrixView<const float> decay,
                MatrixView<const float> rate, MatrixView<float> out);

  // ---- decoder_rwkv.cc ----
  // Both branches: the second one mixes tokens, too.
  MatrixView<float> RwkvLayer(int64_t layer, MatrixView<float> x, bool only_outputs);
  // What the first branch gives before its last product; a new matrix.
  MatrixView<float> TimeMix(int64_t layer, MatrixView<const float> x);
  // The rows of the tokens before; the last of each run goes into the next state, at `at`.
  void TokensBefore(int64_t layer, int64_t at, MatrixView<const float> x, MatrixView<float> before);
  // out = x + (before - x) * share; may be in place.
  void Shift(MatrixView<const float> x, MatrixView<const float> before,
             std::span<const float> share, MatrixView<float> out);
  void SplitKeys(const RwkvWeights& weights,
                 const RwkvRows& rows);  // keys and removal of keys, in place
  void RunRwkv(int64_t layer, const RwkvRows& rows, MatrixView<float> out);
  void FinishHeads(const RwkvWeights& weights, const RwkvRows& rows, MatrixView<const float> gate,
                   MatrixView<float> y);

  // ---- decoder_latent.cc ----
  // The same where keys and values come from a latent (MLA).
  MatrixView<float> LatentAttention(int64_t layer, MatrixView<float> x, bool only_outputs);
  void LatentKeysAndValues(const LatentWeights& weights, MatrixView<const float> normed);
  void LatentQueries(const LatentWeights& weights, const RowSet& set,
                     MatrixView<const float> normed, MatrixView<float> q);

  // ---- decoder_mlp.cc ----
  // x += down(activation(gate, up)), the rows of `set`.
  void Mlp(int64_t layer, MatrixView<float> x, const RowSet& set);
  // What down takes of the normalized x, into scratch.rows.
  void MlpActivation(int64_t layer, MatrixView<const float> x, const RowSet& set);
  // The second branch by what the layer has.
  void MlpOrExperts(int64_t layer, MatrixView<float> x, const RowSet& set);
  // x += the sum of what its experts make of each row, by ascending expert, then what all rows
  // share. Only the chosen experts' weights are read.
  void Experts(int64_t layer, MatrixView<float> x, const RowSet& set);
  void Expert(LinearId id, std::span<const AdapterRun> adapters, const ExpertRows& chosen,
              MatrixView<const float> h, MatrixView<float> x);
  // Of adapters that have pairs at experts of the layer, by rows of the set.
  std::span<const AdapterRun> ExpertAdapters(int64_t layer, const RowSet& set);
  // The same runs by the rows of one expert, where they have pairs at it.
  std::span<const AdapterRun> AdaptersOfExpert(LinearId id, std::span<const AdapterRun> adapters,
                                               const ExpertRows& chosen);
  void SharedExpert(const LayerWeights& weights, MatrixView<const float> h, MatrixView<float> x);
  // The activation of the products of what is in scratch.rows, which it replaces; gate: or null.
  // adapters: added to gate, product 0, and up, product 1 (0 where it is alone).
  void Activate(const Weight* gate, const Weight& up, std::span<const ops::LoraRun> adapters,
                std::span<const ActType> forms, const char* what);
  // out [rows, hidden] = down(activation(gate in, up in)); out may be in. id: of an expert that the
  // adapters have pairs at.
  void ExpertMlp(const ExpertWeights& expert, LinearId id, std::span<const AdapterRun> adapters,
                 MatrixView<const float> in, MatrixView<float> out);

  // ---- decoder_beside.cc ----
  // Both an MLP and experts (RouterConfig::beside_mlp).
  void MlpBesideExperts(int64_t layer, MatrixView<float> x, const RowSet& set);
  // What the layers are told of the step's tokens, from the embedding's rows: [T, num_layers *
  // per_layer_dim].
  void PlanPerLayer(MatrixView<const float> x);
  // x += norm(W (gelu(gate x) * what the layer is told)).
  void AddPerLayer(int64_t layer, MatrixView<float> x, const RowSet& set);

  const ModelConfig& config_;
  const Weights& weights_;
  Exec& exec_;
  const Step& step_;
  Arena& arena_;
  ops::AttentionShape attention_;
  std::span<const uint8_t> far_;
  LayerShape* layers_ = nullptr;   // [num_layers]
  size_t num_temporary_ = 1;       // of a run
  RunPages* pages_ = nullptr;      // [sequences]
  MatrixView<float> per_layer_;    // PlanPerLayer's
  MatrixView<float> first_value_;  // RWKV's values of the first layer
  float* zero_state_ =
      nullptr;  // what runs without a state, or without a token before, begin from ...
  float** lost_states_ = nullptr;  // ... and, by run, what those without a state leave
  RowSet all_, out_;
};

}  // namespace bakestone
