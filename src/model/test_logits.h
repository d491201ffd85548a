// For tests: the golden logits that tools/make_logits_goldens.py makes (its file grammar is there),
// and the distance between them and what a decoder says.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "base/mapped_file.h"
#include "base/sha256.h"
#include "model/decoder.h"

namespace bakestone::testing {

struct GoldenPosition {
  float log_sum_exp = 0;
  std::vector<uint32_t> ids;  // by descending logit
  std::vector<float> logits;
};

struct GoldenText {
  std::vector<int32_t> tokens;
  std::vector<GoldenPosition> positions;
};

struct Goldens {
  Hash model_hash{};
  std::vector<GoldenText> texts;
};

inline Goldens ReadGoldens(const std::filesystem::path& path) {
  const MappedFile file = MappedFile::Open(path);
  size_t at = 0;
  const auto take = [&](void* to, size_t bytes) {
    BAKESTONE_CHECK(bytes <= file.bytes().size() - at);
    std::memcpy(to, file.bytes().data() + at, bytes);
    at += bytes;
  };
  char magic[8];
  uint32_t version = 0, top = 0, num_texts = 0, length = 0;
  Goldens goldens;
  take(magic, sizeof magic);
  take(&version, 4);
  take(&top, 4);
  BAKESTONE_CHECK(std::memcmp(magic, "BKLOGITS", 8) == 0 && version == 1 && top >= 1 &&
                  top <= 1024);
  take(goldens.model_hash.data(), goldens.model_hash.size());
  take(&num_texts, 4);
  for (uint32_t i = 0; i < num_texts; ++i) {
    take(&length, 4);
    GoldenText text;
    text.tokens.resize(length);
    take(text.tokens.data(), length * sizeof(int32_t));
    for (uint32_t p = 0; p < length; ++p) {
      GoldenPosition position{.ids = std::vector<uint32_t>(top), .logits = std::vector<float>(top)};
      take(&position.log_sum_exp, 4);
      take(position.ids.data(), top * sizeof(uint32_t));
      take(position.logits.data(), top * sizeof(float));
      text.positions.push_back(std::move(position));
    }
    goldens.texts.push_back(std::move(text));
  }
  BAKESTONE_CHECK(at == file.bytes().size());
  return goldens;
}

// Distances over positions. KL is of the golden distribution to the decoder's, over the golden's
// top tokens and all others as one more outcome, in nats.
struct LogitDistance {
  int64_t positions = 0, same_top = 0;
  double kl_sum = 0, max_kl = 0, max_error = 0;  // error: of any top logit or log-sum-exp

  double mean_kl() const { return kl_sum / static_cast<double>(positions); }
  double top1_agreement() const {
    return static_cast<double>(same_top) / static_cast<double>(positions);
  }
};

inline double LogSumExpOf(std::span<const float> logits) {
  const double max = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - max);
  return max + std::log(sum);
}

inline void Compare(const GoldenPosition& golden, std::span<const float> logits,
                    LogitDistance& distance) {
  const double lse = LogSumExpOf(logits);
  double kl = 0, golden_rest = 1, rest = 1;
  double error = std::abs(lse - golden.log_sum_exp);
  for (size_t i = 0; i < golden.ids.size(); ++i) {
    const double logit = logits[golden.ids[i]];
    const double log_p = static_cast<double>(golden.logits[i]) - golden.log_sum_exp;
    const double p = std::exp(log_p);
    kl += p * (log_p - (logit - lse));
    golden_rest -= p;
    rest -= std::exp(logit - lse);
    error = std::max(error, std::abs(logit - golden.logits[i]));
  }
  if (golden_rest > 1e-9 && rest > 1e-9) kl += golden_rest * std::log(golden_rest / rest);
  const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
  ++distance.positions;
  distance.same_top += static_cast<uint32_t>(best) == golden.ids[0];
  distance.kl_sum += kl;
  distance.max_kl = std::max(distance.max_kl, kl);
  distance.max_error = std::max(distance.max_error, error);
}

// Scores every text in chunks of `chunk` rows over one sequence state; adapter null: the base. Keys
// and values in served_type, or f32 at kExact.
inline LogitDistance Measure(const Decoder& decoder, Exec& exec, const Goldens& goldens,
                             int64_t chunk, const Adapter* adapter = nullptr,
                             KvType served_type = KvType::kBf16) {
  const ModelConfig& config = decoder.config();
  const KvType type = exec.precision == Precision::kExact ? KvType::kF32 : served_type;
  const auto allocator = MakeHeapAllocator(config, type, int64_t{4} << 30);
  std::vector<float> hidden(static_cast<size_t>(chunk * config.hidden_dim));
  std::vector<float> logits(static_cast<size_t>(chunk * config.vocab_size));
  std::vector<int32_t> positions, rows;
  LogitDistance distance;
  for (const GoldenText& text : goldens.texts) {
    SequenceState state(config, type, *allocator);
    const auto length = static_cast<int64_t>(text.tokens.size());
    for (int64_t begin = 0; begin < length; begin += chunk) {
      const int64_t count = std::min(chunk, length - begin);
      positions.clear();
      rows.clear();
      for (int64_t i = 0; i < count; ++i) {
        positions.push_back(static_cast<int32_t>(begin + i));
        rows.push_back(static_cast<int32_t>(i));
      }
      const SequenceRun run = {0, static_cast<int32_t>(count), &state};
      const AdapterRun adapter_run = {0, static_cast<int32_t>(count), adapter};
      state.Reserve(count);
      const auto h = DenseView(hidden.data(), count, config.hidden_dim);
      const auto l = DenseView(logits.data(), count, config.vocab_size);
      decoder.Forward(
          exec,
          {.tokens = std::span(text.tokens)
                         .subspan(static_cast<size_t>(begin), static_cast<size_t>(count)),
           .positions = positions,
           .sequences = {&run, 1},
           .adapters = {&adapter_run, 1},
           .output_rows = rows},
          h);
      state.Commit(count);
      decoder.Logits(exec, h, l);
      for (int64_t i = 0; i < count; ++i) {
        Compare(text.positions[static_cast<size_t>(begin + i)],
                {l.Row(i), static_cast<size_t>(config.vocab_size)}, distance);
      }
    }
  }
  return distance;
}

}  // namespace bakestone::testing
