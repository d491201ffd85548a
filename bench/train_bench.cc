// The products of training, in the shapes of SmolLM2-135M, against what they can do on operands in
// L1. Whole steps: bakestone bench MODEL --train.
//
//   train_bench [--threads N] [--rows T] [--isa NAME]
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "base/error.h"
#include "base/rng.h"
#include "base/thread_pool.h"
#include "kernels/kernel_table.h"
#include "ops/train_products.h"
#include "tensor/half.h"
#include "train/train_speed.h"

namespace bakestone {
namespace {

struct Options {
  int threads = UsableCores();
  int64_t rows = 1024;
  std::string isa;
};

double Seconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
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
                      for (int64_t i = 0; i < repeats; ++i) {
                        ops::TrainGemm(kernels.train, pool, args);
                      }
                    }));
  }
  return flop * static_cast<double>(repeats) / best / 1e9;
}

Options Parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    const auto value = [&] { return i + 1 < argc ? argv[++i] : "0"; };
    if (name == "--threads") {
      options.threads = std::atoi(value());
    } else if (name == "--rows") {
      options.rows = std::atoll(value());
    } else if (name == "--isa") {
      options.isa = value();
    } else {
      Throw(ErrorCode::kInvalidArgument, "expected --threads, --rows or --isa, found '{}'", name);
    }
  }
  return options;
}

void Run(const Options& options) {
  const KernelTable& kernels = ChooseKernels(options.isa.c_str());
  ThreadPool pool(options.threads);
  const double limit = TrainProductLimit(kernels.train, pool) * 1e-9;
  fmt::print("BM_TrainGemm/bf16/{}/limit: {:.0f} GFLOP/s on {} threads ({})\n",
             IsaName(kernels.isa), limit, options.threads, kernels.train.product);
  const int64_t shapes[][2] = {{960, 576},  {576, 576},  {3072, 576}, {576, 1536},
                               {1536, 576}, {576, 3072}, {49152, 576}};
  for (const auto& shape : shapes) {
    const int64_t rows = shape[0] > 40000 ? 252 : options.rows;
    const double rate = ProductRate(kernels, pool, rows, shape[0], shape[1]);
    fmt::print("BM_TrainGemm/bf16/{}/{}x{}x{}: {:.0f} GFLOP/s, {:.0f} % of the limit\n",
               IsaName(kernels.isa), rows, shape[0], shape[1], rate, 100 * rate / limit);
  }
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
