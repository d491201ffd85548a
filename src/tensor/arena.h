// Scratch memory that is taken and given back in stack order, and kept between uses: a decode step
// allocates nothing from the system once the first step of its size has run. A Scope gives back all
// that was taken since it was made; pointers taken within it die with it.
//
// Not thread-safe: it belongs to the one thread that runs a computation (workers write into what it
// handed out). Memory is aligned to 64 bytes and not initialized.
#pragma once

#include <cstdint>
#include <type_traits>
#include <vector>

#include "tensor/buffer.h"
#include "tensor/matrix_view.h"

namespace bakestone {

class Arena {
 public:
  // n elements. Throws kOutOfMemory when the system refuses.
  template <class T>
  T* Take(int64_t n) {
    static_assert(std::is_trivially_copyable_v<T> && alignof(T) <= kBufferAlignment);
    int64_t bytes = 0;
    if (n < 0 || __builtin_mul_overflow(n, static_cast<int64_t>(sizeof(T)), &bytes)) {
      Throw(ErrorCode::kOutOfMemory, "scratch of {} elements of {} bytes cannot be had", n,
            sizeof(T));
    }
    return reinterpret_cast<T*>(TakeBytes(bytes));
  }
  template <class T>
  MatrixView<T> TakeMatrix(int64_t rows, int64_t cols) {
    return DenseView(Take<T>(rows * cols), rows, cols);
  }

  class Scope {
   public:
    explicit Scope(Arena& arena) : arena_(arena), block_(arena.block_), used_(arena.used_) {}
    ~Scope() { arena_.Release(block_, used_); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Arena& arena_;
    size_t block_;
    int64_t used_;
  };

  int64_t bytes() const noexcept;  // held from the system

 private:
  uint8_t* TakeBytes(int64_t bytes);
  void Release(size_t block, int64_t used) noexcept;

  // Blocks before block_ are full, used_ bytes of block_ are taken, the rest is free.
  std::vector<Buffer<uint8_t>> blocks_;
  size_t block_ = 0;
  int64_t used_ = 0;
};

}  // namespace bakestone
