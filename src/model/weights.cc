#include "model/weights.h"

#include <fmt/format.h>

#include <array>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "base/error.h"
#include "format/gguf.h"
#include "format/q_k_permute.h"
#include "kernels/pack.h"
#include "model/packed_file.h"
#include "ops/linear.h"
#include "tensor/dequantize.h"

namespace bakestone {
namespace {

constexpr std::array<const char*, kNumSites> kGgufNames = {
    "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"};

std::string ShapeText(const GgufTensor& tensor) {
  std::string text;
  for (int i = 0; i < tensor.num_dims; ++i) {
    text += fmt::format("{}{}", i == 0 ? "" : " x ", tensor.ne[static_cast<size_t>(i)]);
  }
  return text.empty() ? "a scalar" : text;
}

bool IsPlain(DType type) {
  return type == DType::kF32 || type == DType::kF16 || type == DType::kBF16;
}

}  // namespace

// Takes the tensors of one file, each once.
class WeightsLoader {
 public:
  // At most one of: packed, to take panels from; writer, to put them into (the weights made are then empty).
  WeightsLoader(const GgufFile& file, const ModelConfig& config, ThreadPool& pool,
                std::shared_ptr<const PackedFile> packed, PackedFileWriter* writer)
      : file_(file), config_(config), pool_(pool), packed_(std::move(packed)), writer_(writer) {
    if (writer_ != nullptr || (packed_ != nullptr && packed_->on_huge_pages())) return;
    int64_t bytes = 0;
    for (const GgufTensor& tensor : file.tensors()) bytes += static_cast<int64_t>(tensor.data.size());
    const Arena::Scope reserve(weights_->panels_);
    weights_->panels_.Take<uint8_t>(bytes + bytes / 32);  // panels are at most 3 % larger
  }

  Weight Matrix(const std::string& name, LinearShape shape, bool permuted) {
    const GgufTensor& tensor = Take(name + ".weight");
    if (tensor.num_dims != 2 || tensor.cols() != shape.k || tensor.rows() != shape.n) {
      Throw(ErrorCode::kCorrupt, "{}: tensor '{}': expected shape {} x {}, found {}", file_.name(),
            tensor.name, shape.k, shape.n, ShapeText(tensor));
    }
    const auto type = PanelTypeOf(tensor.type);
    if (!type) {
      Throw(ErrorCode::kUnsupported, "{}: tensor '{}': expected a type of weights, found {}",
            file_.name(), tensor.name, DTypeName(tensor.type));
    }
    const std::vector<int32_t> row_map = permuted ? FileRows(shape.n) : std::vector<int32_t>();
    Weight weight;
    weight.disk_type_ = tensor.type;
    weight.bias_ = Bias(name + ".bias", shape.n, row_map);
    FillPanel(weight, tensor, {tensor.name, *type, shape.n, shape.k, row_map});
    return weight;
  }

  std::vector<float> Vector(const std::string& name, int64_t n) {
    const GgufTensor& tensor = Take(name);
    if (tensor.num_dims != 1 || tensor.cols() != n) {
      Throw(ErrorCode::kCorrupt, "{}: tensor '{}': expected shape {}, found {}", file_.name(),
            tensor.name, n, ShapeText(tensor));
    }
    if (!IsPlain(tensor.type)) {
      Throw(ErrorCode::kUnsupported, "{}: tensor '{}': expected F32, F16 or BF16, found {}",
            file_.name(), tensor.name, DTypeName(tensor.type));
    }
    std::vector<float> values(static_cast<size_t>(n));
    DequantizeRow(tensor.type, tensor.data.data(), values.data(), n);
    return values;
  }

  LayerWeights Layer(int64_t layer) {
    const std::string prefix = fmt::format("blk.{}.", layer);
    const auto matrix = [&](Site site) {
      const bool permuted = config_.permuted_qk && (site == Site::kQ || site == Site::kK);
      return Matrix(prefix + kGgufNames[static_cast<size_t>(site)], ShapeOf(config_, site),
                    permuted);
    };
    LayerWeights weights;
    weights.attention_norm = Vector(prefix + "attn_norm.weight", config_.hidden_dim);
    weights.mlp_norm = Vector(prefix + "ffn_norm.weight", config_.hidden_dim);
    weights.q = matrix(Site::kQ);
    weights.k = matrix(Site::kK);
    weights.v = matrix(Site::kV);
    weights.o = matrix(Site::kO);
    weights.gate = matrix(Site::kGate);
    weights.up = matrix(Site::kUp);
    weights.down = matrix(Site::kDown);
    return weights;
  }

  std::unique_ptr<Weights> All() {
    const LinearShape table = {.n = config_.vocab_size, .k = config_.hidden_dim};
    weights_->embedding = Matrix("token_embd", table, false);
    for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
      weights_->layers.push_back(Layer(layer));
    }
    weights_->final_norm = Vector("output_norm.weight", config_.hidden_dim);
    if (!config_.tied_embedding) {
      weights_->untied_head = std::make_unique<Weight>(Matrix("output", table, false));
    }
    CheckAllTaken();
    if (packed_ != nullptr && packed_->on_huge_pages()) weights_->packed_ = packed_;
    return std::move(weights_);
  }

