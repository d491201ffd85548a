#include "pipeline/trained_source.h"

#include <algorithm>
#include <array>
#include <utility>

#include <fmt/core.h>

#include "base/error.h"
#include "convert/merge.h"
#include "format/q_k_permute.h"
#include "train/export.h"

namespace bakestone {
namespace {

constexpr std::array<const char*, kNumSites> kGgufNames = {
    "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"};
constexpr uint32_t kMostlyBf16 = 32;  // general.file_type

std::string LinearTensor(LinearId id) {
  return fmt::format("blk.{}.{}", id.layer, kGgufNames[static_cast<size_t>(id.site)]);
}

// Puts the trained tensors in place of the base's.
class Replacer {
 public:
  Replacer(const Model& model, const TrainLayout& layout, const float* values, ModelSource* source)
      : config_(model.config), layout_(layout), values_(values), source_(*source) {}

  void Replace() {
    for (const MatrixSlot& slot : layout_.matrices) {
      Copy(LinearTensor(slot.id) + ".weight", slot.offset, slot.in, Permuted(slot.id.site));
      if (slot.bias_offset >= 0) {
        Vector(LinearTensor(slot.id) + ".bias", slot.bias_offset, slot.out, Permuted(slot.id.site));
      }
    }
    Norms(layout_.attention_norms, "attn_norm");
    Norms(layout_.mlp_norms, "ffn_norm");
    if (layout_.final_norm >= 0) {
      Vector("output_norm.weight", layout_.final_norm, config_.hidden_dim, false);
    }
    Table("token_embd.weight", layout_.embedding);
    if (!layout_.tied) Table("output.weight", layout_.head);
  }

 private:
  bool Permuted(Site site) const {
    return config_.permuted_qk && (site == Site::kQ || site == Site::kK);
  }

  // Hugging Face's row of a row of the file.
  int64_t RowOf(int64_t row, bool permuted) const {
    return permuted ? HfRowOfGgufRow(row, config_.head_dim) : row;
  }

  SourceTensor& Take(const std::string& name, DType type) {
    const auto found =
        std::find_if(source_.tensors.begin(), source_.tensors.end(),
                     [&](const SourceTensor& tensor) { return tensor.name == name; });
    if (found == source_.tensors.end()) {
      Throw(ErrorCode::kUnsupported,
            "{}: expected a tensor '{}' to put the trained one in place of, found none",
            source_.name, name);
    }
    found->type = type;
    found->bytes = {};
    return *found;
  }

  void Copy(const std::string& name, int64_t offset, int64_t cols, bool permuted) {
    Take(name, DType::kBF16).rows = [head_dim = config_.head_dim, from = values_ + offset, cols,
                                     permuted](int64_t row, int64_t count, float* x) {
      for (int64_t i = 0; i < count; ++i) {
        const int64_t at = permuted ? HfRowOfGgufRow(row + i, head_dim) : row + i;
        std::copy_n(from + at * cols, cols, x + i * cols);
      }
    };
  }

  void Vector(const std::string& name, int64_t offset, int64_t size, bool permuted) {
    std::vector<float> vector(static_cast<size_t>(size));
    for (int64_t i = 0; i < size; ++i) {
      vector[static_cast<size_t>(i)] = values_[offset + RowOf(i, permuted)];
    }
    Take(name, DType::kF32).rows = [vector = std::move(vector)](int64_t row, int64_t count,
                                                                float* x) {
      const auto width = static_cast<int64_t>(vector.size());
      for (int64_t i = 0; i < count; ++i) {
        std::copy_n(vector.begin() + row * width, width, x + i * width);
      }
    };
  }

  void Norms(const std::vector<int64_t>& offsets, const char* name) {
    for (size_t layer = 0; layer < offsets.size(); ++layer) {
      if (offsets[layer] < 0) continue;
      Vector(fmt::format("blk.{}.{}.weight", layer, name), offsets[layer], config_.hidden_dim,
             false);
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

  const ModelConfig& config_;
  const TrainLayout& layout_;
  const float* values_;
  ModelSource& source_;
};

// Files of some families hold q, k and v (gate and up) as one tensor, in which no trained one is
// put; pairs of theirs are joined (model/adapter_entries.h).
void CheckApart(const ModelSource& source, const TrainLayout& layout) {
  for (const MatrixSlot& slot : layout.matrices) {
    const std::string name = LinearTensor(slot.id) + ".weight";
    if (source.Find(name) != nullptr) continue;
    Throw(ErrorCode::kUnsupported,
          "{}: expected {} as a tensor of its own ('{}') to write the trained model from, found "
          "none: this file holds several matrices in one; use kind \"lora\", \"rslora\" or "
          "\"dora\"",
          source.name, LinearName(slot.id), name);
  }
}

}  // namespace

ModelSource OpenTrainedSource(const Model& model, const TrainLayout& layout,
                              std::span<const float> values, const LoraRecipe& lora) {
  if (std::filesystem::is_directory(model.path)) {
    Throw(ErrorCode::kUnsupported,
          "{}: expected a GGUF file as base to write the trained model from, found a folder",
          model.path.string());
  }
  ModelSource source = OpenGgufSource(model.path);
  CheckApart(source, layout);
  if (layout.full()) {
    Replacer(model, layout, values.data(), &source).Replace();
    return source;
  }
  source =
      MergeAdapters(source, {{.file = MakeAdapterFile(model, layout, values, lora, "trained")}}, {})
          .source;
  for (SourceTensor& tensor : source.tensors) {
    if (tensor.bytes.empty()) tensor.type = DType::kBF16;
  }
  Replacer(model, layout, values.data(), &source)
      .Replace();  // rows of the tables that are trained beside pairs
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
