// LoRA adapters as terms of matrix products, each on its rows of a step: y += scale * B (A x).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ops/context.h"
#include "ops/narrow_panel.h"
#include "ops/quantized_rows.h"

namespace bakestone::ops {

// A LoRA pair in bf16: a [r, in], b [out, r].
struct LoraPanels {
  NarrowPanel a;
  Panel b{};  // kBF16
  float scale = 0;
};

// What is added to rows of one of the products that are computed together.
struct LoraRun {
  const LoraPanels* lora;
  Range rows;
  int64_t product = 0;
};

// The form of x that adapters take.
ActType LoraActType(Precision precision);

// What runs add to products of x: the inner products A x are computed at once, and B times them
// where outputs of a product are, by the thread that computed those. Internal to ops/.
class LoraTerms {
 public:
  // x must have the form LoraActType(precision); the runs outlive this, and the context's room for
  // inner products is in use. A NaN or infinity in them throws kInternal.
  LoraTerms(Context& context, const QuantizedRows& x, std::span<const LoraRun> runs,
            Precision precision);

  bool empty() const noexcept { return runs_.empty(); }
  int64_t scratch_bytes() const noexcept { return scratch_bytes_; }  // of Add

  // What Add will read for these outputs of a product, from a multiple of 16 on: for the kernel
  // that computes them. The thread's until its next call.
  ReadNext Reads(int64_t product, Range outputs, Range rows, int thread) noexcept;

  // y [rows, stride] += what is added to these outputs. No two runs of a product have a row in
  // common.
  void Add(int64_t product, Range outputs, Range rows, float* y, int64_t stride,
           void* scratch) const noexcept;

 private:
  // Rows of runs [begin, end), which have the same ones: their inner products are one.
  struct Piece {
    size_t begin, end;
    Range rows;
  };
  struct PieceRoom;

  void Multiply(Context& context, const QuantizedRows& x);
  void MultiplyPiece(Context& context, const QuantizedRows& x, const Piece& piece,
                     const PieceRoom& room, uint8_t* scratch) const;
  // Rows of a run's inner products, from its first on.
  Activations Inner(size_t run, Range rows) const;

  std::span<const LoraRun> runs_;
  ActType type_;
  decltype(MatMulKernels::run) kernel_;
  std::vector<float*> inner_;  // of each run
  std::vector<Lines> reads_;   // [threads, runs]
  int64_t scratch_bytes_ = 0;
};

}  // namespace bakestone::ops
