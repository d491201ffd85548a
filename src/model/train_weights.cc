#include "model/train_weights.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "ops/train_loss.h"
#include "ops/train_products.h"
#include "tensor/half.h"

namespace bakestone {
TrainSource SourceOf(const Weights& weights, const KernelTable& kernels) {
  const auto linear = [&weights](LinearId id) -> const Weight& {
    const LayerWeights& layer = weights.layers[static_cast<size_t>(id.layer)];
    if (id.expert < 0) return layer.at(id.site);
    const ExpertWeights& expert = layer.experts[static_cast<size_t>(id.expert)];
    return id.site == Site::kGate ? expert.gate : id.site == Site::kUp ? expert.up : expert.down;
  };
  TrainSource source;
  source.linear = [linear, &kernels](LinearId id, Range rows, MatrixView<float> out) {
    linear(id).DequantizeRows(kernels, rows, out);
  };
  source.layer = [&weights](int64_t layer) -> const LayerWeights& {
    return weights.layers[static_cast<size_t>(layer)];
  };
  source.frozen = [layer = source.layer, &kernels](int64_t at, FrozenSite site, Range rows,
                                                   MatrixView<float> out) {
    FrozenWeight(layer(at), site).DequantizeRows(kernels, rows, out);
  };
  source.bias = [linear](LinearId id) { return linear(id).bias(); };
  source.embedding = [&weights, &kernels](Range rows, MatrixView<float> out) {
    weights.embedding.DequantizeRows(kernels, rows, out);
  };
  source.head = [&weights, &kernels](Range rows, MatrixView<float> out) {
    weights.head().DequantizeRows(kernels, rows, out);
  };
  source.attention_norm = [&weights](int64_t layer) {
    return weights.layers[static_cast<size_t>(layer)].attention_norm.data();
  };
  source.mlp_norm = [&weights](int64_t layer) {
    return weights.layers[static_cast<size_t>(layer)].mlp_norm.data();
  };
  const auto norm = [&weights](std::vector<float> LayerWeights::* which) {
    return [&weights, which](int64_t layer) {
      return (weights.layers[static_cast<size_t>(layer)].*which).data();
    };
  };
  source.attention_post_norm = norm(&LayerWeights::attention_post_norm);
  source.mlp_post_norm = norm(&LayerWeights::mlp_post_norm);
  source.q_norm = norm(&LayerWeights::q_norm);
  source.k_norm = norm(&LayerWeights::k_norm);
  source.final_norm = [&weights] { return weights.final_norm.data(); };
  source.per_layer_embedding = [&weights, &kernels](Range rows, MatrixView<float> out) {
    weights.per_layer_embedding.DequantizeRows(kernels, rows, out);
  };
  source.per_layer_projection = [&weights, &kernels](Range rows, MatrixView<float> out) {
    weights.per_layer_projection.DequantizeRows(kernels, rows, out);
  };
  source.per_layer_norm = [&weights] { return weights.per_layer_norm.data(); };
  source.final_norm_bias = [&weights] { return weights.final_norm_bias.data(); };
  return source;
}

namespace {

using ReadRows = std::function<void(Range rows, MatrixView<float> out)>;

// Rows of a table, of which the slot's lie at *values.
ReadRows WithTrainedRows(ReadRows base, const RowsSlot& slot, const float* const* values) {
  return [base = std::move(base), &slot, values](Range rows, MatrixView<float> out) {
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      const MatrixView<float> to = out.Rows(row - rows.begin, 1);
      if (!slot.Holds(row)) {
        base({row, row + 1}, to);
        continue;
      }
      const float* from = *values + slot.offset + (row - slot.first) * out.cols;
      for (int64_t i = 0; i < out.cols; ++i) to.data[i] = BF16ToFloat(FloatToBF16(from[i]));
    }
  };
}

std::function<const float*(int64_t)> WithTrainedNorms(std::function<const float*(int64_t)> base,
                                                      const std::vector<int64_t>& offsets,
                                                      const float* const* values) {
  return [base = std::move(base), &offsets, values](int64_t layer) {
    const int64_t offset = offsets[static_cast<size_t>(layer)];
    return offset < 0 ? base(layer) : *values + offset;
  };
}

}  // namespace

