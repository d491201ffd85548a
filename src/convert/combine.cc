#include "convert/combine.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "base/rng.h"

namespace bakestone {
namespace {

constexpr int64_t kValuesAtOnce = 1 << 15;

// Magnitudes are counted by the upper bits of their floats: 2^20 buckets, each 1/4096 of its values
// wide.
constexpr int kBucketShift = 11;
constexpr size_t kBuckets = size_t{1} << (31 - kBucketShift);

size_t BucketOf(float value) {
  return (std::bit_cast<uint32_t>(value) & 0x7fffffffu) >> kBucketShift;
}

// Scratch of the thread that asks: grown once.
std::vector<float>& ThreadSpace(size_t which, size_t size) {
  thread_local std::vector<float> space[2];
  if (space[which].size() < size) space[which].resize(size);
  return space[which];
}

}  // namespace

Combination::Combination(ops::RowSource base, int64_t rows, int64_t cols,
                         std::vector<Change> changes, MergeOptions options, uint64_t stream)
    : base_(std::move(base)),
      rows_(rows),
      cols_(cols),
      changes_(std::move(changes)),
      options_(options),
      stream_(stream) {
  BAKESTONE_CHECK(!changes_.empty() && changes_.size() < 256 && options_.density > 0 &&
                  options_.density <= 1);
  BAKESTONE_CHECK(options_.method != MergeMethod::kSlerp || changes_.size() == 1);
}

void Combination::Prepare(ThreadPool& pool) {
  if (options_.method == MergeMethod::kTies) FindThresholds(pool);
  if (options_.method == MergeMethod::kSlerp) FindArc(pool);
}

void Combination::FindThresholds(ThreadPool& pool) {
  const int64_t at_once = std::max<int64_t>(1, kValuesAtOnce / cols_);
  thresholds_.clear();
  for (const Change& change : changes_) {
    std::vector<std::vector<int64_t>> counts(static_cast<size_t>(pool.num_threads()));
    pool.ParallelFor(rows_, at_once, [&](int64_t begin, int64_t end, int thread) {
      std::vector<int64_t>& count = counts[static_cast<size_t>(thread)];
      count.resize(kBuckets);
      const auto size = static_cast<size_t>((end - begin) * cols_);
      std::vector<float>&base = ThreadSpace(0, size), &delta = ThreadSpace(1, size);
      base_(begin, end - begin, base.data());
      change.rows(begin, end - begin, base.data(), delta.data());
      for (size_t i = 0; i < size; ++i) ++count[BucketOf(delta[i])];
    });
    auto left =
        static_cast<int64_t>(std::ceil(options_.density * static_cast<double>(rows_ * cols_)));
    size_t bucket = kBuckets;
    while (bucket > 0 && left > 0) {
      --bucket;
      for (const auto& count : counts) left -= count.empty() ? 0 : count[bucket];
    }
    thresholds_.push_back(std::bit_cast<float>(static_cast<uint32_t>(bucket) << kBucketShift));
  }
}

void Combination::FindArc(ThreadPool& pool) {
  // Sums of one piece at a time, then over the pieces in order: no number of threads changes them.
  const int64_t at_once = std::max<int64_t>(1, kValuesAtOnce / cols_),
                pieces = (rows_ + at_once - 1) / at_once;
  struct Sums {
    double aa = 0, bb = 0, ab = 0;
  };
  std::vector<Sums> sums(static_cast<size_t>(pieces));
  pool.ParallelFor(pieces, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t piece = begin; piece < end; ++piece) {
      const int64_t row = piece * at_once, count = std::min(at_once, rows_ - row);
      const auto size = static_cast<size_t>(count * cols_);
      std::vector<float>&base = ThreadSpace(0, size), &delta = ThreadSpace(1, size);
      base_(row, count, base.data());
      changes_[0].rows(row, count, base.data(), delta.data());
      Sums& sum = sums[static_cast<size_t>(piece)];
      for (size_t i = 0; i < size; ++i) {
        const auto a = static_cast<double>(base[i]), b = a + static_cast<double>(delta[i]);
        sum.aa += a * a;
        sum.bb += b * b;
        sum.ab += a * b;
      }
    }
  });
  Sums total;
  for (const Sums& sum : sums) {
    total.aa += sum.aa;
    total.bb += sum.bb;
    total.ab += sum.ab;
  }
  const double t = changes_[0].weight;
  base_factor_ = 1 - t;
  other_factor_ = t;
  const double cosine = total.ab / std::sqrt(total.aa * total.bb);
  if (!(std::fabs(cosine) < 0.9995)) return;  // nearly one line (or a zero): the chord is the arc
  const double angle = std::acos(cosine);
  base_factor_ = std::sin((1 - t) * angle) / std::sin(angle);
  other_factor_ = std::sin(t * angle) / std::sin(angle);
}

