// What an op runs on: the table, the threads, and the scratch that kernels need. Ops check shapes
// (BAKESTONE_CHECK: a wrong shape is a defect in the caller), split the work over the pool and call
// the table; results never depend on the number of threads. A Context keeps its scratch between
// calls; one thread at a time uses it (and its pool).
#pragma once

#include <cstdint>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/kernel_table.h"
#include "tensor/buffer.h"

namespace bakestone {

enum class Precision {
  kServe,  // integer dot products on quantized activations, KV in bf16: the numerics contract
  kExact,  // f32 activations, KV and sums over the same weights: for references and for judging
           // others
};

namespace ops {

// Is shown the inputs of every product with a matrix of the model (not of an adapter), before it is
// computed, by the thread that computes: how an importance matrix is collected. Panels are told
// apart by their data.
class ProductWatcher {
 public:
  virtual void Product(const Activations& x, const Panel& panel) = 0;

 protected:
  ~ProductWatcher() = default;
};

class Context {
 public:
  // References must outlive it.
  Context(const KernelTable& kernels, ThreadPool& pool);

  const KernelTable& kernels() const noexcept { return *kernels_; }
  const ServeKernels& serve() const noexcept { return kernels_->serve; }
  ThreadPool& pool() const noexcept { return *pool_; }

  // Room for `bytes` of scratch for each thread (before a parallel loop; throws kOutOfMemory).
  void Reserve(int64_t bytes);
  uint8_t* scratch(int thread) noexcept { return scratch_[static_cast<size_t>(thread)].data(); }

  // Room for that many floats that threads share: partial results of attention. Aligned to 64.
  float* ReservePartials(int64_t floats);

  // The same for the inner products of adapters (ops/lora.h).
  float* ReserveInner(int64_t floats);

  // Bytes held for all of these.
  int64_t scratch_bytes() const noexcept;

  // Null for none, as it is at first. It must outlive its use.
  void Watch(ProductWatcher* watcher) noexcept { watcher_ = watcher; }
  ProductWatcher* watcher() const noexcept { return watcher_; }

  // Kernels set bits here; ThrowIfError reports and clears them (kInternal, naming `what`).
  uint32_t* error() noexcept { return &error_; }
  void ThrowIfError(const char* what);

 private:
  const KernelTable* kernels_;
  ThreadPool* pool_;
  std::vector<Buffer<uint8_t>> scratch_;
  Buffer<float> partials_;
  Buffer<float> inner_;
  ProductWatcher* watcher_ = nullptr;
  uint32_t error_ = 0;
};

}  // namespace ops
}  // namespace bakestone
