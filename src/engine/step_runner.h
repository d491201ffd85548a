// Computes one step of the engine: lays the rows of many requests side by side, runs the decoder,
// samples. Internal to engine/; one thread.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "engine/mask_tasks.h"
#include "engine/sequence.h"
#include "model/decoder.h"

namespace bakestone {

// The next `count` pending tokens of a sequence, and what came of them.
struct Work {
  Sequence* sequence = nullptr;
  int64_t count = 0;
  std::vector<int32_t> draft = {};  // proposed to follow the pending tokens; only with all of those
  DraftKind draft_kind = DraftKind::kMatch2;
  // Set by Run.
  bool read_prompt = false;
  int64_t accepted = 0;             // of the draft
  int64_t drawn = 0;                // tokens of the answer
  std::optional<Error> error = {};  // of this sequence alone (sampling)
};

class StepRunner {
 public:
  // Ids from vocab_size on are never sampled.
  StepRunner(const Decoder& decoder, int32_t vocab_size, const KernelTable& kernels,
             ThreadPool& pool, Precision precision)
      : decoder_(decoder), vocab_size_(vocab_size), exec_(kernels, pool, precision) {}

  // Sorts the works by adapter. On return every sequence has committed its rows and, if its last
  // pending token was among them, has accepted a token, and one more for each token of its draft
  // that was drawn too. What was computed of the rest of the draft is forgotten. When it throws,
  // none has changed.
  void Run(std::span<Work> works, StatePool& pool);

 private:
  struct Row {  // one row of logits that somebody needs
    Work* work = nullptr;
    int64_t position = 0;            // of the token that this row predicts
    std::optional<int32_t> target;   // a prompt token to judge; absent: draw
    std::span<const int32_t> ahead;  // the draft's tokens before this position
    int32_t token = 0;               // drawn
    std::optional<RowLogprobs> logprobs;
    std::optional<Error> error;
  };
  void CutDrafts(std::span<Work> works);
  void StartMasks(std::span<Work> works);
  void Layout(std::span<Work> works);
  void Compute();
  void Sample(Row& row, std::span<float> logits) const;
  void Sample(MatrixView<float> logits, std::span<Row> rows);
  void Finish(Work& work, std::span<Row> rows, StatePool& pool);

  const Decoder& decoder_;
  int32_t vocab_size_;
  Exec exec_;
  std::vector<int32_t> tokens_, positions_, output_rows_;
  std::vector<SequenceRun> sequences_;
  std::vector<AdapterRun> adapters_;
  std::vector<Row> rows_;
  std::vector<float> hidden_, logits_;
  std::vector<int64_t> starts_;
  std::vector<const Work*> constrained_;  // whose masks are being found
  MaskTasks masks_;                       // last: they use what is above
};

}  // namespace bakestone