void Combination::Thin(size_t change, int64_t row, int64_t count, float* delta) const {
  const auto values = static_cast<size_t>(count * cols_);
  if (options_.method == MergeMethod::kTies) {
    const float least = thresholds_[change];
    for (size_t i = 0; i < values; ++i) delta[i] = std::fabs(delta[i]) >= least ? delta[i] : 0.0f;
  } else if (options_.method == MergeMethod::kDareTies) {
    const uint64_t stream = stream_ << 8 | change;
    const auto first = static_cast<uint64_t>(row * cols_);
    const auto scale = static_cast<float>(1 / options_.density);
    for (size_t i = 0; i < values; ++i) {
      delta[i] = UniformDouble(options_.seed, stream, first + i) < options_.density
                     ? delta[i] * scale
                     : 0.0f;
    }
  }
}

void Combination::AddAgreeing(int64_t values, const float* deltas, float* x) const {
  for (int64_t i = 0; i < values; ++i) {
    double elected = 0, sum = 0, weights = 0;
    for (size_t c = 0; c < changes_.size(); ++c) {
      elected +=
          changes_[c].weight * static_cast<double>(deltas[static_cast<int64_t>(c) * values + i]);
    }
    for (size_t c = 0; c < changes_.size(); ++c) {
      const double part =
          changes_[c].weight * static_cast<double>(deltas[static_cast<int64_t>(c) * values + i]);
      if (part == 0 || (part > 0) != (elected > 0)) continue;
      sum += part;
      weights += std::fabs(changes_[c].weight);
    }
    if (weights > 0) x[i] += static_cast<float>(sum / weights);
  }
}

void Combination::Rows(int64_t row, int64_t count, float* x) const {
  base_(row, count, x);
  const int64_t values = count * cols_;
  const auto size = static_cast<size_t>(values);
  float* deltas = ThreadSpace(0, size * changes_.size()).data();
  for (size_t c = 0; c < changes_.size(); ++c) {
    float* delta = deltas + static_cast<int64_t>(c) * values;
    changes_[c].rows(row, count, x, delta);
    Thin(c, row, count, delta);
  }
  if (options_.method == MergeMethod::kTies || options_.method == MergeMethod::kDareTies) {
    AddAgreeing(values, deltas, x);
    return;
  }
  if (options_.method == MergeMethod::kSlerp) {
    for (size_t i = 0; i < size; ++i) {
      const auto a = static_cast<double>(x[i]), b = a + static_cast<double>(deltas[i]);
      x[i] = static_cast<float>(base_factor_ * a + other_factor_ * b);
    }
    return;
  }
  for (size_t c = 0; c < changes_.size(); ++c) {
    const auto weight = static_cast<float>(changes_[c].weight);
    const float* delta = deltas + static_cast<int64_t>(c) * values;
    for (size_t i = 0; i < size; ++i) x[i] += weight * delta[i];
  }
}

}  // namespace bakestone
