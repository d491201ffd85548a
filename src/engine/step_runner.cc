#include "engine/step_runner.h"

#include <algorithm>
#include <functional>

namespace bakestone {
namespace {

// Rows of logits computed at a time: bounds the memory (49,152 ids: 6 MiB) and is enough to reuse
// each panel of the head from cache.
constexpr int64_t kLogitRows = 32;

}  // namespace

void StepRunner::Layout(std::span<Work> works) {
  std::stable_sort(works.begin(), works.end(), [](const Work& a, const Work& b) {
    return std::less<>()(a.sequence->request().adapter.get(), b.sequence->request().adapter.get());
  });
  tokens_.clear(), positions_.clear(), output_rows_.clear();
  sequences_.clear(), adapters_.clear(), rows_.clear();
  for (Work& work : works) {
    Sequence& sequence = *work.sequence;
    const auto begin = static_cast<int32_t>(tokens_.size());
    const int64_t first = sequence.state().length();
    const std::span<const int32_t> known = sequence.tokens();
    const std::span<const int32_t> draft = work.draft;
    const auto size = static_cast<int64_t>(known.size());
    const int64_t rows = work.count + static_cast<int64_t>(draft.size());
    BAKESTONE_CHECK(draft.empty() || first + work.count == size);
    work.read_prompt = sequence.prefilling();
    work.accepted = work.drawn = 0;
    for (int64_t position = first; position < first + rows; ++position) {
      const bool drawn = position + 1 >= size;
      const bool judged =
          sequence.request().prompt_logprobs && position + 1 < sequence.prompt_size();
      if (judged || (drawn && !sequence.NothingToSample())) {
        output_rows_.push_back(static_cast<int32_t>(tokens_.size()));
        rows_.push_back({.work = &work, .position = position + 1});
        if (judged) rows_.back().target = known[position + 1];
        if (drawn) rows_.back().ahead = draft.first(static_cast<size_t>(position + 1 - size));
      }
      tokens_.push_back(position < size ? known[position] : draft[position - size]);
      positions_.push_back(static_cast<int32_t>(position));
    }
    const auto end = static_cast<int32_t>(tokens_.size());
    sequences_.push_back({begin, end, &sequence.state()});
    const Adapter* adapter = sequence.request().adapter.get();
    if (adapters_.empty() || adapters_.back().adapter != adapter) {
      adapters_.push_back({begin, end, adapter});
    }
    adapters_.back().end = end;
  }
}

void StepRunner::Sample(Row& row, std::span<float> logits) const {
  Sequence& sequence = *row.work->sequence;
  const GenerationRequest& request = sequence.request();
  try {
    if (row.target) {
      row.logprobs = LogprobsOf(logits, vocab_size_, *row.target, request.top_logprobs);
    } else if (request.logprobs) {
      std::vector<float> unchanged(logits.begin(), logits.end());
      row.token = sequence.Draw(logits, row.position, row.ahead);
      row.logprobs = LogprobsOf(unchanged, vocab_size_, row.token, request.top_logprobs);
    } else {
      row.token = sequence.Draw(logits, row.position, row.ahead);
    }
  } catch (const Error& error) {
    row.error = error;
  } catch (const std::exception& error) {
    row.error = Error(ErrorCode::kInternal, error.what());
  }
}

void StepRunner::Sample(MatrixView<float> logits, std::span<Row> rows) {
  starts_.clear();  // of what one thread samples: a row, or those of an answer that confirms
  for (size_t i = 0; i < rows.size(); ++i) {
    const bool goes_on =
        i > 0 && rows[i].work == rows[i - 1].work && rows[i].work->sequence->confirms();
    if (!goes_on) starts_.push_back(static_cast<int64_t>(i));
  }
  starts_.push_back(std::ssize(rows));
  exec_.pool.ParallelFor(std::ssize(starts_) - 1, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t group = begin; group < end; ++group) {
      for (int64_t i = starts_[group]; i < starts_[group + 1]; ++i) {
        const bool missed = i > starts_[group] && !rows[i].ahead.empty() &&
                            rows[i - 1].token != rows[i].ahead.back();
        if (missed) break;  // nobody looks behind a token of a draft that was not drawn
        Sample(rows[i], std::span<float>(logits.Row(i), logits.cols));
      }
    }
  });
}

