#include "engine/step_runner.h"

#include <algorithm>
#include <functional>

namespace bakestone {
namespace {

// Rows of logits computed at a time: bounds the memory (49,152 ids: 6 MiB) and is enough to reuse each
// panel of the head from cache.
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
    const auto end = static_cast<int32_t>(begin + work.count);
    for (int64_t position = first; position < first + work.count; ++position) {
      const bool last = position + 1 == static_cast<int64_t>(sequence.tokens().size());
      const bool judged = sequence.request().prompt_logprobs && position + 1 < sequence.prompt_size();
      if (judged || (last && !sequence.NothingToSample())) {
        output_rows_.push_back(static_cast<int32_t>(tokens_.size()));
        rows_.push_back({&work, position + 1, {}, 0, {}, {}});
        if (judged) rows_.back().target = sequence.tokens()[position + 1];
      }
      tokens_.push_back(sequence.tokens()[position]);
      positions_.push_back(static_cast<int32_t>(position));
    }
    sequences_.push_back({begin, end, &sequence.state()});
    const Adapter* adapter = sequence.request().adapter.get();
    if (adapters_.empty() || adapters_.back().adapter != adapter) adapters_.push_back({begin, end, adapter});
    adapters_.back().end = end;
  }
}

void StepRunner::Sample(MatrixView<float> logits, std::span<Row> rows) {
  exec_.pool.ParallelFor(static_cast<int64_t>(rows.size()), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      Row& row = rows[i];
      const Sequence& sequence = *row.work->sequence;
      const GenerationRequest& request = sequence.request();
      const std::span<float> values(logits.Row(i), logits.cols);
      try {
        if (row.target) {
          row.logprobs = LogprobsOf(values, vocab_size_, *row.target, request.top_logprobs);
        } else if (request.logprobs) {
          std::vector<float> unchanged(values.begin(), values.end());
          row.token = sequence.sampler().Sample(values, row.position);
          row.logprobs = LogprobsOf(unchanged, vocab_size_, row.token, request.top_logprobs);
        } else {
          row.token = sequence.sampler().Sample(values, row.position);
        }
      } catch (const Error& error) {
        row.error = error;
      } catch (const std::exception& error) {
        row.error = Error(ErrorCode::kInternal, error.what());
      }
    }
  });
}

void StepRunner::Run(std::span<Work> works, StatePool& pool) {
  Layout(works);
  for (Work& work : works) work.sequence->state().Reserve(work.count);
  const ModelConfig& config = decoder_.config();
  const auto outputs = static_cast<int64_t>(output_rows_.size());
  hidden_.resize(outputs * config.hidden_dim);
  const Step step{tokens_, positions_, sequences_, adapters_, output_rows_};
  decoder_.Forward(exec_, step, DenseView(hidden_.data(), outputs, config.hidden_dim));
  logits_.resize(std::min(outputs, kLogitRows) * config.vocab_size);
  for (int64_t begin = 0; begin < outputs; begin += kLogitRows) {
    const int64_t count = std::min(kLogitRows, outputs - begin);
    const auto logits = DenseView(logits_.data(), count, config.vocab_size);
    const auto hidden = DenseView(hidden_.data() + begin * config.hidden_dim, count, config.hidden_dim);
    decoder_.Logits(exec_, hidden, logits);
    Sample(logits, std::span(rows_).subspan(begin, count));
  }

  for (const Row& row : rows_) {
    if (row.error) row.work->error = row.error;
  }
  for (Work& work : works) {
    if (!work.error) work.sequence->Commit(work.count, pool);
  }
  for (Row& row : rows_) {
    if (row.work->error) continue;
    Sequence& sequence = *row.work->sequence;
    if (row.target) {
      sequence.AddPromptLogprobs(row.position, std::move(*row.logprobs));
    } else {
      sequence.Accept(row.token, std::move(row.logprobs));
    }
  }
  for (Work& work : works) {
    if (!work.error && !work.sequence->finished() && work.sequence->NothingToSample() &&
        work.sequence->pending() == 0) {
      work.sequence->Accept(std::nullopt, std::nullopt);
    }
  }
}

}  // namespace bakestone
