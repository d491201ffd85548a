#include "train/batches.h"

#include <algorithm>
#include <cmath>
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
    to.trained.insert(to.trained.end(), sample.trained.begin() + sample.lead, sample.trained.end());
    to.num_trained += sample.num_trained;
    ++last.count;
  }
  return joined;
}

std::vector<PackedBatch> Pack(std::span<const SampleView> samples, int64_t max_tokens) {
  std::vector<PackedBatch> batches;
  for (const SampleView& sample : samples) {
    const auto size = static_cast<int64_t>(sample.tokens.size());
    if (batches.empty() || static_cast<int64_t>(batches.back().tokens.size()) + size > max_tokens) {
      batches.emplace_back();
    }
    batches.back().Add(sample);
  }
  return batches;
}

SampleOrder::SampleOrder(std::vector<Part> parts, uint64_t seed, uint64_t stream)
    : parts_(std::move(parts)), seed_(seed), stream_(stream) {
  int64_t size = 0;
  for (const Part& part : parts_) {
    size += std::llround(part.weight * static_cast<double>(part.size));
  }
  BAKESTONE_CHECK(size > 0);
  permutation_.resize(static_cast<size_t>(size));
}

int64_t SampleOrder::At(int64_t n) {
  const int64_t epoch = n / epoch_size();
  if (epoch != epoch_) Shuffle(epoch);
  const int64_t at = permutation_[static_cast<size_t>(n % epoch_size())];
  return members_.empty() ? at : members_[static_cast<size_t>(at)];
}

// Which units the epoch has, where that is not each once.
void SampleOrder::Fill(int64_t epoch) {
  const bool plain =
      std::all_of(parts_.begin(), parts_.end(), [](const Part& part) { return part.weight == 1; });
  if (plain) return;
  members_.clear();
  int64_t begin = 0;
  uint64_t stream = stream_;
  for (const Part& part : parts_) {
    const int64_t count = std::llround(part.weight * static_cast<double>(part.size));
    const int64_t whole = part.size == 0 ? 0 : count / part.size * part.size;
    for (int64_t i = 0; i < whole; ++i) members_.push_back(begin + i % part.size);
    stream += uint64_t{1} << 32;
    if (whole < count) {
      SampleOrder order(part.size, seed_, stream);
      for (int64_t i = 0; i < count - whole; ++i) {
        members_.push_back(begin + order.At(epoch * (count - whole) + i));
      }
    }
    begin += part.size;
  }
}

void SampleOrder::Shuffle(int64_t epoch) {
  epoch_ = epoch;
  Fill(epoch);
  std::iota(permutation_.begin(), permutation_.end(), 0);
  // Fisher-Yates; every epoch draws from a stretch of the counter of its own.
  Rng rng(seed_, stream_);
  rng.set_counter(static_cast<uint64_t>(epoch) << 40);
  for (int64_t i = epoch_size() - 1; i > 0; --i) {
    const auto j = static_cast<int64_t>(rng.Below(static_cast<uint64_t>(i) + 1));
    std::swap(permutation_[static_cast<size_t>(i)], permutation_[static_cast<size_t>(j)]);
  }
}

}  // namespace bakestone
