// The second branch: an MLP, or experts that a router chooses for each row.
#include "kernels/math.h"
#include "model/decoder_pass.h"
#include "ops/activated_products.h"
#include "ops/rows.h"

namespace bakestone {
namespace {

ops::Activation ActivationOf(MlpKind kind) {
  switch (kind) {
    case MlpKind::kGeGlu:
      return ops::Activation::kGeGlu;
    case MlpKind::kErfGeGlu:
      return ops::Activation::kErfGeGlu;
    case MlpKind::kGelu:
      return ops::Activation::kGelu;
    case MlpKind::kErfGelu:
      return ops::Activation::kErfGelu;
    default:
      return ops::Activation::kSwiGlu;
  }
}

constexpr std::array kExpertSites = {Site::kGate, Site::kUp, Site::kDown};

}  // namespace

void DecoderPass::MlpOrExperts(int64_t layer, MatrixView<float> x, const RowSet& set) {
  if (config_.mixer(layer) == Mixer::kRwkv) return;  // done
  if (!config_.has_experts(layer)) return Mlp(layer, x, set);
  config_.has_mlp(layer) ? MlpBesideExperts(layer, x, set) : Experts(layer, x, set);
}

void DecoderPass::Mlp(int64_t layer, MatrixView<float> x, const RowSet& set) {
  MlpActivation(layer, x, set);
  AddBranch(layer, set, Site::kDown, Layer(layer).mlp_post_norm, x);
}

void DecoderPass::MlpActivation(int64_t layer, MatrixView<const float> x, const RowSet& set) {
  Arena::Scope scope(arena_);
  const LayerWeights& weights = Layer(layer);
  const SiteOutput down = {Site::kDown, {}}, inner[] = {{Site::kGate, {}}, {Site::kUp, {}}};
  const auto sites = std::span(inner).subspan(config_.gated() ? 0 : 1);
  QuantizeNormed(x, {weights.mlp_norm, weights.mlp_norm_bias}, FormsFor(layer, set, sites),
                 "MLP input");
  const auto index = static_cast<int32_t>(layer);
  const LinearId ids[] = {{index, Site::kGate}, {index, Site::kUp}};
  Activate(config_.gated() ? &weights.gate : nullptr, weights.up,
           Terms(set.adapters, std::span(ids).last(sites.size())),
           FormsFor(layer, set, {&down, 1}).span(), "MLP activation");
}

void DecoderPass::Activate(const Weight* gate, const Weight& up,
                           std::span<const ops::LoraRun> adapters, std::span<const ActType> forms,
                           const char* what) {
  const ops::Product up_product = {.panel = up.panel(), .bias = up.bias(), .y = {}};
  ops::ActivatedProducts products{up_product, {}, ActivationOf(config_.mlp)};
  if (gate != nullptr) {
    products.first = {.panel = gate->panel(), .bias = gate->bias(), .y = {}};
    products.up = up_product;
  }
  DecoderScratch& scratch = exec_.scratch;
  ops::MatMulActivateQuantize(exec_.context, scratch.rows, products, exec_.precision, adapters,
                              forms, scratch.next_rows, what);
  std::swap(scratch.rows, scratch.next_rows);
}

void DecoderPass::Experts(int64_t layer, MatrixView<float> x, const RowSet& set) {
  Arena::Scope scope(arena_);
  const LayerWeights& weights = Layer(layer);
  const MatrixView<float> h = arena_.TakeMatrix<float>(set.rows, x.cols);
  const MatrixView<float> logits = arena_.TakeMatrix<float>(set.rows, config_.router.experts);
  ops::RmsNorm(exec_.context, x, weights.mlp_norm, config_.norm_eps, h);
  ProductsOf(h, {{weights.router, logits}}, "router input");
  const std::vector<ExpertRows> chosen = ChooseExperts(config_.router, weights.router_bias, logits);
  const std::span<const AdapterRun> adapters = ExpertAdapters(layer, set);
  for (size_t expert = 0; expert < chosen.size(); ++expert) {
    const LinearId id = {static_cast<int32_t>(layer), Site::kGate, static_cast<int32_t>(expert)};
    if (!chosen[expert].rows.empty()) Expert(id, adapters, chosen[expert], h, x);
  }
  if (config_.router.shared_dim > 0) SharedExpert(weights, h, x);
}

std::span<const AdapterRun> DecoderPass::ExpertAdapters(int64_t layer, const RowSet& set) {
  auto* runs = arena_.Take<AdapterRun>(static_cast<int64_t>(set.adapters.size()));
  size_t count = 0;
  for (const AdapterRun& run : set.adapters) {
    if (run.adapter != nullptr && run.adapter->AdaptsExperts(layer)) runs[count++] = run;
  }
  return {runs, count};
}

std::span<const AdapterRun> DecoderPass::AdaptersOfExpert(LinearId id,
                                                          std::span<const AdapterRun> adapters,
                                                          const ExpertRows& chosen) {
  if (adapters.empty()) return {};
  auto* runs = arena_.Take<AdapterRun>(static_cast<int64_t>(adapters.size()));
  size_t count = 0;
  for (const AdapterRun& run : adapters) {
    const auto at = [&](int32_t row) {
      return static_cast<int32_t>(std::lower_bound(chosen.rows.begin(), chosen.rows.end(), row) -
                                  chosen.rows.begin());
    };
    const AdapterRun part = {at(run.begin), at(run.end), run.adapter};
    const bool adapted = std::any_of(kExpertSites.begin(), kExpertSites.end(), [&](Site site) {
      return run.adapter->FindPanels({id.layer, site, id.expert}) != nullptr;
    });
    if (adapted && part.end > part.begin) runs[count++] = part;
  }
  return {runs, count};
}

void DecoderPass::Expert(LinearId id, std::span<const AdapterRun> adapters,
                         const ExpertRows& chosen, MatrixView<const float> h, MatrixView<float> x) {
  Arena::Scope scope(arena_);
  const auto count = static_cast<int64_t>(chosen.rows.size());
  const MatrixView<float> in = arena_.TakeMatrix<float>(count, h.cols);
  exec_.pool.ParallelFor(count, 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      std::copy_n(h.Row(chosen.rows[static_cast<size_t>(i)]), h.cols, in.Row(i));
    }
  });
  ExpertMlp(Layer(id.layer).experts[static_cast<size_t>(id.expert)], id,
            AdaptersOfExpert(id, adapters, chosen), in, in);
  exec_.pool.ParallelFor(count, 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const float share = chosen.shares[static_cast<size_t>(i)], *from = in.Row(i);
      float* to = x.Row(chosen.rows[static_cast<size_t>(i)]);
      for (int64_t c = 0; c < x.cols; ++c) to[c] += share * from[c];
    }
  });
}

