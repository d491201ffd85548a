#include "convert/calibrate.h"

#include <algorithm>
#include <numeric>
#include <span>
#include <unordered_map>

#include <fmt/format.h>

#include "base/error.h"
#include "format/adapter_file.h"
#include "model/decoder.h"

namespace bakestone {
namespace {

// Sums the squares of each column, rows in order: first in f32 over the rows of one call, then in
// f64.
class SumWatcher final : public ops::ProductWatcher {
 public:
  SumWatcher(const Model& model, ImportanceMatrix& matrix) {
    static_assert(static_cast<int>(Site::kDown) == static_cast<int>(AdapterSite::kDownProj));
    for (size_t layer = 0; layer < model.weights->layers.size(); ++layer) {
      for (int site = 0; site < kNumSites; ++site) {
        const Panel& panel = model.weights->layers[layer].at(static_cast<Site>(site)).panel();
        if (panel.data == nullptr) continue;
        ImportanceEntry& entry = matrix.entries[fmt::format(
            "blk.{}.{}.weight", layer, AdapterSiteGgufName(static_cast<AdapterSite>(site)))];
        entry.sums.assign(static_cast<size_t>(panel.k), 0);
        entry.counts.assign(1, 0);
        entries_[panel.data] = &entry;
      }
    }
  }

  void Product(const Activations& x, const Panel& panel) override {
    const auto found = entries_.find(panel.data);
    if (found == entries_.end()) return;
    BAKESTONE_CHECK(x.type == ActType::kF32);
    sums_.assign(static_cast<size_t>(x.k), 0);
    for (int64_t row = 0; row < x.rows; ++row) {
      const float* values = x.f + row * x.stride;
      for (int64_t k = 0; k < x.k; ++k) sums_[static_cast<size_t>(k)] += values[k] * values[k];
    }
    ImportanceEntry& entry = *found->second;
    for (size_t k = 0; k < sums_.size(); ++k) entry.sums[k] += static_cast<double>(sums_[k]);
    entry.counts[0] += static_cast<double>(x.rows);
  }

 private:
  std::unordered_map<const uint8_t*, ImportanceEntry*> entries_;
  std::vector<float> sums_;
};

// For as long as it lives.
class Watching {
 public:
  Watching(Exec& exec, ops::ProductWatcher& watcher) : context_(exec.context) {
    context_.Watch(&watcher);
  }
  ~Watching() { context_.Watch(nullptr); }

 private:
  ops::Context& context_;
};

void ReadWindow(const Model& model, Exec& exec, std::span<const int32_t> tokens) {
  const auto rows = static_cast<int32_t>(tokens.size());
  std::vector<int32_t> positions(tokens.size());
  std::iota(positions.begin(), positions.end(), 0);
  const SequenceRun sequence{0, rows, nullptr};
  Buffer<float> hidden(rows * model.config.hidden_dim);
  model.decoder->Forward(exec, {tokens, positions, {&sequence, 1}, {}, positions},
                         {hidden.data(), rows, model.config.hidden_dim});
}

}  // namespace

ImportanceMatrix Calibrate(const Model& model, Exec& exec,
                           const std::vector<CalibrationText>& texts,
                           const CalibrateOptions& options) {
  BAKESTONE_CHECK(exec.precision == Precision::kExact);
  std::vector<std::vector<int32_t>> tokens;
  int64_t total = 0, done = 0;
  ImportanceMatrix matrix;
  for (const CalibrationText& text : texts) {
    std::vector<int32_t> ids = model.tokenizer.Encode(text.text, {.add_special = false});
    const int64_t left = options.max_tokens - total;
    if (static_cast<int64_t>(ids.size()) > left) ids.resize(static_cast<size_t>(left));
    total += static_cast<int64_t>(ids.size());
    tokens.push_back(std::move(ids));
    matrix.datasets.push_back(text.name);
  }
  if (total == 0) {
    Throw(ErrorCode::kInvalidArgument, "texts to calibrate with: expected tokens, found none");
  }
  SumWatcher watcher(model, matrix);
  const Watching watching(exec, watcher);
  const int64_t window = std::min(options.window, model.config.context_length);
  matrix.chunk_size = static_cast<uint32_t>(window);
  for (const std::vector<int32_t>& ids : tokens) {
    for (size_t begin = 0; begin < ids.size(); begin += static_cast<size_t>(window)) {
      const size_t length = std::min(static_cast<size_t>(window), ids.size() - begin);
      ReadWindow(model, exec, std::span(ids).subspan(begin, length));
      ++matrix.num_chunks;
      done += static_cast<int64_t>(length);
      if (options.progress) options.progress(done, total);
    }
  }
  return matrix;
}

}  // namespace bakestone
