// Owning memory aligned to 64 bytes (a cache line, and the widest vector), for panels, KV pages,
// activations and scratch. Not zeroed unless asked: a large buffer that is filled at once should
// not be written twice. Large buffers come from mmap'ed pages that the system zeroes lazily anyway.
// Movable, not copyable; a moved-from buffer is empty. Thread-safety is the content's, as with an
// array.
#pragma once

#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>

#include "base/error.h"

namespace bakestone {

enum class Fill { kNone, kZero };

inline constexpr int64_t kBufferAlignment = 64;

// Bytes rounded up to a multiple of 64. Throws kOutOfMemory naming the size when refused, and
// kInvalidArgument for a negative size. Returns null for 0 bytes. Free with FreeAligned.
void* AllocateAligned(int64_t bytes, Fill fill);
void FreeAligned(void* data) noexcept;

template <class T>
class Buffer {
  static_assert(std::is_trivially_copyable_v<T> && alignof(T) <= kBufferAlignment);

 public:
  Buffer() = default;
  explicit Buffer(int64_t size, Fill fill = Fill::kNone) {
    int64_t bytes = 0;
    if (__builtin_mul_overflow(size, static_cast<int64_t>(sizeof(T)), &bytes)) {
      Throw(ErrorCode::kOutOfMemory, "a buffer of {} elements of {} bytes cannot be had", size,
            sizeof(T));
    }
    data_ = static_cast<T*>(AllocateAligned(bytes, fill));
    size_ = size;
  }
  ~Buffer() { FreeAligned(data_); }
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  T* data() noexcept { return data_; }
  const T* data() const noexcept { return data_; }
  int64_t size() const noexcept { return size_; }
  int64_t bytes() const noexcept { return size_ * static_cast<int64_t>(sizeof(T)); }
  bool empty() const noexcept { return size_ == 0; }
  T& operator[](int64_t i) noexcept { return data_[i]; }
  const T& operator[](int64_t i) const noexcept { return data_[i]; }
  T* begin() noexcept { return data_; }
  T* end() noexcept { return data_ + size_; }
  const T* begin() const noexcept { return data_; }
  const T* end() const noexcept { return data_ + size_; }
  std::span<T> span() noexcept { return {data_, static_cast<size_t>(size_)}; }
  std::span<const T> span() const noexcept { return {data_, static_cast<size_t>(size_)}; }

 private:
  T* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace bakestone
