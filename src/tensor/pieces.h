// Several arrays in one allocation, so that those too small for huge pages of their own share some:
// a training step walks hundreds of megabytes of activations with strides of whole pages, and on
// pages of 4 KiB waits for their walks.
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <span>
#include <vector>

#include "tensor/buffer.h"

namespace bakestone {

class Pieces {
 public:
  // The arrays that a Plan names, at least as long as it says; all of them zero and elsewhere after
  // one of them grew.
  class Plan {
   public:
    template <class T>
    void Add(std::span<T>& piece, int64_t size) {
      const auto have = static_cast<int64_t>(piece.size());
      grows_ = grows_ || size > have;
      const int64_t wanted = std::max(size, have), begin = bytes_;
      bytes_ += (wanted * static_cast<int64_t>(sizeof(T)) + kBufferAlignment - 1) /
                kBufferAlignment * kBufferAlignment;
      pieces_.push_back([&piece, wanted, begin](std::byte* block) {
        piece = {reinterpret_cast<T*>(block + begin), static_cast<size_t>(wanted)};
      });
    }

    int64_t bytes() const noexcept { return bytes_; }

   private:
    friend class Pieces;
    std::vector<std::function<void(std::byte*)>> pieces_;
    int64_t bytes_ = 0;
    bool grows_ = false;
  };

  // The plan names every array of these pieces, each time.
  void Reserve(const Plan& plan) {
    if (!plan.grows_) return;
    block_ = {};
    block_ = Buffer<std::byte>(plan.bytes_, Fill::kZero);
    for (const auto& place : plan.pieces_) place(block_.data());
  }
  int64_t bytes() const noexcept { return block_.bytes(); }

 private:
  Buffer<std::byte> block_;
};

}  // namespace bakestone
