// A tensor of a Hugging Face folder as it lies there, and the matrices of a stack for those that
// read its columns.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "convert/model_source.h"
#include "model/tensor_source.h"

namespace bakestone {

// By its own name, in its own shape. Throws kUnsupported where it has no type that weights have, or
// no dimension. Keeps a reference to `tensors`.
SourceTensor SourceOf(const TensorSource& tensors, const StoredTensor& stored);

// The matrices of a stack [matrices, n, k], decoded whole, of which the last two that were asked
// for are kept. Any number of threads.
class DecodedMatrices {
 public:
  DecodedMatrices(ops::RowSource rows, int64_t n, int64_t k);
  std::shared_ptr<const std::vector<float>> Matrix(int64_t index);  // [n, k]

 private:
  struct Entry {
    int64_t index = -1;
    std::shared_ptr<const std::vector<float>> matrix;
  };
  const ops::RowSource rows_;
  const int64_t n_, k_;
  std::mutex mutex_;
  std::array<Entry, 2> kept_;  // by the index's last bit
};

// The stack's matrices turned: rows of [matrices, k, n].
ops::RowSource Turned(ops::RowSource rows, int64_t n, int64_t k);

}  // namespace bakestone
