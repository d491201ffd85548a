#include "model/train_layer.h"

#include <algorithm>
#include <chrono>

#include "ops/train_rows.h"

namespace bakestone {
namespace {

// Adds the time of a scope.
class Timer {
 public:
  explicit Timer(double& to) : to_(to), start_(Clock::now()) {}
  ~Timer() { to_ += std::chrono::duration<double>(Clock::now() - start_).count(); }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

 private:
  using Clock = std::chrono::steady_clock;
  double& to_;
  Clock::time_point start_;
};

// Rows that a product reads in whole tiles: zero beyond the last one ever written.
void ReserveRows(Buffer<uint16_t>& buffer, int64_t rows, int64_t width) {
  const int64_t size = (rows + kTrainTileRows) * width;
  if (buffer.size() < size) buffer = Buffer<uint16_t>(size, Fill::kZero);
}

void ReserveFloats(Buffer<float>& buffer, int64_t size) {
  if (buffer.size() < size) buffer = Buffer<float>(size);
}

}  // namespace

void LayerSaved::Reserve(const ModelConfig& config, int64_t rows, int64_t widest) {
  ReserveRows(y_attention, rows, config.hidden_dim);
  ReserveRows(y_mlp, rows, config.hidden_dim);
  ReserveRows(q, rows, config.q_dim());
  ReserveRows(k, rows, config.kv_dim());
  ReserveRows(v, rows, config.kv_dim());
  ReserveRows(attention, rows, config.q_dim());
  ReserveRows(gate_up, rows, 2 * config.ffn_dim);
  for (auto& buffer : xa) ReserveRows(buffer, rows, widest);
  ReserveFloats(inverse_attention, rows);
  ReserveFloats(inverse_mlp, rows);
  ReserveFloats(log_sum, rows * config.num_heads);
}

int64_t LayerSaved::bytes() const noexcept {
  int64_t total = y_attention.bytes() + y_mlp.bytes() + q.bytes() + k.bytes() + v.bytes() +
                  attention.bytes() + gate_up.bytes() + inverse_attention.bytes() +
                  inverse_mlp.bytes() + log_sum.bytes() + input.bytes();
  for (const auto& buffer : xa) total += buffer.bytes();
  return total;
}

TrainLayer::TrainLayer(const ModelConfig& config, TrainWeights& weights, const TrainKernels& kernels,
                       ThreadPool& pool)
    : config_(config), weights_(weights), kernels_(kernels), pool_(pool),
      attention_(kernels, pool) {}

void TrainLayer::Reserve(int64_t rows, int64_t widest_rank) {
  const int64_t hidden = config_.hidden_dim, qkv = config_.q_dim() + 2 * config_.kv_dim();
  ReserveRows(h_, rows, hidden);
  ReserveRows(act_, rows, config_.ffn_dim);
  ReserveRows(dx_bf16_, rows, hidden);
  ReserveRows(d_act_, rows, config_.ffn_dim);
  ReserveRows(d_gate_up_, rows, 2 * config_.ffn_dim);
  ReserveRows(d_attention_, rows, config_.q_dim());
  ReserveRows(d_qkv_bf16_, rows, qkv);
  ReserveFloats(qkv_, rows * qkv);
  ReserveFloats(dh_, rows * hidden);
  linear_.Reserve(rows, widest_rank);
}

int64_t TrainLayer::bytes() const noexcept {
  return attention_.bytes() + linear_.bytes() + h_.bytes() + act_.bytes() + dx_bf16_.bytes() +
         d_act_.bytes() + d_gate_up_.bytes() + d_attention_.bytes() + d_qkv_bf16_.bytes() +
         qkv_.bytes() + dh_.bytes();
}

ops::TrainAttentionShape TrainLayer::AttentionOf(const LayerBatch& batch) const {
  return {.rows = batch.rows,
          .heads = config_.num_heads,
          .kv_heads = config_.num_kv_heads,
          .head_dim = config_.head_dim,
          .document_begins = batch.document_begins};
}

void TrainLayer::Normalize(const float* x, const float* weight, int64_t rows, uint16_t* y,
                           float* inverse) {
  const Timer timer(phases.rows);
  ops::TrainNorm(kernels_, pool_,
                 {.x = x,
                  .weight = weight,
                  .rows = rows,
                  .dim = config_.hidden_dim,
                  .eps = config_.norm_eps,
                  .y = y,
                  .h = h_.data(),
                  .inverse = inverse});
}

void TrainLayer::NormBackward(const uint16_t* y, const float* inverse, const float* weight,
                              int64_t rows, float* dx) {
  const Timer timer(phases.rows);
  ops::TrainNormBackward(kernels_, pool_,
                         {.dh = dh_.data(),
                          .y = y,
                          .inverse = inverse,
                          .weight = weight,
                          .rows = rows,
                          .dim = config_.hidden_dim,
                          .dx = dx,
                          .dx_bf16 = dx_bf16_.data()});
}

void TrainLayer::RoundDx(int64_t rows, const float* dx) {
  ops::TrainToBf16(kernels_, pool_, dx, dx_bf16_.data(), rows * config_.hidden_dim);
}

bool TrainLayer::FillBias(int64_t layer, int64_t rows) {
  const GroupShape shape = ShapeOf(config_, TrainGroup::kQkv);
  bool any = false;
  for (const Site site : shape.sites) {
    any = any || weights_.source().bias({static_cast<int32_t>(layer), site}) != nullptr;
  }
  if (!any) return false;
  for (size_t i = 0; i < shape.sites.size(); ++i) {
    const float* bias = weights_.source().bias({static_cast<int32_t>(layer), shape.sites[i]});
    const int64_t width = shape.out_begin[i + 1] - shape.out_begin[i];
    for (int64_t row = 0; row < rows; ++row) {
      float* out = qkv_.data() + row * shape.out + shape.out_begin[i];
      if (bias == nullptr) {
        std::fill_n(out, width, 0.0f);
      } else {
        std::copy_n(bias, width, out);
      }
    }
  }
  return true;
}

void TrainLayer::Rotate(const float* x, int64_t x_stride, int64_t rows, int64_t heads,
                        const LayerBatch& batch, float sign, uint16_t* out, int64_t out_stride) {
  // sign 0: v, which is not rotated, only rounded.
  ops::TrainRope(kernels_, pool_,
                 {.x = x,
                  .x_stride = x_stride,
                  .out = out,
                  .out_stride = out_stride,
                  .cosines = batch.rope->cos(),
                  .sines = batch.rope->sin(),
                  .rows = rows,
                  .heads = heads,
                  .head_dim = config_.head_dim,
                  .dim = sign == 0 ? 0 : batch.rope->dim(),
                  .sign = sign});
}

void TrainLayer::LinearForward(int64_t layer, TrainGroup group, int64_t rows,
                               const PackedAdapter& adapter, const uint16_t* panels,
                               const uint16_t* x, LayerSaved& saved, void* out, TrainStore store) {
  const Timer timer(phases.products);
  bakestone::Forward(kernels_, pool_, ShapeOf(config_, group), adapter.group(layer, group),
                     panels + weights_.group_offset(group),
                     {.x = x,
                      .rows = rows,
                      .xa = saved.xa[static_cast<size_t>(group)].data(),
                      .out = out,
                      .store = store});
}

void TrainLayer::LinearBackward(int64_t layer, TrainGroup group, int64_t rows,
                                const PackedAdapter& adapter, const uint16_t* panels,
                                const uint16_t* dy, const uint16_t* x, const LayerSaved& saved,
                                const Gradients& gradients, void* dx, TrainStore store) {
  const GroupShape shape = ShapeOf(config_, group);
  const uint16_t* transposed = nullptr;
  if (dx != nullptr) {
    const Timer timer(phases.weights);
    transposed = weights_.Transposed(group, panels + weights_.group_offset(group));
  }
  bakestone::LinearBackward args = {.dy = dy,
                                    .x = x,
                                    .xa = saved.xa[static_cast<size_t>(group)].data(),
                                    .rows = rows,
                                    .dx = dx,
                                    .store = store,
                                    .slots = {},
                                    .gradients = gradients.out};
  for (size_t i = 0; i < static_cast<size_t>(shape.num_sites); ++i) {
    args.slots[i] = gradients.layout->Find({static_cast<int32_t>(layer), shape.sites[i]});
  }
  const Timer timer(phases.products);
  bakestone::Backward(kernels_, pool_, shape, adapter.group(layer, group), transposed, args,
                      linear_);
}

void TrainLayer::AttentionForward(int64_t layer, const LayerBatch& batch,
                                  const PackedAdapter& adapter, const uint16_t* panels, float* x,
                                  LayerSaved& saved) {
  const int64_t rows = batch.rows, q = config_.q_dim(), kv = config_.kv_dim(), all = q + 2 * kv;
  Normalize(x, weights_.source().attention_norm(layer), rows, saved.y_attention.data(),
            saved.inverse_attention.data());
  LinearForward(layer, TrainGroup::kQkv, rows, adapter, panels, h_.data(), saved, qkv_.data(),
                FillBias(layer, rows) ? TrainStore::kAddF32 : TrainStore::kF32);
  {
    const Timer timer(phases.rows);
    Rotate(qkv_.data(), all, rows, config_.num_heads, batch, 1, saved.q.data(), q);
    Rotate(qkv_.data() + q, all, rows, config_.num_kv_heads, batch, 1, saved.k.data(), kv);
    Rotate(qkv_.data() + q + kv, all, rows, config_.num_kv_heads, batch, 0, saved.v.data(), kv);
  }
  {
    const Timer timer(phases.attention);
    attention_.Forward(AttentionOf(batch), saved.q.data(), saved.k.data(), saved.v.data(),
                       saved.attention.data(), saved.log_sum.data());
  }
  LinearForward(layer, TrainGroup::kO, rows, adapter, panels, saved.attention.data(), saved, x,
                TrainStore::kAddF32);
}

void TrainLayer::MlpForward(int64_t layer, const LayerBatch& batch, const PackedAdapter& adapter,
                            const uint16_t* panels, float* x, LayerSaved& saved) {
  const int64_t rows = batch.rows;
  Normalize(x, weights_.source().mlp_norm(layer), rows, saved.y_mlp.data(),
            saved.inverse_mlp.data());
  LinearForward(layer, TrainGroup::kGateUp, rows, adapter, panels, h_.data(), saved,
                saved.gate_up.data(), TrainStore::kBF16);
  {
    const Timer timer(phases.rows);
    ops::TrainSwiGlu(kernels_, pool_,
                     {.gate_up = saved.gate_up.data(),
                      .d_act = nullptr,
                      .rows = rows,
                      .dim = config_.ffn_dim,
                      .act = act_.data(),
                      .d_gate_up = nullptr});
  }
  LinearForward(layer, TrainGroup::kDown, rows, adapter, panels, act_.data(), saved, x,
                TrainStore::kAddF32);
}

void TrainLayer::Forward(int64_t layer, const LayerBatch& batch, const PackedAdapter& adapter,
                         float* x, LayerSaved& saved) {
  const uint16_t* panels = nullptr;
  {
    const Timer timer(phases.weights);
    panels = weights_.Layer(layer);
  }
  AttentionForward(layer, batch, adapter, panels, x, saved);
  MlpForward(layer, batch, adapter, panels, x, saved);
}

void TrainLayer::MlpBackward(int64_t layer, const LayerBatch& batch, const PackedAdapter& adapter,
                             const uint16_t* panels, const LayerSaved& saved,
                             const Gradients& gradients) {
  const int64_t rows = batch.rows;
  TrainSwiGluArgs swiglu = {.gate_up = saved.gate_up.data(),
                            .d_act = nullptr,
                            .rows = rows,
                            .dim = config_.ffn_dim,
                            .act = act_.data(),
                            .d_gate_up = nullptr};
  {
    const Timer timer(phases.rows);
    ops::TrainSwiGlu(kernels_, pool_, swiglu);
  }
  LinearBackward(layer, TrainGroup::kDown, rows, adapter, panels, dx_bf16_.data(), act_.data(),
                 saved, gradients, Ends(TrainGroup::kDown, gradients) ? nullptr : d_act_.data(),
                 TrainStore::kBF16);
  if (Ends(TrainGroup::kDown, gradients)) return;
  {
    const Timer timer(phases.rows);
    swiglu.act = nullptr;
    swiglu.d_act = d_act_.data();
    swiglu.d_gate_up = d_gate_up_.data();
    ops::TrainSwiGluBackward(kernels_, pool_, swiglu);
    ops::TrainScaleRows(kernels_, pool_, saved.y_mlp.data(), weights_.source().mlp_norm(layer), rows,
                        config_.hidden_dim, h_.data());
  }
  LinearBackward(layer, TrainGroup::kGateUp, rows, adapter, panels, d_gate_up_.data(), h_.data(),
                 saved, gradients, Ends(TrainGroup::kGateUp, gradients) ? nullptr : dh_.data(),
                 TrainStore::kF32);
  if (Ends(TrainGroup::kGateUp, gradients)) return;
  NormBackward(saved.y_mlp.data(), saved.inverse_mlp.data(), weights_.source().mlp_norm(layer), rows,
               gradients.dx);
}

void TrainLayer::AttentionBackward(int64_t layer, const LayerBatch& batch,
                                   const PackedAdapter& adapter, const uint16_t* panels,
                                   const LayerSaved& saved, const Gradients& gradients) {
  const int64_t rows = batch.rows, q = config_.q_dim(), kv = config_.kv_dim(), all = q + 2 * kv;
  const bool stops = Ends(TrainGroup::kO, gradients);
  LinearBackward(layer, TrainGroup::kO, rows, adapter, panels, dx_bf16_.data(),
                 saved.attention.data(), saved, gradients, stops ? nullptr : d_attention_.data(),
                 TrainStore::kBF16);
  if (stops) return;
  {
    const Timer timer(phases.attention);
    attention_.Backward(AttentionOf(batch), saved.q.data(), saved.k.data(), saved.v.data(),
                        saved.attention.data(), saved.log_sum.data(), d_attention_.data(),
                        {.q = qkv_.data(),
                         .k = qkv_.data() + q,
                         .v = qkv_.data() + q + kv,
                         .stride = all});
  }
  {
    const Timer timer(phases.rows);
    uint16_t* out = d_qkv_bf16_.data();
    Rotate(qkv_.data(), all, rows, config_.num_heads, batch, -1, out, all);
    Rotate(qkv_.data() + q, all, rows, config_.num_kv_heads, batch, -1, out + q, all);
    Rotate(qkv_.data() + q + kv, all, rows, config_.num_kv_heads, batch, 0, out + q + kv, all);
    ops::TrainScaleRows(kernels_, pool_, saved.y_attention.data(),
                        weights_.source().attention_norm(layer), rows, config_.hidden_dim,
                        h_.data());
  }
  LinearBackward(layer, TrainGroup::kQkv, rows, adapter, panels, d_qkv_bf16_.data(), h_.data(),
                 saved, gradients, gradients.below ? dh_.data() : nullptr, TrainStore::kF32);
  if (!gradients.below) return;
  NormBackward(saved.y_attention.data(), saved.inverse_attention.data(),
               weights_.source().attention_norm(layer), rows, gradients.dx);
}

void TrainLayer::Backward(int64_t layer, const LayerBatch& batch, const PackedAdapter& adapter,
                          const LayerSaved& saved, const Gradients& gradients) {
  const uint16_t* panels = nullptr;
  {
    const Timer timer(phases.weights);
    panels = weights_.Layer(layer);
  }
  MlpBackward(layer, batch, adapter, panels, saved, gradients);
  const bool in_mlp = gradients.lowest == TrainGroup::kDown || gradients.lowest == TrainGroup::kGateUp;
  if (!gradients.below && in_mlp) return;
  AttentionBackward(layer, batch, adapter, panels, saved, gradients);
}

}  // namespace bakestone