void DecoderPass::SharedExpert(const LayerWeights& weights, MatrixView<const float> h,
                               MatrixView<float> x) {
  Arena::Scope scope(arena_);
  const MatrixView<float> out = arena_.TakeMatrix<float>(h.rows, h.cols);
  MatrixView<float> gate;
  if (config_.router.shared_gate) {
    gate = arena_.TakeMatrix<float>(h.rows, 1);
    ProductsOf(h, {{weights.shared_gate, gate}}, "input of the shared expert's gate");
  }
  ExpertMlp(weights.shared, {}, {}, h, out);
  exec_.pool.ParallelFor(h.rows, 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const float share = gate.data != nullptr ? math::Sigmoid(gate(i, 0)) : 1.0f;
      for (int64_t c = 0; c < x.cols; ++c) x(i, c) += share * out(i, c);
    }
  });
}

void DecoderPass::ExpertMlp(const ExpertWeights& expert, LinearId id,
                            std::span<const AdapterRun> adapters, MatrixView<const float> in,
                            MatrixView<float> out) {
  Arena::Scope scope(arena_);
  constexpr const char* kWhat = "expert activation";
  const auto at = [&](Site site) { return LinearId{id.layer, site, id.expert}; };
  const LinearId inner[] = {at(Site::kGate), at(Site::kUp)}, outer = at(Site::kDown);
  Forms down_forms;
  down_forms.Add(ops::ActTypeFor(expert.down.panel().type, exec_.precision));
  if (!adapters.empty()) down_forms.Add(ops::LoraActType(exec_.precision));
  if (config_.mlp != MlpKind::kClampedSwiGlu) {
    Forms forms;
    forms.Add(ops::ActTypeFor(expert.gate.panel().type, exec_.precision));
    forms.Add(ops::ActTypeFor(expert.up.panel().type, exec_.precision));
    if (!adapters.empty()) forms.Add(ops::LoraActType(exec_.precision));
    ops::Quantize(exec_.context, in, forms.span(), exec_.scratch.rows, "expert input");
    Activate(&expert.gate, expert.up, Terms(adapters, inner), down_forms.span(), kWhat);
  } else {
    BAKESTONE_CHECK(adapters.empty());
    const MatrixView<float> gate = arena_.TakeMatrix<float>(in.rows, expert.gate.n());
    const MatrixView<float> up = arena_.TakeMatrix<float>(in.rows, expert.up.n());
    ProductsOf(in, {{expert.gate, gate}, {expert.up, up}}, "expert input");
    ops::ClampedSwiGlu(exec_.context, gate, up, gate);
    ops::Quantize(exec_.context, gate, down_forms.span(), exec_.scratch.rows, kWhat);
  }
  const ops::Product down = {.panel = expert.down.panel(), .bias = expert.down.bias(), .y = out};
  ops::MatMul(exec_.context, exec_.scratch.rows, {&down, 1}, exec_.precision, Epilogue::kStore,
              Terms(adapters, {&outer, 1}));
}

}  // namespace bakestone
