// Everything the decoder needs to know about an architecture, as data. A family (model/families/)
// is one small file that says how it differs from a plain Llama; the decoder never asks which
// family it runs. Each axis says which value is Llama's.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/linear_id.h"

namespace bakestone {

class GgufFile;
class HfFolder;
struct TensorNames;

struct RopeConfig {
  double theta = 10000;
  int64_t dim = 0;          // rotated channels of a head, the first of them
  double linear_scale = 1;  // positions are divided by this
  std::vector<float>
      frequency_factors;  // [dim / 2] divisors of the inverse frequencies; empty: none
  std::vector<float>
      far_factors;  // the same of sequences of more than near_context tokens; empty: of none
  int64_t near_context = 0;
  double magnitude = 1;  // of cosines and sines: "attention factor"
  bool truncate = true;  // YaRN's ramp begins and ends at whole channels
  // What YaRN made the factors of, for writers: nothing computes with it.
  struct Yarn {
    double factor = 0;  // 0: not by YaRN
    double original_context = 0, beta_fast = 32, beta_slow = 1;
    double score_rate = 0;  // scores of a latent's heads count (score_rate ln(factor) + 1)^2
  };
  Yarn yarn;
};

enum class LayerRope : uint8_t {
  kMain,   // ModelConfig::rope
  kLocal,  // ModelConfig::local_rope
  kNone,   // queries and keys are not rotated
};

enum class NormKind : uint8_t {
  kRms,    // x / rms(x) * weight
  kLayer,  // (x - mean) / deviation * weight + bias
};

// Where a layer's two branches (attention, MLP) have their norms.
enum class NormPlacement : uint8_t {
  kPre,       // x += f(norm(x))
  kPost,      // x += norm(f(x))
  kSandwich,  // x += norm(f(norm(x)))
  kSum,       // x = norm(x + f(x)), and no norm at the end
};

// RMS norm of queries and keys before they are rotated.
enum class QkNorm : uint8_t { kNone, kPerHead, kWhole };

enum class MlpKind : uint8_t {
  kSwiGlu,       // down(silu(gate) * up)
  kGeGlu,        // down(gelu(gate) * up)
  kGelu,         // down(gelu(up)): no gate
  kSquaredRelu,  // down(relu(up)^2): no gate
  kErfGelu,   // the same with gelu(x) = x / 2 * (1 + erf(x / sqrt(2))); kGelu and kGeGlu have its
              // tanh form
  kErfGeGlu,  // kGeGlu with that form
  kClampedSwiGlu,  // down(g * sigmoid(1.702 g) * (u + 1)), g = min(gate, 7), u = up within [-7, 7]:
                   // of experts only
};

enum class RouterScore : uint8_t {
  kSoftmax,  // over all experts
  kSigmoid,  // of each by itself
};

// Experts in place of the MLP: a router gives each row the `used` best of them.
struct RouterConfig {
  int64_t experts = 0;  // 0: one MLP for all rows
  int64_t used = 0;
  RouterScore score = RouterScore::kSoftmax;
  bool bias = false;   // experts are chosen by score + bias; their shares come from the score
  int64_t groups = 1;  // of equal size; only the experts of the best `used_groups` can be chosen
  int64_t used_groups = 1;
  bool groups_by_two = false;  // a group counts by its two best experts together; else by its best
  bool renormalize = true;     // the shares of the chosen add up to 1
  float scale = 1;             // of the shares
  bool expert_biases = false;  // experts' matrices have biases
  int64_t shared_dim =
      0;  // width of an expert that all rows share, beside the chosen ones; 0: none
  bool shared_gate = false;  // its output counts by a sigmoid of the row
  int64_t dense_layers = 0;  // the first layers have an MLP instead, of width dense_dim
  int64_t dense_dim = 0;
  // Every layer has an MLP of that width beside its experts: norm(norm(mlp(norm(x))) +
  // norm(experts(norm(x)))), with a norm of its own for each, and one for the router's input. The
  // share of an expert counts by a number of its own.
  bool beside_mlp = false;
};

// Keys and values from a latent that all heads share (MLA): q = q_b norm(q_a x), c = norm(kv_a x),
// keys are k_b c beside one rotated part for all heads, values v_b c. A head in memory has its
// rotated channels first.
struct LatentConfig {
  int64_t kv_rank = 0;  // 0: keys and values are projections of their own
  int64_t q_rank = 0;   // 0: q = q_b x
  int64_t nope_dim = 0, rope_dim = 0, value_dim = 0;
  bool interleaved = true;  // in the file, the rotated channels of a pair lie beside each other
  float norm_eps = 1e-6f;   // of the two norms
  int64_t key_dim() const { return nope_dim + rope_dim; }
};

// How the rows of a text become one vector.
enum class Pooling : uint8_t { kMean, kFirst, kLast };

// A layer over pooled rows: y = W x (+ bias), through tanh or not.
struct DenseConfig {
  std::string tensor;  // without ".weight" and ".bias"
  int64_t width = 0;   // of y
  bool tanh = false;
};

// Of models that read and do not write.
struct EncoderConfig {
  bool both_ways =
      false;  // a row sees the whole text, or a window to both sides of it; else it is a decoder
  int64_t positions = 0;       // learned positions, added to the embedding; 0: none
  int64_t first_position = 0;  // rows of the file's table of positions before that of position 0
  bool token_types =
      false;  // a row of a table is added, too: the first, or the second for a pair's second text
  bool embedding_norm = false;  // their sum is normalized
  bool changes_embedding() const { return positions > 0 || token_types || embedding_norm; }
  bool bare_first = false;  // the first layer's attention takes its rows as they are
  Pooling pooling = Pooling::kMean;
  std::vector<DenseConfig> dense;  // over what is pooled, one after the other
};

// A head that scores texts: of what is pooled, out(norm(activation(dense x))). Tensors without
// ".weight" and ".bias".
struct ClassifierConfig {
  enum class Activation : uint8_t { kTanh, kGelu /* by erf */ };
  int64_t labels = 0;            // 0: no head
  std::string dense, norm, out;  // norm empty: none
  Activation activation = Activation::kTanh;
  Pooling pooling = Pooling::kFirst;
  std::vector<std::string> names;  // of the labels, or empty
};

// What mixes the tokens of a sequence in a layer. All but attention keep a state of fixed size by
// sequence, not pages.
enum class Mixer : uint8_t {
  kAttention,
  kConvolution,  // b, c, h = in x; out(c * convolution(b * h))
  kDeltaRule,    // DeltaConfig
  kRwkv,         // RwkvConfig; its MLP mixes as well
};

// The gated delta rule. q, k, v = silu(convolution(qkv x)), q and k of length 1 by head; with decay
// d = exp(-a softplus(alpha x + dt)) and rate r = sigmoid(beta x), by head of values:
//   S = d S;  S += k (r (v - S^T k))^T;  y = S^T q / sqrt(key_dim);  out(norm(y) * silu(z x))
struct DeltaConfig {
  int64_t key_heads = 0, value_heads = 0;  // each head of keys serves as many of values
  int64_t key_dim = 0, value_dim = 0;
  bool tiled = false;  // head h of values has head h % key_heads of keys (GGUF); else h /
                       // (value_heads / key_heads)
  int64_t channels() const { return 2 * key_heads * key_dim + value_heads * value_dim; }
};

// RWKV-7. What a branch takes is the normalized row x moved towards that of the token before, by a
// share of each channel's own; of the first branch r, w, k, v, a and g each have shares of their
//   own. With d = exp(-exp(-1/2) sigmoid(w_out tanh(w_in x))), a = sigmoid(a_out a_in x), v moved
//   towards the first layer's by sigmoid(v_out v_in x), kk = k * key_scale of length 1, k = k (1 +
//   (a - 1) * key_rate), by head S = S * d - (kk * a) (S^T kk)^T + k v^T;  y = norm(S^T r) + (r .
//   (k * bonus)) v;  out(y * g_out sigmoid(g_in x))
// and in the second branch down(relu(up x)^2). d, kk, a and k are rows of S.
struct RwkvConfig {
  int64_t heads = 0, head_dim = 0;
};

struct ModelConfig {
  std::string architecture;  // as GGUF spells it: "llama"
  std::string name;          // for people
  int64_t num_layers = 0;
  int64_t ignored_layers =
      0;  // behind them in the file: they predict further tokens, and are not run
  int64_t hidden_dim = 0;
  int64_t ffn_dim = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t vocab_size = 0;      // rows of the embedding
  int64_t context_length = 0;  // trained
  float norm_eps = 1e-5f;
  bool tied_embedding = false;

