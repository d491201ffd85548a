#include "engine/sequence.h"

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace bakestone {
namespace {

constexpr size_t kMaxStops = 64;
constexpr size_t kMaxStopBytes = 1024;
constexpr int32_t kMaxTopLogprobs = 64;

}  // namespace

void CheckRequest(const GenerationRequest& request, const Tokenizer& tokenizer, int64_t vocab_rows,
                  int64_t max_context) {
  if (request.prompt.empty()) {
    Throw(ErrorCode::kInvalidArgument, "prompt: expected at least one token, found none");
  }
  for (int32_t token : request.prompt) {
    if (token < 0 || token >= vocab_rows) {
      Throw(ErrorCode::kInvalidArgument, "prompt: expected token ids in [0, {}), found {}",
            vocab_rows, token);
    }
  }
  for (int32_t token : request.expected) {
    if (token < 0 || token >= vocab_rows) {
      Throw(ErrorCode::kInvalidArgument, "expected answer: expected token ids in [0, {}), found {}",
            vocab_rows, token);
    }
  }
  CheckSamplingParams(request.sampling,
                      static_cast<int32_t>(std::min<int64_t>(tokenizer.vocab_size(), vocab_rows)));
  if (request.stop.size() > kMaxStops) {
    Throw(ErrorCode::kInvalidArgument, "stop: expected at most {} strings, found {}", kMaxStops,
          request.stop.size());
  }
  for (const std::string& stop : request.stop) {
    if (stop.empty() || stop.size() > kMaxStopBytes) {
      Throw(ErrorCode::kInvalidArgument, "stop: expected strings of 1 to {} bytes, found one of {}",
            kMaxStopBytes, stop.size());
    }
  }
  if (request.top_logprobs < 0 || request.top_logprobs > kMaxTopLogprobs) {
    Throw(ErrorCode::kInvalidArgument, "top_logprobs: expected 0 to {}, found {}", kMaxTopLogprobs,
          request.top_logprobs);
  }
  if (request.max_tokens && *request.max_tokens < 0) {
    Throw(ErrorCode::kInvalidArgument, "max_tokens: expected 0 or more, found {}",
          *request.max_tokens);
  }
  if (request.min_tokens < 0 || (request.max_tokens && request.min_tokens > *request.max_tokens)) {
    Throw(ErrorCode::kInvalidArgument, "min_tokens: expected 0 to max_tokens, found {}",
          request.min_tokens);
  }
  if (request.constraint && (request.ignore_eos || request.min_tokens > 0)) {
    Throw(ErrorCode::kInvalidArgument,
          "{}: not together with an answer of a given form, which ends where the form is complete",
          request.ignore_eos ? "ignore_eos" : "min_tokens");
  }
  for (const int32_t token : request.shown_control) {
    if (token < 0 || token >= tokenizer.vocab_size()) {
      Throw(ErrorCode::kInvalidArgument, "shown control tokens: expected ids in [0, {}), found {}",
            tokenizer.vocab_size(), token);
    }
  }
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  const int64_t answer = request.max_tokens.value_or(1);
  if (prompt > max_context || answer > max_context - prompt) {
    Throw(ErrorCode::kOutOfMemory,
          "the context holds {} tokens, but the prompt has {} and the answer may take {}; shorten "
          "the "
          "prompt or lower max_tokens",
          max_context, prompt, answer);
  }
}

Sequence::Sequence(uint64_t id, GenerationRequest request, const Tokenizer& tokenizer,
                   const Setting& setting)
    : id_(id),
      request_(std::move(request)),
      tokenizer_(tokenizer),
      tokens_(request_.prompt),
      max_total_(static_cast<int64_t>(tokens_.size()) + *request_.max_tokens),
      prefill_end_(static_cast<int64_t>(tokens_.size())),
      root_(setting.root),
      use_cache_(setting.use_cache),
      state_pages_(setting.state_pages),
      state_tokens_(setting.state_blocks * kPageTokens),
      sampler_(request_.sampling, setting.vocab_size, request_.prompt),
      detokenizer_(tokenizer, {.render_special = true, .strip_space_prefix = false}),
      stop_(request_.stop),
      mask_(request_.constraint ? request_.constraint->Begin() : nullptr),
      mask_words_(static_cast<size_t>(tokenizer.vocab_size() + 31) / 32) {
  usage_.prompt_tokens = static_cast<int64_t>(tokens_.size());
  drafts_.lookup.Expect(request_.expected);
  if (use_cache_) keys_ = BlockKeys(root_, tokens_);
  if (request_.prompt_logprobs) {
    for (int32_t token : tokens_) {
      prompt_infos_.push_back({.token = token, .logprobs = std::nullopt});
    }
  }
}

void Sequence::Start(StatePool& pool) {
  state_ = pool.Create();
  state_->Expect(max_total_);
  if (!use_cache_ || request_.prompt_logprobs) return;
  // At least one token is computed anew: its row gives the first token of the answer.
  const auto usable = (tokens_.size() - 1) / kPageTokens;
  const std::span<const BlockKey> keys = std::span(keys_).first(std::min(usable, keys_.size()));
  CachedPrefix cached = pool.Lookup(keys);
  offered_ = static_cast<int64_t>(cached.pages.size());
  branch_ = cached.known_pages * kPageTokens;
  if (!resumed()) usage_.cached_tokens = offered_ * kPageTokens;
  if (!cached.pages.empty()) state_->AdoptPrefix(std::move(cached.pages), std::move(cached.states));
}

// In what is read first: every state_tokens_, where others went on differently, and at the last
// border before the end.
int64_t Sequence::until_states() const {
  const int64_t length = state_->length(), last = (prefill_end_ - 1) / kPageTokens * kPageTokens;
  if (!use_cache_ || state_tokens_ == 0 || length >= last) return pending();
  int64_t end = std::min((length / state_tokens_ + 1) * state_tokens_, last);
  if (branch_ > length) end = std::min(end, branch_);
  return end - length;
}

// Those after the last token, where the next request may begin. Of an answer one is enough, the
// newest.
void Sequence::OfferStates(StatePool& pool) {
  const int64_t length = state_->length(), last = (prefill_end_ - 1) / kPageTokens * kPageTokens;
  if (state_tokens_ == 0 || length % kPageTokens != 0 || length == 0) return;
  const bool lasting = length % state_tokens_ == 0 || length == branch_ || length == last;
  if (length < last && !lasting) return;
  const BlockKey& key = keys_[static_cast<size_t>(length / kPageTokens) - 1];
  const bool kept = pool.InsertStates(key, state_->layer_states());
  if (lasting || !kept) return;
  if (answer_states_) pool.DropStates(*answer_states_);
  answer_states_ = key;
}

void Sequence::Commit(int64_t n, StatePool& pool) {
  state_->Commit(n);
  if (!use_cache_) return;
  for (; (offered_ + 1) * kPageTokens <= state_->length(); ++offered_) {
    if (offered_ == static_cast<int64_t>(keys_.size())) {
      const auto block = std::span(tokens_).subspan(offered_ * kPageTokens, kPageTokens);
      keys_.push_back(ChildKey(keys_.empty() ? root_ : keys_.back(), block));
    }
    pool.Insert(keys_[offered_], state_->pages()[offered_]);
  }
  OfferStates(pool);
}

void Sequence::Release(StatePool& pool) {
  drafts_.state.reset();
  state_.reset();
  pool.Touch(keys_);
}

void Sequence::Suspend(StatePool& pool) {
  BAKESTONE_CHECK(suspendable());
  Release(pool);
  drafts_.offered_pages = 0;
  drafts_.guesses.clear();
  offered_ = 0;
  prefill_end_ = static_cast<int64_t>(tokens_.size());
}

void Sequence::AddPromptLogprobs(int64_t index, RowLogprobs logprobs) {
  prompt_infos_[index].logprobs = std::move(logprobs);
}

void Sequence::CutDraft(std::vector<int32_t>* draft) {
  size_t legal = 0;
  try {
    while (legal < draft->size() && !tokenizer_.IsEndOfGeneration((*draft)[legal]) &&
           mask_->Accept((*draft)[legal])) {
      ++legal;
    }
  } catch (...) {
    mask_->Rollback(static_cast<int64_t>(legal));
    throw;
  }
  mask_->Rollback(static_cast<int64_t>(legal));
  draft->resize(legal);
}

void Sequence::PrepareMasks(std::span<const int32_t> draft) {
  num_masks_ = 0;
  mask_error_.reset();
  int64_t accepted = 0;
  try {
    mask_bits_.resize((draft.size() + 1) * mask_words_);
    while (true) {
      mask_->Fill(std::span(mask_bits_).subspan(num_masks_ * mask_words_, mask_words_));
      if (num_masks_++ == draft.size()) break;
      if (!mask_->Accept(draft[num_masks_ - 1])) {
        Throw(ErrorCode::kInternal, "the answer's form took a draft and then refused it");
      }
      ++accepted;
    }
  } catch (const Error& error) {
    mask_error_ = error;
  } catch (const std::exception& error) {
    mask_error_ = Error(ErrorCode::kInternal, error.what());
  }
  mask_->Rollback(accepted);
}

TokenRules Sequence::RulesAt(int64_t position) const {
  if (mask_) {
    const auto row = static_cast<size_t>(position) - tokens_.size();
    if (row >= num_masks_) throw *mask_error_;
    return {.unused = tokenizer_.Unused(),
            .legal = std::span(mask_bits_).subspan(row * mask_words_, mask_words_)};
  }
  const bool may_end = position - prompt_size() >= request_.min_tokens;
  return {.banned = may_end ? std::span<const int32_t>() : tokenizer_.EndOfGeneration(),
          .unused = tokenizer_.Unused()};
}

int32_t Sequence::Draw(std::span<float> logits, int64_t position, std::span<const int32_t> ahead) {
  int32_t token = sampler_.Sample(logits, position, ahead, RulesAt(position));
  if (!confirms()) return token;
  for (; confirmed_ahead_ < std::ssize(ahead); ++confirmed_ahead_) {
    if (!mask_->Accept(ahead[static_cast<size_t>(confirmed_ahead_)])) {
      Throw(ErrorCode::kInternal, "the answer's form took a draft and then refused it");
    }
  }
  const auto row = static_cast<size_t>(position) - tokens_.size();
  for (int times = 0; !mask_->Confirm(token); ++times) {
    if (times == 2) {
      Throw(ErrorCode::kInternal, "the answer's form allowed a token and then refused it");
    }
    mask_->Narrow(std::span(mask_bits_).subspan(row * mask_words_, mask_words_), times);
    token = sampler_.SampleAgain(logits, position, RulesAt(position), times + 1);
  }
  return token;
}

void Sequence::EndDraws() {
  if (confirmed_ahead_ > 0) mask_->Rollback(confirmed_ahead_);
  confirmed_ahead_ = 0;
}

// A control token has text only where the request asks to see it.
std::string Sequence::PieceOf(int32_t token) {
  const auto& shown = request_.shown_control;
  const bool hidden =
      tokenizer_.IsControl(token) && std::find(shown.begin(), shown.end(), token) == shown.end();
  return hidden ? std::string() : detokenizer_.Append(token);
}

std::string Sequence::TextOf(int32_t token, Event& event) {
  const bool end = !request_.ignore_eos && tokenizer_.IsEndOfGeneration(token);
  event.tokens.back().end_of_generation = end;
  std::string text = end ? detokenizer_.Flush() : PieceOf(token);
  if (usage_.completion_tokens > request_.min_tokens || end) text = stop_.Append(text);
  if (!stop_.matched() && end) event.finish = FinishReason::kStop;
  if (!stop_.matched() && !end && static_cast<int64_t>(tokens_.size()) == max_total_) {
    text += stop_.Append(detokenizer_.Flush());
    event.finish = FinishReason::kLength;
  }
  if (stop_.matched()) {
    event.finish = FinishReason::kStop;
    event.stop_string = stop_.stop();
  } else if (event.finish) {
    text += stop_.Flush();
  }
  return text;
}

void Sequence::Accept(std::optional<int32_t> token, std::optional<RowLogprobs> logprobs) {
  Event event;
  event.prompt = std::exchange(prompt_infos_, {});
  if (token) {
    if (mask_ && !tokenizer_.IsEndOfGeneration(*token) && !mask_->Accept(*token)) {
      return Fail(
          FinishReason::kError,
          Error(ErrorCode::kInternal, "the answer's form allowed a token and then refused it"));
    }
    tokens_.push_back(*token);
    ++usage_.completion_tokens;
    sampler_.Accept(*token);
    event.tokens.push_back({.token = *token, .logprobs = std::move(logprobs)});
    event.text = TextOf(*token, event);
  } else {
    event.finish = FinishReason::kLength;
  }
  Emit(std::move(event));
}

void Sequence::CountDraft(int64_t proposed, int64_t accepted) {
  usage_.proposed_tokens += proposed;
  usage_.accepted_tokens += accepted;
}

void Sequence::Fail(FinishReason reason, std::optional<Error> error) {
  Event event;
  event.finish = reason;
  event.error = std::move(error);
  Emit(std::move(event));
}

void Sequence::Emit(Event&& event) {
  event.usage = usage_;
  finished_ = event.finish.has_value();
  try {
    if (request_.sink) request_.sink(std::move(event));
  } catch (const std::exception& error) {
    LogError("request {}: its receiver failed: {}", id_, error.what());
    finished_ = true;
  }
}

}  // namespace bakestone
