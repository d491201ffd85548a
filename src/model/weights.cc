#include "model/weights.h"

#include <optional>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "base/error.h"
#include "base/quote.h"
#include "format/q_k_permute.h"
#include "kernels/pack.h"
#include "model/families/tensor_names.h"
#include "model/packed_file.h"
#include "ops/linear.h"
#include "tensor/dequantize.h"

namespace bakestone {
namespace {

bool IsPlain(DType type) {
  return type == DType::kF32 || type == DType::kF16 || type == DType::kBF16;
}

// Rows of a matrix: the whole, or what one site has of several that lie together.
struct RowsOf {
  std::string tensor;  // whole, or without ".weight"
  std::string key;     // of the packed panel
  int64_t first = 0, all = 0;
};

}  // namespace

// Takes the tensors of one file, each once.
class WeightsLoader {
 public:
  // At most one of: packed, to take panels from; writer, to put them into (the weights made are then empty).
  WeightsLoader(const TensorSource& source, const ModelConfig& config, ThreadPool& pool,
                std::shared_ptr<const PackedFile> packed, PackedFileWriter* writer)
      : source_(source), config_(config), names_(config.names != nullptr ? *config.names : kGgufNames),
        pool_(pool), packed_(std::move(packed)), writer_(writer) {
    if (writer_ != nullptr || (packed_ != nullptr && packed_->on_huge_pages())) return;
    int64_t bytes = 0;
    for (const StoredTensor& tensor : source.tensors()) bytes += static_cast<int64_t>(tensor.data.size());
    const Arena::Scope reserve(weights_->panels_);
    weights_->panels_.Take<uint8_t>(bytes + bytes / 32);  // panels are at most 3 % larger
  }

  Weight Matrix(const RowsOf& rows, LinearShape shape, bool permuted) {
    const StoredTensor& tensor = Take(source_.Find(rows.tensor) != nullptr ? rows.tensor : rows.tensor + ".weight");
    if (tensor.shape.size() < 2 || tensor.shape.size() > 3 || tensor.cols() != shape.k || tensor.rows() != rows.all) {
      const bool swap = tensor.fastest_first;
      Throw(ErrorCode::kCorrupt, "{}: tensor {}: expected shape {} x {}, found {}", source_.name(),
            Quote(tensor.name), swap ? shape.k : rows.all, swap ? rows.all : shape.k, tensor.ShapeText());
    }
    const auto type = tensor.has_type ? PanelTypeOf(tensor.type) : std::nullopt;
    if (!type) {
      Throw(ErrorCode::kUnsupported, "{}: tensor {}: expected a type of weights, found {}",
            source_.name(), Quote(tensor.name), tensor.type_name);
    }
    const std::vector<int32_t> row_map = permuted ? FileRows(shape.n) : std::vector<int32_t>();
    Weight weight;
    weight.disk_type_ = tensor.type;
    weight.bias_ = Bias(rows, shape.n, row_map);
    const auto row_bytes = static_cast<size_t>(RowBytes(tensor.type, shape.k));
    const auto data = tensor.data.subspan(static_cast<size_t>(rows.first) * row_bytes,
                                          static_cast<size_t>(shape.n) * row_bytes);
    FillPanel(weight, data, {rows.key, *type, shape.n, shape.k, row_map});
    return weight;
  }

  std::vector<float> Vector(const std::string& name, int64_t n) {
    const StoredTensor& tensor = Take(name);
    if (tensor.shape.size() != 1 || tensor.cols() != n) {
      Throw(ErrorCode::kCorrupt, "{}: tensor {}: expected shape {}, found {}", source_.name(),
            Quote(tensor.name), n, tensor.ShapeText());
    }
    if (!tensor.has_type || !IsPlain(tensor.type)) {
      Throw(ErrorCode::kUnsupported, "{}: tensor {}: expected F32, F16 or BF16, found {}",
            source_.name(), Quote(tensor.name), tensor.type_name);
    }
    std::vector<float> values(static_cast<size_t>(n));
    DequantizeRow(tensor.type, tensor.data.data(), values.data(), n);
    return values;
  }

  // The effective scale of a norm.
  std::vector<float> Norm(const std::string& name, int64_t n) {
    std::vector<float> scale = Vector(name + ".weight", n);
    if (config_.norms_less_one) {
      for (float& value : scale) value += 1;
    }
    return scale;
  }