  // How the tensors lie in the file.
  bool permuted_qk = false;            // q and k rows are interleaved (format/q_k_permute.h)
  bool norms_less_one = false;         // norms are stored as weight - 1
  const TensorNames* names = nullptr;  // null: GGUF's usual ones

  // By layer; empty: the first value for all.
  std::vector<int64_t> windows;  // tokens that a row of the layer sees, its own included; 0: all.
                                 // Of encoders odd: as many to each side
  std::vector<LayerRope> layer_ropes;
  std::vector<int64_t> head_dims, kv_head_counts,
      ffn_dims;  // empty: head_dim, num_kv_heads, ffn_dim for all
  std::vector<int64_t>
      kv_layers;  // whose keys and values the layer reads: its own, or those of one before it
  std::vector<bool>
      keys_as_values;  // values are the keys as projected, before their norm and rotation

  RopeConfig rope, local_rope;
  NormKind norm_kind = NormKind::kRms;
  NormPlacement norm_placement = NormPlacement::kPre;
  QkNorm qk_norm = QkNorm::kNone;
  bool value_norm = false;    // RMS norm of values by head, without a weight
  int64_t per_layer_dim = 0;  // of what each layer is told of the token beside its row; 0: nothing
  bool layer_scales =
      false;  // a layer's output, its input included, is multiplied by a number of the layer
  MlpKind mlp = MlpKind::kSwiGlu;
  RouterConfig router;        // ffn_dim is then one expert's
  std::vector<Mixer> mixers;  // by layer; empty: attention in all
  int64_t taps = 0;           // of convolutions: the tokens that they see, the last their own
  DeltaConfig delta;
  RwkvConfig rwkv;
  bool embedding_norm = false;  // the embedding's rows are normalized before the first layer
  EncoderConfig encoder;
  ClassifierConfig classifier;
  bool output_gate = false;   // what heads give counts by the sigmoid of a projection of its own
  LatentConfig latent;        // head_dim is then what a head takes in the cache
  bool sinks = false;         // a score by head beside those of the tokens, which brings no value
  float attention_scale = 0;  // of q . k; 0: 1 / sqrt(head_dim)
  float attention_soft_cap = 0;  // c: scores become c * tanh(score / c); 0: as they are
  float final_soft_cap = 0;      // the same of logits
  float embedding_scale = 1;     // of the embedding's rows as they enter the first layer
  float residual_scale = 1;      // of what a branch adds: x += scale * f(x)
  float logit_scale = 1;         // of logits, before their cap

