#include "convert/target_size.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <map>
#include <queue>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"
#include "base/quote.h"
#include "eval/kl_score.h"
#include "model/model.h"
#include "tensor/dequantize.h"

namespace bakestone {
namespace {

// What may be chosen, with the types that a tensor's rows fit and its own.
constexpr std::array<DType, 12> kTypes = {
    DType::kQ2_K, DType::kQ3_K, DType::kIQ4_XS, DType::kQ4_K, DType::kIQ4_NL, DType::kQ4_1,
    DType::kQ5_K, DType::kQ5_0, DType::kQ5_1,   DType::kQ6_K, DType::kQ8_0,   DType::kF16};
constexpr int64_t kSampleRows = 256;
// Room for keys that are added, beside what the source's metadata takes.
constexpr int64_t kKeyRoom = 16 << 10;

struct Choice {
  DType type;
  int64_t bytes = 0;
  double error = 0;  // squared, weighted, of the whole tensor
};

struct Candidate {
  const SourceTensor* tensor = nullptr;
  int64_t band = -1;            // of layers; -1: of none
  std::string part;             // the name behind the layer's
  std::vector<Choice> choices;  // ascending bytes, falling error: the lower convex hull
  double sensitivity = 0;       // divergence for one unit of error
  size_t chosen = 0;
};

// Squared error of rows [row, row + count) in `type`.
double ErrorOf(const SourceTensor& tensor, DType type, int64_t row, int64_t count,
               std::span<const float> importance, const KernelTable& kernels, ThreadPool& pool) {
  const int64_t cols = tensor.cols();
  std::vector<float> x(static_cast<size_t>(count * cols)), y = x;
  Buffer<uint8_t> blocks(count * RowBytes(type, cols));
  tensor.rows(row, count, x.data());
  ops::Encode(pool, kernels,
              {.name = tensor.name,
               .to = type,
               .n = count,
               .k = cols,
               .importance = importance,
               .out = blocks.data()},
              [&](int64_t first, int64_t n, float* to) {
                std::copy_n(x.data() + first * cols, n * cols, to);
              });
  DequantizeRow(type, blocks.data(), y.data(), count * cols);
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double weight =
        importance.empty() ? 1 : static_cast<double>(importance[i % static_cast<size_t>(cols)]);
    sum += weight * std::pow(static_cast<double>(x[i]) - static_cast<double>(y[i]), 2);
  }
  return sum;
}

// Only what lies on the lower convex hull of (bytes, error) is ever worth choosing.
std::vector<Choice> Hull(std::vector<Choice> all) {
  std::sort(all.begin(), all.end(), [](const Choice& a, const Choice& b) {
    return std::pair(a.bytes, a.error) < std::pair(b.bytes, b.error);
  });
  std::vector<Choice> hull;
  for (const Choice& one : all) {
    if (!hull.empty() && one.error >= hull.back().error) continue;
    while (hull.size() > 1) {
      const Choice &a = hull[hull.size() - 2], &b = hull.back();
      const double ab = (a.error - b.error) / static_cast<double>(b.bytes - a.bytes);
      const double bc = (b.error - one.error) / static_cast<double>(one.bytes - b.bytes);
      if (ab >= bc) break;
      hull.pop_back();
    }
    hull.push_back(one);
  }
  return hull;
}

std::vector<Choice> ChoicesFor(const SourceTensor& tensor, const TargetOptions& options,
                               const KernelTable& kernels, ThreadPool& pool) {
  if (tensor.prepare) tensor.prepare(pool);
  const std::span<const float> all =
      options.importance ? options.importance(tensor) : std::span<const float>();
  const std::span<const float> scales =
      options.scales ? options.scales(tensor) : std::span<const float>();
  const auto cols = static_cast<size_t>(tensor.cols());
  const int64_t matrices = all.empty() ? 1 : static_cast<int64_t>(all.size() / cols);
  const int64_t rows = tensor.num_rows(), per_matrix = rows / matrices;
  std::vector<Choice> choices = {{tensor.type, tensor.stored_bytes(), 0}};
  for (const DType type : kTypes) {
    const int64_t bytes =
        tensor.cols() % BlockSize(type) == 0 ? rows * RowBytes(type, tensor.cols()) : 0;
    if (bytes == 0 || bytes >= tensor.stored_bytes()) continue;
    double error = 0;
    int64_t sampled = 0;
    const int64_t pieces = 16, step = std::max<int64_t>(1, rows / pieces);
    for (int64_t row = 0; row < rows && sampled < kSampleRows; row += step) {
      const int64_t matrix = row / per_matrix;
      const int64_t count =
          std::min({kSampleRows / pieces, rows - row, (matrix + 1) * per_matrix - row});
      const auto importance =
          all.empty() ? all : all.subspan(static_cast<size_t>(matrix) * cols, cols);
      const double scale =
          scales.empty() ? 1 : static_cast<double>(scales[static_cast<size_t>(matrix)]);
      error += scale * ErrorOf(tensor, type, row, count, importance, kernels, pool);
      sampled += count;
    }
    choices.push_back(
        {type, bytes, error * static_cast<double>(rows) / static_cast<double>(sampled)});
  }
  return Hull(std::move(choices));
}

int64_t LayerOf(const std::string& name) {
  int64_t layer = -1;
  if (name.starts_with("blk.")) std::from_chars(name.data() + 4, name.data() + name.size(), layer);
  return layer;
}

// Layers that are measured together: the first two and the last two by themselves, because nothing
// is like them, the others in as many bands as that many measurements may take.
constexpr int64_t kAlone = 2, kInnerBands = 8;

int64_t BandOf(int64_t layer, int64_t layers) {
  const int64_t inner = layers - 2 * kAlone;
  if (layer < kAlone || inner <= 0) return layer;
  if (layer >= layers - kAlone) return kAlone + kInnerBands + layer - (layers - kAlone);
  return kAlone + (layer - kAlone) * kInnerBands / inner;
}

// By band and part, such that the sums of bands and of parts become those given (up to a common
// factor of the parts'): each in turn, many times (iterative proportional fitting).
using Grid = std::map<std::pair<int64_t, std::string>, double>;
void FitSums(const std::map<int64_t, double>& bands, std::map<std::string, double> parts,
             Grid& grid) {
  double all_bands = 0, all_parts = 0;
  for (const auto& [band, sum] : bands) all_bands += sum;
  for (const auto& [part, sum] : parts) all_parts += sum;
  if (all_bands <= 0 || all_parts <= 0) return;
  for (auto& [part, sum] : parts) sum *= all_bands / all_parts;
  constexpr int kRounds = 50;
  for (int round = 0; round < kRounds; ++round) {
    std::map<int64_t, double> band_sums;
    for (const auto& [at, value] : grid) band_sums[at.first] += value;
    for (auto& [at, value] : grid) {
      if (band_sums[at.first] > 0) value *= bands.at(at.first) / band_sums[at.first];
    }
    std::map<std::string, double> part_sums;
    for (const auto& [at, value] : grid) part_sums[at.second] += value;
    for (auto& [at, value] : grid) {
      if (part_sums[at.second] > 0) value *= parts.at(at.second) / part_sums[at.second];
    }
  }
}

class Planner {
 public:
  Planner(const ModelSource& source, const std::filesystem::path& original,
          const KernelTable& kernels, ThreadPool& pool, const TargetOptions& options)
      : source_(source), original_(original), kernels_(kernels), pool_(pool), options_(options) {}

