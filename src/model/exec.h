// What a computation runs on: the kernel table, the threads, the precision asked for, and scratch memory
// that lives from one call to the next. One Exec belongs to one thread of control (an engine loop, an
// evaluation); make one with `Exec exec{kernels, pool};` and keep it.
#pragma once

#include "base/thread_pool.h"
#include "kernels/kernel_table.h"
#include "tensor/arena.h"

namespace bakestone {

enum class Precision {
  kServe,  // integer dot products on quantized activations, KV in bf16: the numerics contract
  kExact,  // f32 activations, KV and sums over the same weights: for references and for judging others
};

struct Exec {
  const KernelTable& kernels;
  ThreadPool& pool;
  Precision precision = Precision::kServe;
  Arena arena{};
};

}  // namespace bakestone
