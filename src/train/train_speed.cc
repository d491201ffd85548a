#include "train/train_speed.h"

#include <algorithm>
#include <chrono>

#include "base/error.h"
#include "base/rng.h"
#include "model/train_engine.h"
#include "ops/train_ops.h"
#include "ops/train_products.h"
#include "tensor/buffer.h"
#include "tensor/half.h"

namespace bakestone {
namespace {

using SpeedClock = std::chrono::steady_clock;

double SecondsFrom(SpeedClock::time_point start) {
  return std::chrono::duration<double>(SpeedClock::now() - start).count();
}

// Random tokens in documents, each of whose tokens but the first is to be predicted.
struct SpeedBatch {
  std::vector<int32_t> tokens, positions, begins, loss_rows, targets;
  std::vector<float> weights;

  SpeedBatch(const TrainSpeedOptions& options, int64_t vocab_size) {
    Rng rng(3, 0);
    for (int64_t row = 0; row < options.rows; ++row) {
      const int64_t position = row % options.document;
      if (position == 0) begins.push_back(static_cast<int32_t>(row));
      tokens.push_back(static_cast<int32_t>(rng.Below(static_cast<uint64_t>(vocab_size))));
      positions.push_back(static_cast<int32_t>(position));
      if (position == 0) continue;
      loss_rows.push_back(static_cast<int32_t>(row - 1));
      targets.push_back(tokens.back());
      weights.push_back(1);
    }
  }
  TrainBatch View() const { return {tokens, positions, begins, loss_rows, targets, weights}; }
};

void CheckSizes(const TrainSpeedOptions& options, const ModelConfig& config) {
  if (options.rows < 2 || options.document < 2 || options.steps < 1) {
    Throw(ErrorCode::kInvalidArgument,
          "expected at least 2 rows, documents of 2 tokens and 1 step, found {}, {} and {}",
          options.rows, options.document, options.steps);
  }
  if (std::min(options.rows, options.document) > config.context_length) {
    Throw(ErrorCode::kInvalidArgument,
          "documents of {} tokens: expected at most the model's context of {}",
          std::min(options.rows, options.document), config.context_length);
  }
}

void FillHalves(Buffer<uint16_t>& buffer, uint64_t stream) {
  Rng rng(7, stream);
  for (uint16_t& value : buffer) value = FloatToBF16(static_cast<float>(rng.Uniform()) - 0.5f);
}

}  // namespace

TrainWork WorkOf(const Model& model, const TrainLayout& layout) {
  const ModelConfig& config = model.config;
  TrainWork work;
  double& each = work.row;
  for (const LayerWeights& layer : model.weights->layers) {
    for (int site = 0; site < kNumSites; ++site) {
      const Weight& weight = layer.at(static_cast<Site>(site));
      each +=
          2 * static_cast<double>(weight.n() * weight.k());  // the output, and the input's gradient
    }
    if (layer.experts.empty()) continue;
    const ExpertWeights& expert = layer.experts.front();
    for (const Weight* weight : {&expert.gate, &expert.up, &expert.down}) {
      each += 2 * static_cast<double>(config.router.used * weight->n() * weight->k());
    }
    for (const Weight* weight : {&layer.router, &layer.shared.gate, &layer.shared.up,
                                 &layer.shared.down, &layer.shared_gate}) {
      each += 2 * static_cast<double>(weight->n() * weight->k());
    }
  }
  for (const LoraSlot& slot : layout.slots) {
    const double share = slot.id.expert < 0 ? 1
                                            : static_cast<double>(config.router.used) /
                                                  static_cast<double>(config.router.experts);
    each += 3 * share * static_cast<double>(slot.rank * (slot.in + slot.out));
  }
  for (const MatrixSlot& slot : layout.matrices) each += static_cast<double>(slot.in * slot.out);
  const Weight& head = model.weights->head();
  work.loss_row = static_cast<double>((2 * head.n() + layout.head_rows().rows) * head.k());
  // Scores and values forward; gradients of scores, values, queries and keys.
  work.seen = 6 * static_cast<double>(config.num_layers * config.q_dim());
  return work;
}

double TrainFlop(const Model& model, const TrainLayout& layout, const TrainSpeedOptions& options) {
  const TrainWork work = WorkOf(model, layout);
  const auto rows = static_cast<double>(options.rows);
  const double loss_rows =
      rows - static_cast<double>((options.rows + options.document - 1) / options.document);
  double seen = 0;
  for (int64_t begin = 0; begin < options.rows; begin += options.document) {
    const auto length = static_cast<double>(std::min(options.document, options.rows - begin));
    seen += length * (length + 1) / 2;
  }
  return 2 * (rows * work.row + loss_rows * work.loss_row + seen * work.seen);
}

double TrainProductLimit(const TrainKernels& kernels, ThreadPool& pool) {
  // Strides of 0: one row stands for all and one panel for two.
  constexpr int64_t kInner = 512, kRows = 96, kCols = 2 * kTrainLanes, kRepeats = 300;
  const int threads = pool.num_threads();
  Buffer<uint16_t> x(threads * kInner), w(threads * kTrainLanes * kInner);
  Buffer<float> out(threads * kRows * kCols);
  FillHalves(x, 1);
  FillHalves(w, 2);
  double best = 1e30;
  for (int trial = 0; trial < 20; ++trial) {
    const auto start = SpeedClock::now();
    pool.ParallelFor(threads, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t t = begin; t < end; ++t) {
        TrainGemmArgs args{};
        args.segments[0] = {x.data() + t * kInner, 0, w.data() + t * kTrainLanes * kInner, 0,
                            kInner};
        args.num_segments = 1;
        args.store = TrainStore::kF32;
        args.rows = kRows;
        args.cols = args.out_stride = kCols;
        args.out = out.data() + t * kRows * kCols;
        for (int64_t i = 0; i < kRepeats; ++i) kernels.gemm(args, 0, kRows, 0, 2);
      }
    });
    best = std::min(best, SecondsFrom(start));
  }
  return 2.0 * static_cast<double>(kRows * kCols * kInner * kRepeats) * threads / best;
}

