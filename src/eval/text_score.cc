#include "eval/text_score.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <vector>

#include "base/error.h"
#include "ops/rows.h"
#include "tensor/buffer.h"

namespace bakestone {
namespace {

constexpr int64_t kTextLogitRows = 64;  // 64 rows of 49,152 logits are 12.6 MB

// Adds -log p of tokens[1..] given what stands before them in the window.
double ScoreWindow(const Model& model, const Adapter* adapter, Exec& exec,
                   std::span<const int32_t> tokens) {
  const auto rows = static_cast<int64_t>(tokens.size()) - 1;
  const ModelConfig& config = model.config;
  std::vector<int32_t> positions(static_cast<size_t>(rows)), outputs(static_cast<size_t>(rows));
  std::iota(positions.begin(), positions.end(), 0);
  std::iota(outputs.begin(), outputs.end(), 0);
  const auto count = static_cast<int32_t>(rows);
  const SequenceRun sequence{0, count, nullptr};
  const AdapterRun run{0, count, adapter};
  Step step;
  step.tokens = tokens.first(static_cast<size_t>(rows));
  step.positions = positions;
  step.sequences = {&sequence, 1};
  step.adapters = {&run, 1};
  step.output_rows = outputs;
  std::vector<float> hidden(static_cast<size_t>(rows * config.hidden_dim));
  model.decoder->Forward(exec, step, {hidden.data(), rows, config.hidden_dim});

  std::vector<float> logits(
      static_cast<size_t>(std::min(rows, kTextLogitRows) * config.vocab_size));
  std::vector<SoftmaxStats> stats(static_cast<size_t>(kTextLogitRows));
  double nats = 0;
  for (int64_t begin = 0; begin < rows; begin += kTextLogitRows) {
    const int64_t chunk = std::min(kTextLogitRows, rows - begin);
    const MatrixView<float> view{logits.data(), chunk, config.vocab_size};
    model.decoder->Logits(
        exec, {hidden.data() + begin * config.hidden_dim, chunk, config.hidden_dim}, view);
    const auto used = std::span(stats).first(static_cast<size_t>(chunk));
    ops::ComputeSoftmaxStats(exec.context, {logits.data(), chunk, config.vocab_size}, used);
    for (int64_t row = 0; row < chunk; ++row) {
      const int32_t target = tokens[static_cast<size_t>(begin + row + 1)];
      nats += ops::LogSumExp(used[static_cast<size_t>(row)]) -
              static_cast<double>(logits[static_cast<size_t>(row * config.vocab_size + target)]);
    }
  }
  return nats;
}

}  // namespace

double TextScore::BitsPerByte() const {
  return nats / std::numbers::ln2 / static_cast<double>(std::max<int64_t>(1, bytes));
}

double TextScore::Perplexity() const {
  return std::exp(nats / static_cast<double>(std::max<int64_t>(1, tokens)));
}

TextScore ScoreText(const Model& model, const Adapter* adapter, Exec& exec, const std::string& text,
                    const TextScoreOptions& options) {
  std::vector<int32_t> tokens = model.tokenizer.Encode(text, {.add_special = false});
  if (static_cast<int64_t>(tokens.size()) > options.max_tokens) {
    tokens.resize(static_cast<size_t>(options.max_tokens));
  }
  if (tokens.size() < 2) {
    Throw(ErrorCode::kInvalidArgument, "a text to score: expected at least two tokens, found {}",
          tokens.size());
  }
  TextScore score;
  const auto total = static_cast<int64_t>(tokens.size());
  const int64_t window = std::min(options.window, model.config.context_length);
  for (int64_t begin = 0; begin + 1 < total; begin += window) {
    const int64_t length = std::min(window, total - begin);
    if (length < 2) break;
    const auto part = std::span<const int32_t>(tokens).subspan(static_cast<size_t>(begin),
                                                               static_cast<size_t>(length));
    score.nats += ScoreWindow(model, adapter, exec, part);
    score.tokens += length - 1;
    for (const int32_t token : part.subspan(1)) {
      score.bytes += static_cast<int64_t>(model.tokenizer.TokenBytes(token).size());
    }
    if (options.progress) options.progress(begin + length, total);
  }
  return score;
}

}  // namespace bakestone
