// Speed of training: the products against the machine's limit, and whole LoRA steps (rank 16 on every
// linear) with where the time goes.
//
//   train_bench [--threads N] [--rows T] [--document LENGTH] [--isa NAME] [--steps N] [MODEL.gguf]
//
// Without a model: random weights of SmolLM2-135M's shape. Prints one line a figure. The limit of the
// products is measured on operands in L1 first, so shares do not depend on the clock.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <sys/resource.h>

#include <fmt/format.h>

#include "base/rng.h"
#include "base/thread_pool.h"
#include "kernels/kernel_table.h"
#include "model/model.h"
#include "model/train_engine.h"
#include "ops/train_ops.h"
#include "ops/train_products.h"
#include "tensor/half.h"

namespace bakestone {
namespace {

struct Options {
  int threads = UsableCores();
  int64_t rows = 1024, document = 256, steps = 3;
  std::string isa, model;
};

double Seconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double CpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

void FillRandom(Buffer<uint16_t>& buffer, uint64_t stream) {
  Rng rng(7, stream);
  for (uint16_t& value : buffer) value = FloatToBF16(static_cast<float>(rng.Uniform()) - 0.5f);
}

// GFLOP/s of one product [m, k] x [k, n] on all threads.
double ProductRate(const KernelTable& kernels, ThreadPool& pool, int64_t m, int64_t n, int64_t k) {
  Buffer<uint16_t> x((m + kTrainTileRows) * k), w(ops::PanelSize(n, k));
  Buffer<float> out(m * n);
  FillRandom(x, 1);
  FillRandom(w, 2);
  TrainGemmArgs args{};
  args.segments[0] = {x.data(), k, w.data(), k * kTrainLanes, k};
  args.num_segments = 1;
  args.store = TrainStore::kF32;
  args.rows = m;
  args.cols = args.out_stride = n;
  args.out = out.data();
  const double flop = 2.0 * static_cast<double>(m * n) * static_cast<double>(k);
  const int64_t repeats = std::max<int64_t>(1, static_cast<int64_t>(2e10 / flop));
  ops::TrainGemm(kernels.train, pool, args);
  double best = 1e30;
  for (int trial = 0; trial < 5; ++trial) {
    best = std::min(best, Seconds([&] {
      for (int64_t i = 0; i < repeats; ++i) ops::TrainGemm(kernels.train, pool, args);
    }));
  }
  return flop * static_cast<double>(repeats) / best / 1e9;
}

// The same kernel on operands that stay in L1 (strides of 0: one row stands for twelve and one panel for
// two), each thread for itself.
double ProductLimit(const KernelTable& kernels, ThreadPool& pool) {
  constexpr int64_t kInner = 512, kRepeats = 2500;
  const int threads = pool.num_threads();
  Buffer<uint16_t> x(threads * kInner), w(threads * kTrainLanes * kInner);
  Buffer<float> out(threads * kTrainTileRows * 2 * kTrainLanes);
  FillRandom(x, 1);
  FillRandom(w, 2);
  const auto work = [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      TrainGemmArgs args{};
      args.segments[0] = {x.data() + t * kInner, 0, w.data() + t * kTrainLanes * kInner, 0, kInner};
      args.num_segments = 1;
      args.store = TrainStore::kF32;
      args.rows = kTrainTileRows;
      args.cols = args.out_stride = 2 * kTrainLanes;
      args.out = out.data() + t * kTrainTileRows * 2 * kTrainLanes;
      for (int64_t i = 0; i < kRepeats; ++i) kernels.train.gemm(args, 0, kTrainTileRows, 0, 2);
    }
  };
  double best = 1e30;
  for (int trial = 0; trial < 20; ++trial) {
    best = std::min(best, Seconds([&] { pool.ParallelFor(threads, 1, work); }));
  }
  return 2.0 * static_cast<double>(kTrainTileRows * 2 * kTrainLanes * kInner * kRepeats) *
         static_cast<double>(threads) / best / 1e9;
}

ModelConfig SmolShape() {
  ModelConfig config;
  config.architecture = "llama";
  config.num_layers = 30;
  config.hidden_dim = 576;
  config.ffn_dim = 1536;
  config.num_heads = 9;
  config.num_kv_heads = 3;
  config.head_dim = 64;
  config.vocab_size = 49152;
  config.context_length = 8192;
  config.tied_embedding = true;
  config.rope = {.theta = 100000, .dim = 64};
  return config;
}

TrainSource RandomSource(const ModelConfig& config, const std::vector<float>& ones) {
  const auto rows = [](uint64_t stream, float scale) {
    return [stream, scale](Range range, MatrixView<float> out) {
      for (int64_t row = range.begin; row < range.end; ++row) {
        uint64_t state = (stream << 32) + static_cast<uint64_t>(row) * 2654435761u + 1;
        for (int64_t col = 0; col < out.cols; ++col) {
          state = state * 6364136223846793005u + 1442695040888963407u;
          const auto unit = static_cast<float>(state >> 40) * 0x1p-24f - 0.5f;
          out(row - range.begin, col) = scale * unit;
        }
      }
    };
  };
  TrainSource source;
  source.linear = [rows](LinearId id, Range range, MatrixView<float> out) {
    rows(static_cast<uint64_t>(id.index()), 0.1f)(range, out);
  };
  source.bias = [](LinearId) { return nullptr; };
  source.embedding = source.head = rows(static_cast<uint64_t>(config.num_layers * kNumSites), 0.2f);
  source.attention_norm = source.mlp_norm = [&ones](int64_t) { return ones.data(); };
  source.final_norm = [&ones] { return ones.data(); };
  return source;
}

struct Batch {
  std::vector<int32_t> tokens, positions, begins, loss_rows, targets;
  std::vector<float> weights;

