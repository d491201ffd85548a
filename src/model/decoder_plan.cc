// What a step asks for, checked and laid out: runs of sequences with their pages, adapters by rows,
// output rows.
#include "base/error.h"
#include "model/decoder_pass.h"

namespace bakestone {

void DecoderPass::CheckStep() const {
  const auto rows = static_cast<int32_t>(step_.tokens.size());
  BAKESTONE_CHECK(rows > 0 && step_.positions.size() == step_.tokens.size());
  BAKESTONE_CHECK(step_.token_types.empty() || step_.token_types.size() == step_.tokens.size());
  for (size_t i = 0; i < step_.tokens.size(); ++i) {
    if (step_.tokens[i] < 0 || step_.tokens[i] >= config_.vocab_size) {
      Throw(ErrorCode::kInvalidArgument, "token {}: expected an id from 0 to {}, found {}", i,
            config_.vocab_size - 1, step_.tokens[i]);
    }
    BAKESTONE_CHECK(step_.positions[i] >= 0);
  }
  int32_t end = 0;
  for (const SequenceRun& run : step_.sequences) {
    BAKESTONE_CHECK(run.begin == end && run.end > run.begin);
    BAKESTONE_CHECK(run.state == nullptr || run.state->reserved() >= run.end - run.begin);
    end = run.end;
  }
  BAKESTONE_CHECK(end == rows);
  end = step_.adapters.empty() ? rows : 0;
  for (const AdapterRun& run : step_.adapters) {
    BAKESTONE_CHECK(run.begin == end && run.end > run.begin);
    BAKESTONE_CHECK(run.adapter == nullptr || run.adapter->published());
    end = run.end;
  }
  BAKESTONE_CHECK(end == rows);
  int32_t previous = -1;
  for (const int32_t row : step_.output_rows) {
    BAKESTONE_CHECK(row > previous && row < rows);
    previous = row;
  }
}

std::span<const uint8_t> DecoderPass::PlanFar() {
  if (config_.rope.far_factors.empty()) return {};
  uint8_t* far = arena_.Take<uint8_t>(static_cast<int64_t>(step_.tokens.size()));
  for (const SequenceRun& run : step_.sequences) {
    const bool own = run.state != nullptr ? run.state->far() : config_.far(run.end - run.begin);
    std::fill(far + run.begin, far + run.end, own ? uint8_t{1} : uint8_t{0});
  }
  return {far, step_.tokens.size()};
}

void DecoderPass::PlanPages() {
  attention_ = {
      .heads = config_.num_heads,
      .element = exec_.precision == Precision::kExact ? KvElement::kF32 : KvElement::kBF16,
      .scale = config_.attention_scale,
      .soft_cap = config_.attention_soft_cap};
  const SequenceState* first = nullptr;
  size_t num_without = 0;
  for (const SequenceRun& run : step_.sequences) {
    if (run.state == nullptr) {
      ++num_without;
      continue;
    }
    if (first == nullptr) first = run.state;
    BAKESTONE_CHECK(run.state->kv_type() == first->kv_type());
  }
  if (first != nullptr) {
    attention_.element = ElementOf(first->kv_type());
  }
  PlanLayers();
  // Where no state keeps them, a layer's keys and values last until the next layer's; those that
  // others read, for all of the step.
  num_temporary_ = 1;
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
    const int64_t owner = config_.kv_layer(layer);
    if (owner != layer && layers_[owner].temporary == 0) {
      layers_[owner].temporary = num_temporary_++;
    }
  }
  std::vector<ops::TemporaryPages>& temporary = exec_.scratch.run_pages;
  if (temporary.size() < num_without * num_temporary_) {
    temporary.resize(num_without * num_temporary_);
  }
  size_t next = 0;
  for (const SequenceRun& run : step_.sequences) {
    if (run.state != nullptr) continue;
    for (size_t i = 0; i < num_temporary_; ++i) {
      temporary[next++].Reset(attention_, run.end - run.begin);
    }
  }
}

// What the layers' attention takes; that of the largest pages is left in attention_.
void DecoderPass::PlanLayers() {
  layers_ = arena_.Take<LayerShape>(config_.num_layers);
  int64_t most = 0;
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
    ops::AttentionShape shape = attention_;
    shape.kv_heads = config_.layer_kv_heads(config_.kv_layer(layer));
    shape.head_dim = config_.layer_head_dim(layer);
    layers_[layer] = {.kv_heads = shape.kv_heads, .head_dim = shape.head_dim, .temporary = 0};
    const int64_t bytes = ops::KvPageBytes(shape);
    if (bytes <= most) continue;
    most = bytes;
    attention_ = shape;
  }
}

