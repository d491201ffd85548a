// Which thread has which rows of a long prompt. Internal to ops/.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/kernel_table.h"

namespace bakestone::ops {

// Kernels unpack a strip of weights for so many rows at a time: cut there, a product costs nothing.
inline constexpr int64_t kRowsUnpackedFor = 256;

// How the rows of a long prompt are split, beside outputs or heads: each thread has rows of its own
// from op to op, as far as there are enough, and finds in its cache what it made of them (another
// core's is as far as memory, where cores have a last cache of their own).
struct RowParts {
  int64_t count, rows;  // rows: of a part, but for the last

  Range part(int64_t i, int64_t all) const { return {i * rows, std::min((i + 1) * rows, all)}; }
};
inline RowParts SplitRows(int64_t rows, int threads) {
  const int64_t most = std::clamp<int64_t>(rows / kRowsUnpackedFor, 1, threads);
  const int64_t size = std::max<int64_t>((rows + most - 1) / most, 1);
  return {(rows + size - 1) / size, size};
}

}  // namespace bakestone::ops
