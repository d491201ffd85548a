// A small model with the target's vocabulary that runs ahead of it and proposes what comes next. It
// keeps keys and values of its own for every sequence, and draws with the sequence's own sampler
// and key, so that a likely draw of one is a likely draw of the other. It never sees the adapter.
// Internal to engine/; one thread.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "engine/state_pool.h"
#include "model/exec.h"
#include "model/model.h"

namespace bakestone {

class Sequence;

// Throws kInvalidArgument saying what differs, unless the same id is the same token in both.
void CheckSameVocabulary(const Model& target, const Model& draft);

class DraftModel {
 public:
  // Throws as CheckSameVocabulary. kv_pages: as many as the target's pool has, so that whatever was
  // admitted there finds room here.
  DraftModel(std::shared_ptr<const Model> draft, const Model& target, const KernelTable& kernels,
             ThreadPool& threads, KvType kv_type, int64_t kv_pages);

  // A sequence, how many tokens are wanted, and what came: fewer than wanted where the context
  // ends, none while the model still reads the text (a chunk a call). Throws what a decoder throws;
  // then the sequences' drafts are worthless, and nothing else has changed.
  struct Request {
    Sequence* sequence = nullptr;
    int64_t wanted = 0;
    std::vector<int32_t> tokens = {};
  };
  void Propose(std::span<Request> requests);
  // Whether the next Propose would give tokens: all but a few of the sequence's are computed.
  bool Ready(Sequence& sequence);
  // How many tokens the context has room for beyond the sequence's.
  int64_t Room(const Sequence& sequence) const;

  // Of one pass of a token for all who asked, measured; 0 before the first.
  double seconds_per_token() const { return seconds_per_token_; }

 private:
  void Align(Sequence& sequence);
  void Forward(std::span<Request*> requests, bool sample);

  const std::shared_ptr<const Model> model_;
  StatePool pool_;
  Exec exec_;
  double seconds_per_token_ = 0;
  std::vector<float> hidden_, logits_;
};

}  // namespace bakestone