TrainSource TrainedSource(TrainSource base, const TrainLayout& layout, const float* const* values) {
  TrainSource source = base;
  if (!layout.matrices.empty()) {
    source.linear = [base, &layout, values](LinearId id, Range rows, MatrixView<float> out) {
      const MatrixSlot* slot = layout.FindMatrix(id);
      if (slot == nullptr) return base.linear(id, rows, out);
      std::copy_n(*values + slot->offset + rows.begin * slot->in,
                  (rows.end - rows.begin) * slot->in, out.data);
    };
    source.bias = [base, &layout, values](LinearId id) {
      const MatrixSlot* slot = layout.FindMatrix(id);
      return slot == nullptr || slot->bias_offset < 0 ? base.bias(id) : *values + slot->bias_offset;
    };
  }
  if (layout.embedding.rows > 0) {
    source.embedding = WithTrainedRows(base.embedding, layout.embedding, values);
  }
  if (layout.head_rows().rows > 0) {
    source.head = WithTrainedRows(base.head, layout.head_rows(), values);
  }
  if (!layout.attention_norms.empty()) {
    source.attention_norm = WithTrainedNorms(base.attention_norm, layout.attention_norms, values);
    source.mlp_norm = WithTrainedNorms(base.mlp_norm, layout.mlp_norms, values);
  }
  if (layout.final_norm >= 0) {
    source.final_norm = [&layout, values] { return *values + layout.final_norm; };
  }
  return source;
}

TrainWeights::TrainWeights(const ModelConfig& config, TrainSource source,
                           const TrainKernels& kernels, ThreadPool& pool, int64_t cache_bytes)
    : config_(config),
      source_(std::move(source)),
      kernels_(kernels),
      pool_(pool),
      row_scratch_(static_cast<size_t>(pool.num_threads())) {
  if (const std::string lacks = TrainingLacks(config); !lacks.empty()) {
    Throw(ErrorCode::kUnsupported,
          "training: expected a model that 'show --families' says can be trained, found {}; this "
          "one can be served",
          lacks);
  }
  CheckPanels(config);
  int64_t widest = config.hidden_dim;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    plans_.push_back(PlanPanels(config, layer));
    widest = std::max(widest, plans_.back().widest);
  }
  for (RowScratch& scratch : row_scratch_) {
    scratch.wide = Buffer<float>(kTrainLanes * widest);
    scratch.rounded = Buffer<uint16_t>(kTrainLanes * widest);
  }
  padded_vocab_ = ops::PanelsOf(config.vocab_size) * kTrainLanes;
  constexpr int64_t kBytes = sizeof(uint16_t);
  const int64_t head_bytes = 2 * padded_vocab_ * config.hidden_dim * kBytes;
  keep_head_ = head_bytes <= cache_bytes;
  int64_t left = cache_bytes - (keep_head_ ? head_bytes : 0);
  for (const PanelPlan& plan : plans_) {
    left -= plan.whole() * kBytes;
    if (left < 0) break;
    layers_.emplace_back();
  }
  stale_.resize(layers_.size());
}

int64_t TrainWeights::bytes() const noexcept {
  int64_t total = current_.bytes() + expert_.bytes() + transposed_.bytes() + head_.bytes() +
                  head_transposed_.bytes() + per_layer_.bytes();
  for (const auto& layer : layers_) total += layer.bytes();
  for (const RowScratch& scratch : row_scratch_) {
    total += scratch.wide.bytes() + scratch.rounded.bytes();
  }
  return total;
}

// read(range, view) gives rows as f32; 16 of them are one panel.
template <class Read>
void TrainWeights::Build(int64_t rows, int64_t k, const Read& read, uint16_t* panels) {
  pool_.ParallelFor(ops::PanelsOf(rows), 4, [&](int64_t begin, int64_t end, int thread) {
    RowScratch& scratch = row_scratch_[static_cast<size_t>(thread)];
    for (int64_t panel = begin; panel < end; ++panel) {
      const int64_t first = panel * kTrainLanes, count = std::min(kTrainLanes, rows - first);
      read(Range{first, first + count}, DenseView(scratch.wide.data(), count, k));
      kernels_.to_bf16(scratch.wide.data(), scratch.rounded.data(), count * k);
      kernels_.pack_lanes(scratch.rounded.data(), k, count, k, k, panels + panel * k * kTrainLanes,
                          k * kTrainLanes, 0, 1);
    }
  });
}

void TrainWeights::BuildGroup(int64_t layer, int64_t expert, TrainGroup group, uint16_t* panels) {
  const GroupShape shape = ShapeOf(config_, layer, group, expert);
  for (int i = 0; i < shape.num_sites; ++i) {
    const auto at = static_cast<size_t>(i);
    const LinearId id{static_cast<int32_t>(layer), shape.sites[at], static_cast<int32_t>(expert)};
    Build(
        shape.out_begin[at + 1] - shape.out_begin[at], shape.in,
        [&](Range rows, MatrixView<float> out) { source_.linear(id, rows, out); },
        panels + shape.out_begin[at] * shape.in);
  }
}

