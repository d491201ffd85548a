#include "engine/pooled_states.h"

#include "base/error.h"
#include "model/decoder.h"

namespace bakestone {

std::vector<PooledState> PooledStates(const Model& model, Exec& exec,
                                      std::span<const TokenizedText> texts, Pooling pooling) {
  std::vector<PooledState> states;
  if (texts.empty()) return states;
  std::vector<int32_t> tokens, positions, rows;
  std::vector<uint8_t> types;
  std::vector<SequenceRun> runs;
  for (const TokenizedText& text : texts) {
    const auto begin = static_cast<int32_t>(tokens.size());
    BAKESTONE_CHECK(text.types.empty() || text.types.size() == text.tokens.size());
    for (size_t i = 0; i < text.tokens.size(); ++i) {
      positions.push_back(static_cast<int32_t>(i));
      rows.push_back(static_cast<int32_t>(tokens.size()));
      tokens.push_back(text.tokens[i]);
      types.push_back(text.types.empty() ? uint8_t{0} : text.types[i]);
    }
    runs.push_back({begin, static_cast<int32_t>(tokens.size()), nullptr});
  }
  const int64_t width = model.config.hidden_dim;
  std::vector<float> hidden(tokens.size() * static_cast<size_t>(width));
  const auto view = DenseView(hidden.data(), static_cast<int64_t>(tokens.size()), width);
  model.decoder->Forward(exec,
                         {.tokens = tokens,
                          .positions = positions,
                          .sequences = runs,
                          .output_rows = rows,
                          .token_types = types},
                         view);
  for (const SequenceRun& run : runs) {
    PooledState& state = states.emplace_back();
    state.sum.resize(static_cast<size_t>(width));
    const int32_t first = pooling == Pooling::kLast ? run.end - 1 : run.begin;
    const int32_t end = pooling == Pooling::kFirst ? run.begin + 1 : run.end;
    for (int32_t row = first; row < end; ++row) {
      for (int64_t i = 0; i < width; ++i) {
        state.sum[static_cast<size_t>(i)] += static_cast<double>(view(row, i));
      }
    }
    state.count = end - first;
  }
  return states;
}

std::vector<float> MeansOf(std::span<const PooledState> states) {
  std::vector<float> means;
  for (const PooledState& state : states) {
    for (const double sum : state.sum) {
      means.push_back(static_cast<float>(sum / static_cast<double>(state.count)));
    }
  }
  return means;
}

}  // namespace bakestone