// A token that the form does not allow would be computed for nothing.
void StepRunner::CutDrafts(std::span<Work> works) {
  for (Work& work : works) {
    if (work.sequence->constrained() && !work.draft.empty()) work.sequence->CutDraft(&work.draft);
  }
}

// One answer's masks are one thread's work.
void StepRunner::StartMasks(std::span<Work> works) {
  constrained_.clear();
  for (const Work& work : works) {
    const Sequence& sequence = *work.sequence;
    if (sequence.constrained() && work.count == sequence.pending() && !sequence.NothingToSample()) {
      constrained_.push_back(&work);
    }
  }
  masks_.Start(constrained_.size(), [this](size_t i) {
    constrained_[i]->sequence->PrepareMasks(constrained_[i]->draft);
  });
}

void StepRunner::Run(std::span<Work> works, StatePool& pool) {
  CutDrafts(works);
  Layout(works);
  for (Work& work : works) {
    work.sequence->state().Reserve(work.count + static_cast<int64_t>(work.draft.size()));
  }
  StartMasks(works);
  try {
    Compute();
  } catch (...) {
    masks_.Abandon();  // whose sequences may go now
    for (const Work& work : works) work.sequence->EndDraws();
    throw;
  }
  size_t next = 0;
  for (Work& work : works) {
    const size_t begin = next;
    while (next < rows_.size() && rows_[next].work == &work) ++next;
    Finish(work, std::span(rows_).subspan(begin, next - begin), pool);
  }
}

void StepRunner::Compute() {
  const ModelConfig& config = decoder_.config();
  const auto outputs = static_cast<int64_t>(output_rows_.size());
  hidden_.resize(outputs * config.hidden_dim);
  const Step step{tokens_, positions_, sequences_, adapters_, output_rows_};
  decoder_.Forward(exec_, step, DenseView(hidden_.data(), outputs, config.hidden_dim));
  logits_.resize(std::min(outputs, kLogitRows) * config.vocab_size);
  for (int64_t begin = 0; begin < outputs; begin += kLogitRows) {
    const int64_t count = std::min(kLogitRows, outputs - begin);
    const auto logits = DenseView(logits_.data(), count, config.vocab_size);
    const auto hidden =
        DenseView(hidden_.data() + begin * config.hidden_dim, count, config.hidden_dim);
    decoder_.Logits(exec_, hidden, logits);
    masks_.Finish(exec_.pool);
    Sample(logits, std::span(rows_).subspan(begin, count));
  }
}

// Hands over what was computed for one sequence. A row behind a token of the draft counts only if
// that token is the one drawn before it: the rest is as if it had never been computed.
void StepRunner::Finish(Work& work, std::span<Row> rows, StatePool& pool) {
  Sequence& sequence = *work.sequence;
  sequence.EndDraws();
  const auto drawn =
      std::find_if(rows.begin(), rows.end(), [](const Row& row) { return !row.target; });
  for (auto row = rows.begin(); row != drawn; ++row) {
    if (row->error) {
      work.error = row->error;
      return;
    }
  }
  for (auto row = rows.begin(); row != drawn; ++row) {
    sequence.AddPromptLogprobs(row->position, std::move(*row->logprobs));
  }
  int64_t computed = work.count;
  if (!work.draft.empty()) sequence.CountDraft(static_cast<int64_t>(work.draft.size()), 0);
  for (auto row = drawn; row != rows.end() && !sequence.finished(); ++row) {
    if (row != drawn) {
      if (sequence.tokens().back() != row->ahead.back()) break;
      ++work.accepted;
      ++computed;
      sequence.CountDraft(0, 1);
    }
    if (row->error) {
      work.error = row->error;
      return;
    }
    sequence.Accept(row->token, std::move(row->logprobs));
    ++work.drawn;
  }
  sequence.Commit(computed, pool);
  if (!sequence.finished() && sequence.NothingToSample() && sequence.pending() == 0) {
    sequence.Accept(std::nullopt, std::nullopt);
  }
}

}  // namespace bakestone
