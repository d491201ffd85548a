// Arithmetic on numbers that came from a file or a request: it says "no" instead of wrapping.
#pragma once

#include <cstdint>
#include <optional>

namespace bakestone {

template <class T>
[[nodiscard]] constexpr std::optional<T> CheckedAdd(T a, T b) {
  T sum;
  if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
  return sum;
}

template <class T>
[[nodiscard]] constexpr std::optional<T> CheckedMul(T a, T b) {
  T product;
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}

}  // namespace bakestone
