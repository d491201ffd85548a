#include "format/q_k_permute.h"

#include <algorithm>
#include <cstring>
#include <iterator>

#include "base/error.h"

namespace bakestone {
namespace {

// Calls copy(gguf_row, hf_row) for every row.
template <class Copy>
void ForEachPair(int64_t rows, int64_t head_dim, Copy copy) {
  if (head_dim <= 0 || head_dim % 2 != 0 || rows < 0 || rows % head_dim != 0) {
    Throw(ErrorCode::kInvalidArgument,
          "query or key rows: expected a multiple of an even head size, found {} rows and a head "
          "size "
          "of {}",
          rows, head_dim);
  }
  for (int64_t row = 0; row < rows; ++row) copy(row, HfRowOfGgufRow(row, head_dim));
}

}  // namespace

bool GgufPermutesQueryKey(std::string_view architecture) {
  // Those whose converter derives from the one for Llama and leaves its permutation on.
  static constexpr std::string_view kPermuted[] = {"llama", "mistral3", "granite", "granitemoe",
                                                   "smollm3"};
  return std::find(std::begin(kPermuted), std::end(kPermuted), architecture) != std::end(kPermuted);
}

void QueryKeyRowsFromGguf(const void* src, void* dst, int64_t rows, int64_t row_bytes,
                          int64_t head_dim) {
  const auto* from = static_cast<const uint8_t*>(src);
  auto* to = static_cast<uint8_t*>(dst);
  ForEachPair(rows, head_dim, [&](int64_t gguf_row, int64_t hf_row) {
    std::memcpy(to + hf_row * row_bytes, from + gguf_row * row_bytes,
                static_cast<size_t>(row_bytes));
  });
}

void QueryKeyRowsToGguf(const void* src, void* dst, int64_t rows, int64_t row_bytes,
                        int64_t head_dim) {
  const auto* from = static_cast<const uint8_t*>(src);
  auto* to = static_cast<uint8_t*>(dst);
  ForEachPair(rows, head_dim, [&](int64_t gguf_row, int64_t hf_row) {
    std::memcpy(to + gguf_row * row_bytes, from + hf_row * row_bytes,
                static_cast<size_t>(row_bytes));
  });
}

}  // namespace bakestone
