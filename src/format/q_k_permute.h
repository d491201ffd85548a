// The one place that knows how GGUF orders the rows of query and key projections. Llama-like
// architectures store rotary pairs interleaved: within each head of head_dim rows,
//
//   GGUF row 2 j + s  =  Hugging Face row  s * head_dim / 2 + j,     j < head_dim / 2, s in {0, 1}.
//
// Everything in memory is in Hugging Face order; readers and writers of GGUF call this. It moves
// whole rows, so it applies to quantized rows, biases (a row of one element) and the rows of a LoRA
// B alike. Pure functions; any thread.
#pragma once

#include <cstdint>
#include <string_view>

namespace bakestone {

// True if GGUF files of this architecture (general.architecture) hold q and k rows permuted.
bool GgufPermutesQueryKey(std::string_view architecture);

// The Hugging Face row that GGUF row `row` holds. head_dim is even.
constexpr int64_t HfRowOfGgufRow(int64_t row, int64_t head_dim) {
  const int64_t head = row / head_dim, within = row % head_dim;
  return head * head_dim + within % 2 * (head_dim / 2) + within / 2;
}

// Copies `rows` rows of `row_bytes` each from one order into the other. src and dst do not overlap.
// rows is a multiple of head_dim and head_dim is even, else kInvalidArgument.
void QueryKeyRowsFromGguf(const void* src, void* dst, int64_t rows, int64_t row_bytes,
                          int64_t head_dim);
void QueryKeyRowsToGguf(const void* src, void* dst, int64_t rows, int64_t row_bytes,
                        int64_t head_dim);

}  // namespace bakestone
