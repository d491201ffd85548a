// The weights of one model in the form their users need: panels for the kernels, packed once at
// load from the mapped GGUF file or Hugging Face folder (the file's pages are let go as they are
// packed, so there are never two copies) or mapped from a file of panels packed before
// (model/packed_file.h), norms as f32 effective scale. Canonical order is Hugging Face's: the rows
// of q and k of llama-architecture files are un-permuted here. Every tensor of the file must be one
// that the decoder uses: what it would ignore could change the result. Read-only after load; any
// number of threads.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/kernel_table.h"
#include "model/config.h"
#include "model/linear_id.h"
#include "model/tensor_source.h"
#include "tensor/arena.h"
#include "tensor/dtype.h"
#include "tensor/matrix_view.h"

namespace bakestone {

class PackedFile;
struct LoadTypes;
struct PackedPanel;

// One matrix [n, k]: y = W x.
class Weight {
 public:
  int64_t n() const noexcept { return panel_.n; }
  int64_t k() const noexcept { return panel_.k; }
  DType disk_type() const noexcept { return disk_type_; }
  const Panel& panel() const noexcept { return panel_; }
  const float* bias() const noexcept {
    return bias_.empty() ? nullptr : bias_.data();
  }  // [n] or null
  // f32 rows [begin, end) -> out [end - begin, k]: embedding look-up, merge, judging.
  void DequantizeRows(const KernelTable& kernels, Range rows, MatrixView<float> out) const noexcept;
  int64_t bytes() const noexcept { return PanelBytes(panel_.type, panel_.n, panel_.k); }
  void ClearBias() { bias_.clear(); }  // for judging what it is worth

