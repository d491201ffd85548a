#include "train/train_speed.h"

#include <algorithm>
#include <chrono>
#include <cmath>

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

constexpr double kLeastChat = 20, kMostChat = 1500, kLearnedOfChat = 0.3;

// Of a document's rows, those that predict a learned token: all but the last, or a chat's answer.
int64_t LearnedOf(const TrainSpeedOptions& options, int64_t length) {
  if (!options.chats) return length - 1;
  return std::max<int64_t>(1, static_cast<int64_t>(kLearnedOfChat * static_cast<double>(length)));
}

// Random tokens in documents.
struct SpeedBatch {
  std::vector<int32_t> tokens, positions, begins, loss_rows, targets;
  std::vector<float> weights;

  SpeedBatch(const TrainSpeedOptions& options, int64_t vocab_size) {
    Rng rng(3, 0);
    for (const int64_t length : DocumentsOf(options)) {
      begins.push_back(static_cast<int32_t>(tokens.size()));
      for (int64_t position = 0; position < length; ++position) {
        const auto row = static_cast<int32_t>(tokens.size());
        tokens.push_back(static_cast<int32_t>(rng.Below(static_cast<uint64_t>(vocab_size))));
        positions.push_back(static_cast<int32_t>(position));
        if (position < length - LearnedOf(options, length)) continue;
        loss_rows.push_back(row - 1);
        targets.push_back(tokens.back());
        weights.push_back(1);
      }
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
  const std::vector<int64_t> documents = DocumentsOf(options);
  const int64_t longest = *std::max_element(documents.begin(), documents.end());
  if (longest > config.context_length) {
    Throw(ErrorCode::kInvalidArgument,
          "documents of {} tokens: expected at most the model's context of {}", longest,
          config.context_length);
  }
}

void FillHalves(Buffer<uint16_t>& buffer, uint64_t stream) {
  Rng rng(7, stream);
  for (uint16_t& value : buffer) value = FloatToBF16(static_cast<float>(rng.Uniform()) - 0.5f);
}

}  // namespace

std::vector<int64_t> DocumentsOf(const TrainSpeedOptions& options) {
  std::vector<int64_t> documents;
  int64_t rows = 0;
  for (uint32_t i = 1; rows < options.rows; ++i) {
    int64_t length = std::min(options.document, options.rows - rows);
    if (options.chats) {
      double share = 0, digit = 0.5;  // i's binary digits turned round: evenly spread
      for (uint32_t rest = i; rest > 0; rest /= 2, digit /= 2) share += rest % 2 * digit;
      length = static_cast<int64_t>(kLeastChat * std::pow(kMostChat / kLeastChat, share));
    }
    documents.push_back(length);
    rows += length;
  }
  return documents;
}

TrainWork WorkOf(const Model& model, const TrainLayout& layout) {
  const ModelConfig& config = model.config;
  TrainWork work;
  double& each = work.row;
  // The output, and the input's gradient.
  const auto add = [&](const LinearShape& shape, int64_t times) {
    each += 2 * static_cast<double>(times * shape.n * shape.k);
  };
  for (int32_t layer = 0; layer < config.num_layers; ++layer) {
    for (int site = 0; site < kNumSites; ++site) {
      const LinearId own = {layer, static_cast<Site>(site)}, expert = {layer, own.site, 0};
      if (HasSite(config, own)) add(ShapeOf(config, own), 1);
      if (HasSite(config, expert)) add(ShapeOf(config, expert), config.router.used);
    }
    for (int site = 0; site < kNumFrozenSites; ++site) {
      add(ShapeOf(config, layer, static_cast<FrozenSite>(site)), 1);
    }
    // Scores and values forward; gradients of scores, values, queries and keys.
    if (config.mixer(layer) != Mixer::kAttention) continue;
    work.seen += 6 * static_cast<double>(config.q_dim(layer));
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
  return work;
}

double TrainFlop(const Model& model, const TrainLayout& layout, const TrainSpeedOptions& options) {
  const TrainWork work = WorkOf(model, layout);
  double rows = 0, loss_rows = 0, seen = 0;
  for (const int64_t tokens : DocumentsOf(options)) {
    const auto length = static_cast<double>(tokens);
    rows += length;
    loss_rows += static_cast<double>(LearnedOf(options, tokens));
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
  speed.rows = std::ssize(batch.tokens);
  speed.flop = TrainFlop(model, layout, options);
  speed.pass_bytes = engine.peak_bytes();
  return speed;
}

}  // namespace bakestone
