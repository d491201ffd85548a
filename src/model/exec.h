// What a computation runs on: the kernel table, the threads, the precision asked for, and scratch memory
// that lives from one call to the next. One Exec belongs to one thread of control (an engine loop, an
// evaluation); make one with `Exec exec{kernels, pool};` and keep it.
#pragma once

#include "base/thread_pool.h"
#include "kernels/kernel_table.h"
#include "ops/context.h"
#include "tensor/arena.h"

namespace bakestone {

struct Exec {
  const KernelTable& kernels;
  ThreadPool& pool;
  Precision precision = Precision::kServe;
  ops::Context ops{kernels, pool};  // keeps the scratch of the ops between calls
  Arena arena{};
};

}  // namespace bakestone