  TargetPlan Plan() {
    FindCandidates();
    CheckFits();
    const auto model = Model::Load(original_, kernels_, pool_);
    original_model_ = model.get();
    Measure();
    Enlarge();
    TargetPlan best{.plan =
                        PlanOf([](const Candidate& one) { return one.choices[one.chosen].type; })};
    best.plan.file_type = FileType(best.plan);
    best.kl = KlOf(best.plan, "the chosen types");
    for (auto& [name, plan] : MixesThatFit()) {
      const double kl = KlOf(plan, name);
      if (kl < best.kl) best = {.plan = std::move(plan), .kl = kl, .mix = name};
    }
    return best;
  }

 private:
  void FindCandidates() {
    int64_t layers = 1;
    for (const SourceTensor& tensor : source_.tensors) {
      layers = std::max(layers, LayerOf(tensor.name) + 1);
    }
    for (const SourceTensor& tensor : source_.tensors) {
      if (!IsQuantizable(tensor)) {
        fixed_bytes_ += tensor.stored_bytes() + 32;
        continue;
      }
      Report("sampling " + tensor.name);
      const int64_t layer = LayerOf(tensor.name);
      const size_t dot = layer < 0 ? 0 : tensor.name.find('.', 4) + 1;
      candidates_.push_back({.tensor = &tensor,
                             .band = layer < 0 ? -1 : BandOf(layer, layers),
                             .part = tensor.name.substr(dot),
                             .choices = ChoicesFor(tensor, options_, kernels_, pool_)});
    }
    // All that is not the tensors' own bytes, at most: the source's keys, names and gaps.
    for (const auto& file : source_.files) {
      fixed_bytes_ += static_cast<int64_t>(std::filesystem::file_size(file));
    }
    fixed_bytes_ +=
        kKeyRoom + 32 * static_cast<int64_t>(candidates_.size()) - source_.stored_bytes();
  }

