#include "tensor/arena.h"

#include <algorithm>

namespace bakestone {
namespace {

constexpr int64_t kFirstBlock = int64_t{1} << 20;  // a decode step of a small model fits

}  // namespace

uint8_t* Arena::TakeBytes(int64_t bytes) {
  const int64_t rounded = (bytes + kBufferAlignment - 1) / kBufferAlignment * kBufferAlignment;
  while (block_ < blocks_.size() && blocks_[block_].size() - used_ < rounded) {
    ++block_;
    used_ = 0;
  }
  if (block_ == blocks_.size()) {
    // At least as much as is held already, so that the number of blocks stays logarithmic.
    blocks_.emplace_back(std::max({rounded, this->bytes(), kFirstBlock}));
  }
  uint8_t* data = blocks_[block_].data() + used_;
  used_ += rounded;
  return data;
}

void Arena::Release(size_t block, int64_t used) noexcept {
  block_ = block;
  used_ = used;
}

int64_t Arena::bytes() const noexcept {
  int64_t total = 0;
  for (const Buffer<uint8_t>& block : blocks_) total += block.size();
  return total;
}

}  // namespace bakestone
