// Several changes to one tensor, made one, row by row. With W the base, d_i what contender i
// changes and w_i its weight, the merged tensor is
//
//   sum        W + sum w_i d_i                   weighted sum, task arithmetic; a linear mean of
//                                                models too, since W + w (M - W) = (1 - w) W + w M
//   ties       W + mean over those that agree    of each d_i only the `density` largest stay; the
//                                                sign of sum w_i d_i is elected, and those with
//                                                that sign are averaged by weight (Yadav et al.
//                                                2023, arXiv:2306.01708)
//   dare-ties  the same, but a random share of 1 - density of each d_i is dropped and the rest
//                                                divided by density (Yu et al. 2023,
//                                                arXiv:2311.03099); the draws depend on seed,
//                                                contender and place only
//   slerp      one contender: on the arc from W to W + d, the whole tensor as one vector, at w
//
// Rows may be made by any number of threads once Prepare is done.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "base/thread_pool.h"
#include "ops/encode.h"

namespace bakestone {

enum class MergeMethod : uint8_t { kSum, kTies, kDareTies, kSlerp };

struct MergeOptions {
  MergeMethod method = MergeMethod::kSum;
  double density = 0.5;  // (0, 1]: what stays of each change, with ties and dare-ties
  uint64_t seed = 1;     // of dare-ties
};

struct Change {
  double weight = 1;
  // delta [count, cols] of rows [row, row + count), whose base values are given. Any thread; does
  // not throw.
  std::function<void(int64_t row, int64_t count, const float* base, float* delta)> rows;
};

class Combination {
 public:
  // stream: which tensor it is, for the draws.
  Combination(ops::RowSource base, int64_t rows, int64_t cols, std::vector<Change> changes,
              MergeOptions options, uint64_t stream);
  // What depends on the whole tensor: thresholds of ties, the angle of slerp. Once, before Rows.
  void Prepare(ThreadPool& pool);
  void Rows(int64_t row, int64_t count, float* x) const;

 private:
  void FindThresholds(ThreadPool& pool);
  void FindArc(ThreadPool& pool);
  void Thin(size_t change, int64_t row, int64_t count, float* delta) const;
  void AddAgreeing(int64_t values, const float* deltas, float* x) const;

  const ops::RowSource base_;
  const int64_t rows_, cols_;
  const std::vector<Change> changes_;
  const MergeOptions options_;
  const uint64_t stream_;
  std::vector<float> thresholds_;              // ties: magnitudes below are dropped
  double base_factor_ = 1, other_factor_ = 0;  // slerp: W * base_factor + (W + d) * other_factor
};

}  // namespace bakestone
