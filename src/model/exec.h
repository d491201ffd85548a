// What a computation runs on: the kernel table, the threads, and the precision asked for.
#pragma once

#include "base/thread_pool.h"
#include "kernels/kernel_table.h"

namespace bakestone {

enum class Precision {
  kServe,  // integer dot products on quantized activations, KV in bf16: the numerics contract
  kExact,  // f32 activations, KV and sums over the same weights: for references and for judging others
};

struct Exec {
  const KernelTable& kernels;
  ThreadPool& pool;
  Precision precision = Precision::kServe;
};

}  // namespace bakestone
