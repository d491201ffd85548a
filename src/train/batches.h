// Which samples a step takes, and how they are packed. A pure function of (seed, stage, step): a
// run that resumes at step n sees what an uninterrupted one would have seen, with nothing to save.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/trainer_pass.h"
#include "train/sample_file.h"

namespace bakestone {

// Documents packed one after another; owns what a TrainBatch views.
struct PackedBatch {
  std::vector<int32_t> tokens, positions, document_begins, loss_rows, targets;
  std::vector<float> weights;
  std::vector<PreferencePair> pairs;  // of documents in it; empty: none are compared

  void Add(const SampleView& sample);
  bool empty() const { return tokens.empty(); }
  TrainBatch View() const;
};

// Joins conversations that share a lead, in order, up to `join` of them and max_tokens in one
// sample; the others stay as they are. Result in the order of each one's first conversation.
std::vector<Sample> Join(std::span<const SampleView> samples, int64_t join, int64_t max_tokens);

// Packs samples, in order, into micro-batches of at most max_tokens (a longer sample stands alone).
std::vector<PackedBatch> Pack(std::span<const SampleView> samples, int64_t max_tokens);

// An endless sequence of the units of a data set: a fresh permutation every epoch, in which a part
// of weight w stands w times; what is left of a whole number is drawn from that part, over the
// epochs each unit as often.
class SampleOrder {
 public:
  struct Part {
    int64_t size = 0;
    double weight = 1;
  };
  SampleOrder(std::vector<Part> parts, uint64_t seed, uint64_t stream);
  SampleOrder(int64_t num_samples, uint64_t seed, uint64_t stream)
      : SampleOrder({{num_samples, 1}}, seed, stream) {}
  int64_t epoch_size() const { return static_cast<int64_t>(permutation_.size()); }
  // Index of the n-th unit drawn. Amortized constant time for ascending n.
  int64_t At(int64_t n);

 private:
  void Shuffle(int64_t epoch);
  void Fill(int64_t epoch);

  std::vector<Part> parts_;
  uint64_t seed_, stream_;
  int64_t epoch_ = -1;
  std::vector<int64_t> members_;  // of the epoch; empty where they are 0, 1, 2, ...
  std::vector<int64_t> permutation_;
};

}  // namespace bakestone
