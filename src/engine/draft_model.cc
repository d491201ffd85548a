#include "engine/draft_model.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/error.h"
#include "engine/sequence.h"

namespace bakestone {
namespace {

// Tokens that the draft model reads of a sequence in one call: more would hold up the others'
// answers.
constexpr int64_t kChunk = 64;
constexpr double kPassCostWeight = 0.25;  // of the newest pass in the average

}  // namespace

void CheckSameVocabulary(const Model& target, const Model& draft) {
  const Tokenizer &a = target.tokenizer, &b = draft.tokenizer;
  const std::string where =
      fmt::format("draft model {} cannot speak for {}", draft.path.string(), target.path.string());
  if (draft.config.has_state()) {
    Throw(ErrorCode::kUnsupported,
          "{}: expected a draft model of attention alone: one that keeps a state cannot take "
          "guesses back",
          where);
  }
  if (a.vocab_size() != b.vocab_size() || draft.config.vocab_size < b.vocab_size()) {
    Throw(ErrorCode::kInvalidArgument,
          "{}: expected the same vocabulary of {} tokens, found {} tokens and {} rows; choose a "
          "smaller "
          "model of the same family",
          where, a.vocab_size(), b.vocab_size(), draft.config.vocab_size);
  }
  for (int32_t id = 0; id < a.vocab_size(); ++id) {
    if (a.TokenText(id) == b.TokenText(id) && a.Type(id) == b.Type(id)) continue;
    Throw(ErrorCode::kInvalidArgument,
          "{}: expected the same vocabulary, but token {} is '{}' there and '{}' here; choose a "
          "smaller model "
          "of the same family",
          where, id, b.TokenText(id), a.TokenText(id));
  }
}

DraftModel::DraftModel(std::shared_ptr<const Model> draft, const Model& target,
                       const KernelTable& kernels, ThreadPool& threads, KvType kv_type,
                       int64_t kv_pages)
    : model_(std::move(draft)),
      pool_(model_->config, kv_type, kv_pages * KvPageBytes(model_->config, kv_type)),
      exec_(kernels, threads) {
  CheckSameVocabulary(target, *model_);
}

// Makes the state hold computed tokens of the sequence only, and fewer than all.
void DraftModel::Align(Sequence& sequence) {
  SequenceDrafts& drafts = sequence.drafts();
  const std::vector<int32_t>& tokens = sequence.tokens();
  const auto size = static_cast<int64_t>(tokens.size());
  if (!drafts.state) {
    drafts.state = pool_.Create();
    drafts.state->Expect(std::min(sequence.most_tokens(), model_->config.context_length));
    const auto usable = static_cast<size_t>((size - 1) / kPageTokens);
    auto pages =
        pool_.Lookup(std::span(sequence.keys()).first(std::min(usable, sequence.keys().size())))
            .pages;
    drafts.offered_pages = static_cast<int64_t>(pages.size());
    if (!pages.empty()) drafts.state->AdoptPrefix(std::move(pages));
  }
  int64_t valid = std::min(drafts.state->length(), size - 1);
  if (!drafts.guesses.empty()) {
    int64_t true_ones = 0;
    for (const int32_t guess : std::exchange(drafts.guesses, {})) {
      const int64_t at = drafts.guesses_begin + true_ones;
      if (at >= size || tokens[static_cast<size_t>(at)] != guess) break;
      ++true_ones;
    }
    valid = std::min(valid, drafts.guesses_begin + true_ones);
  }
  if (valid < drafts.state->length()) drafts.state->Truncate(valid);
  for (int64_t& page = drafts.offered_pages;
       (page + 1) * kPageTokens <= valid && page < static_cast<int64_t>(sequence.keys().size());
       ++page) {
    pool_.Insert(sequence.keys()[static_cast<size_t>(page)],
                 drafts.state->pages()[static_cast<size_t>(page)]);
  }
}

bool DraftModel::Ready(Sequence& sequence) {
  Align(sequence);
  return static_cast<int64_t>(sequence.tokens().size()) - sequence.drafts().state->length() <=
         kChunk;
}

int64_t DraftModel::Room(const Sequence& sequence) const {
  return std::max<int64_t>(
      0, model_->config.context_length - static_cast<int64_t>(sequence.tokens().size()));
}

// One pass: the next chunk of each sequence's tokens and guesses; with sample each gets one guess
// more.
void DraftModel::Forward(std::span<Request*> requests, bool sample) {
  std::vector<int32_t> tokens, positions, output_rows;
  std::vector<SequenceRun> runs;
  for (Request* request : requests) {
    SequenceDrafts& drafts = request->sequence->drafts();
    const std::vector<int32_t>& known = request->sequence->tokens();
    const auto size = static_cast<int64_t>(known.size());
    const auto begin = static_cast<int32_t>(tokens.size());
    const int64_t first = drafts.state->length();
    const int64_t all = size + static_cast<int64_t>(request->tokens.size());
    const int64_t last = std::min(all, first + kChunk);
    for (int64_t i = first; i < last; ++i) {
      tokens.push_back(i < size ? known[static_cast<size_t>(i)]
                                : request->tokens[static_cast<size_t>(i - size)]);
      positions.push_back(static_cast<int32_t>(i));
    }
    drafts.state->Reserve(last - first);
    runs.push_back({begin, static_cast<int32_t>(tokens.size()), drafts.state.get()});
    if (sample) output_rows.push_back(static_cast<int32_t>(tokens.size()) - 1);
  }
  const ModelConfig& config = model_->config;
  const auto outputs = static_cast<int64_t>(output_rows.size());
  hidden_.resize(outputs * config.hidden_dim);
  logits_.resize(outputs * config.vocab_size);
  const auto hidden = DenseView(hidden_.data(), outputs, config.hidden_dim);
  const auto logits = DenseView(logits_.data(), outputs, config.vocab_size);
  model_->decoder->Forward(exec_, Step{tokens, positions, runs, {}, output_rows}, hidden);
  for (const SequenceRun& run : runs) run.state->Commit(run.end - run.begin);
  if (!sample) return;
  model_->decoder->Logits(exec_, hidden, logits);
  for (int64_t i = 0; i < outputs; ++i) {
    Request& request = *requests[static_cast<size_t>(i)];
    const Sequence& sequence = *request.sequence;
    const auto position = static_cast<int64_t>(sequence.tokens().size() + request.tokens.size());
    const int32_t token = sequence.sampler().Sample(
        {logits.Row(i), static_cast<size_t>(config.vocab_size)}, position, request.tokens);
    request.tokens.push_back(token);
  }
}

void DraftModel::Propose(std::span<Request> requests) {
  std::vector<Request*> behind, active;
  for (Request& request : requests) {
    request.tokens.clear();
    (Ready(*request.sequence) ? active : behind).push_back(&request);
  }
  if (!behind.empty()) Forward(behind, false);
  const auto done = [](const Request* request) {
    return static_cast<int64_t>(request->tokens.size()) >= request->wanted;
  };
  for (Request& request : requests) {
    request.wanted = std::min(request.wanted, Room(*request.sequence));
  }
  std::erase_if(active, done);
  const std::vector<Request*> asked = active;
  for (bool first = true; !active.empty(); first = false) {
    const auto start = std::chrono::steady_clock::now();
    Forward(active, true);
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    // The first pass reads more than one token.
    if (!first || seconds_per_token_ == 0) {
      seconds_per_token_ =
          seconds_per_token_ == 0
              ? seconds
              : seconds_per_token_ + kPassCostWeight * (seconds - seconds_per_token_);
    }
    for (Request* request : active) {
      SequenceDrafts& drafts = request->sequence->drafts();
      drafts.guesses = request->tokens;
      drafts.guesses_begin = static_cast<int64_t>(request->sequence->tokens().size());
    }
    std::erase_if(active, done);
  }
}

}  // namespace bakestone
