// A mixture of experts in the training pass. With h the branch's input, s the shares of the experts
// that a row chooses (model/experts.h):
//
//   forward    x += sum over a row's experts of down(s silu(gate h) * up h)
//   backward   as an MLP's by expert, of the rows that chose it; ds = <d down's input, the input
//              without s>; dh += dlogits W_router. The router is frozen.
//
// With sigmoids, s = scale * sigmoid(logit), or over the chosen ones' sum. What biases add to the
// choice takes no part in the shares.
//
// An expert that all rows share is frozen too; its s is 1, or the sigmoid of a row's product with
// one vector.
//
// The choice is a constant of the step. Experts follow each other in order, so that a row adds them
// up the same way whatever the number of threads.
#include <algorithm>

#include "kernels/math.h"
#include "model/phase_timer.h"
#include "model/train_layer.h"
#include "ops/train_products.h"
#include "ops/train_rows.h"
#include "tensor/half.h"

namespace bakestone {
namespace {

// Rows of `from` one after another.
void GatherRows(ThreadPool& pool, const uint16_t* from, std::span<const int32_t> rows,
                int64_t width, uint16_t* to) {
  pool.ParallelFor(
      static_cast<int64_t>(rows.size()), kRowsOfAThread, [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) {
          std::copy_n(from + rows[static_cast<size_t>(i)] * width, width, to + i * width);
        }
      });
}

// The other way, added.
void ScatterAdd(ThreadPool& pool, const float* from, std::span<const int32_t> rows, int64_t width,
                float* to) {
  pool.ParallelFor(static_cast<int64_t>(rows.size()), kRowsOfAThread,
                   [&](int64_t begin, int64_t end, int) {
                     for (int64_t i = begin; i < end; ++i) {
                       float* sum = to + rows[static_cast<size_t>(i)] * width;
                       for (int64_t c = 0; c < width; ++c) sum[c] += from[i * width + c];
                     }
                   });
}

void ScaleByShare(ThreadPool& pool, std::span<const float> shares, int64_t width, uint16_t* x) {
  pool.ParallelFor(static_cast<int64_t>(shares.size()), kRowsOfAThread,
                   [&](int64_t begin, int64_t end, int) {
                     for (int64_t i = begin; i < end; ++i) {
                       uint16_t* row = x + i * width;
                       for (int64_t c = 0; c < width; ++c) {
                         row[c] = FloatToBF16(shares[static_cast<size_t>(i)] * BF16ToFloat(row[c]));
                       }
                     }
                   });
}

// sums [rows] of a * b over the channels.
void RowProducts(ThreadPool& pool, const uint16_t* a, const uint16_t* b, int64_t rows,
                 int64_t width, float* sums) {
  pool.ParallelFor(rows, kRowsOfAThread, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      float sum = 0;
      for (int64_t c = 0; c < width; ++c) {
        sum += BF16ToFloat(a[i * width + c]) * BF16ToFloat(b[i * width + c]);
      }
      sums[i] = sum;
    }
  });
}

// x [rows, width] += bias.
void AddBias(ThreadPool& pool, const float* bias, int64_t rows, int64_t width, int64_t stride,
             uint16_t* x) {
  pool.ParallelFor(rows, kRowsOfAThread, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t i = 0; i < width; ++i) {
        uint16_t& to = x[row * stride + i];
        to = FloatToBF16(BF16ToFloat(to) + bias[i]);
      }
    }
  });
}

}  // namespace

std::vector<ExpertRows> TrainLayer::ChoiceOf(const At& at, const LayerSaved& saved) const {
  const auto logits =
      DenseView<const float>(saved.router_logits.data(), at.rows(), config_.router.experts);
  std::span<const float> bias;
  if (config_.router.bias) bias = at.source().layer(at.layer).router_bias;
  std::vector<ExpertRows> chosen = ChooseExperts(config_.router, bias, logits);
  if (!config_.router.beside_mlp) return chosen;
  const std::vector<float>& scales = at.source().layer(at.layer).beside->expert_scales;
  for (size_t expert = 0; expert < chosen.size(); ++expert) {
    for (float& share : chosen[expert].shares) share *= scales[expert];
  }
  return chosen;
}

