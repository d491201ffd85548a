#include "model/decoder.h"

#include "base/error.h"
#include "model/decoder_pass.h"
#include "model/rope_tables.h"
#include "ops/lora.h"
#include "ops/rows.h"

namespace bakestone {

DecoderPass::DecoderPass(const ModelConfig& config, const Weights& weights, const RopeTables& rope,
                         Exec& exec, const Step& step)
    : config_(config), weights_(weights), exec_(exec), step_(step), arena_(exec.scratch.arena) {
  CheckStep();
  exec.scratch.rope = rope;
  far_ = PlanFar();
  exec.scratch.rope.Set(step.positions, far_);
  PlanPages();
  all_ = {.rows = static_cast<int64_t>(step.tokens.size()),
          .adapters = step.adapters,
          .runs = PlanRuns(),
          .rope = &exec.scratch.rope};
  out_ = all_;
  if (num_outputs() < all_.rows) PlanOutputs(rope);
  int64_t state = 0;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    state = std::max(state, config.state_size(layer));
  }
  zero_state_ = arena_.Take<float>(state);
  std::fill_n(zero_state_, state, 0.0f);
  lost_states_ = arena_.Take<float*>(static_cast<int64_t>(step.sequences.size()));
  for (size_t i = 0; i < step.sequences.size(); ++i) {
    lost_states_[i] = step.sequences[i].state == nullptr ? arena_.Take<float>(state) : nullptr;
  }
}

void DecoderPass::Run(MatrixView<float> hidden) {
  MatrixView<float> x = arena_.TakeMatrix<float>(all_.rows, config_.hidden_dim);
  ops::Embed(exec_.context, weights_.embedding.panel(), step_.tokens, x);
  if (config_.embedding_scale != 1) ops::Scale(exec_.context, config_.embedding_scale, x);
  if (config_.encoder.changes_embedding()) AddEmbeddingParts(x);
  if (config_.per_layer_dim > 0) PlanPerLayer(x);
  if (config_.embedding_norm) {
    ops::LayerNorm(exec_.context, x, weights_.embedding_norm, weights_.embedding_norm_bias,
                   config_.norm_eps, x);
  }
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
    const bool last = layer + 1 == config_.num_layers,
               only_outputs = last && num_outputs() < all_.rows;
    SetLayer(layer);
    x = Mix(layer, x, only_outputs);
    if (x.rows == 0) return;
    const RowSet& set = last ? out_ : all_;
    MlpOrExperts(layer, x, set);
    if (config_.per_layer_dim > 0) AddPerLayer(layer, x, set);
    if (config_.layer_scales) ops::Scale(exec_.context, Layer(layer).output_scale, x);
  }
  if (config_.norm_placement == NormPlacement::kSum) {
    for (int64_t row = 0; row < x.rows; ++row) std::copy_n(x.Row(row), x.cols, hidden.Row(row));
  } else if (config_.norm_kind == NormKind::kLayer) {
    ops::LayerNorm(exec_.context, x, weights_.final_norm, weights_.final_norm_bias,
                   config_.norm_eps, hidden);
  } else {
    ops::RmsNorm(exec_.context, x, weights_.final_norm, config_.norm_eps, hidden);
  }
}

DecoderPass::Forms DecoderPass::FormsFor(int64_t layer, const RowSet& set,
                                         std::span<const SiteOutput> outputs) const {
  Forms forms;
  for (const SiteOutput& output : outputs) {
    forms.Add(ops::ActTypeFor(Layer(layer).at(output.site).panel().type, exec_.precision));
    if (Adapted(layer, set, output.site)) forms.Add(ops::LoraActType(exec_.precision));
  }
  return forms;
}

bool DecoderPass::Adapted(int64_t layer, const RowSet& set, Site site) {
  const LinearId id = {static_cast<int32_t>(layer), site};
  return std::any_of(set.adapters.begin(), set.adapters.end(), [&](const AdapterRun& run) {
    return run.adapter != nullptr && run.adapter->FindPanels(id) != nullptr;
  });
}

std::span<const ops::LoraRun> DecoderPass::Terms(std::span<const AdapterRun> adapters,
                                                 std::span<const LinearId> ids) {
  auto* terms = arena_.Take<ops::LoraRun>(std::ssize(ids) * std::ssize(adapters));
  size_t count = 0;
  for (const AdapterRun& run : adapters) {  // one after the other, as they lie in memory
    for (size_t i = 0; i < ids.size() && run.adapter != nullptr; ++i) {
      const ops::LoraPanels* lora = run.adapter->FindPanels(ids[i]);
      if (lora == nullptr) continue;
      terms[count++] = {lora, {run.begin, run.end}, static_cast<int64_t>(i)};
    }
  }
  return {terms, count};
}

void DecoderPass::Products(int64_t layer, const RowSet& set, std::span<const SiteOutput> outputs,
                           Epilogue epilogue) {
  std::array<ops::Product, kNumSites> products;
  std::array<LinearId, kNumSites> ids;
  for (size_t i = 0; i < outputs.size(); ++i) {
    const Weight& weight = Layer(layer).at(outputs[i].site);
    products[i] = {.panel = weight.panel(), .bias = weight.bias(), .y = outputs[i].y};
    ids[i] = {static_cast<int32_t>(layer), outputs[i].site};
  }
  Arena::Scope scope(arena_);
  ops::MatMul(exec_.context, exec_.scratch.rows, {products.data(), outputs.size()}, exec_.precision,
              epilogue, Terms(set.adapters, {ids.data(), outputs.size()}));
}