  int64_t Bytes() const {
    int64_t bytes = fixed_bytes_;
    for (const Candidate& one : candidates_) bytes += one.choices[one.chosen].bytes;
    return bytes;
  }

  void CheckFits() const {
    if (Bytes() <= options_.max_bytes) return;
    Throw(ErrorCode::kInvalidArgument,
          "--target-size: expected at least {} bytes for {} in the smallest types, found {}",
          Bytes(), source_.name, options_.max_bytes);
  }

  template <class TypeOf>
  QuantizePlan PlanOf(const TypeOf& type_of) const {
    QuantizePlan plan;
    size_t next = 0;
    for (const SourceTensor& tensor : source_.tensors) {
      const bool mine = next < candidates_.size() && candidates_[next].tensor == &tensor;
      const DType type = mine ? type_of(candidates_[next++]) : tensor.type;
      plan.tensors.push_back({.tensor = &tensor, .wanted = type, .type = type});
    }
    return plan;
  }

  // Of a group whose tensors all have a choice of about 4 bits: an error that is seen, and does not
  // break the model.
  static const Choice& Probe(const Candidate& one) {
    const auto limit = one.tensor->elements() * 5 / 8;  // 5 bits a weight
    size_t i = 0;
    while (i + 1 < one.choices.size() && one.choices[i + 1].bytes <= limit) ++i;
    return one.choices[i];
  }

  // Divergence with those candidates in their probes, all else as it was.
  template <class Chosen>
  double KlOfProbes(const Chosen& chosen, const std::string& what) const {
    bool any = false;
    for (const Candidate& one : candidates_) any = any || (chosen(one) && Probe(one).error > 0);
    if (!any) return 0;  // their only type is the one that they have
    return KlOf(PlanOf([&](const Candidate& one) {
                  return chosen(one) ? Probe(one).type : one.tensor->type;
                }),
                what);
  }

  double KlOf(const QuantizePlan& plan, const std::string& what) const {
    Report(what, done_++, measurements_);
    const auto remove = [this] { std::filesystem::remove(options_.scratch); };
    try {
      WriteQuantized(source_, plan, options_.scratch, kernels_, pool_,
                     {.importance = options_.importance});
      const auto model = Model::Load(options_.scratch, kernels_, pool_);
      Exec exec(kernels_, pool_, Precision::kExact);
      const Predictor predictor{.model = model.get()};
      const double kl = ScoreKl({.model = original_model_}, {&predictor, 1}, exec, options_.texts,
                                {.max_tokens = options_.tokens})
                            .front()
                            .MeanKl();
      remove();
      return kl;
    } catch (...) {
      remove();
      throw;
    }
  }

  void Measure() {
    std::map<int64_t, double> bands;
    std::map<std::string, double> parts, others;
    Grid errors;
    for (const Candidate& one : candidates_) {
      if (one.band < 0) {
        others[one.part] += Probe(one).error;
        continue;
      }
      bands[one.band] = parts[one.part] = 0;
      errors[{one.band, one.part}] += Probe(one).error;
    }
    const std::vector<std::pair<std::string, QuantizePlan>> mixes = MixesThatFit();
    measurements_ =
        std::ssize(bands) + std::ssize(parts) + std::ssize(others) + 1 + std::ssize(mixes);
    for (auto& [band, kl] : bands) {
      kl = KlOfProbes([&](const Candidate& one) { return one.band == band; },
                      fmt::format("layers, band {} of {}", band + 1, bands.size()));
    }
    for (auto& [part, kl] : parts) {
      kl =
          KlOfProbes([&](const Candidate& one) { return one.band >= 0 && one.part == part; }, part);
    }
    for (auto& [name, error] : others) {
      const double kl =
          KlOfProbes([&](const Candidate& one) { return one.band < 0 && one.part == name; }, name);
      error = error > 0 ? kl / error : 0;
    }
    Grid grid = errors;
    FitSums(bands, parts, grid);
    for (Candidate& one : candidates_) {
      const std::pair at(one.band, one.part);
      one.sensitivity = one.band < 0     ? others[one.part]
                        : errors[at] > 0 ? grid[at] / errors[at]
                                         : 0;
    }
  }

