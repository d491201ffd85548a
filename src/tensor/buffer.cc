#include "tensor/buffer.h"

#include <cstdlib>
#include <cstring>

namespace bakestone {

void* AllocateAligned(int64_t bytes, Fill fill) {
  if (bytes < 0) {
    Throw(ErrorCode::kInvalidArgument, "a buffer: expected a size of 0 or more, found {} bytes",
          bytes);
  }
  if (bytes == 0) return nullptr;
  void* data = nullptr;
  if (bytes <= INT64_MAX - kBufferAlignment) {
    const int64_t rounded = (bytes + kBufferAlignment - 1) / kBufferAlignment * kBufferAlignment;
    data = std::aligned_alloc(kBufferAlignment, static_cast<size_t>(rounded));
    if (data != nullptr && fill == Fill::kZero) std::memset(data, 0, static_cast<size_t>(rounded));
  }
  if (data == nullptr) {
    Throw(ErrorCode::kOutOfMemory,
          "the system refused {} bytes of memory; use a smaller model, "
          "context or batch, or free memory",
          bytes);
  }
  return data;
}

void FreeAligned(void* data) noexcept {
  std::free(data);
}

}  // namespace bakestone