  int64_t window(int64_t layer) const {
    return windows.empty() ? 0 : windows[static_cast<size_t>(layer)];
  }
  LayerRope layer_rope(int64_t layer) const {
    return layer_ropes.empty() ? LayerRope::kMain : layer_ropes[static_cast<size_t>(layer)];
  }
  Mixer mixer(int64_t layer) const {
    return mixers.empty() ? Mixer::kAttention : mixers[static_cast<size_t>(layer)];
  }
  // Of the state that a layer keeps by sequence, in floats: the inputs that a convolution looks
  // back at, the earliest first, then the delta rule's S [value_heads, key_dim, value_dim]; of
  // RWKV, what both branches took of the last token, then S [heads, head_dim, head_dim].
  int64_t state_size(int64_t layer) const;
  bool has_state() const;
  // Whether a sequence that may come to so many tokens is rotated by far_factors, from its first
  // token on.
  bool far(int64_t tokens) const { return !rope.far_factors.empty() && tokens > rope.near_context; }
  bool has_experts(int64_t layer) const {
    return router.experts > 0 && layer >= router.dense_layers;
  }
  bool has_mlp(int64_t layer) const { return !has_experts(layer) || router.beside_mlp; }
  int64_t ffn_width(int64_t layer) const {  // of the MLP; of a layer that has none, of an expert
    if (router.experts > 0) return has_mlp(layer) ? router.dense_dim : ffn_dim;
    return ffn_dims.empty() ? ffn_dim : ffn_dims[static_cast<size_t>(layer)];
  }
  int64_t layer_head_dim(int64_t layer) const {
    return head_dims.empty() ? head_dim : head_dims[static_cast<size_t>(layer)];
  }
  int64_t layer_kv_heads(int64_t layer) const {
    return kv_head_counts.empty() ? num_kv_heads : kv_head_counts[static_cast<size_t>(layer)];
  }
  // Of layers with the local rope.
  int64_t local_head_dim() const;
  int64_t kv_layer(int64_t layer) const {
    return kv_layers.empty() ? layer : kv_layers[static_cast<size_t>(layer)];
  }
  // Whether it puts keys and values into pages: it attends, and does not read another layer's.
  bool owns_kv(int64_t layer) const {
    return mixer(layer) == Mixer::kAttention && kv_layer(layer) == layer;
  }
  bool has_keys_as_values(int64_t layer) const {
    return !keys_as_values.empty() && keys_as_values[static_cast<size_t>(layer)];
  }
  // What differs between the layers' attention, or is there beside it, in words ("heads of another
  // size by layer"); null:
  // nothing.
  const char* layers_own() const;
  bool gated() const {
    return mlp != MlpKind::kGelu && mlp != MlpKind::kErfGelu && mlp != MlpKind::kSquaredRelu;
  }
  bool has_norm_before_attention(int64_t layer) const {
    return has_pre_norms() && !(encoder.bare_first && layer == 0);
  }
  bool has_pre_norms() const {
    return norm_placement == NormPlacement::kPre || norm_placement == NormPlacement::kSandwich;
  }
  bool has_post_norms() const { return norm_placement != NormPlacement::kPre; }
  // Of the vectors that texts are embedded as.
  int64_t embedding_width() const {
    return encoder.dense.empty() ? hidden_dim : encoder.dense.back().width;
  }
  // Of a layer, and of a model whose layers are alike.
  int64_t q_dim(int64_t layer) const { return num_heads * layer_head_dim(layer); }
  int64_t kv_dim(int64_t layer) const { return layer_kv_heads(layer) * layer_head_dim(layer); }
  int64_t q_dim() const { return num_heads * head_dim; }
  int64_t kv_dim() const { return num_kv_heads * head_dim; }
  // Of what heads are, their mix included, before the cache pads it.
  int64_t mixed_dim(int64_t layer) const {
    return num_heads * (latent.kv_rank > 0 ? latent.value_dim : layer_head_dim(layer));
  }
  int64_t rotated_dim() const {
    return latent.kv_rank > 0 ? latent.rope_dim : head_dim;
  }  // that can be, of a head
};

// Rows and columns of the matrix at a site: y [n] = W [n, k] x [k].
struct LinearShape {
  int64_t n = 0, k = 0;
};
LinearShape ShapeOf(const ModelConfig& config, LinearId id);
// False where a layer has no such matrix: a gate of an MLP without one, an MLP in place of which
// there are experts and experts where there are none, queries, keys and values that come from a
// latent.
bool HasSite(const ModelConfig& config, LinearId id);

// Whether pairs can be beside the experts' matrices, in training and in serving.
bool CanAdaptExperts(const ModelConfig& config);

// What of the model the training pass goes through and never changes, in words; null: nothing, so
// that it can be trained as a whole.
const char* FrozenPart(const ModelConfig& config);

// What the training pass lacks for the model, in words ("norms after attention and MLP"); empty:
// nothing.
std::string TrainingLacks(const ModelConfig& config);

// Picks the family by general.architecture. Throws kUnsupported naming it and the known ones,
// kCorrupt naming the field, expected and found.
ModelConfig ReadConfig(const GgufFile& file);
// The same by config.json's model_type.
ModelConfig ReadConfig(const HfFolder& folder);

}  // namespace bakestone
