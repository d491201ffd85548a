// What adapters add to a step on a real model: 64 sequences of a row each with the base, with 64
// different adapters, with 8 of 8 rows each; or so many sequences, of so many rows.
//
//   adapters_bench MODEL.gguf [--threads N] [--rounds N] [--steps N] [--only WORD] [--sequences N]
//                  [--rows N]
//
// Each round takes some steps of every kind in turn. Prints a step's milliseconds as the median of
// the rounds and their least, over the base's, and how fast the adapters' weights were read if
// nothing else had been added.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

#include <fmt/core.h>

#include "base/rng.h"
#include "kernels/isa.h"
#include "model/adapter.h"
#include "model/exec.h"
#include "model/model.h"

namespace bakestone {
namespace {

constexpr AdapterSite kSites[] = {
    AdapterSite::kQProj,    AdapterSite::kKProj,  AdapterSite::kVProj,   AdapterSite::kOProj,
    AdapterSite::kGateProj, AdapterSite::kUpProj, AdapterSite::kDownProj};

// Pairs at every matrix; all of a rank alike, each in memory of its own.
AdapterFile RandomAdapter(const ModelConfig& config, int64_t rank) {
  AdapterFile file{.name = fmt::format("rank {}", rank), .rank = rank, .alpha = 1};
  Rng rng(1, static_cast<uint64_t>(rank));
  for (int32_t layer = 0; layer < config.num_layers; ++layer) {
    for (int site = 0; site < kNumSites; ++site) {
      const LinearId id = {layer, static_cast<Site>(site)};
      if (!HasSite(config, id)) continue;
      const LinearShape shape = ShapeOf(config, id);
      AdapterEntry entry{.layer = layer,
                         .site = kSites[site],
                         .rank = rank,
                         .in = shape.k,
                         .out = shape.n,
                         .alpha = 1};
      entry.a.resize(static_cast<size_t>(rank * shape.k));
      entry.b.resize(static_cast<size_t>(rank * shape.n));
      for (auto* values : {&entry.a, &entry.b}) {
        for (float& value : *values) value = 0.01f * static_cast<float>(rng.Uniform() - 0.5);
      }
      file.entries.push_back(std::move(entry));
    }
  }
  return file;
}

struct Kind {
  std::string name;
  std::vector<AdapterRun> runs;
  int64_t bytes = 0;  // of adapters, read in a step
  std::vector<double> seconds = {};
};

class Bench {
 public:
  Bench(const char* path, int threads, int64_t sequences, int64_t rows)
      : sequences_(sequences),
        rows_(rows),
        pool_(threads),
        exec_(ChooseKernels(std::getenv("BAKESTONE_ISA")), pool_),
        model_(Model::Load(path, exec_.kernels, pool_)),
        allocator_(MakeHeapAllocator(model_->config, KvType::kBf16,
                                     std::numeric_limits<int64_t>::max() / 2)),
        hidden_(sequences * model_->config.hidden_dim),
        logits_(sequences * model_->config.vocab_size) {
    for (int64_t i = 0; i < sequences; ++i) {
      states_.push_back(
          std::make_unique<SequenceState>(model_->config, KvType::kBf16, *allocator_));
      states_.back()->Expect(kContext + rows);
      states_.back()->Reserve(kContext);
      states_.back()->Commit(kContext);
      for (const auto& page : states_.back()->pages()) {  // numbers of which all are small
        std::memset(page->bytes.data(), 0x3C, static_cast<size_t>(page->bytes.size()));
      }
    }
    kinds_.push_back({"base", {}});
    for (const auto& [rank, count] : {std::pair{16, 64}, {8, 64}, {16, 16}, {16, 8}, {16, 1}}) {
      if (count <= sequences) Add(rank, count);
    }
  }

