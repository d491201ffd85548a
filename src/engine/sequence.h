// One admitted or waiting request inside the engine: its tokens so far, what is computed of them,
// and the way from a sampled token to an event (detokenizer, stop strings, limits). Internal to
// engine/; used by the loop thread, except that Submit builds it.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "engine/fair_shares.h"
#include "engine/request.h"
#include "engine/sampler.h"
#include "engine/speculation.h"
#include "engine/state_pool.h"
#include "engine/stop_matcher.h"
#include "model/sequence_state.h"
#include "text/tokenizer.h"

namespace bakestone {

// Throws kInvalidArgument naming the field, its range and what was found; kOutOfMemory when the
// tokens can never fit max_context.
void CheckRequest(const GenerationRequest& request, const Tokenizer& tokenizer, int64_t vocab_rows,
                  int64_t max_context);

struct WaitingSequence;  // FairQueue's
using FairLine = FairShares<Hash, std::deque<WaitingSequence>>::Line;

class Sequence {
 public:
  struct Setting {
    BlockKey root;  // where its block keys begin
    bool use_cache;
    int32_t vocab_size;  // ids from it on are never drawn: of the tokenizer, or of the embedding if
                         // it has fewer rows
    int64_t state_pages = 0;   // that layers' states take, beside those of its tokens (StatePool)
    int64_t state_blocks = 0;  // where the cache keeps them at the least (StatePool)
  };
  // The request has passed CheckRequest and names max_tokens.
  Sequence(uint64_t id, GenerationRequest request, const Tokenizer& tokenizer,
           const Setting& setting);

  uint64_t id() const { return id_; }
  const GenerationRequest& request() const { return request_; }
  const std::vector<int32_t>& tokens() const { return tokens_; }  // prompt, then answer
  int64_t prompt_size() const { return usage_.prompt_tokens; }
  int64_t pages() const {
    return (max_total_ + kPageTokens - 1) / kPageTokens + state_pages_;
  }  // of the pool, at most
  const Usage& usage() const { return usage_; }
  const std::vector<BlockKey>& keys() const { return keys_; }
  // Its prompt is being read, or, after it was suspended, all that it knew.
  bool prefilling() const { return !state_ || state_->length() < prefill_end_; }
  int64_t unread() const { return prefilling() ? pending() : 0; }
  int64_t pending() const { return static_cast<int64_t>(tokens_.size()) - state_->length(); }
  // How many of its next tokens a step may compute: where the cache keeps layers' states, a step
  // ends.
  int64_t until_states() const;
  SequenceState& state() { return *state_; }
  int64_t most_tokens() const { return max_total_; }  // prompt and answer
  bool started() const { return state_ != nullptr; }
  bool finished() const { return finished_; }
  int64_t remaining() const { return max_total_ - static_cast<int64_t>(tokens_.size()); }
  SequenceDrafts& drafts() { return drafts_; }
  FairLine* line() const { return line_; }  // FairQueue's
  void set_line(FairLine* line) { line_ = line; }

  // Gets its memory, and the prefix that the pool remembers.
  void Start(StatePool& pool);
  // The next n of tokens() are computed: keeps them, offers full pages to the pool.
  void Commit(int64_t n, StatePool& pool);
  // Gives the memory back.
  void Release(StatePool& pool);
  // Gives the memory back and waits: Start goes on where it was, and no token differs
  // (docs/numerics.md).
  void Suspend(StatePool& pool);
  bool suspendable() const { return started() && !finished_ && !request_.prompt_logprobs; }
  bool resumed() const { return prefill_end_ > prompt_size(); }

  const Sampler& sampler() const { return sampler_; }
  // Cuts a draft of a constrained sequence before the first token that is not legal.
  void CutDraft(std::vector<int32_t>* draft);
  // Finds out what is legal after the pending tokens and after each token of the draft. Before
  // anything is drawn at these positions. What fails, Draw throws. On any
  // thread, while others use nothing of the sequence but what is computed of it.
  void PrepareMasks(std::span<const int32_t> draft);
  bool constrained() const { return mask_ != nullptr; }
  // Whether what is drawn has to be confirmed: Draw is then called by one thread at a time, in the
  // order of positions, until EndDraws.
  bool confirms() const { return mask_ && mask_->over_approximates(); }
  // The token at this position, from its row of logits, which is changed; ahead: the draft's tokens
  // before it. Throws Error.
  int32_t Draw(std::span<float> logits, int64_t position, std::span<const int32_t> ahead);
  void EndDraws();
  void AddPromptLogprobs(int64_t index, RowLogprobs logprobs);
  // The prompt is computed and nothing is to be generated (max_tokens 0).
  bool NothingToSample() const { return max_total_ == prompt_size(); }

  // The next token of the answer was drawn (or, without one, the answer is empty): tells the sink.
  void Accept(std::optional<int32_t> token, std::optional<RowLogprobs> logprobs);
  // Counts tokens that speculation proposed for the next Accepts, and those of them that came true.
  void CountDraft(int64_t proposed, int64_t accepted);
  // Ends without an answer, or in the middle of one.
  void Fail(FinishReason reason, std::optional<Error> error);

 private:
  TokenRules RulesAt(int64_t position) const;
  void OfferStates(StatePool& pool);
  std::string PieceOf(int32_t token);
  std::string TextOf(int32_t token, Event& event);
  void Emit(Event&& event);

  uint64_t id_;
  GenerationRequest request_;
  const Tokenizer& tokenizer_;
  std::vector<int32_t> tokens_;
  int64_t max_total_;
  int64_t prefill_end_;
  BlockKey root_;
  bool use_cache_;
  int64_t state_pages_, state_tokens_;  // Setting's, the blocks as tokens
  std::vector<BlockKey> keys_;          // of full blocks of tokens_, as far as they are needed
  int64_t offered_ = 0;                 // blocks that the pool was told of
  int64_t branch_ = 0;  // tokens that others began with too, though no states were kept after them
  std::optional<BlockKey>
      answer_states_;  // the block of the answer whose states the pool keeps for it
  std::unique_ptr<SequenceState> state_;
  Sampler sampler_;
  StreamDetokenizer detokenizer_;
  StopMatcher stop_;
  Usage usage_;
  std::vector<TokenInfo> prompt_infos_;
  SequenceDrafts drafts_;
  FairLine* line_ = nullptr;
  std::unique_ptr<TokenMask> mask_;  // null: any token is legal
  std::vector<uint32_t> mask_bits_;  // rows of mask_words_, the first for the next token of tokens_
  size_t mask_words_ = 0;
  size_t num_masks_ = 0;             // rows of mask_bits_ that hold
  std::optional<Error> mask_error_;  // why there are no more
  int64_t confirmed_ahead_ = 0;      // of the draft's tokens, mask_ has accepted so many
  bool finished_ = false;
};

}  // namespace bakestone
