// The MLP in the training pass.
#include "model/phase_timer.h"
#include "model/train_layer.h"
#include "ops/train_rows.h"
#include "tensor/half.h"

namespace bakestone {

void TrainLayer::AddMlpBias(const At& at, const ops::TrainUnit& unit, uint16_t* gate_up) const {
  const GroupShape shape = ShapeAt(at, TrainGroup::kGateUp);
  for (size_t i = 0; i < static_cast<size_t>(shape.num_sites); ++i) {
    const float* bias = at.source().bias({static_cast<int32_t>(at.layer), shape.sites[i]});
    if (bias == nullptr) continue;
    for (int64_t row = unit.row; row < unit.row + unit.rows; ++row) {
      uint16_t* out = gate_up + row * shape.out + shape.out_begin[i];
      for (int64_t col = unit.col; col < unit.col + unit.cols; ++col) {
        out[col] = FloatToBF16(BF16ToFloat(out[col]) + bias[col]);
      }
    }
  }
}

TrainGate TrainLayer::gate() const {
  switch (config_.mlp) {
    case MlpKind::kGeGlu:
      return TrainGate::kGelu;
    case MlpKind::kGelu:
      return TrainGate::kGeluAlone;
    case MlpKind::kClampedSwiGlu:
      return TrainGate::kClamped;
    default:
      return TrainGate::kSilu;
  }
}

TrainActivationArgs TrainLayer::GateOf(const uint16_t* gate, uint16_t* up, int64_t rows,
                                       int64_t width) {
  return {.gate = gate,
          .up = up,
          .stride = width,
          .rows = rows,
          .dim = width,
          .factor = 1,
          .act = up,
          .act_stride = width,
          .d_act = nullptr,
          .d_act_stride = width,
          .d_gate = nullptr,
          .d_up = nullptr};
}

TrainActivationArgs TrainLayer::SideBySide(const uint16_t* gate_up, int64_t rows,
                                           int64_t dim) const {
  const int64_t up = config_.gated() ? dim : 0;
  TrainActivationArgs args = GateOf(gate_up, nullptr, rows, dim);
  args.up = gate_up + up;
  args.stride = up + dim;
  return args;
}

// A factor on what the MLP adds is one on the input of its last product.
TrainActivationArgs TrainLayer::Activation(const At& at, const LayerSaved& saved) {
  const int64_t dim = config_.ffn_width(at.layer);
  TrainActivationArgs args = SideBySide(saved.gate_up.data(), at.rows(), dim);
  args.factor = config_.residual_scale;
  args.act = act_.data();
  args.d_act = d_act_.data();
  args.d_gate = d_gate_up_.data();
  args.d_up = d_gate_up_.data() + dim;
  return args;
}

void TrainLayer::MlpActivation(const At& at, const uint16_t* input, LayerSaved& saved) {
  const TrainActivationArgs activation = Activation(at, saved);
  const bool has_bias = HasBias(at, TrainGroup::kGateUp);
  const AfterUnit activate = [&](const ops::TrainUnit& unit) {
    if (has_bias) AddMlpBias(at, unit, saved.gate_up.data());
    ops::TrainActivate(kernels_, gate(),
                       ops::ActivationPart(activation, unit.row, unit.rows, unit.col, unit.cols));
  };
  LinearForward(at, TrainGroup::kGateUp, input, saved, saved.gate_up.data(), TrainStore::kBF16,
                &activate);
}

void TrainLayer::MlpForward(const At& at, float* x, LayerSaved& saved) {
  const uint16_t* input =
      BranchInput(x, MlpNorm(at), at.rows(), saved.y_mlp.data(), saved.inverse_mlp.data());
  MlpActivation(at, input, saved);
  BranchOutput(at, TrainGroup::kDown, act_.data(), saved, x);
}

bool TrainLayer::MlpInnerBackward(const At& at, const uint16_t* dy, const LayerSaved& saved,
                                  const Gradients& gradients) {
  const TrainActivationArgs activation = Activation(at, saved);
  if (Ends(LayerStep::kDown, gradients)) {
    {
      const PhaseTimer timer(phases.rows);
      ops::TrainActivate(kernels_, pool_, gate(), activation);
    }
    LinearBackward(at, TrainGroup::kDown, dy, act_.data(), saved, gradients, nullptr,
                   TrainStore::kBF16);
    return false;
  }
  const AfterUnit activate = [&](const ops::TrainUnit& unit) {
    ops::TrainActivateBackward(
        kernels_, gate(),
        ops::ActivationPart(activation, unit.row, unit.rows, unit.col, unit.cols));
  };
  LinearBackward(at, TrainGroup::kDown, dy, act_.data(), saved, gradients, d_act_.data(),
                 TrainStore::kBF16, &activate);
  const uint16_t* input = BranchInputAgain(saved.y_mlp.data(), MlpNorm(at), at.rows());
  const bool ends = Ends(LayerStep::kGateUp, gradients);
  LinearBackward(at, TrainGroup::kGateUp, d_gate_up_.data(), input, saved, gradients,
                 ends ? nullptr : dh_.data(), TrainStore::kF32);
  return !ends;
}

void TrainLayer::MlpBackward(const At& at, const LayerSaved& saved, const Gradients& gradients) {
  const uint16_t* dy = BranchOutputBackward(at, TrainGroup::kDown, saved, gradients);
  if (!MlpInnerBackward(at, dy, saved, gradients)) return;
  const auto& norms = gradients.layout->mlp_norms;
  BranchInputBackward({saved.y_mlp.data(), saved.inverse_mlp.data(), MlpNorm(at).weight,
                       norms.empty() ? -1 : norms[static_cast<size_t>(at.layer)]},
                      at.rows(), gradients, !Ends(LayerStep::kMlpNorm, gradients));
}

}  // namespace bakestone