  Batch(int64_t rows, int64_t document, int64_t vocab) {
    Rng rng(3, 0);
    for (int64_t row = 0; row < rows; ++row) {
      if (row % document == 0) begins.push_back(static_cast<int32_t>(row));
      tokens.push_back(static_cast<int32_t>(rng.Below(static_cast<uint64_t>(vocab))));
      positions.push_back(static_cast<int32_t>(row % document));
    }
    for (int64_t row = 0; row + 1 < rows; ++row) {
      loss_rows.push_back(static_cast<int32_t>(row));
      targets.push_back(tokens[static_cast<size_t>(row) + 1]);
      weights.push_back(1);
    }
  }
  TrainBatch view() const { return {tokens, positions, begins, loss_rows, targets, weights}; }
};

void Step(const Options& options, const KernelTable& kernels, ThreadPool& pool,
          const ModelConfig& config, const TrainSource& source, bool recompute) {
  const TrainLayout layout = TrainLayout::Make(config, {.rank = 16});
  std::vector<float> params(static_cast<size_t>(layout.size));
  Rng rng(5, 0);
  for (float& value : params) value = 0.01f * rng.Normal();
  std::vector<float> gradients(params.size()), m(params.size()), v(params.size());
  TrainEngine engine(config, source, layout, 2.0f, kernels.train, pool,
                     {.activation = recompute ? ActivationPolicy::kRecompute
                                              : ActivationPolicy::kStash});
  engine.SetValues(params);
  const Batch batch(options.rows, options.document, config.vocab_size);
  engine.ForwardBackward(batch.view(), {.gradient_scale = 1e-3f}, gradients);
  const TrainPhases before = engine.phases();
  double optimizer = 0;
  const double cpu = CpuSeconds();
  const double total = Seconds([&] {
    for (int64_t step = 1; step <= options.steps; ++step) {
      engine.ForwardBackward(batch.view(), {.gradient_scale = 1e-3f}, gradients);
      optimizer += Seconds([&] {
        ops::GradientNorm(kernels.train, pool, gradients);
        ops::AdamW(kernels.train, pool, {.step = step}, params, m, v, gradients);
        engine.SetValues(params);
      });
    }
  });
  const double used = CpuSeconds() - cpu;
  const TrainPhases after = engine.phases();
  const auto count = static_cast<double>(options.steps * options.rows);
  const auto micros = [&](double seconds) { return seconds / count * 1e6; };
  const double known = after.weights - before.weights + after.products - before.products +
                       after.attention - before.attention + after.rows - before.rows + after.head -
                       before.head + optimizer;
  fmt::print("step rows {} document {}{}: {:.0f} tokens/s ({:.0f} by CPU time of {} threads); "
             "microseconds a token: products {:.0f}, attention {:.0f}, rows {:.0f}, head {:.0f}, "
             "weights {:.0f}, optimizer {:.0f}, other {:.0f}; pass {} MB\n",
             options.rows, options.document, recompute ? " recompute" : "", count / total,
             count / used * pool.num_threads(), pool.num_threads(),
             micros(after.products - before.products), micros(after.attention - before.attention),
             micros(after.rows - before.rows), micros(after.head - before.head),
             micros(after.weights - before.weights), micros(optimizer), micros(total - known),
             engine.peak_bytes() >> 20);
}

Options Parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    const auto value = [&] { return i + 1 < argc ? argv[++i] : "0"; };
    if (name == "--threads") options.threads = std::atoi(value());
    else if (name == "--rows") options.rows = std::atoll(value());
    else if (name == "--document") options.document = std::atoll(value());
    else if (name == "--steps") options.steps = std::atoll(value());
    else if (name == "--isa") options.isa = value();
    else options.model = name;
  }
  return options;
}

void Run(const Options& options) {
  const KernelTable& kernels = ChooseKernels(options.isa.c_str());
  ThreadPool pool(options.threads);
  const double limit = ProductLimit(kernels, pool);
  fmt::print("BM_TrainGemm/bf16/{}/limit: {:.0f} GFLOP/s on {} threads ({})\n",
             IsaName(kernels.isa), limit, options.threads, kernels.train.product);
  const int64_t shapes[][2] = {{960, 576}, {576, 576}, {3072, 576}, {576, 1536}, {1536, 576},
                               {576, 3072}, {49152, 576}};
  for (const auto& shape : shapes) {
    const int64_t rows = shape[0] > 40000 ? 252 : options.rows;
    const double rate = ProductRate(kernels, pool, rows, shape[0], shape[1]);
    fmt::print("BM_TrainGemm/bf16/{}/{}x{}x{}: {:.0f} GFLOP/s, {:.0f} % of the limit\n",
               IsaName(kernels.isa), rows, shape[0], shape[1], rate, 100 * rate / limit);
  }
  if (!options.model.empty()) {
    const auto model = Model::Load(options.model, kernels, pool);
    const Weights& weights = *model->weights;
    Step(options, kernels, pool, model->config, SourceOf(weights, kernels), false);
    Step(options, kernels, pool, model->config, SourceOf(weights, kernels), true);
    return;
  }
  const ModelConfig config = SmolShape();
  const std::vector<float> ones(static_cast<size_t>(config.hidden_dim), 1.0f);
  Step(options, kernels, pool, config, RandomSource(config, ones), false);
  Step(options, kernels, pool, config, RandomSource(config, ones), true);
}

}  // namespace
}  // namespace bakestone

int main(int argc, char** argv) {
  try {
    bakestone::Run(bakestone::Parse(argc, argv));
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "train_bench: {}\n", error.what());
    return 1;
  }
}
