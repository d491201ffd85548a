// What the tests of families share: the goldens that tools/make_family_goldens.py makes, models run
// over them whole or in steps, and the axes on which families differ.
#pragma once

#include <gmock/gmock.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "format/safetensors.h"
#include "kernels/isa.h"
#include "model/decoder.h"
#include "model/families/families.h"
#include "model/model_file.h"
#include "model/test_golden.h"

namespace bakestone::testing {

inline constexpr double kTolerance = 1e-4;

inline std::filesystem::path FolderOf(std::string_view type) {
  return std::filesystem::path(BAKESTONE_TEST_DATA) / "families" / type;
}

struct Golden {
  std::vector<int32_t> tokens;
  std::vector<float> logits;  // [tokens, vocabulary]
};

inline Golden ReadGolden(std::string_view type, const char* name = "golden.safetensors") {
  const SafetensorsFile file = SafetensorsFile::Open(FolderOf(type) / name);
  return {ValuesOf<int32_t>(file, "tokens"), ValuesOf<float>(file, "logits")};
}

inline ThreadPool& Pool() {
  static ThreadPool pool{2};
  return pool;
}

struct RunOptions {
  const KernelTable* kernels = &ChooseKernels(nullptr);
  Precision precision = Precision::kExact;
  int64_t chunk = 1000;     // tokens of a step
  bool last_only = false;   // the logits of the last token, of one step
  bool keeps_state = true;  // else one run without a state
};

// The logits of all tokens, in steps over one sequence state.
inline std::vector<float> LogitsOf(const ModelConfig& config, const Weights& weights,
                                   std::span<const int32_t> tokens,
                                   const RunOptions& options = {}) {
  const Decoder decoder(config, weights);
  Exec exec(*options.kernels, Pool(), options.precision);
  const KvType type = options.precision == Precision::kExact ? KvType::kF32 : KvType::kBf16;
  const auto allocator = MakeHeapAllocator(config, type, int64_t{1} << 30);
  SequenceState state(config, type, *allocator);
  state.Expect(static_cast<int64_t>(tokens.size()));
  const size_t outputs = options.last_only ? 1 : tokens.size();
  std::vector<float> logits(outputs * static_cast<size_t>(config.vocab_size));
  const auto length = static_cast<int64_t>(tokens.size());
  for (int64_t begin = 0; begin < length; begin += options.chunk) {
    const int64_t count = std::min(options.chunk, length - begin);
    std::vector<int32_t> positions, rows;
    for (int64_t i = 0; i < count; ++i) {
      positions.push_back(static_cast<int32_t>(begin + i));
      if (!options.last_only || begin + i + 1 == length) rows.push_back(static_cast<int32_t>(i));
    }
    const SequenceRun run = {0, static_cast<int32_t>(count),
                             options.keeps_state ? &state : nullptr};
    const auto asked = static_cast<int64_t>(rows.size());
    std::vector<float> hidden(rows.size() * static_cast<size_t>(config.hidden_dim));
    const auto h = DenseView(hidden.data(), asked, config.hidden_dim);
    state.Reserve(count);
    decoder.Forward(
        exec,
        {.tokens = tokens.subspan(static_cast<size_t>(begin), static_cast<size_t>(count)),
         .positions = positions,
         .sequences = {&run, 1},
         .output_rows = rows},
        h);
    state.Commit(count);
    decoder.Logits(exec, h,
                   DenseView(logits.data() + begin * config.vocab_size, asked, config.vocab_size));
  }
  return logits;
}

inline double MaxDifference(std::span<const float> a, std::span<const float> b) {
  if (a.size() != b.size()) return INFINITY;
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    most = std::isfinite(difference) ? std::max(most, difference) : INFINITY;
  }
  return most;
}

inline std::unique_ptr<Weights> LoadFrom(const ModelFile& file, const ModelConfig& config) {
  return Weights::Load(file.Tensors(), config, ChooseKernels(nullptr), Pool());
}

// The hidden states of the text and of its first seven tokens, in one step.
inline std::vector<std::vector<float>> StatesOf(const ModelConfig& config, const Weights& weights,
                                                const KernelTable& kernels,
                                                std::span<const int32_t> tokens,
                                                Precision precision) {
  const Decoder decoder(config, weights);
  Exec exec(kernels, Pool(), precision);
  std::vector<int32_t> both(tokens.begin(), tokens.end()), positions, rows;
  both.insert(both.end(), tokens.begin(), tokens.begin() + 7);
  const auto whole = static_cast<int32_t>(tokens.size());
  for (size_t i = 0; i < both.size(); ++i) {
    rows.push_back(static_cast<int32_t>(i));
    positions.push_back(rows.back() % whole);
  }
  const SequenceRun runs[] = {{0, whole, nullptr}, {whole, whole + 7, nullptr}};
  std::vector<float> hidden(both.size() * static_cast<size_t>(config.hidden_dim));
  decoder.Forward(exec,
                  {.tokens = both, .positions = positions, .sequences = runs, .output_rows = rows},
                  DenseView(hidden.data(), static_cast<int64_t>(both.size()), config.hidden_dim));
  const auto split = hidden.begin() + static_cast<int64_t>(whole) * config.hidden_dim;
  return {{hidden.begin(), split}, {split, hidden.end()}};
}

inline std::vector<std::vector<float>> StatesOf(
    const ModelFile& file, const KernelTable& kernels, std::span<const int32_t> tokens,
    Precision precision, const std::function<void(ModelConfig&, Weights&)>& change = {}) {
  ModelConfig config = file.Config();
  const auto weights = LoadFrom(file, config);
  if (change) change(config, *weights);
  return StatesOf(config, *weights, kernels, tokens, precision);
}

// One axis: whether a model declares it, and how to take it away. Weights are this run's own.
struct Axis {
  const char* name;
  std::function<bool(const ModelConfig&)> declared;
  std::function<void(ModelConfig&, Weights&)> flip;
};

const std::vector<Axis>& Axes();  // axes_test.cc

// The model_types of all families but encoders, or of encoders.
inline std::vector<std::string> AllTypes(bool encoders = false) {
  std::vector<std::string> types;
  for (const Family& family : Families()) {
    for (const std::string_view type : family.hf_types) {
      if (!type.empty() && family.encoder == encoders) types.emplace_back(type);
    }
  }
  return types;
}

inline std::string TestName(std::string type) {
  for (char& c : type) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return type;
}

class FamilyProof : public ::testing::TestWithParam<std::string> {
 protected:
  const std::string& type() const { return GetParam(); }
};

}  // namespace bakestone::testing