float TrainLayer::ShareFactor(const At& at, int64_t expert) const {
  if (!config_.router.beside_mlp) return config_.router.scale;
  return config_.router.scale *
         at.source().layer(at.layer).beside->expert_scales[static_cast<size_t>(expert)];
}

const float* TrainLayer::ExpertBias(const At& at, Site site, int64_t expert) const {
  if (!config_.router.expert_biases) return nullptr;
  return at.source().bias({static_cast<int32_t>(at.layer), site, static_cast<int32_t>(expert)});
}

const uint16_t* TrainLayer::ExpertPanels(const At& at, int64_t expert) {
  const PhaseTimer timer(phases.weights);
  return at.batch.weights->Expert(at.layer, expert);
}

void TrainLayer::ActivateExpert(int64_t rows, int64_t dim, const uint16_t* gate_up, uint16_t* act) {
  const PhaseTimer timer(phases.rows);
  TrainActivationArgs args = SideBySide(gate_up, rows, dim);
  args.act = act;
  ops::TrainActivate(kernels_, pool_, gate(), args);
}

// d_act_ to d_gate_up_.
void TrainLayer::ActivateExpertBackward(int64_t rows, int64_t dim, const uint16_t* gate_up) {
  TrainActivationArgs args = SideBySide(gate_up, rows, dim);
  args.d_act = d_act_.data();
  args.d_gate = d_gate_up_.data();
  args.d_up = d_gate_up_.data() + dim;
  ops::TrainActivateBackward(kernels_, pool_, gate(), args);
}

void TrainLayer::SharedForward(const At& at, const uint16_t* input, float* x, LayerSaved& saved) {
  const int64_t rows = at.rows(), dim = config_.router.shared_dim;
  float* shares = saved.shared_shares.data();
  uint16_t* gate_up = saved.shared_gate_up.data();
  std::fill_n(shares, rows, 1.0f);
  if (config_.router.shared_gate) {
    Frozen(at, FrozenSite::kSharedShare, {input, shares, TrainStore::kF32});
    for (int64_t row = 0; row < rows; ++row) shares[row] = math::Sigmoid(shares[row]);
  }
  Frozen(at, FrozenSite::kSharedGate,
         {.x = input, .out = gate_up, .store = TrainStore::kBF16, .out_stride = 2 * dim});
  Frozen(at, FrozenSite::kSharedUp,
         {.x = input, .out = gate_up + dim, .store = TrainStore::kBF16, .out_stride = 2 * dim});
  ActivateExpert(rows, dim, gate_up, act_.data());
  ScaleByShare(pool_, {shares, static_cast<size_t>(rows)}, dim, act_.data());
  Frozen(at, FrozenSite::kSharedDown, {act_.data(), x, TrainStore::kAddF32});
}

// What the shared expert's input asks for is added to dh_.
void TrainLayer::SharedBackward(const At& at, const LayerSaved& saved) {
  const int64_t rows = at.rows(), hidden = config_.hidden_dim, dim = config_.router.shared_dim;
  const uint16_t* gate_up = saved.shared_gate_up.data();
  const std::span<const float> shares(saved.shared_shares.data(), static_cast<size_t>(rows));
  FrozenBackward(at, FrozenSite::kSharedDown, {dx_bf16_.data(), d_act_.data(), TrainStore::kBF16});
  ActivateExpert(rows, dim, gate_up, act_.data());
  RowProducts(pool_, d_act_.data(), act_.data(), rows, dim, d_shares_.data());
  ScaleByShare(pool_, shares, dim, d_act_.data());
  ActivateExpertBackward(rows, dim, gate_up);
  FrozenBackward(at, FrozenSite::kSharedGate,
                 {.x = d_gate_up_.data(),
                  .out = dh_.data(),
                  .store = TrainStore::kAddF32,
                  .x_stride = 2 * dim});
  FrozenBackward(at, FrozenSite::kSharedUp,
                 {.x = d_gate_up_.data() + dim,
                  .out = dh_.data(),
                  .store = TrainStore::kAddF32,
                  .x_stride = 2 * dim});
  if (!config_.router.shared_gate) return;
  std::vector<float> gate(static_cast<size_t>(hidden));
  at.source().frozen(at.layer, FrozenSite::kSharedShare, {0, 1}, DenseView(gate.data(), 1, hidden));
  pool_.ParallelFor(rows, kRowsOfAThread, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const float share = shares[static_cast<size_t>(row)],
                  d = d_shares_[row] * share * (1 - share);
      for (int64_t i = 0; i < hidden; ++i) {
        dh_[row * hidden + i] += d * gate[static_cast<size_t>(i)];
      }
    }
  });
}

