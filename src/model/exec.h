// What a computation runs on: the kernel table, the threads, the precision asked for, and the
// scratch that the decoder keeps from one call to the next, so that a step of a size it has seen
// asks the system for no memory. One Exec belongs to one thread of control (an engine's loop, an
// evaluation): make it once, `Exec exec(kernels, pool);`, and keep it. It is not tied to a model.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/kernel_table.h"
#include "ops/attention.h"
#include "ops/context.h"
#include "ops/linear.h"
#include "ops/rows.h"
#include "tensor/arena.h"

namespace bakestone {

// A step's angles: of layers with the main rope, and of those with the local one where there are
// any.
struct RopeTables {
  std::optional<ops::RopeTable> main, local;
  // far: of the main ones, as RopeTable::Set has it.
  void Set(std::span<const int32_t> positions, std::span<const uint8_t> far) {
    main->Set(positions, far);
    if (local) local->Set(positions);
  }
};

// The decoder's own; nobody else reads it.
struct DecoderScratch {
  Arena arena;
  ops::QuantizedRows rows;                     // input of a matrix product
  ops::QuantizedRows next_rows;                // what is made of it, before it takes its place
  RopeTables rope, out_rope;                   // of all rows, of the output rows
  std::vector<ops::TemporaryPages> run_pages;  // of the runs without a state
};

struct Exec {
  // References must outlive it.
  Exec(const KernelTable& kernels, ThreadPool& pool, Precision precision = Precision::kServe)
      : kernels(kernels), pool(pool), precision(precision), context(kernels, pool) {}

  const KernelTable& kernels;
  ThreadPool& pool;
  Precision precision;
  ops::Context context;
  DecoderScratch scratch;
};

}  // namespace bakestone
