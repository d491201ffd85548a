// A std::vector whose elements lie as a Buffer's do: aligned to a cache line, large ones on huge
// pages. For arrays that grow, are copied or are handed from owner to owner, as the values, moments
// and gradients of training: a walk over five such arrays on pages of 4 KiB waits for their walks.
#pragma once

#include <cstddef>
#include <vector>

#include "tensor/buffer.h"

namespace bakestone {

template <class T>
struct AlignedAllocator {
  using value_type = T;

  AlignedAllocator() = default;
  template <class U>
  AlignedAllocator(const AlignedAllocator<U>&) noexcept {}

  // Throws kOutOfMemory.
  T* allocate(size_t size) {
    int64_t bytes = 0;
    if (__builtin_mul_overflow(size, sizeof(T), &bytes)) {
      Throw(ErrorCode::kOutOfMemory, "an array of {} elements of {} bytes cannot be had", size,
            sizeof(T));
    }
    return static_cast<T*>(AllocateAligned(bytes, Fill::kNone));
  }
  void deallocate(T* data, size_t) noexcept { FreeAligned(data); }

  template <class U>
  bool operator==(const AlignedAllocator<U>&) const noexcept {
    return true;
  }
};

template <class T>
using AlignedVector = std::vector<T, AlignedAllocator<T>>;

}  // namespace bakestone