void TrainLayer::RouteRows(const At& at, const uint16_t* input, LayerSaved& saved) {
  const int64_t experts = config_.router.experts;
  Frozen(at, FrozenSite::kRouter, {input, saved.router_logits.data(), TrainStore::kF32});
  if (const float* bias = at.source().layer(at.layer).router.bias()) {
    for (int64_t i = 0; i < at.rows() * experts; ++i) saved.router_logits[i] += bias[i % experts];
  }
}

void TrainLayer::RunExperts(const At& at, const uint16_t* input, std::span<const ExpertRows> chosen,
                            LayerSaved& saved, float* out) {
  const int64_t hidden = config_.hidden_dim, ffn = config_.ffn_dim,
                experts = config_.router.experts;
  const int64_t expert_down = at.batch.weights->plan(at.layer).expert_down;
  const PackedPairs& pairs = *at.batch.pairs;
  int64_t begin = 0;
  for (int64_t expert = 0; expert < experts; ++expert) {
    const ExpertRows& own = chosen[static_cast<size_t>(expert)];
    const auto count = static_cast<int64_t>(own.rows.size());
    if (count == 0) continue;
    const uint16_t* weights = ExpertPanels(at, expert);
    GatherRows(pool_, input, own.rows, hidden, expert_in_.data());
    uint16_t* gate_up = saved.expert_gate_up.data() + begin * 2 * ffn;
    const auto product = [&](TrainGroup group, const uint16_t* own_panels, const uint16_t* in,
                             void* out, TrainStore store) {
      const PhaseTimer timer(phases.products);
      bakestone::Forward(
          kernels_, pool_, ShapeOf(config_, at.layer, group, expert),
          pairs.group(at.layer, group, expert), own_panels,
          {.x = in,
           .rows = count,
           .xa = saved.xa[static_cast<size_t>(group)].data() + begin * pairs.widest(),
           .out = out,
           .store = store});
    };
    product(TrainGroup::kGateUp, weights, expert_in_.data(), gate_up, TrainStore::kBF16);
    if (config_.router.expert_biases) {
      AddBias(pool_, ExpertBias(at, Site::kGate, expert), count, ffn, 2 * ffn, gate_up);
      AddBias(pool_, ExpertBias(at, Site::kUp, expert), count, ffn, 2 * ffn, gate_up + ffn);
    }
    ActivateExpert(count, ffn, gate_up, act_.data());
    ScaleByShare(pool_, own.shares, ffn, act_.data());
    product(TrainGroup::kDown, weights + expert_down, act_.data(), expert_out_.data(),
            TrainStore::kF32);
    if (const float* bias = ExpertBias(at, Site::kDown, expert)) {
      for (int64_t i = 0; i < count * hidden; ++i) {
        expert_out_[i] += own.shares[static_cast<size_t>(i / hidden)] * bias[i % hidden];
      }
    }
    ScatterAdd(pool_, expert_out_.data(), own.rows, hidden, out);
    begin += count;
  }
}

void TrainLayer::ExpertsForward(const At& at, float* x, LayerSaved& saved) {
  const uint16_t* input =
      BranchInput(x, MlpNorm(at), at.rows(), saved.y_mlp.data(), saved.inverse_mlp.data());
  RouteRows(at, input, saved);
  RunExperts(at, input, ChoiceOf(at, saved), saved, x);
  if (config_.router.shared_dim > 0) SharedForward(at, input, x, saved);
}

