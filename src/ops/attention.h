// Attention over paged keys and values: grouped heads, causal, any mix of sequences in one step (a
// prefill chunk, decode rows, drafts, or a run without a state over temporary pages:
// TemporaryPages). The bits of a row depend on its slot and the keys and values up to it, on
// nothing else.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ops/context.h"
#include "tensor/buffer.h"
#include "tensor/matrix_view.h"

namespace bakestone::ops {

struct AttentionShape {
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  KvElement element = KvElement::kBF16;
  int64_t window = 0;  // a row sees this many slots, its own included; 0: all up to its own
  float scale = 0;     // of q . k; 0: 1 / sqrt(head_dim)
  float soft_cap = 0;  // scores become soft_cap * tanh(score / soft_cap); 0: as they are
  const float* sinks = nullptr;  // [heads]: a score beside the slots' that brings no value; or null
};

// Bytes of the keys (or of the values) of one layer in one page of 32 slots; a multiple of 64.
int64_t KvPageBytes(const AttentionShape& shape);

// Writes k and v [T, kv_heads * head_dim] of the rows of every run into its pages. Keys are already
// rotated. A NaN or infinity throws kInternal.
void WriteKv(Context& context, const AttentionShape& shape, std::span<const KvRun> runs,
             MatrixView<const float> k, MatrixView<const float> v);

// out [T, heads * head_dim] = softmax(q k^T scale) v; the rows' own slots are written already.
// Memory: scratch for a tile a thread; nothing grows with the square of the context. Slots before
// the window are not read.
void Attention(Context& context, const AttentionShape& shape, std::span<const KvRun> runs,
               MatrixView<const float> q, MatrixView<float> out);

// Zeroed pages of one layer that live as long as this object: for runs without a sequence state.
class TemporaryPages {
 public:
  // Room for `slots` slots; keeps its memory when it is large enough.
  void Reset(const AttentionShape& shape, int64_t slots);
  uint8_t* const* k_pages() const noexcept { return k_.data(); }
  uint8_t* const* v_pages() const noexcept { return v_.data(); }

 private:
  Buffer<uint8_t> storage_;
  std::vector<uint8_t*> k_, v_;
};

}  // namespace bakestone::ops