 private:
  friend class WeightsLoader;
  DType disk_type_ = DType::kF32;
  Panel panel_{};
  std::vector<float> bias_;
};

struct ExpertWeights {
  Weight gate, up, down;
};

// Of a layer that mixes by a convolution over a few tokens.
struct ConvolutionWeights {
  Weight in, out;  // [3 hidden_dim, hidden_dim]: b, c, h; [hidden_dim, hidden_dim]
  std::vector<float> taps,
      bias;  // [taps, hidden_dim], the earliest token's first; [hidden_dim] or empty
};

// Of the gated delta rule (DeltaConfig).
struct DeltaWeights {
  Weight qkv, z, alpha, beta,
      out;  // [channels, hidden_dim], [values, ...], [value_heads, ...] twice, [hidden_dim, values]
  std::vector<float> taps;             // [taps, channels]
  std::vector<float> decay, dt, norm;  // [value_heads]: -a; [value_heads]; [value_dim]
};

// What of the first branch of RWKV has shares of its own, as files have them together.
enum class RwkvInput : uint8_t { kReceptance, kDecay, kKey, kValue, kRate, kGate };
inline constexpr int kRwkvInputs = 6;

// Of RWKV-7 (RwkvConfig); up and down are those of the MLP.
struct RwkvWeights {
  Weight receptance, key, value, output;  // [hidden_dim, hidden_dim]
  Weight decay_in, decay_out, rate_in,
      rate_out;  // [few, hidden_dim], [hidden_dim, few]; out has a bias
  Weight value_in, value_out, gate_in, gate_out;       // the same; not in the first layer; no bias
  std::array<std::vector<float>, kRwkvInputs> shares;  // [hidden_dim] each, of the token before
  std::vector<float> mlp_share, key_scale, key_rate, bonus;  // [hidden_dim]
  std::vector<float> norm, norm_bias;                        // [hidden_dim], by head
  std::array<const Weight*, 12> matrices() const {
    return {&receptance, &key,      &value,    &output,    &decay_in, &decay_out,
            &rate_in,    &rate_out, &value_in, &value_out, &gate_in,  &gate_out};
  }
};

// Of attention over a latent (LatentConfig).
struct LatentWeights {
  Weight q_a, q_b;  // [q_rank, hidden_dim]; [heads * key_dim, q_rank or hidden_dim]
  Weight kv_a, k_b,
      v_b;  // [kv_rank + rope_dim, hidden_dim]; [heads * nope_dim or value_dim, kv_rank]
  std::vector<float> q_a_norm, kv_a_norm;  // [q_rank], [kv_rank]
};

// Of experts beside an MLP (RouterConfig::beside_mlp).
struct BesideWeights {
  std::vector<float> router_norm,
      experts_norm;  // [hidden_dim], of what the router and the experts take
  std::vector<float> mlp_norm,
      experts_post_norm;             // [hidden_dim], of what the MLP and the experts give
  std::vector<float> expert_scales;  // [experts]
};

// Of what a layer is told of the token (ModelConfig::per_layer_dim).
struct PerLayerWeights {
  Weight gate, out;         // [per_layer_dim, hidden_dim], [hidden_dim, per_layer_dim]
  std::vector<float> norm;  // [hidden_dim]
};

// Of a head that scores (ClassifierConfig).
struct ClassifierWeights {
  Weight dense, out;                   // [hidden_dim, hidden_dim], [labels, hidden_dim]
  std::vector<float> norm, norm_bias;  // [hidden_dim]
};

// What the config does not have is empty.
struct LayerWeights {
  std::vector<float> attention_norm, mlp_norm;  // [hidden_dim], of what the branches take
  std::vector<float> attention_norm_bias,
      mlp_norm_bias;  // [hidden_dim], of layer norms; of encoders, those after
  std::vector<float> attention_post_norm, mlp_post_norm;  // [hidden_dim], of what the branches give
  std::vector<float> q_norm, k_norm, v_norm;  // [head_dim], or [q_dim] and [kv_dim]; v_norm is ones
  Weight q, k, v, o, gate, up, down;
  Weight router;                                    // [experts, hidden_dim]
  std::vector<float> sinks;                         // [num_heads]
  std::vector<float> router_bias;                   // [experts]
  std::vector<ExpertWeights> experts;               // in place of gate, up and down
  ExpertWeights shared;                             // beside them
  Weight shared_gate;                               // [1, hidden_dim]
  Weight output_gate;                               // [q_dim, hidden_dim]
  std::unique_ptr<ConvolutionWeights> convolution;  // in place of q, k, v and o
  std::unique_ptr<DeltaWeights> delta;              // the same
  std::unique_ptr<RwkvWeights> rwkv;                // the same
  std::unique_ptr<LatentWeights> latent;            // in place of q, k and v
  std::unique_ptr<BesideWeights> beside;
  std::unique_ptr<PerLayerWeights> per_layer;
  float output_scale = 1;  // of the layer's output
  const Weight& at(Site site) const;
};

struct WeightsOptions {
  std::shared_ptr<const PackedFile> packed;  // panels made before; a matrix that it lacks is packed
  const LoadTypes* types = nullptr;          // of matrices that are encoded as they are packed
  std::vector<PackedPanel>* made = nullptr;  // gets what was packed; its data is the weights'
};

class Weights {
 public:
  // Throws kCorrupt or kUnsupported naming the file, the tensor, expected and found shape or type.
  // kernels: whose encoders to use, and whose panels to make (every table of a CPU reads the same).
  static std::unique_ptr<Weights> Load(const TensorSource& source, const ModelConfig& config,
                                       const KernelTable& kernels, ThreadPool& pool,
                                       const WeightsOptions& options = {});

  Weight embedding;  // [vocab_size, hidden_dim]
  std::vector<LayerWeights> layers;
  Weight positions, token_types;      // [positions, hidden_dim], [types, hidden_dim]: of encoders
  Weight per_layer_embedding;         // [vocab_size, num_layers * per_layer_dim]
  Weight per_layer_projection;        // [num_layers * per_layer_dim, hidden_dim]
  std::vector<float> per_layer_norm;  // [per_layer_dim]
  std::vector<float> embedding_norm,
      embedding_norm_bias;    // [hidden_dim], of their sum, or of the embedding's rows
  std::vector<Weight> dense;  // over what is pooled
  ClassifierWeights classifier;
  std::vector<float> final_norm;  // [hidden_dim]
  std::vector<float> final_norm_bias;
  const Weight& head() const noexcept { return untied_head ? *untied_head : embedding; }
  std::unique_ptr<Weight> untied_head;
  int64_t bytes() const;
  // Every matrix that there is, once.
  void ForEach(const std::function<void(const Weight&)>& visit) const;

 private:
  friend class WeightsLoader;
  Arena panels_;  // all that packed_ does not hold, in the order of use: one block, on huge pages
  std::shared_ptr<const PackedFile> packed_;  // keeps its panels mapped
};

}  // namespace bakestone
