// How long a step will take, before it is computed: so much for reading the weights, for each row,
// for each row of logits, and for each key that a row attends to; a prompt's chunk at position
// 30,000 costs more than one at 0. The shape is measured once (ProbeStepCost) or assumed; one
// factor follows what steps really take. One thread.
#pragma once

#include <cstdint>

#include "base/thread_pool.h"
#include "kernels/kernel_table.h"
#include "model/exec.h"
#include "model/model.h"
#include "model/sequence_state.h"

namespace bakestone {

// What a step has to do.
struct StepSize {
  int64_t rows = 0, outputs = 0;  // outputs: rows whose logits are needed
  double keys = 0;                // over all rows, of the positions before and at each
  void Add(int64_t position, int64_t count,
           int64_t logits);  // a sequence's rows from `position` on
};

class StepCost {
 public:
  struct Shape {  // seconds
    double step = 0, row = 0, output = 0, key = 0;
  };
  StepCost() =
      default;  // nothing is known of this machine: Known() is false until a step was learned
  explicit StepCost(const Shape& measured) : shape_(measured), factor_(1) {}

  bool Known() const { return factor_ > 0; }
  double Predict(const StepSize& size) const;
  // The most rows from `position` on that add no more than `seconds` to a step. Where nothing is
  // known: 0.
  int64_t RowsWithin(double seconds, int64_t position) const;
  void Learn(const StepSize& size, double seconds);
  const Shape& shape() const { return shape_; }

 private:
  Shape shape_{.row = 1, .key = 1e-4};
  double factor_ = 0;
};

// Computes a few small steps that nobody asked for; some ten times a decode's. The allocator gives
// the pages.
StepCost ProbeStepCost(const Model& model, const KernelTable& kernels, ThreadPool& pool,
                       Precision precision, KvType kv_type, KvPageAllocator& pages,
                       int64_t most_pages);

}  // namespace bakestone
