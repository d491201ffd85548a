// The requests that wait, and whose turn it is: every tenant gets as much of the engine as the
// others, and within a tenant every adapter (fair_shares.h; a prompt's token counts 1, an answer's
// 2).
//
// Background requests come after all others, whoever they are, and are fair among themselves in the
// same way.
//
// A request that does not fit now is passed over by those that do, but not for ever: after
// kMostPasses of them it holds all others back until it fits.
// Internal to engine/; the engine's lock guards it.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/fair_shares.h"
#include "engine/sequence.h"

namespace bakestone {

struct WaitingSequence {
  std::unique_ptr<Sequence> sequence;
  int passed = 0;
};

class FairQueue {
 public:
  static constexpr int kMostPasses = 64;

  void Add(std::unique_ptr<Sequence> sequence);
  // One that ran and was suspended: it is the next of its adapter.
  void Return(std::unique_ptr<Sequence> sequence);

  enum class Verdict { kFits, kTooLarge, kLater };  // kLater: waits for something else than room
  // The next one that fits, beside those that run; null: none. It counts as running from now on.
  std::unique_ptr<Sequence> Take(std::span<const std::unique_ptr<Sequence>> running,
                                 const std::function<Verdict(const Sequence&)>& verdict);
  // Whose turn it is; null: nobody waits.
  const Sequence* First() const;
  // The first of a tenant that has nothing running; null: there is none.
  const Sequence* FirstOfIdleTenant() const;
  std::unique_ptr<Sequence> Take(const Sequence& sequence);  // this one, out of its turn

  // Those that leave unanswered.
  std::vector<std::unique_ptr<Sequence>> Remove(const std::function<bool(const Sequence&)>& leaves);
  // One that ran has ended.
  void Left(const Sequence& sequence);

  void Computed(const Sequence& sequence, int64_t prompt_tokens, int64_t answer_tokens);
  // True where less was computed for a's tenant than for b's, or for its adapter; running ones.
  bool Before(const Sequence& a, const Sequence& b) const;
  int64_t RunningOf(const Sequence& sequence) const;  // of its tenant
  // Tenants that have anything running or waiting, in the background or not, as this one is.
  int64_t ActiveTenantsLike(const Sequence& sequence) const {
    return shares_.ActiveTenants(sequence.request().background);
  }
  bool empty() const { return size_ == 0; }

 private:
  using Shares = FairShares<Hash, std::deque<WaitingSequence>>;  // an adapter's hash, or zeros
  // Counters of adapters that a tenant does not use at the moment.
  static constexpr size_t kMostKeptLines = 4096;

  std::vector<FairLine*> Lines() const;  // with somebody waiting, whose turn it is first
  std::unique_ptr<Sequence> Pop(FairLine& line, size_t index);

  Shares shares_{kMostKeptLines};
  int64_t size_ = 0;
};

}  // namespace bakestone
