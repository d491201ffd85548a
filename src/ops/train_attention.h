// Causal attention over packed documents for training, forward and backward. Nothing of size T x T
// is kept: the forward saves the log-sum-exp of each row, the backward recomputes the scores once,
// tile by tile in the order of keys, so every output is one chain in a fixed order. Tiles above the
// diagonal and across documents are never touched. (Dao et al., FlashAttention, 2022.)
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/train_kernels.h"
#include "tensor/buffer.h"

namespace bakestone::ops {

// T rows, H query heads, G key-value heads (H a multiple of G), D channels a head (even).
// q [T, H * D], k and v [T, G * D]: bf16, after rotation; q is readable up to T rounded up to a
// tile.
struct TrainAttentionShape {
  int64_t rows = 0, heads = 0, kv_heads = 0, head_dim = 0;
  int64_t window = 0;            // a row sees this many rows, its own included; 0: all
  float scale = 0;               // of q . k; 0: 1 / sqrt(head_dim)
  float soft_cap = 0;            // c: scores become c * tanh(score / c); 0: as they are
  const float* sinks = nullptr;  // [H] scores that bring no value; null: none. They are frozen
  std::span<const int32_t> document_begins;  // ascending, first is 0
};

class TrainAttention {
 public:
  // Keeps references. One thread at a time; keeps scratch between calls.
  TrainAttention(const TrainKernels& kernels, ThreadPool& pool);

  // out [T, H * D] bf16, log_sum [H, T]: overwritten.
  void Forward(const TrainAttentionShape& shape, const uint16_t* q, const uint16_t* k,
               const uint16_t* v, uint16_t* out, float* log_sum);

  struct Gradients {
    float *q, *k, *v;  // [T, heads * D], row strides below; overwritten
    int64_t q_stride, kv_stride;
  };
  // d_out is readable up to T rounded up to a tile, like q; k and v too.
  void Backward(const TrainAttentionShape& shape, const uint16_t* q, const uint16_t* k,
                const uint16_t* v, const uint16_t* out, const float* log_sum, const uint16_t* d_out,
                const Gradients& gradients);

  int64_t bytes() const noexcept;

 private:
  struct Document {
    int64_t begin, end;  // rows
  };
  struct Block {
    int64_t document_begin, begin, end;  // rows
  };
  struct Inputs {
    const uint16_t *q, *k, *v, *d_out;
    const float* log_sum;
  };
  struct Sums {
    float *q, *k, *v;
    int64_t q_stride, kv_stride;
  };
  struct KeyPanels {
    uint16_t* pairs;  // of one head's keys of a document, pairs of rows
  };
  struct Scratch {
    Buffer<uint16_t> panels[5];
    Buffer<float> scores, d_scores;
    Buffer<uint16_t> p, ds, turned;
  };
  void Plan(const TrainAttentionShape& shape);
  // A tile of scores q . k, columns [0, cols) of rows stride apart, to those whose softmax with the
  // shape's scale is meant.
  void Cap(const TrainAttentionShape& shape, float* scores, int64_t rows, int64_t cols,
           int64_t stride) const;
  // What the sink takes from rows of one head's output, and adds to their log-sum-exp.
  static void AddSink(float sink, int64_t rows, int64_t dim, int64_t stride, uint16_t* out,
                      float* log_sum);
  void ForwardBlock(const TrainAttentionShape& shape, const Block& block, int64_t head,
                    const uint16_t* q, const uint16_t* k, const uint16_t* v, uint16_t* out,
                    float* log_sum, Scratch& scratch) const;
  void HeadBackward(const TrainAttentionShape& shape, const Document& document, int64_t head,
                    const Inputs& in, const KeyPanels& keys, const Sums& to, bool first_head,
                    Scratch& scratch) const;
  void Unit(const TrainAttentionShape& shape, int64_t unit, const Inputs& in,
            const Gradients& gradients, Scratch& scratch);

  const TrainKernels& kernels_;
  ThreadPool& pool_;
  std::vector<Scratch> scratch_;  // one a thread
  std::vector<Document> documents_;
  std::vector<Block> blocks_;
  int64_t longest_ = 0;  // columns the scratch has room for
  int64_t head_dim_ = 0;
  Buffer<float> delta_;    // [H, T]
  bool apart_ = false;     // heads that share a key have their sums apart
  Buffer<float> partial_;  // [group - 1][K, V][T, kv_heads * D]: of the second head on
};

}  // namespace bakestone::ops
