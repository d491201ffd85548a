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
#include "convert/compare.h"
#include "tensor/dequantize.h"

namespace bakestone {
namespace {

// What may be chosen, with the types that a tensor's rows fit and its own.
constexpr std::array<DType, 12> kTypes = {
    DType::kQ2_K, DType::kQ3_K, DType::kIQ4_XS, DType::kQ4_K, DType::kIQ4_NL, DType::kQ4_1,
    DType::kQ5_K, DType::kQ5_0, DType::kQ5_1,   DType::kQ6_K, DType::kQ8_0,   DType::kF16};
constexpr int64_t kSampleRows = 64;
// Room for keys that are added, beside what the source's metadata takes.
constexpr int64_t kKeyRoom = 16 << 10;

struct Choice {
  DType type;
  int64_t bytes = 0;
  double error = 0;  // squared, weighted, of the whole tensor
};

struct Candidate {
  const SourceTensor* tensor = nullptr;
  std::string group;
  std::vector<Choice> choices;  // ascending bytes, falling error: the lower convex hull
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
    const int64_t pieces = 4, step = std::max<int64_t>(1, rows / pieces);
    for (int64_t row = 0; row < rows && sampled < kSampleRows; row += step) {
      const int64_t matrix = row / per_matrix;
      const int64_t count =
          std::min({kSampleRows / pieces, rows - row, (matrix + 1) * per_matrix - row});
      const auto importance =
          all.empty() ? all : all.subspan(static_cast<size_t>(matrix) * cols, cols);
      error += ErrorOf(tensor, type, row, count, importance, kernels, pool);
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

std::string GroupOf(const std::string& name, int64_t num_layers) {
  const int64_t layer = LayerOf(name);
  if (layer < 0) return name;
  static constexpr const char* kThirds[] = {"first", "middle", "last"};
  const size_t dot = name.find('.', 4);
  return fmt::format("{} layers' {}", kThirds[std::min<int64_t>(2, 3 * layer / num_layers)],
                     name.substr(dot + 1));
}

class Planner {
 public:
  Planner(const ModelSource& source, const std::filesystem::path& original,
          const KernelTable& kernels, ThreadPool& pool, const TargetOptions& options)
      : source_(source), original_(original), kernels_(kernels), pool_(pool), options_(options) {}

  TargetPlan Plan() {
    FindCandidates();
    CheckFits();
    MeasureGroups();
    Enlarge();
    TargetPlan result{
        .plan = PlanOf([](const Candidate& one) { return one.choices[one.chosen].type; })};
    for (const Candidate& one : candidates_) {
      result.expected_kl += sensitivity_[one.group] * one.choices[one.chosen].error;
    }
    result.plan.file_type = FileType(result.plan);
    return result;
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
      candidates_.push_back(
          {&tensor, GroupOf(tensor.name, layers), ChoicesFor(tensor, options_, kernels_, pool_)});
      sensitivity_[candidates_.back().group] = 0;
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

  void MeasureGroups() {
    int64_t done = 0;
    for (auto& [group, sensitivity] : sensitivity_) {
      Report(group, done++, static_cast<int64_t>(sensitivity_.size()));
      double error = 0;
      for (const Candidate& one : candidates_) error += one.group == group ? Probe(one).error : 0;
      if (error == 0) continue;  // its only type is the one that it has
      const QuantizePlan plan = PlanOf([&](const Candidate& one) {
        return one.group == group ? Probe(one).type : one.tensor->type;
      });
      WriteQuantized(source_, plan, options_.scratch, kernels_, pool_,
                     {.importance = options_.importance});
      const auto remove = [this] { std::filesystem::remove(options_.scratch); };
      try {
        const auto scores =
            CompareModels({.path = original_}, {{group, options_.scratch}}, options_.texts,
                          kernels_, pool_, {.max_tokens = options_.tokens});
        sensitivity = scores.front().score.MeanKl() / error;
      } catch (...) {
        remove();
        throw;
      }
      remove();
    }
  }

  // Steps along the hulls, the best for its bytes first; one that does not fit ends its tensor.
  void Enlarge() {
    using Step = std::pair<double, size_t>;
    std::priority_queue<Step> steps;
    const auto push = [&](size_t i) {
      const Candidate& one = candidates_[i];
      if (one.chosen + 1 >= one.choices.size()) return;
      const Choice &now = one.choices[one.chosen], &next = one.choices[one.chosen + 1];
      steps.emplace(sensitivity_[one.group] * (now.error - next.error) /
                        static_cast<double>(next.bytes - now.bytes),
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
  std::vector<Candidate> candidates_;          // in the order of the source
  std::map<std::string, double> sensitivity_;  // by group: KL for one unit of error
  int64_t fixed_bytes_ = 0;                    // of all else in the file
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
