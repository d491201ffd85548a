#include "ops/context.h"

#include "base/error.h"

namespace bakestone::ops {

Context::Context(const KernelTable& kernels, ThreadPool& pool)
    : kernels_(&kernels), pool_(&pool), scratch_(static_cast<size_t>(pool.num_threads())) {}

void Context::Reserve(int64_t bytes) {
  for (Buffer<uint8_t>& buffer : scratch_) {
    if (buffer.size() < bytes) buffer = Buffer<uint8_t>(bytes);
  }
}

float* Context::ReservePartials(int64_t floats) {
  if (partials_.size() < floats) partials_ = Buffer<float>(floats);
  return partials_.data();
}

float* Context::ReserveInner(int64_t floats) {
  if (inner_.size() < floats) inner_ = Buffer<float>(floats);
  return inner_.data();
}

int64_t Context::scratch_bytes() const noexcept {
  int64_t bytes = partials_.bytes() + inner_.bytes();
  for (const Buffer<uint8_t>& buffer : scratch_) bytes += buffer.bytes();
  return bytes;
}

void Context::ThrowIfError(const char* what) {
  const uint32_t error = __atomic_exchange_n(&error_, 0u, __ATOMIC_RELAXED);
  if (error == 0) return;
  Throw(ErrorCode::kInternal,
        "{}: expected finite numbers, found a NaN or an infinity; the weights (or the adapter) are "
        "damaged or do not belong together",
        what);
}

}  // namespace bakestone::ops