 private:
  // Last: a tensor that nothing took belongs to a mechanism that the decoder does not have.
  void CheckAllTaken() {
    if (file_.FindTensor("rope_freqs.weight") != nullptr) taken_.insert("rope_freqs.weight");
    for (const GgufTensor& tensor : file_.tensors()) {
      if (taken_.contains(tensor.name)) continue;
      Throw(
          ErrorCode::kUnsupported,
          "{}: tensor '{}': expected only tensors of a plain {} model of {} layers, found one that "
          "would be ignored",
          file_.name(), tensor.name, config_.architecture, config_.num_layers);
    }
  }

  // From the packed file where it lies, or copied out of it where only small pages would map it (they
  // halve the bandwidth); else packed.
  void FillPanel(Weight& weight, const GgufTensor& tensor, const PackedKey& key) {
    weight.panel_ = {packed_ != nullptr ? packed_->Find(key) : nullptr, key.n, key.k, key.type};
    if (weight.panel_.data != nullptr && packed_->on_huge_pages()) return;
    const int64_t bytes = PanelBytes(key.type, key.n, key.k);
    Buffer<uint8_t> passing(writer_ != nullptr ? bytes : 0);
    uint8_t* panel = writer_ != nullptr ? passing.data() : weights_->panels_.Take<uint8_t>(bytes);
    if (weight.panel_.data != nullptr) {
      packed_->CopyOut(pool_, {weight.panel_.data, static_cast<size_t>(bytes)}, panel);
      weight.panel_.data = panel;
      return;
    }
    weight.panel_ = ops::Pack(pool_, {.type = key.type,
                                      .rows = tensor.data.data(),
                                      .n = key.n,
                                      .k = key.k,
                                      .row_map = key.row_map.empty() ? nullptr : key.row_map.data(),
                                      .panel = panel});
    file_.Forget(tensor.data);
    if (writer_ != nullptr) writer_->Add(key, panel);
  }

  const GgufTensor& Take(const std::string& name) {
    const GgufTensor& tensor = file_.Tensor(name);
    taken_.insert(tensor.name);
    return tensor;
  }

  std::vector<float> Bias(const std::string& name, int64_t n, const std::vector<int32_t>& row_map) {
    if (file_.FindTensor(name) == nullptr) return {};
    std::vector<float> in_file = Vector(name, n);
    if (row_map.empty()) return in_file;
    std::vector<float> bias(in_file.size());
    for (size_t i = 0; i < bias.size(); ++i) bias[i] = in_file[static_cast<size_t>(row_map[i])];
    return bias;
  }

  // The file row of each row in Hugging Face order.
  std::vector<int32_t> FileRows(int64_t n) const {
    std::vector<int32_t> rows(static_cast<size_t>(n));
    for (int64_t row = 0; row < n; ++row) {
      rows[static_cast<size_t>(HfRowOfGgufRow(row, config_.head_dim))] = static_cast<int32_t>(row);
    }
    return rows;
  }

  const GgufFile& file_;
  const ModelConfig& config_;
  ThreadPool& pool_;
  const std::shared_ptr<const PackedFile> packed_;
  PackedFileWriter* writer_;
  std::unique_ptr<Weights> weights_ = std::make_unique<Weights>();
  std::unordered_set<std::string_view> taken_;
};

void Weight::DequantizeRows(const KernelTable& kernels, Range rows,
                            MatrixView<float> out) const noexcept {
  ops::DequantizeRows(kernels, panel_, rows.begin, out.Rows(0, rows.end - rows.begin));
}

const Weight& LayerWeights::at(Site site) const {
  switch (site) {
    case Site::kQ:
      return q;
    case Site::kK:
      return k;
    case Site::kV:
      return v;
    case Site::kO:
      return o;
    case Site::kGate:
      return gate;
    case Site::kUp:
      return up;
    case Site::kDown:
      return down;
  }
  return down;
}

std::unique_ptr<Weights> Weights::Load(const GgufFile& file, const ModelConfig& config,
                                       const KernelTable&, ThreadPool& pool,
                                       std::shared_ptr<const PackedFile> packed) {
  return WeightsLoader(file, config, pool, std::move(packed), nullptr).All();
}

void Weights::Pack(const GgufFile& file, const ModelConfig& config, ThreadPool& pool,
                   PackedFileWriter& writer) {
  WeightsLoader(file, config, pool, nullptr, &writer).All();
}

int64_t Weights::bytes() const noexcept {
  int64_t total = embedding.bytes() + (untied_head ? untied_head->bytes() : 0);
  for (const LayerWeights& layer : layers) {
    for (int site = 0; site < kNumSites; ++site) total += layer.at(static_cast<Site>(site)).bytes();
  }
  return total;
}

}  // namespace bakestone