  void Run(int rounds, int steps, const std::string& only) {
    std::erase_if(kinds_, [&](const Kind& kind) {
      return kind.name != "base" && kind.name.find(only) == std::string::npos;
    });
    for (Kind& kind : kinds_) Step(kind);
    for (int round = 0; round < rounds; ++round) {
      for (Kind& kind : kinds_) {
        Step(kind);
        const auto start = std::chrono::steady_clock::now();
        for (int step = 0; step < steps; ++step) Step(kind);
        kind.seconds.push_back(
            std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() /
            steps);
      }
    }
    double base = 0;
    for (Kind& kind : kinds_) {
      std::sort(kind.seconds.begin(), kind.seconds.end());
      const double median = kind.seconds[kind.seconds.size() / 2], least = kind.seconds.front();
      if (base == 0) base = median;  // the first kind
      fmt::print("{:<20} {:7.2f} ms, least {:7.2f}; base over it {:.3f}", kind.name, median * 1e3,
                 least * 1e3, base / median);
      if (kind.bytes > 0)
        fmt::print("; {:.0f} MB, {:.1f} GB/s", static_cast<double>(kind.bytes) / 1e6,
                   static_cast<double>(kind.bytes) / 1e9 / (median - base));
      fmt::print("\n");
    }
  }

 private:
  static constexpr int64_t kContext = 40;

  void Add(int64_t rank, int64_t count) {
    Kind kind{fmt::format("{} of rank {}", count, rank), {}};
    const AdapterFile file = RandomAdapter(model_->config, rank);
    for (int64_t i = 0; i < count; ++i) {
      adapters_.push_back(Adapter::Load(file, model_->config));
      kind.bytes += adapters_.back()->bytes();
      const int64_t each = sequences_ / count * rows_;
      kind.runs.push_back({static_cast<int32_t>(i * each), static_cast<int32_t>((i + 1) * each),
                           adapters_.back().get()});
    }
    kinds_.push_back(std::move(kind));
  }

  void Step(const Kind& kind) {
    std::vector<int32_t> tokens, positions, outputs;
    std::vector<SequenceRun> runs;
    for (int64_t i = 0; i < sequences_; ++i) {
      const auto begin = static_cast<int32_t>(tokens.size());
      for (int64_t row = 0; row < rows_; ++row) {
        tokens.push_back(static_cast<int32_t>(100 + i + row));
        positions.push_back(static_cast<int32_t>(kContext + row));
      }
      const auto end = static_cast<int32_t>(tokens.size());
      outputs.push_back(end - 1);
      states_[static_cast<size_t>(i)]->Reserve(rows_);
      runs.push_back({begin, end, states_[static_cast<size_t>(i)].get()});
    }
    const auto hidden = DenseView(hidden_.data(), sequences_, model_->config.hidden_dim);
    model_->decoder->Forward(exec_, {tokens, positions, runs, kind.runs, outputs}, hidden);
    model_->decoder->Logits(exec_, DenseView<const float>(hidden_.data(), sequences_, hidden.cols),
                            DenseView(logits_.data(), sequences_, model_->config.vocab_size));
  }

  int64_t sequences_, rows_;
  ThreadPool pool_;
  Exec exec_;
  std::shared_ptr<const Model> model_;
  std::unique_ptr<KvPageAllocator> allocator_;
  std::vector<std::unique_ptr<SequenceState>> states_;
  std::vector<std::shared_ptr<const Adapter>> adapters_;
  std::vector<Kind> kinds_;
  Buffer<float> hidden_, logits_;
};

}  // namespace
}  // namespace bakestone

int main(int argc, char** argv) {
  int threads = bakestone::UsableCores(), rounds = 7, steps = 10, sequences = 64, rows = 1;
  std::string only;
  for (int i = 2; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    if (flag == "--threads") threads = std::atoi(argv[i + 1]);
    if (flag == "--rounds") rounds = std::atoi(argv[i + 1]);
    if (flag == "--steps") steps = std::atoi(argv[i + 1]);
    if (flag == "--sequences") sequences = std::atoi(argv[i + 1]);
    if (flag == "--rows") rows = std::atoi(argv[i + 1]);
    if (flag == "--only") only = argv[i + 1];
  }
  if (argc < 2) {
    fmt::print(stderr,
               "adapters_bench MODEL.gguf [--threads N] [--rounds N] [--steps N] [--only WORD] "
               "[--sequences N] [--rows N]\n");
    return 2;
  }
  bakestone::Bench(argv[1], threads, sequences, rows).Run(rounds, steps, only);
}
