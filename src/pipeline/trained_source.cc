#include "pipeline/trained_source.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include <fmt/core.h>

#include "base/error.h"
#include "format/q_k_permute.h"
#include "tensor/half.h"

namespace bakestone {
namespace {

constexpr std::array<const char*, kNumSites> kGgufNames = {
    "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"};
constexpr uint32_t kMostlyBf16 = 32;  // general.file_type

float Rounded(float value) { return BF16ToFloat(FloatToBF16(value)); }

// Puts the trained tensors in place of the base's.
class Replacer {
 public:
  Replacer(const Model& model, const TrainLayout& layout, const float* values, float pair_scale, ModelSource* source)
      : config_(model.config), layout_(layout), values_(values), pair_scale_(pair_scale), source_(*source) {}

  void Replace() {
    const auto linear = [](LinearId id) {
      return fmt::format("blk.{}.{}", id.layer, kGgufNames[static_cast<size_t>(id.site)]);
    };
    for (const LoraSlot& slot : layout_.slots) Merge(linear(slot.id) + ".weight", slot);
    for (const MatrixSlot& slot : layout_.matrices) {
      Copy(linear(slot.id) + ".weight", slot.offset, slot.in, Permuted(slot.id.site));
      if (slot.bias_offset >= 0) Vector(linear(slot.id) + ".bias", slot.bias_offset, slot.out, Permuted(slot.id.site));
    }
    Norms(layout_.attention_norms, "attn_norm");
    Norms(layout_.mlp_norms, "ffn_norm");
    if (layout_.final_norm >= 0) Vector("output_norm.weight", layout_.final_norm, config_.hidden_dim, false);
    Table("token_embd.weight", layout_.embedding);
    if (!layout_.tied) Table("output.weight", layout_.head);
  }

 private:
  bool Permuted(Site site) const { return config_.permuted_qk && (site == Site::kQ || site == Site::kK); }

  // Hugging Face's row of a row of the file.
  int64_t RowOf(int64_t row, bool permuted) const { return permuted ? HfRowOfGgufRow(row, config_.head_dim) : row; }

  SourceTensor& Take(const std::string& name, DType type) {
    const auto found = std::find_if(source_.tensors.begin(), source_.tensors.end(),
                                    [&](const SourceTensor& tensor) { return tensor.name == name; });
    if (found == source_.tensors.end()) {
      Throw(ErrorCode::kUnsupported, "{}: expected a tensor '{}' to put the trained one in place of, found none",
            source_.name, name);
    }
    found->type = type;
    found->bytes = {};
    return *found;
  }

  void Copy(const std::string& name, int64_t offset, int64_t cols, bool permuted) {
    Take(name, DType::kBF16).rows = [head_dim = config_.head_dim, from = values_ + offset, cols, permuted](
                                        int64_t row, int64_t count, float* x) {
      for (int64_t i = 0; i < count; ++i) {
        const int64_t at = permuted ? HfRowOfGgufRow(row + i, head_dim) : row + i;
        std::copy_n(from + at * cols, cols, x + i * cols);
      }
    };
  }

  void Vector(const std::string& name, int64_t offset, int64_t size, bool permuted) {
    std::vector<float> vector(static_cast<size_t>(size));
    for (int64_t i = 0; i < size; ++i) vector[static_cast<size_t>(i)] = values_[offset + RowOf(i, permuted)];
    Take(name, DType::kF32).rows = [vector = std::move(vector)](int64_t row, int64_t count, float* x) {
      const auto width = static_cast<int64_t>(vector.size());
      for (int64_t i = 0; i < count; ++i) std::copy_n(vector.begin() + row * width, width, x + i * width);
    };
  }

  void Norms(const std::vector<int64_t>& offsets, const char* name) {
    for (size_t layer = 0; layer < offsets.size(); ++layer) {
      if (offsets[layer] < 0) continue;
      Vector(fmt::format("blk.{}.{}.weight", layer, name), offsets[layer], config_.hidden_dim, false);
    }
  }

  // Rows of a table of which some may be trained.
  void Table(const std::string& name, const RowsSlot& slot) {
    if (slot.rows == 0) return;
    SourceTensor& tensor = Take(name, DType::kBF16);
    tensor.rows = [base = tensor.rows, slot, from = values_ + slot.offset, cols = tensor.cols()](
                      int64_t row, int64_t count, float* x) {
      for (int64_t i = 0; i < count; ++i) {
        if (slot.Holds(row + i)) {
          std::copy_n(from + (row + i - slot.first) * cols, cols, x + i * cols);
        } else {
          base(row + i, 1, x + i * cols);
        }
      }
    };
  }

  // W + s B A, from the bf16 values that training multiplied with.
  void Merge(const std::string& name, const LoraSlot& slot) {
    SourceTensor& tensor = Take(name, DType::kBF16);
    tensor.rows = [base = tensor.rows, slot, values = values_, scale = pair_scale_, permuted = Permuted(slot.id.site),
                   head_dim = config_.head_dim](int64_t row, int64_t count, float* x) {
      base(row, count, x);
      for (int64_t i = 0; i < count; ++i) {
        MergeRow(slot, values, scale, permuted ? HfRowOfGgufRow(row + i, head_dim) : row + i, x + i * slot.in);
      }
    };
  }

  static void MergeRow(const LoraSlot& slot, const float* values, float scale, int64_t row, float* x) {
    for (int64_t r = 0; r < slot.rank; ++r) {
      const float b = scale * Rounded(values[slot.b_offset + row * slot.rank + r]);
      const float* a = values + slot.a_offset + r * slot.in;
      for (int64_t c = 0; c < slot.in; ++c) x[c] += b * Rounded(a[c]);
    }
    if (slot.magnitude_offset < 0) return;
    double sum = 0;
    for (int64_t c = 0; c < slot.in; ++c) sum += static_cast<double>(x[c]) * static_cast<double>(x[c]);
    const double norm = std::sqrt(sum), magnitude = static_cast<double>(values[slot.magnitude_offset + row]);
    const auto factor = static_cast<float>(norm > 0 ? magnitude / norm : 0);
    for (int64_t c = 0; c < slot.in; ++c) x[c] *= factor;
  }

  const ModelConfig& config_;
  const TrainLayout& layout_;
  const float* values_;
  const float pair_scale_;
  ModelSource& source_;
};

}  // namespace

ModelSource OpenTrainedSource(const Model& model, const TrainLayout& layout, std::span<const float> values,
                              float pair_scale) {
  if (std::filesystem::is_directory(model.path)) {
    Throw(ErrorCode::kUnsupported, "{}: expected a GGUF file as base to write the trained model from, found a folder",
          model.path.string());
  }
  ModelSource source = OpenGgufSource(model.path);
  Replacer(model, layout, values.data(), pair_scale, &source).Replace();
  return source;
}

QuantizePlan PlanAsIs(const ModelSource& source) {
  QuantizePlan plan;
  plan.file_type = kMostlyBf16;
  for (const SourceTensor& tensor : source.tensors) {
    plan.tensors.push_back({.tensor = &tensor, .wanted = tensor.type, .type = tensor.type});
  }
  return plan;
}

}  // namespace bakestone