  std::vector<float> NormBias(const std::string& name) {
    if (config_.norm_kind != NormKind::kLayer || source_.Find(name + ".bias") == nullptr) return {};
    return Vector(name + ".bias", config_.hidden_dim);
  }

  LayerWeights Layer(int64_t layer) {
    const auto named = [&](const char* tensor) { return names_.Layer(layer, tensor); };
    const int64_t hidden = config_.hidden_dim;
    LayerWeights weights;
    if (config_.has_pre_norms()) {
      weights.attention_norm = Norm(named(names_.attention_norm), hidden);
      weights.attention_norm_bias = NormBias(named(names_.attention_norm));
      weights.mlp_norm = Norm(named(names_.mlp_norm), hidden);
      weights.mlp_norm_bias = NormBias(named(names_.mlp_norm));
    }
    if (config_.has_post_norms()) {
      weights.attention_post_norm = Norm(named(names_.attention_post_norm), hidden);
      weights.mlp_post_norm = Norm(named(names_.mlp_post_norm), hidden);
    }
    if (config_.qk_norm != QkNorm::kNone) {
      const bool whole = config_.qk_norm == QkNorm::kWhole;
      weights.q_norm = Norm(named(names_.q_norm), whole ? config_.q_dim() : config_.head_dim);
      weights.k_norm = Norm(named(names_.k_norm), whole ? config_.kv_dim() : config_.head_dim);
    }
    const std::pair<Site, Weight*> sites[] = {
        {Site::kQ, &weights.q},       {Site::kK, &weights.k},   {Site::kV, &weights.v},
        {Site::kO, &weights.o},       {Site::kGate, &weights.gate},
        {Site::kUp, &weights.up},     {Site::kDown, &weights.down}};
    for (const auto& [site, weight] : sites) {
      if (!HasSite(config_, site)) continue;
      const bool permuted = config_.permuted_qk && (site == Site::kQ || site == Site::kK);
      *weight = Matrix(RowsAt(layer, site), ShapeOf(config_, site), permuted);
    }
    if (config_.router.experts > 0) AddExperts(layer, weights);
    return weights;
  }

  void AddExperts(int64_t layer, LayerWeights& weights) {
    const int64_t count = config_.router.experts;
    const std::string router = names_.Layer(layer, names_.router);
    weights.router = Matrix({router, router + ".weight", 0, count}, {.n = count, .k = config_.hidden_dim}, false);
    for (int64_t expert = 0; expert < count; ++expert) {
      ExpertWeights& own = weights.experts.emplace_back();
      own.gate = Matrix(RowsOfExpert(layer, expert, Site::kGate), ShapeOf(config_, Site::kGate), false);
      own.up = Matrix(RowsOfExpert(layer, expert, Site::kUp), ShapeOf(config_, Site::kUp), false);
      own.down = Matrix(RowsOfExpert(layer, expert, Site::kDown), ShapeOf(config_, Site::kDown), false);
    }
  }

  std::unique_ptr<Weights> All() {
    const LinearShape table = {.n = config_.vocab_size, .k = config_.hidden_dim};
    const auto whole = [&](const char* name) { return RowsOf{name, std::string(name) + ".weight", 0, table.n}; };
    weights_->embedding = Matrix(whole(names_.embedding), table, false);
    for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
      weights_->layers.push_back(Layer(layer));
    }
    weights_->final_norm = Norm(names_.final_norm, config_.hidden_dim);
    weights_->final_norm_bias = NormBias(names_.final_norm);
    if (!config_.tied_embedding) {
      weights_->untied_head = std::make_unique<Weight>(Matrix(whole(names_.head), table, false));
    }
    CheckAllTaken();
    if (packed_ != nullptr && packed_->on_huge_pages()) weights_->packed_ = packed_;
    return std::move(weights_);
  }

 private:
  // Where the rows of a site lie.
  RowsOf RowsAt(int64_t layer, Site site) const {
    const char* own = names_.sites[static_cast<size_t>(site)];
    const std::string key = names_.Layer(layer, own) + ".weight";
    const int64_t q = config_.q_dim(), kv = config_.kv_dim(), ffn = config_.ffn_dim;
    if (site <= Site::kV && names_.q_k_v != nullptr) {
      const int64_t first = site == Site::kQ ? 0 : site == Site::kK ? q : q + kv;
      return {names_.Layer(layer, names_.q_k_v), key + "#", first, q + 2 * kv};
    }
    if ((site == Site::kGate || site == Site::kUp) && names_.gate_up != nullptr) {
      return {names_.Layer(layer, names_.gate_up), key + "#", site == Site::kGate ? 0 : ffn, 2 * ffn};
    }
    return {names_.Layer(layer, own), key, 0, ShapeOf(config_, site).n};
  }