TrainSpeed MeasureTraining(const Model& model, const KernelTable& kernels, ThreadPool& pool,
                           const TrainSpeedOptions& options) {
  CheckSizes(options, model.config);
  const TrainLayout layout = TrainLayout::Make(model.config, {.rank = options.rank});
  const TrainSource source = SourceOf(*model.weights, kernels);
  AlignedVector<float> values(static_cast<size_t>(layout.size));
  Rng rng(5, 0);
  for (float& value : values) value = 0.01f * rng.Normal();
  AlignedVector<float> gradients(values.size()), first(values.size()), second(values.size());
  TrainEngine engine(
      model.config, source, layout, 2.0f, kernels.train, pool,
      {.activation = options.activation, .weight_cache_bytes = options.weight_cache_bytes});
  engine.SetValues(values);
  const SpeedBatch batch(options, model.config.vocab_size);
  const Objective objective{.gradient_scale = 1.0f / static_cast<float>(options.rows)};
  TrainSpeed speed;
  TrainPhases before;
  // Step 0 makes the weights that are kept, and touches every page first.
  for (int64_t step = 0; step <= options.steps; ++step) {
    if (step == 1) before = engine.phases();
    const auto start = SpeedClock::now();
    std::fill(gradients.begin(), gradients.end(), 0.0f);
    engine.ForwardBackward(batch.View(), objective, gradients);
    const auto middle = SpeedClock::now();
    ops::GradientNorm(kernels.train, pool, gradients);
    ops::AdamW(kernels.train, pool, {.step = step + 1}, values, first, second, gradients);
    engine.SetValues(values);
    if (step == 0) continue;
    speed.optimizer += SecondsFrom(middle);
    speed.step_seconds.push_back(SecondsFrom(start));
  }
  const TrainPhases after = engine.phases();
  speed.phases = {after.weights - before.weights, after.products - before.products,
                  after.attention - before.attention, after.rows - before.rows,
                  after.head - before.head};
  speed.flop = TrainFlop(model, layout, options);
  speed.pass_bytes = engine.peak_bytes();
  return speed;
}

}  // namespace bakestone