  // The largest two.
  std::vector<std::pair<std::string, QuantizePlan>> MixesThatFit() const {
    std::vector<std::pair<std::string, QuantizePlan>> mixes;
    int64_t own = fixed_bytes_;
    for (const SourceTensor& tensor : source_.tensors) {
      if (!IsQuantizable(tensor)) own -= tensor.stored_bytes();
    }
    for (const QuantMix& mix : QuantMixes()) {
      if (!IsQuantized(mix.base)) continue;
      QuantizePlan plan = PlanQuantize(
          source_, {.mix = &mix, .has_importance = static_cast<bool>(options_.importance)});
      if (own + plan.bytes() <= options_.max_bytes) mixes.emplace_back(mix.name, std::move(plan));
    }
    std::stable_sort(mixes.begin(), mixes.end(), [](const auto& a, const auto& b) {
      return a.second.bytes() > b.second.bytes();
    });
    if (mixes.size() > 2) mixes.resize(2);
    return mixes;
  }

  // Steps along the hulls, the best for its bytes first; one that does not fit ends its tensor.
  void Enlarge() {
    using Step = std::pair<double, size_t>;
    std::priority_queue<Step> steps;
    const auto push = [&](size_t i) {
      const Candidate& one = candidates_[i];
      if (one.chosen + 1 >= one.choices.size()) return;
      const Choice &now = one.choices[one.chosen], &next = one.choices[one.chosen + 1];
      steps.emplace(
          one.sensitivity * (now.error - next.error) / static_cast<double>(next.bytes - now.bytes),
          i);
    };
    for (size_t i = 0; i < candidates_.size(); ++i) push(i);
    int64_t left = options_.max_bytes - Bytes();
    while (!steps.empty()) {
      const size_t i = steps.top().second;
      steps.pop();
      Candidate& one = candidates_[i];
      const int64_t more = one.choices[one.chosen + 1].bytes - one.choices[one.chosen].bytes;
      if (more > left) continue;
      left -= more;
      ++one.chosen;
      push(i);
    }
  }

  // general.file_type has no word for a mix of one's own: that of the type with the most weights.
  static uint32_t FileType(const QuantizePlan& plan) {
    std::map<DType, int64_t> weights;
    for (const PlannedTensor& one : plan.tensors) weights[one.type] += one.tensor->elements();
    const auto most =
        std::max_element(weights.begin(), weights.end(),
                         [](const auto& a, const auto& b) { return a.second < b.second; });
    for (const QuantMix& mix : QuantMixes()) {
      if (most != weights.end() && mix.base == most->first) return mix.file_type;
    }
    return FindQuantMix("Q4_K_M")->file_type;
  }

  void Report(const std::string& what, int64_t done = 0, int64_t total = 1) const {
    if (options_.progress) options_.progress(done, total, what);
  }

  const ModelSource& source_;
  const std::filesystem::path& original_;
  const KernelTable& kernels_;
  ThreadPool& pool_;
  const TargetOptions& options_;
  std::vector<Candidate> candidates_;  // in the order of the source
  int64_t fixed_bytes_ = 0;            // of all else in the file
  const Model* original_model_ = nullptr;
  mutable int64_t done_ = 0;
  int64_t measurements_ = 1;
};

}  // namespace

TargetPlan PlanForSize(const ModelSource& source, const std::filesystem::path& original,
                       const KernelTable& kernels, ThreadPool& pool, const TargetOptions& options) {
  return Planner(source, original, kernels, pool, options).Plan();
}

int64_t ParseSize(const std::string& text) {
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  const std::string unit(end);
  static const std::map<std::string, double, std::less<>> kUnits = {
      {"", 1.0}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"MiB", 1048576.0}, {"GiB", 1073741824.0}};
  const auto found = kUnits.find(unit);
  if (end == text.c_str() || found == kUnits.end() || !(number > 0) ||
      number * found->second > 1e15) {
    Throw(ErrorCode::kInvalidArgument,
          "--target-size: expected a size such as 90MB, 4.5GB or 900MiB, found {}", Quote(text));
  }
  return static_cast<int64_t>(number * found->second);
}

}  // namespace bakestone
