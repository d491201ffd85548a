#include "cli/convert_report.h"

#include <cstdio>
#include <map>
#include <memory>
#include <tuple>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/environment.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "model/model_file.h"

namespace bakestone::cli {
namespace {

// "blk.12.ffn_down.weight" -> "blk.*.ffn_down.weight": what a line speaks of.
std::string Stem(const std::string& name) {
  if (!name.starts_with("blk.")) return name;
  const size_t dot = name.find('.', 4);
  return dot == std::string::npos ? name : "blk.*" + name.substr(dot);
}

std::string WhyNot(const PlannedTensor& planned) {
  switch (planned.reason) {
    case PlanReason::kRowLength:
      return fmt::format("rows of {} weights are no multiple of {}", planned.tensor->cols(),
                         BlockSize(planned.wanted));
    case PlanReason::kAlreadySmall:
      return "stored so already: encoding it again could only lose";
    case PlanReason::kAsMixed:
    case PlanReason::kOverride:
      break;
  }
  return "as asked";
}

void PrintTypes(const QuantizePlan& plan) {
  std::map<std::string, int64_t> counts;
  for (const PlannedTensor& planned : plan.tensors) ++counts[DTypeName(planned.type)];
  std::string types;
  for (const auto& [type, count] : counts) {
    types += fmt::format("{}{} x {}", types.empty() ? "" : ", ", type, count);
  }
  fmt::print(stderr, "tensors: {}: {:.3f} bits a weight\n", types, plan.BitsPerWeight());
}

int64_t BytesOf(const std::filesystem::path& path) { return ModelFile::Open(path).bytes(); }

}  // namespace

void RefuseToReplace(const ModelSource& source, const std::filesystem::path& out) {
  std::error_code ignored;
  for (const auto& file : source.files) {
    if (!std::filesystem::equivalent(file, out, ignored)) continue;
    Throw(ErrorCode::kInvalidArgument, "{}: expected another file to write than the model itself",
          out.string());
  }
  if (std::filesystem::is_directory(out)) {
    Throw(ErrorCode::kInvalidArgument, "{}: expected a file to write, found a folder",
          out.string());
  }
}

void ThrowIfStopped() {
  if (StopRequested()) Throw(ErrorCode::kCancelled, "stopped; nothing was written");
}

void PrintPlan(const QuantizePlan& plan, std::string_view mix) {
  PrintTypes(plan);
  std::map<std::tuple<std::string, DType, DType, PlanReason>, std::pair<int64_t, std::string>>
      lines;
  int64_t again = 0;
  for (const PlannedTensor& planned : plan.tensors) {
    again += planned.requantized() && IsQuantized(planned.type) ? 1 : 0;
    if (planned.reason == PlanReason::kAsMixed || planned.reason == PlanReason::kOverride) continue;
    auto& [count, why] =
        lines[{Stem(planned.tensor->name), planned.wanted, planned.type, planned.reason}];
    ++count;
    why = WhyNot(planned);
  }
  for (const auto& [key, line] : lines) {
    const auto& [stem, wanted, type, reason] = key;
    fmt::print(stderr, "  {:<28} x {:<4} {} instead of {}: {}\n", stem, line.first, DTypeName(type),
               DTypeName(wanted), line.second);
  }
  if (again > 0) {
    fmt::print(stderr,
               "warning: {} tensors are quantized already, and become {} with the errors of both; "
               "start from an "
               "F16, BF16 or F32 file where there is one\n",
               again, mix);
  }
}

void WriteWithBar(const std::string& label, const ModelSource& source, const QuantizePlan& plan,
                  const std::filesystem::path& out, ThreadPool& pool, WriteOptions options) {
  Progress progress(label, plan.bytes() >> 20, "MB");
  options.progress = [&](int64_t done, int64_t, const std::string& tensor) {
    ThrowIfStopped();
    progress.Update(done >> 20, tensor);
  };
  WriteQuantized(source, plan, out, Kernels(), pool, options);
}

std::vector<Compared> Compare(const Contender& original, const std::vector<Contender>& others,
                              const std::vector<std::string>& texts, int64_t max_tokens,
                              ThreadPool& pool) {
  std::unique_ptr<Progress> progress;
  KlOptions options;
  options.max_tokens = max_tokens;
  options.progress = [&](int64_t done, int64_t total) {
    if (StopRequested()) {
      Throw(ErrorCode::kCancelled, "stopped while measuring; the model is written");
    }
    if (!progress) progress = std::make_unique<Progress>("measuring", total, "tokens");
    progress->Update(done);
    if (done == total) progress.reset();
  };
  return CompareModels(original, others, texts, Kernels(), pool, options);
}

void PrintOutcome(const Outcome& outcome) {
  const std::string name = outcome.source.filename().string();
  const std::string& original = outcome.original.empty() ? name : outcome.original;
  const int64_t before = BytesOf(outcome.source), after = BytesOf(outcome.out);
  if (outcome.json) {
    nlohmann::ordered_json json = {{"file", outcome.out.string()},
                                   {"bytes", after},
                                   {"bits_per_weight", outcome.plan->BitsPerWeight()}};
    json["measured"] = outcome.compared.empty() ? nlohmann::ordered_json()
                                                : CompareToJson(original, before, outcome.compared);
    fmt::print("{}\n", json.dump(2));
    return;
  }
  fmt::print("{}: {:.1f} MB, {:.3f} bits a weight ({}: {:.1f} MB)\n", outcome.out.string(),
             static_cast<double>(after) / 1e6, outcome.plan->BitsPerWeight(), name,
             static_cast<double>(before) / 1e6);
  if (outcome.compared.empty()) {
    fmt::print("not measured: --measure FILE compares both on a text of yours\n");
    return;
  }
  fmt::print("{}", CompareTable(original, before, outcome.compared));
}

}  // namespace bakestone::cli