bakestone::LinearBackward TrainLayer::ExpertLinear(const ExpertPart& part, TrainGroup group,
                                                   const At& at, const LayerSaved& saved,
                                                   const Gradients& gradients) const {
  const GroupShape shape = ShapeOf(config_, at.layer, group, part.expert);
  const uint16_t* xa =
      saved.xa[static_cast<size_t>(group)].data() + part.begin * at.batch.pairs->widest();
  bakestone::LinearBackward args = {.dy = nullptr,
                                    .x = nullptr,
                                    .xa = xa,
                                    .y = nullptr,
                                    .rows = part.rows(),
                                    .dx = nullptr,
                                    .store = TrainStore::kF32,
                                    .after = nullptr,
                                    .slots = {},
                                    .matrices = {},
                                    .gradients = gradients.out};
  for (size_t i = 0; i < static_cast<size_t>(shape.num_sites); ++i) {
    const LinearId id = {static_cast<int32_t>(at.layer), shape.sites[i],
                         static_cast<int32_t>(part.expert)};
    args.slots[i] = gradients.layout->Find(id);
  }
  return args;
}

// d_shares [rows] of its rows; what its input asks for is added to dh_.
void TrainLayer::ExpertBackward(const ExpertPart& part, const At& at, const uint16_t* dy,
                                const LayerSaved& saved, const Gradients& gradients,
                                float* d_shares) {
  const int64_t rows = part.rows(), hidden = config_.hidden_dim, ffn = config_.ffn_dim;
  const uint16_t* gate_up = saved.expert_gate_up.data() + part.begin * 2 * ffn;
  const std::vector<float>& shares = part.chosen->shares;
  const auto backward = [&](TrainGroup group, const uint16_t* panels,
                            const bakestone::LinearBackward& args) {
    const GroupShape shape = ShapeOf(config_, at.layer, group, part.expert);
    const uint16_t* transposed =
        args.dx == nullptr ? nullptr : at.batch.weights->Transposed(panels, shape.out, shape.in);
    const PhaseTimer timer(phases.products);
    bakestone::Backward(kernels_, pool_, shape, at.batch.pairs->group(at.layer, group, part.expert),
                        transposed, args, linear_);
  };
  GatherRows(pool_, dy, part.chosen->rows, hidden, d_expert_.data());
  ActivateExpert(rows, ffn, gate_up, act_.data());
  ScaleByShare(pool_, shares, ffn, act_.data());
  bakestone::LinearBackward down = ExpertLinear(part, TrainGroup::kDown, at, saved, gradients);
  // Those beside an MLP are frozen, and what its steps are says nothing of them.
  const bool frozen = config_.router.beside_mlp;
  const bool down_ends = !frozen && Ends(LayerStep::kDown, gradients),
             gate_up_ends = !frozen && Ends(LayerStep::kGateUp, gradients);
  down.dy = d_expert_.data();
  down.x = act_.data();
  down.dx = down_ends ? nullptr : d_act_.data();
  down.store = TrainStore::kBF16;
  backward(TrainGroup::kDown, part.panels + at.batch.weights->plan(at.layer).expert_down, down);
  if (down_ends) return;
  ActivateExpert(rows, ffn, gate_up, act_.data());
  RowProducts(pool_, d_act_.data(), act_.data(), rows, ffn, d_shares);
  if (const float* bias = ExpertBias(at, Site::kDown, part.expert)) {
    for (int64_t i = 0; i < rows * hidden; ++i) {
      d_shares[i / hidden] += BF16ToFloat(d_expert_[i]) * bias[i % hidden];
    }
  }
  ScaleByShare(pool_, shares, ffn, d_act_.data());
  ActivateExpertBackward(rows, ffn, gate_up);
  GatherRows(pool_, h_.data(), part.chosen->rows, hidden, expert_in_.data());
  bakestone::LinearBackward in = ExpertLinear(part, TrainGroup::kGateUp, at, saved, gradients);
  in.dy = d_gate_up_.data();
  in.x = expert_in_.data();
  in.dx = gate_up_ends ? nullptr : expert_out_.data();
  backward(TrainGroup::kGateUp, part.panels, in);
  if (!gate_up_ends) ScatterAdd(pool_, expert_out_.data(), part.chosen->rows, hidden, dh_.data());
}