void DecoderPass::SetLayer(int64_t layer) {
  attention_.kv_heads = layers_[layer].kv_heads;
  attention_.head_dim = layers_[layer].head_dim;
  attention_.window = config_.window(layer);
  attention_.sinks = config_.sinks ? Layer(layer).sinks.data() : nullptr;
}

std::span<const KvRun> DecoderPass::PlanRuns() {
  const auto count = static_cast<int64_t>(step_.sequences.size());
  KvRun* runs = arena_.Take<KvRun>(count);
  pages_ = arena_.Take<RunPages>(count);
  for (int64_t i = 0; i < count; ++i) {
    const SequenceRun& run = step_.sequences[static_cast<size_t>(i)];
    const int64_t pages = run.state != nullptr
                              ? run.state->num_pages()
                              : (run.end - run.begin + kPageTokens - 1) / kPageTokens;
    pages_[i] = {
        .k = arena_.Take<uint8_t*>(pages), .v = arena_.Take<uint8_t*>(pages), .count = pages};
    runs[i] = {.row_begin = run.begin,
               .row_end = run.end,
               .first_slot = run.state != nullptr ? run.state->length() : 0,
               .k_pages = pages_[i].k,
               .v_pages = pages_[i].v};
  }
  return {runs, static_cast<size_t>(count)};
}

void DecoderPass::LoadPages(int64_t layer) const {
  const size_t own = layers_[config_.kv_layer(layer)].temporary;
  size_t without = 0;
  for (size_t i = 0; i < step_.sequences.size(); ++i) {
    const SequenceState* state = step_.sequences[i].state;
    const RunPages& pages = pages_[i];
    if (state == nullptr) {
      const ops::TemporaryPages& temporary =
          exec_.scratch.run_pages[without++ * num_temporary_ + own];
      std::copy_n(temporary.k_pages(), pages.count, pages.k);
      std::copy_n(temporary.v_pages(), pages.count, pages.v);
      continue;
    }
    for (int64_t page = 0; page < pages.count; ++page) {
      pages.k[page] = state->Keys(layer, page);
      pages.v[page] = state->Values(layer, page);
    }
  }
}

void DecoderPass::PlanOutputs(const RopeTables& rope) {
  const std::span<const int32_t> rows = step_.output_rows;
  KvRun* runs = arena_.Take<KvRun>(num_outputs());
  auto* adapters = arena_.Take<AdapterRun>(static_cast<int64_t>(step_.adapters.size()));
  int32_t* positions = arena_.Take<int32_t>(num_outputs());
  size_t num_runs = 0, num_adapters = 0, run = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto at = static_cast<int64_t>(i);
    positions[i] = step_.positions[static_cast<size_t>(rows[i])];
    const bool follows = i > 0 && rows[i] == rows[i - 1] + 1 && rows[i] < all_.runs[run].row_end;
    if (follows) {
      ++runs[num_runs - 1].row_end;
      continue;
    }
    while (rows[i] >= all_.runs[run].row_end) ++run;
    runs[num_runs] = all_.runs[run];
    runs[num_runs].first_slot += rows[i] - all_.runs[run].row_begin;
    runs[num_runs].row_begin = at;
    runs[num_runs++].row_end = at + 1;
  }
  const auto index_of = [&](int32_t row) {
    return static_cast<int32_t>(std::lower_bound(rows.begin(), rows.end(), row) - rows.begin());
  };
  for (const AdapterRun& whole : step_.adapters) {
    const AdapterRun part = {index_of(whole.begin), index_of(whole.end), whole.adapter};
    if (part.end > part.begin) adapters[num_adapters++] = part;
  }
  exec_.scratch.out_rope = rope;
  std::span<const uint8_t> far;
  if (!far_.empty()) {
    uint8_t* own = arena_.Take<uint8_t>(num_outputs());
    for (size_t i = 0; i < rows.size(); ++i) own[i] = far_[static_cast<size_t>(rows[i])];
    far = {own, rows.size()};
  }
  exec_.scratch.out_rope.Set({positions, rows.size()}, far);
  out_ = {.rows = num_outputs(),
          .adapters = {adapters, num_adapters},
          .runs = {runs, num_runs},
          .rope = &exec_.scratch.out_rope};
}

}  // namespace bakestone