  // Where an expert's matrix lies: in a stack of all experts', or by itself.
  RowsOf RowsOfExpert(int64_t layer, int64_t expert, Site site) const {
    const size_t which = static_cast<size_t>(site) - static_cast<size_t>(Site::kGate);
    const int64_t n = ShapeOf(config_, site).n, count = config_.router.experts;
    const auto stacked = [&](const char* name, int64_t first, int64_t all) {
      const std::string tensor = names_.Layer(layer, name);
      return RowsOf{tensor, tensor + "#" + std::to_string(first), first, all};
    };
    const auto has = [&](const char* name) {
      return name != nullptr && source_.Find(names_.Layer(layer, name)) != nullptr;
    };
    if (site != Site::kDown && has(names_.stacked_gate_up)) {
      return stacked(names_.stacked_gate_up, (2 * expert + (site == Site::kUp ? 1 : 0)) * n, 2 * count * n);
    }
    if (has(names_.stacked[which]) || names_.experts == nullptr) {
      return stacked(names_.stacked[which], expert * n, count * n);
    }
    const std::string own =
        names_.Layer(layer, names_.experts) + std::to_string(expert) + "." + names_.of_expert[which];
    return {own, own + ".weight", 0, n};
  }

  // Last: a tensor that nothing took belongs to a mechanism that the decoder does not have.
  void CheckAllTaken() {
    if (config_.tied_embedding) taken_.insert("lm_head.weight");  // says the embedding again
    for (const StoredTensor& tensor : source_.tensors()) {
      if (taken_.contains(tensor.name) || source_.MayIgnore(tensor)) continue;
      Throw(
          ErrorCode::kUnsupported,
          "{}: tensor {}: expected only tensors of a plain {} model of {} layers, found one that "
          "would be ignored",
          source_.name(), Quote(tensor.name), config_.architecture, config_.num_layers);
    }
  }

  // From the packed file where it lies, or copied out of it where only small pages would map it (they
  // halve the bandwidth); else packed.
  void FillPanel(Weight& weight, std::span<const uint8_t> data, const PackedKey& key) {
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
                                      .rows = data.data(),
                                      .n = key.n,
                                      .k = key.k,
                                      .row_map = key.row_map.empty() ? nullptr : key.row_map.data(),
                                      .panel = panel});
    source_.Forget(data);
    if (writer_ != nullptr) writer_->Add(key, panel);
  }

  const StoredTensor& Take(const std::string& name) {
    const StoredTensor& tensor = source_.Tensor(name);
    taken_.insert(tensor.name);
    return tensor;
  }

  std::vector<float> Bias(const RowsOf& rows, int64_t n, const std::vector<int32_t>& row_map) {
    if (source_.Find(rows.tensor + ".bias") == nullptr) return {};
    const std::vector<float> in_file = Vector(rows.tensor + ".bias", rows.all);
    std::vector<float> bias(static_cast<size_t>(n));
    for (size_t i = 0; i < bias.size(); ++i) {
      bias[i] = in_file[static_cast<size_t>(rows.first) + (row_map.empty() ? i : static_cast<size_t>(row_map[i]))];
    }
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

  const TensorSource& source_;
  const ModelConfig& config_;
  const TensorNames& names_;
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

std::unique_ptr<Weights> Weights::Load(const TensorSource& source, const ModelConfig& config,
                                       const KernelTable&, ThreadPool& pool,
                                       std::shared_ptr<const PackedFile> packed) {
  return WeightsLoader(source, config, pool, std::move(packed), nullptr).All();
}

void Weights::Pack(const TensorSource& source, const ModelConfig& config, ThreadPool& pool,
                   PackedFileWriter& writer) {
  WeightsLoader(source, config, pool, nullptr, &writer).All();
}

int64_t Weights::bytes() const noexcept {
  int64_t total = embedding.bytes() + (untied_head ? untied_head->bytes() : 0);
  for (const LayerWeights& layer : layers) {
    for (int site = 0; site < kNumSites; ++site) total += layer.at(static_cast<Site>(site)).bytes();
    total += layer.router.bytes();
    for (const ExpertWeights& expert : layer.experts) {
      total += expert.gate.bytes() + expert.up.bytes() + expert.down.bytes();
    }
  }
  return total;
}

}  // namespace bakestone