void DecoderPass::QuantizeNormed(MatrixView<const float> x, const Norm& norm, const Forms& forms,
                                 const char* what) {
  ops::QuantizedRows& rows = exec_.scratch.rows;
  if (norm.scale.empty()) {
    ops::Quantize(exec_.context, x, forms.span(), rows, what);
  } else if (config_.norm_kind == NormKind::kLayer) {
    ops::LayerNormQuantize(exec_.context, x, norm.scale, norm.bias, config_.norm_eps, forms.span(),
                           rows, what);
  } else {
    ops::RmsNormQuantize(exec_.context, x, norm.scale, config_.norm_eps, {}, forms.span(), rows,
                         what);
  }
}

void DecoderPass::NormedProducts(int64_t layer, const RowSet& set, MatrixView<const float> x,
                                 const Norm& norm, std::span<const SiteOutput> outputs,
                                 const char* what, const PlainOutput* more) {
  Forms forms = FormsFor(layer, set, outputs);
  if (more != nullptr) forms.Add(ops::ActTypeFor(more->weight.panel().type, exec_.precision));
  QuantizeNormed(x, norm, forms, what);
  Products(layer, set, outputs, Epilogue::kStore);
  if (more == nullptr) return;
  const ops::Product product = {
      .panel = more->weight.panel(), .bias = more->weight.bias(), .y = more->y};
  ops::MatMul(exec_.context, exec_.scratch.rows, {&product, 1}, exec_.precision);
}

void DecoderPass::AddBranch(int64_t layer, const RowSet& set, Site site,
                            std::span<const float> post_norm, MatrixView<float> x) {
  if (config_.norm_placement == NormPlacement::kSum) {
    return AddAndNorm(layer, set, site, post_norm, x);
  }
  if (post_norm.empty() && config_.residual_scale == 1) {
    const SiteOutput output = {site, x};
    return Products(layer, set, {&output, 1}, Epilogue::kAdd);
  }
  Arena::Scope scope(arena_);
  const SiteOutput output = {site, arena_.TakeMatrix<float>(x.rows, x.cols)};
  Products(layer, set, {&output, 1}, Epilogue::kStore);
  if (!post_norm.empty()) {
    ops::RmsNorm(exec_.context, output.y, post_norm, config_.norm_eps, output.y);
  }
  if (config_.residual_scale != 1) ops::Scale(exec_.context, config_.residual_scale, output.y);
  ops::Add(exec_.context, output.y, x);
}

void DecoderPass::ProductsOf(MatrixView<const float> x, std::initializer_list<PlainOutput> outputs,
                             const char* what) {
  std::array<ops::Product, kMostPlainOutputs> products;
  BAKESTONE_CHECK(outputs.size() <= products.size());
  Forms forms;
  size_t count = 0;
  for (const PlainOutput& output : outputs) {
    forms.Add(ops::ActTypeFor(output.weight.panel().type, exec_.precision));
    products[count++] = {
        .panel = output.weight.panel(), .bias = output.weight.bias(), .y = output.y};
  }
  ops::Quantize(exec_.context, x, forms.span(), exec_.scratch.rows, what);
  ops::MatMul(exec_.context, exec_.scratch.rows, {products.data(), count}, exec_.precision);
}

Decoder::Decoder(const ModelConfig& config, const Weights& weights)
    : config_(config),
      weights_(weights),
      rope_{.main = ops::RopeTable(TableOf(config.rope)), .local = std::nullopt} {
  if (HasLocalRope(config)) rope_.local.emplace(TableOf(config.local_rope));
}

void Decoder::Forward(Exec& exec, const Step& step, MatrixView<float> hidden) const {
  BAKESTONE_CHECK(hidden.rows == static_cast<int64_t>(step.output_rows.size()));
  BAKESTONE_CHECK(hidden.rows == 0 || hidden.cols == config_.hidden_dim);
  Arena::Scope scope(exec.scratch.arena);
  DecoderPass(config_, weights_, rope_, exec, step).Run(hidden);
}

void Decoder::Logits(Exec& exec, MatrixView<const float> hidden, MatrixView<float> logits) const {
  BAKESTONE_CHECK(hidden.rows == logits.rows && hidden.cols == config_.hidden_dim &&
                  logits.cols == config_.vocab_size);
  if (hidden.rows == 0) return;
  const Weight& head = weights_.head();
  const ActType form = ops::ActTypeFor(head.panel().type, exec.precision);
  ops::Quantize(exec.context, hidden, {&form, 1}, exec.scratch.rows, "head input");
  const ops::Product product = {.panel = head.panel(), .bias = head.bias(), .y = logits};
  ops::MatMul(exec.context, exec.scratch.rows, {&product, 1}, exec.precision);
  if (config_.logit_scale != 1) ops::Scale(exec.context, config_.logit_scale, logits);
  if (config_.final_soft_cap > 0) ops::SoftCap(exec.context, config_.final_soft_cap, logits);
}

}  // namespace bakestone