void TrainWeights::BuildLayer(int64_t layer, uint16_t* panels) {
  for (int group = 0; group < kNumTrainGroups; ++group) {
    BuildGroup(layer, -1, static_cast<TrainGroup>(group),
               panels + plan(layer).groups[static_cast<size_t>(group)]);
  }
  for (int i = 0; i < kNumFrozenSites; ++i) {
    const auto site = static_cast<FrozenSite>(i);
    const LinearShape shape = ShapeOf(config_, layer, site);
    Build(
        shape.n, shape.k,
        [&](Range rows, MatrixView<float> out) { source_.frozen(layer, site, rows, out); },
        panels + plan(layer).frozen[static_cast<size_t>(i)]);
  }
}

void TrainWeights::BuildExpert(int64_t layer, int64_t expert, uint16_t* panels) {
  BuildGroup(layer, expert, TrainGroup::kGateUp, panels);
  BuildGroup(layer, expert, TrainGroup::kDown, panels + plan(layer).expert_down);
}

const uint16_t* TrainWeights::Expert(int64_t layer, int64_t expert) {
  const PanelPlan& own = plan(layer);
  if (layer < std::ssize(layers_)) {
    return Layer(layer) + own.size + expert * own.expert_size;
  }
  if (expert_.size() < own.expert_size) expert_ = Buffer<uint16_t>(own.expert_size);
  BuildExpert(layer, expert, expert_.data());
  return expert_.data();
}

const uint16_t* TrainWeights::Layer(int64_t layer) {
  const PanelPlan& own = plan(layer);
  if (layer < std::ssize(layers_)) {
    Buffer<uint16_t>& kept = layers_[static_cast<size_t>(layer)];
    uint8_t& stale = stale_[static_cast<size_t>(layer)];
    if (kept.empty() || stale != 0) {
      if (kept.empty()) kept = Buffer<uint16_t>(own.whole());
      BuildLayer(layer, kept.data());
      for (int64_t expert = 0; expert < own.experts; ++expert) {
        BuildExpert(layer, expert, kept.data() + own.size + expert * own.expert_size);
      }
      stale = 0;
    }
    return kept.data();
  }
  if (current_.size() < own.size) current_ = Buffer<uint16_t>(own.size);
  BuildLayer(layer, current_.data());
  return current_.data();
}

const uint16_t* TrainWeights::Transposed(const uint16_t* panels, int64_t n, int64_t k) {
  if (transposed_.empty()) {
    int64_t largest = 0;
    for (const PanelPlan& plan : plans_) largest = std::max(largest, plan.largest);
    transposed_ = Buffer<uint16_t>(largest);
  }
  ops::TransposePanels(kernels_, pool_, panels, k, ops::PadRank(n), transposed_.data());
  return transposed_.data();
}

const uint16_t* TrainWeights::PerLayerProjection() {
  const int64_t rows = config_.num_layers * config_.per_layer_dim;
  if (per_layer_.empty()) {
    per_layer_ = Buffer<uint16_t>(ops::PanelSize(rows, config_.hidden_dim));
    Build(rows, config_.hidden_dim, source_.per_layer_projection, per_layer_.data());
  }
  return per_layer_.data();
}

const uint16_t* TrainWeights::Head() {
  if (head_.empty() || head_stale_) {
    if (head_.empty()) head_ = Buffer<uint16_t>(padded_vocab_ * config_.hidden_dim);
    Build(config_.vocab_size, config_.hidden_dim, source_.head, head_.data());
    head_stale_ = false;
  }
  return head_.data();
}

const uint16_t* TrainWeights::HeadTransposed() {
  if (head_transposed_.empty() || head_transposed_stale_) {
    if (head_transposed_.empty()) {
      head_transposed_ = Buffer<uint16_t>(padded_vocab_ * config_.hidden_dim);
    }
    ops::TransposeHead(kernels_, pool_, Head(), config_.vocab_size, config_.hidden_dim,
                       head_transposed_.data());
    head_transposed_stale_ = false;
  }
  return head_transposed_.data();
}

void TrainWeights::ReleaseHead() {
  if (keep_head_) return;
  head_ = Buffer<uint16_t>();
  head_transposed_ = Buffer<uint16_t>();
}

void TrainWeights::Changed(const TrainLayout& layout) {
  if (!layout.matrices.empty()) std::fill(stale_.begin(), stale_.end(), uint8_t{1});
  if (layout.head_rows().rows > 0) head_stale_ = head_transposed_stale_ = true;
}

}  // namespace bakestone
