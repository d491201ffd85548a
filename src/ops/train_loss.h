// The loss of hidden rows through a head, and its gradient, in tiles that stay in a core's cache:
// the first pass makes logits and takes of each tile what a row's softmax needs, the second makes
// gradients of it and multiplies them with the head's transpose at once. (To make logits again in
// the second pass, instead of reading them from memory, is slower even on tiles of AMX.) What a
// tile gives is a function of its place, and tiles are summed in order within slices of the
// vocabulary, slices in order too: the bits do not depend on the number of threads.
#pragma once

#include <cstdint>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/train_kernels.h"
#include "tensor/buffer.h"

namespace bakestone::ops {

// Hidden rows [rows, dim] bf16, readable to the end of a tile (kTrainTileRows), and the panels of a
// head [vocab, dim].
struct TrainHeadInput {
  const uint16_t *hidden, *panels;
};

struct TrainLossArgs {
  TrainHeadInput model;
  TrainHeadInput base;  // what KL is measured to; null: cross-entropy
  int64_t rows, dim, vocab;
  float soft_cap = 0;      // c: logits become c * tanh(logit / c); 0: as they are
  const int32_t* targets;  // [rows]
  double *nll, *kl;        // [rows] -log p(target), KL(base || model); kl is untouched without base
  uint8_t* correct;        // [rows] 1: the largest logit (lowest id among equals) is the target
  // The gradient; unless transposed is null.
  const uint16_t* transposed;  // as TransposeHead made it
  const float* factors;        // [rows] weight of the row's loss times the gradient's scale
  float* d_hidden;             // [rows, dim], overwritten
  uint16_t* d_logits;          // [rows, d_stride], zero from vocab on; null: not wanted
  int64_t d_stride;            // vocab rounded up to whole panels
};

// Panels of a head [vocab, dim] -> those of its transpose, one unit of the vocabulary after the
// other: PanelsOf(vocab) * 16 * dim elements.
void TransposeHead(const TrainKernels& kernels, ThreadPool& pool, const uint16_t* panels,
                   int64_t vocab, int64_t dim, uint16_t* out);

class TrainLoss {
 public:
  TrainLoss(const TrainKernels& kernels, ThreadPool& pool);

  // The most rows that Run is at its best with, for the memory that it then holds.
  static int64_t BestRows(int64_t dim, int64_t vocab);
  // At most, of that many rows.
  static int64_t BytesOf(int64_t rows, int64_t dim, int64_t vocab, bool base);

  void Run(const TrainLossArgs& args);
  int64_t bytes() const noexcept;

 private:
  struct Tile {
    int64_t row, rows, first, cols;  // cols: of the vocabulary; the product makes whole panels
  };
  // What is read after a unit, of which each of its tiles fetches a share.
  struct Next {
    const uint16_t* panels = nullptr;
    int64_t bytes = 0;
  };
  static Next NextUnit(const uint16_t* panels, const TrainLossArgs& args, int64_t unit,
                       int64_t share, int64_t shares);
  void Reserve(const TrainLossArgs& args);
  // Where the logits of a tile are kept between the passes.
  static float* Kept(Buffer<float>& kept, const TrainLossArgs& args, const Tile& tile);
  // next: fetched meanwhile.
  const float* MakeLogits(const TrainLossArgs& args, const TrainHeadInput& head, const Tile& tile,
                          const Next& next, Buffer<float>& kept);
  void FirstPass(const TrainLossArgs& args);
  void Combine(const TrainLossArgs& args);
  void SecondPass(const TrainLossArgs& args);
  void Slice(const TrainLossArgs& args, int64_t slice, int64_t row_begin, int64_t row_end,
             Buffer<uint16_t>& d_scratch);

  const TrainKernels& kernels_;
  ThreadPool& pool_;
  std::vector<Buffer<uint16_t>> scratch_;          // a thread's: the gradient of a tile
  Buffer<float> kept_, kept_base_;                 // [unit][rows][columns of a unit]
  Buffer<float> partial_;                          // [slice][rows][dim]
  std::vector<TrainLossPart> parts_, base_parts_;  // [unit][rows]
  std::vector<float> target_logits_, log_sums_, base_log_sums_;
  std::vector<uint8_t> leads_;  // [rows] no logit before the target's in its unit is as large
  std::vector<double> kl_;      // [slice][rows]
};

}  // namespace bakestone::ops
