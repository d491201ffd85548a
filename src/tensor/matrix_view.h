// A non-owning view of a row-major matrix: element [r, c] is data[r * stride + c]. It knows its
// shape and nothing of who owns the memory. A plain struct, copied freely; use MatrixView<const T>
// to read.
#pragma once

#include <cstdint>
#include <type_traits>

#include "tensor/inline.h"

namespace bakestone {

template <class T>
struct MatrixView {
  T* data = nullptr;
  int64_t rows = 0, cols = 0;
  int64_t stride = 0;  // elements from one row to the next; >= cols

  constexpr MatrixView() = default;
  // Without padding between rows.
  BAKESTONE_INLINE constexpr MatrixView(T* data, int64_t rows, int64_t cols)
      : MatrixView(data, rows, cols, cols) {}
  BAKESTONE_INLINE constexpr MatrixView(T* data, int64_t rows, int64_t cols, int64_t stride)
      : data(data), rows(rows), cols(cols), stride(stride) {}

  BAKESTONE_INLINE constexpr T* Row(int64_t r) const { return data + r * stride; }
  BAKESTONE_INLINE constexpr T& operator()(int64_t r, int64_t c) const {
    return data[r * stride + c];
  }
  // Rows [begin, begin + count).
  BAKESTONE_INLINE constexpr MatrixView Rows(int64_t begin, int64_t count) const {
    return {data + begin * stride, count, cols, stride};
  }
  BAKESTONE_INLINE constexpr operator MatrixView<const T>() const
    requires(!std::is_const<T>::value)
  {
    return {data, rows, cols, stride};
  }
};

// The same, with T deduced.
template <class T>
BAKESTONE_INLINE constexpr MatrixView<T> DenseView(T* data, int64_t rows, int64_t cols) {
  return {data, rows, cols, cols};
}

}  // namespace bakestone
