#include "train/batches.h"

#include <map>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "base/rng.h"

namespace bakestone {

void PackedBatch::Add(const SampleView& sample) {
  const auto begin = static_cast<int32_t>(tokens.size());
  document_begins.push_back(begin);
  for (size_t i = 0; i < sample.tokens.size(); ++i) {
    tokens.push_back(sample.tokens[i]);
    positions.push_back(static_cast<int32_t>(i));
    if (i + 1 < sample.tokens.size() && sample.trained[i + 1] != 0) {
      loss_rows.push_back(begin + static_cast<int32_t>(i));
      targets.push_back(sample.tokens[i + 1]);
      weights.push_back(1.0f);
    }
  }
}

TrainBatch PackedBatch::View() const {
  return {tokens, positions, document_begins, loss_rows, targets, weights};
}

namespace {

Sample Copy(const SampleView& sample) {
  return {{sample.tokens.begin(), sample.tokens.end()},
          {sample.trained.begin(), sample.trained.end()},
          sample.num_trained,
          sample.lead,
          sample.row};
}

}  // namespace

std::vector<Sample> Join(std::span<const SampleView> samples, int64_t join, int64_t max_tokens) {
  struct Open {
    size_t index;       // in joined
    int64_t count = 1;  // conversations in it
  };
  std::vector<Sample> joined;
  std::map<std::vector<int32_t>, Open> open;  // by lead
  for (const SampleView& sample : samples) {
    if (sample.lead == Sample::kStandsAlone) {
      joined.push_back(Copy(sample));
      continue;
    }
    const auto lead = sample.tokens.begin() + sample.lead;
    const auto [found, is_new] =
        open.try_emplace({sample.tokens.begin(), lead}, Open{joined.size()});
    Open& last = found->second;
    const int64_t added = sample.tokens.end() - lead;
    if (is_new || last.count == join ||
        static_cast<int64_t>(joined[last.index].tokens.size()) + added > max_tokens) {
      last = {joined.size()};
      joined.push_back(Copy(sample));
      continue;
    }
    Sample& to = joined[last.index];
    to.tokens.insert(to.tokens.end(), lead, sample.tokens.end());
    to.trained.insert(to.trained.end(), sample.trained.begin() + sample.lead,
                      sample.trained.end());
    to.num_trained += sample.num_trained;
    ++last.count;
  }
  return joined;
}

std::vector<PackedBatch> Pack(std::span<const SampleView> samples, int64_t max_tokens) {
  std::vector<PackedBatch> batches;
  for (const SampleView& sample : samples) {
    const auto size = static_cast<int64_t>(sample.tokens.size());
    if (batches.empty() ||
        static_cast<int64_t>(batches.back().tokens.size()) + size > max_tokens) {
      batches.emplace_back();
    }
    batches.back().Add(sample);
  }
  return batches;
}

SampleOrder::SampleOrder(int64_t num_samples, uint64_t seed, uint64_t stream)
    : num_samples_(num_samples), seed_(seed), stream_(stream) {
  BAKESTONE_CHECK(num_samples > 0);
  permutation_.resize(static_cast<size_t>(num_samples));
}

int64_t SampleOrder::At(int64_t n) {
  const int64_t epoch = n / num_samples_;
  if (epoch != epoch_) Shuffle(epoch);
  return permutation_[static_cast<size_t>(n % num_samples_)];
}

void SampleOrder::Shuffle(int64_t epoch) {
  epoch_ = epoch;
  std::iota(permutation_.begin(), permutation_.end(), 0);
  // Fisher-Yates; every epoch draws from a stretch of the counter of its own.
  Rng rng(seed_, stream_);
  rng.set_counter(static_cast<uint64_t>(epoch) << 40);
  for (int64_t i = num_samples_ - 1; i > 0; --i) {
    const auto j = static_cast<int64_t>(rng.Below(static_cast<uint64_t>(i) + 1));
    std::swap(permutation_[static_cast<size_t>(i)], permutation_[static_cast<size_t>(j)]);
  }
}

}  // namespace bakestone