void TrainLayer::RouterBackward(const At& at, const LayerSaved& saved,
                                std::span<const ExpertRows> chosen, const float* d_shares) {
  const RouterConfig& config = config_.router;
  const int64_t rows = at.rows(), experts = config.experts, padded = ops::PadRank(experts);
  std::fill_n(shares_.data(), rows * experts, 0.0f);
  std::fill_n(d_shares_.data(), rows * experts, 0.0f);
  for (int64_t expert = 0; expert < experts; ++expert) {
    const ExpertRows& own = chosen[static_cast<size_t>(expert)];
    for (size_t i = 0; i < own.rows.size(); ++i) {
      const float factor = ShareFactor(at, expert);
      shares_[own.rows[i] * experts + expert] = own.shares[i] / factor;
      d_shares_[own.rows[i] * experts + expert] = *d_shares++ * factor;
    }
  }
  // Shares are a softmax over the chosen experts, or those of a softmax over all; or sigmoids, as
  // they are or over the sum of the chosen ones'.
  const bool sigmoid = config.score == RouterScore::kSigmoid;
  pool_.ParallelFor(rows, kRowsOfAThread, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const float *d = d_shares_.data() + row * experts,
                  *logits = saved.router_logits.data() + row * experts;
      float* p = shares_.data() + row * experts;
      uint16_t* out = d_logits_.data() + row * padded;
      if (!config.renormalize && !sigmoid) {
        const float greatest = *std::max_element(logits, logits + experts);
        float sum = 0;
        for (int64_t i = 0; i < experts; ++i) sum += p[i] = math::Exp(logits[i] - greatest);
        for (int64_t i = 0; i < experts; ++i) p[i] /= sum;
      }
      float mean = 0;
      const bool relative = config.renormalize || !sigmoid;
      for (int64_t i = 0; i < experts && relative; ++i) mean += p[i] * d[i];
      for (int64_t i = 0; i < padded; ++i) {
        // Of a sigmoid the slope is share * (1 - share), and p the share over a sum or alone.
        const float rest = i < experts && sigmoid ? 1 - math::Sigmoid(logits[i]) : 1.0f;
        out[i] = i < experts ? FloatToBF16(p[i] * (d[i] - mean) * rest) : uint16_t{0};
      }
    }
  });
  FrozenBackward(at, FrozenSite::kRouter, {d_logits_.data(), dh_.data(), TrainStore::kAddF32});
}

void TrainLayer::RunExpertsBackward(const At& at, const uint16_t* dy,
                                    std::span<const ExpertRows> chosen, const LayerSaved& saved,
                                    const Gradients& gradients) {
  int64_t begin = 0;
  for (int64_t expert = 0; expert < config_.router.experts; ++expert) {
    const ExpertRows& own = chosen[static_cast<size_t>(expert)];
    if (own.rows.empty()) continue;
    ExpertBackward({expert, begin, &own, ExpertPanels(at, expert)}, at, dy, saved, gradients,
                   d_share_rows_.data() + begin);
    begin += static_cast<int64_t>(own.rows.size());
  }
}

void TrainLayer::ExpertsBackward(const At& at, const LayerSaved& saved,
                                 const Gradients& gradients) {
  const NormWeights norm = MlpNorm(at);
  const std::vector<ExpertRows> chosen = ChoiceOf(at, saved);
  BranchInputAgain(saved.y_mlp.data(), norm, at.rows());  // h_
  std::fill_n(dh_.data(), at.rows() * config_.hidden_dim, 0.0f);
  RunExpertsBackward(at, dx_bf16_.data(), chosen, saved, gradients);
  if (Ends(LayerStep::kDown, gradients) || Ends(LayerStep::kGateUp, gradients)) return;
  if (config_.router.shared_dim > 0) SharedBackward(at, saved);
  RouterBackward(at, saved, chosen, d_share_rows_.data());
  BranchInputBackward({saved.y_mlp.data(), saved.inverse_mlp.data(), norm.weight, -1}, at.rows(),
                      gradients, !Ends(LayerStep::kMlpNorm, gradients));
}

}  // namespace bakestone
