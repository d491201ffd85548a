// Everything a run needs to go on as if it had never stopped, in one file, written whole or not at
// all.
//
//   "BAKECKPT"  u32 version = 1  u32 zero
//   u64 length of the header, then a JSON object: {"key", "stage", "step", "size", "log_bytes",
//   ...} f32 masters[size], then unless "finished": f32 first moments[size], second moments[size]
//   SHA-256 of all bytes before it
//
// The order of data is a function of (seed, stage, step) and needs no state here.
#pragma once

#include <cstdint>
#include <filesystem>
#include <future>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tensor/aligned_vector.h"

namespace bakestone {

struct Checkpoint {
  std::string key;         // of the recipe, data and base that it belongs to
  int64_t stage = 0;       // index
  int64_t step = 0;        // steps done in that stage
  int64_t tokens = 0;      // processed so far, all stages
  double seconds = 0;      // spent training so far
  int64_t log_bytes = 0;   // of the JSONL log when this was written
  int64_t best_step = -1;  // of the lowest held-out loss so far; -1: none
  double best_loss = 0;
  double best_answers = 0;  // share of the question file that was answered then
  int64_t worse = 0;        // looks since then
  bool stopped = false;     // because of them
  AlignedVector<float> masters;
  AlignedVector<float> first_moments, second_moments;  // empty: the stage is finished
};

void WriteCheckpoint(const std::filesystem::path& path, const Checkpoint& checkpoint);

// Writes checkpoints beside the work that goes on: one at a time, of a copy. What is too large to
// be copied (the moments of a whole model) is written before Write returns.
class CheckpointWriter {
 public:
  explicit CheckpointWriter(std::filesystem::path path) : path_(std::move(path)) {}

  // Throws what the one before threw.
  void Write(const Checkpoint& checkpoint);
  // Until the last one is written; throws what that threw.
  void Wait();

 private:
  const std::filesystem::path path_;
  std::future<void> pending_;
};

// nullopt: no such file. Throws kCorrupt naming file, expected and found for a damaged one.
std::optional<Checkpoint> ReadCheckpoint(const std::filesystem::path& path);

}  // namespace bakestone
