// Speculative decoding: proposes up to N tokens that may follow a sequence; the step that computes
// its next token computes theirs too, and keeps those that it would have drawn anyway. The target's
// token is drawn from its own logits with its own (seed, position) and compared, so the answer is
// the same bit for bit, greedy or sampled, whatever was proposed.
//
// Proposals come from the text itself (prompt_lookup.h) and, where there is one, from a draft model
// with the same vocabulary (draft_model.h). DraftPolicy stops proposing where it does not pay.
// Internal to engine/, except SpeculationOptions; one thread.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "engine/draft_policy.h"
#include "engine/prompt_lookup.h"
#include "model/model.h"
#include "model/sequence_state.h"

namespace bakestone {

enum class Speculation {
  kOff,
  kAuto,    // proposes what pays
  kAlways,  // proposes whatever it can, pay or not: for tests and measurements
};

struct SpeculationOptions {
  Speculation mode = Speculation::kAuto;
  bool lookup = true;                       // propose from the text itself
  std::shared_ptr<const Model> draft = {};  // and from this model; null: none
  int64_t max_tokens = 31;                  // proposed at a time for one sequence, [1, 255]
};

struct Work;
class Sequence;
class DraftModel;

// What speculation remembers of one sequence. Belongs to it.
struct SequenceDrafts {
  PromptLookup lookup;
  bool answering = false;
  Acceptance acceptance;
  // Of the draft model: what it has computed, some of it of guesses that may not have come true.
  std::unique_ptr<SequenceState> state;
  int64_t offered_pages = 0;  // to the draft model's prefix cache
  std::vector<int32_t> guesses;
  int64_t guesses_begin = 0;  // position of the first of them
  bool failed = false;        // the draft model failed on this text: it is not asked again
};

class Speculator {
 public:
  // kv_pages: of the draft model's own pool. Throws kInvalidArgument where options or the draft
  // model's vocabulary do not fit. References must outlive it.
  Speculator(const SpeculationOptions& options, const Model& target, const KernelTable& kernels,
             ThreadPool& threads, KvType kv_type, int64_t kv_pages);
  ~Speculator();

  // Fills Work::draft where it pays, at most max_rows tokens in all.
  void Propose(std::span<Work> works, int64_t max_rows);
  // After the step: what it took, and what became of the proposals.
  void Learn(std::span<const Work> works, double seconds);

  const DraftPolicy& policy() const { return policy_; }

 private:
  bool Eligible(const Work& work) const;
  void ProposeFromText(std::span<Work*> works, int64_t base_rows, int64_t max_extra);
  void ProposeFromModel(std::span<Work*> works, int64_t base_rows, int64_t max_extra);

  const SpeculationOptions options_;
  DraftPolicy policy_;
  Acceptance acceptance_;              // over all sequences
  std::unique_ptr<DraftModel> model_;  // null: none
  double draft_seconds_ = 0;           // of the last proposals; reading a prompt is not counted
};

}  // namespace bakestone
