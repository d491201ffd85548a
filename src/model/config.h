// Everything the decoder needs to know about an architecture, as data. A family (model/families/) is
// one small file that fills it from GGUF metadata; the decoder never asks which family it runs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/linear_id.h"

namespace bakestone {

class GgufFile;

struct RopeConfig {
  double theta = 10000;
  int64_t dim = 0;                      // rotated channels of a head
  double linear_scale = 1;              // positions are divided by this
  std::vector<float> frequency_factors; // [dim / 2] divisors of the inverse frequencies; empty: none
};

struct ModelConfig {
  std::string architecture;  // as GGUF spells it: "llama"
  std::string name;          // for people
  int64_t num_layers = 0;
  int64_t hidden_dim = 0;
  int64_t ffn_dim = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t vocab_size = 0;        // rows of the embedding
  int64_t context_length = 0;    // trained
  float norm_eps = 1e-5f;
  bool tied_embedding = false;
  bool permuted_qk = false;      // the file's q and k rows are interleaved (format/q_k_permute.h)
  RopeConfig rope;
  std::vector<int64_t> windows;  // [num_layers]: tokens that a row of the layer sees, 0: all; empty: all
  float attention_soft_cap = 0;  // c: scores become c * tanh(score / c); 0: as they are

  int64_t window(int64_t layer) const {
    return windows.empty() ? 0 : windows[static_cast<size_t>(layer)];
  }
  int64_t q_dim() const { return num_heads * head_dim; }
  int64_t kv_dim() const { return num_kv_heads * head_dim; }
};

// Rows and columns of the matrix at a site: y [n] = W [n, k] x [k].
struct LinearShape {
  int64_t n = 0, k = 0;
};
LinearShape ShapeOf(const ModelConfig& config, Site site);

// Picks the family by general.architecture. Throws kUnsupported naming it and the known ones, kCorrupt
// naming the field, expected and found.
ModelConfig ReadConfig(const GgufFile& file);

}  // namespace bakestone
