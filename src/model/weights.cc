#include "model/weights.h"

#include <algorithm>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"
#include "base/quote.h"
#include "format/q_k_permute.h"
#include "kernels/pack.h"
#include "model/packed_file.h"
#include "model/weights_loader.h"
#include "ops/encode.h"
#include "ops/linear.h"
#include "tensor/dequantize.h"

namespace bakestone {
namespace {

// Of the head by which an encoder was trained to guess words: nothing that it gives depends on it.
bool IsWordHead(std::string_view tensor) {
  constexpr std::string_view kPrefixes[] = {"lm_head.", "cls.predictions.", "cls.seq_relationship.",
                                            "decoder.", "head."};
  return std::any_of(std::begin(kPrefixes), std::end(kPrefixes),
                     [&](std::string_view prefix) { return tensor.starts_with(prefix); });
}

// Of a matrix that is packed at once: much beside what a thread packs between two waits, little
// beside a model.
constexpr int64_t kPieceBytes = 32 << 20;

bool IsPlain(DType type) {
  return type == DType::kF32 || type == DType::kF16 || type == DType::kBF16;
}

}  // namespace

WeightsLoader::WeightsLoader(const TensorSource& source, const ModelConfig& config,
                             const KernelTable& kernels, ThreadPool& pool,
                             const WeightsOptions& options)
    : source_(source),
      config_(config),
      names_(config.names != nullptr ? *config.names : kGgufNames),
      kernels_(kernels),
      pool_(pool),
      packed_(options.packed),
      types_(options.types),
      made_(options.made) {
  if (packed_ != nullptr && packed_->on_huge_pages()) return;
  int64_t bytes = 0;
  for (const StoredTensor& tensor : source.tensors()) {
    const DType type = types_ != nullptr ? types_->Of(tensor) : tensor.type;
    const auto stored = static_cast<int64_t>(tensor.data.size());
    bytes += type == tensor.type ? stored
                                 : stored / BlockBytes(tensor.type) * BlockSize(tensor.type) /
                                       BlockSize(type) * BlockBytes(type);
  }
  const Arena::Scope reserve(weights_->panels_);
  weights_->panels_.Take<uint8_t>(bytes + bytes / 32);  // panels are at most 3 % larger
}

Weight WeightsLoader::Matrix(const RowsOf& rows, LinearShape shape,
                             const std::vector<int32_t>& row_map) {
  const StoredTensor& tensor =
      Take(source_.Find(rows.tensor) != nullptr ? rows.tensor : rows.tensor + ".weight");
  if (tensor.shape.size() < (rows.all == 1 ? 1u : 2u) || tensor.shape.size() > 3 ||
      tensor.cols() != shape.k || tensor.rows() != rows.all) {
    const bool swap = tensor.fastest_first;
    Throw(ErrorCode::kCorrupt, "{}: tensor {}: expected shape {} x {}, found {}", source_.name(),
          Quote(tensor.name), swap ? shape.k : rows.all, swap ? rows.all : shape.k,
          tensor.ShapeText());
  }
  if (!tensor.has_type || !PanelTypeOf(tensor.type)) {
    Throw(ErrorCode::kUnsupported, "{}: tensor {}: expected a type of weights, found {}",
          source_.name(), Quote(tensor.name), tensor.type_name);
  }
  const DType to = TypeOf(tensor, shape.k);
  Weight weight;
  weight.bias_ = Bias(rows, shape.n, row_map);
  const auto row_bytes = static_cast<size_t>(RowBytes(tensor.type, shape.k));
  const auto data = tensor.data.subspan(
      static_cast<size_t>(rows.first) * row_bytes,
      static_cast<size_t>(row_map.empty() ? shape.n : rows.all - rows.first) * row_bytes);
  FillPanel(weight, {tensor.name, tensor.type, data, true},
            {rows.key, *PanelTypeOf(to), shape.n, shape.k, row_map});
  return weight;
}

std::vector<float> WeightsLoader::Vector(const std::string& name, int64_t n) {
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

std::vector<float> WeightsLoader::Norm(const std::string& name, int64_t n) {
  std::vector<float> scale = Vector(name + ".weight", n);
  if (config_.norms_less_one) {
    for (float& value : scale) value += 1;
  }
  return scale;
}

std::vector<float> WeightsLoader::NormBias(const std::string& name) {
  if (config_.norm_kind != NormKind::kLayer || source_.Find(name + ".bias") == nullptr) return {};
  return Vector(name + ".bias", config_.hidden_dim);
}

LayerWeights WeightsLoader::Layer(int64_t layer) {
  const auto named = [&](const char* tensor) { return names_.Layer(layer, tensor); };
  const int64_t hidden = config_.hidden_dim;
  LayerWeights weights;
  if (config_.has_pre_norms()) {
    if (config_.has_norm_before_attention(layer)) {
      weights.attention_norm = Norm(named(names_.attention_norm), hidden);
      weights.attention_norm_bias = NormBias(named(names_.attention_norm));
    }
    weights.mlp_norm = Norm(named(names_.mlp_norm), hidden);
    weights.mlp_norm_bias = NormBias(named(names_.mlp_norm));
  }
  if (config_.has_post_norms()) {
    weights.attention_post_norm = Norm(named(names_.attention_post_norm), hidden);
    weights.mlp_post_norm = Norm(named(names_.mlp_post_norm), hidden);
    if (config_.norm_placement == NormPlacement::kSum) {
      weights.attention_norm_bias = NormBias(named(names_.attention_post_norm));
      weights.mlp_norm_bias = NormBias(named(names_.mlp_post_norm));
    }
  }
  if (config_.mixer(layer) == Mixer::kConvolution) AddConvolution(layer, weights);
  if (config_.mixer(layer) == Mixer::kDeltaRule) AddDelta(layer, weights);
  if (config_.mixer(layer) == Mixer::kRwkv) AddRwkv(layer, weights);
  const bool attends = config_.mixer(layer) == Mixer::kAttention;
  if (attends && config_.qk_norm != QkNorm::kNone) {
    const bool whole = config_.qk_norm == QkNorm::kWhole;
    const int64_t head_dim = config_.layer_head_dim(layer);
    weights.q_norm = Norm(named(names_.q_norm), whole ? config_.q_dim(layer) : head_dim);
    if (config_.owns_kv(layer)) {
      weights.k_norm = Norm(named(names_.k_norm), whole ? config_.kv_dim(layer) : head_dim);
    }
    if (config_.value_norm) weights.v_norm.assign(static_cast<size_t>(head_dim), 1.0f);
  }
  const std::pair<Site, Weight*> sites[] = {{Site::kQ, &weights.q},       {Site::kK, &weights.k},
                                            {Site::kV, &weights.v},       {Site::kO, &weights.o},
                                            {Site::kGate, &weights.gate}, {Site::kUp, &weights.up},
                                            {Site::kDown, &weights.down}};
  for (const auto& [site, weight] : sites) {
    const LinearId id = {static_cast<int32_t>(layer), site};
    if (!HasSite(config_, id)) continue;
    const LinearShape shape = ShapeOf(config_, id);
    const bool permuted = config_.permuted_qk && (site == Site::kQ || site == Site::kK);
    if (config_.output_gate && site == Site::kQ) {
      AddGatedQueries(layer, weights);
      continue;
    }
    *weight = Matrix(
        RowsAt(layer, site), shape,
        permuted ? FileRows(shape.n, config_.layer_head_dim(layer)) : std::vector<int32_t>());
  }
  if (!config_.kv_layers.empty()) IgnoreKeysAndValues(layer);
  if (config_.sinks) weights.sinks = Vector(named(names_.sinks), config_.num_heads);
  if (config_.latent.kv_rank > 0) AddLatent(layer, weights);
  if (config_.has_experts(layer)) AddExperts(layer, weights);
  if (config_.router.beside_mlp) AddBeside(layer, weights);
  if (config_.per_layer_dim > 0) AddPerLayer(layer, weights);
  if (config_.layer_scales && Has(named(names_.layer_scale))) {
    weights.output_scale = Vector(named(names_.layer_scale), 1)[0];
  }
  return weights;
}

std::unique_ptr<Weights> WeightsLoader::All() {
  const LinearShape table = {.n = config_.vocab_size, .k = config_.hidden_dim};
  const auto whole = [&](const char* name) {
    return RowsOf{name, std::string(name) + ".weight", 0, table.n};
  };
  weights_->embedding = Matrix(whole(names_.embedding), table);
  if (config_.per_layer_dim > 0) AddPerLayerTables();
  if (config_.embedding_norm) {
    weights_->embedding_norm = Norm(names_.embedding_norm, config_.hidden_dim);
    weights_->embedding_norm_bias = NormBias(names_.embedding_norm);
  }
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
    weights_->layers.push_back(Layer(layer));
  }
  AddEmbeddingParts();
  AddPooledParts();
  if (config_.norm_placement != NormPlacement::kSum) {
    weights_->final_norm = Norm(names_.final_norm, config_.hidden_dim);
    weights_->final_norm_bias = NormBias(names_.final_norm);
  }
  if (!config_.tied_embedding) {
    weights_->untied_head = std::make_unique<Weight>(Matrix(whole(names_.head), table));
  }
  CheckAllTaken();
  if (packed_ != nullptr && packed_->on_huge_pages()) weights_->packed_ = packed_;
  return std::move(weights_);
}

WeightsLoader::RowsOf WeightsLoader::RowsAt(int64_t layer, Site site) const {
  const char* own = names_.sites[static_cast<size_t>(site)];
  const std::string key = names_.Layer(layer, own) + ".weight";
  const int64_t q = config_.q_dim(layer), kv = config_.kv_dim(layer),
                ffn = config_.ffn_width(layer);
  if (site <= Site::kV && names_.q_k_v != nullptr) {
    const int64_t first = site == Site::kQ ? 0 : site == Site::kK ? q : q + kv;
    return {names_.Layer(layer, names_.q_k_v), key + "#", first, q + 2 * kv};
  }
  if ((site == Site::kGate || site == Site::kUp) && names_.gate_up != nullptr) {
    return {names_.Layer(layer, names_.gate_up), key + "#", site == Site::kGate ? 0 : ffn, 2 * ffn};
  }
  return {names_.Layer(layer, own), key, 0,
          ShapeOf(config_, {static_cast<int32_t>(layer), site}).n};
}

void WeightsLoader::CheckAllTaken() {
  if (config_.tied_embedding) taken_.insert("lm_head.weight");  // says the embedding again
  for (const StoredTensor& tensor : source_.tensors()) {
    if (taken_.contains(tensor.name) || source_.MayIgnore(tensor) || InIgnoredLayer(tensor.name)) {
      continue;
    }
    if (config_.encoder.both_ways && IsWordHead(tensor.name)) continue;
    Throw(ErrorCode::kUnsupported,
          "{}: tensor {}: expected only tensors of a plain {} model of {} layers, found one that "
          "would be ignored",
          source_.name(), Quote(tensor.name), config_.architecture, config_.num_layers);
  }
}

// Layers that predict further tokens (multi-token prediction) lie behind the others.
bool WeightsLoader::InIgnoredLayer(std::string_view name) const {
  for (int64_t layer = 0; layer < config_.ignored_layers; ++layer) {
    if (name.starts_with(names_.Layer(config_.num_layers + layer, ""))) return true;
  }
  return false;
}

void WeightsLoader::FillPanel(Weight& weight, const Rows& rows, const PackedKey& key) {
  weight.disk_type_ = DiskTypeOf(key.type);
  weight.panel_ = {packed_ != nullptr ? packed_->Find(key) : nullptr, key.n, key.k, key.type};
  if (weight.panel_.data != nullptr && packed_->on_huge_pages()) return;
  const int64_t bytes = PanelBytes(key.type, key.n, key.k);
  uint8_t* panel = weights_->panels_.Take<uint8_t>(bytes);
  if (weight.panel_.data != nullptr) {
    packed_->CopyOut(pool_, {weight.panel_.data, static_cast<size_t>(bytes)}, panel);
    weight.panel_.data = panel;
    return;
  }
  weight.panel_.data = panel;
  // A large matrix piece by piece, so that its pages are let go of while it is packed.
  const int64_t row_bytes = RowBytes(rows.type, key.k);
  const int64_t step =
      rows.mapped && key.row_map.empty()
          ? std::max<int64_t>(1, kPieceBytes / (kStripRows * row_bytes)) * kStripRows
          : key.n;
  for (int64_t first = 0; first < key.n; first += step) {
    const int64_t count = std::min(step, key.n - first);
    Rows piece = rows;
    if (step < key.n) {
      piece.data = rows.data.subspan(static_cast<size_t>(first * row_bytes),
                                     static_cast<size_t>(count * row_bytes));
    }
    MakePanel(piece, {key.name, key.type, count, key.k, key.row_map},
              panel + first / kStripRows * StripBytes(key.type, key.k));
    if (rows.mapped) source_.Forget(piece.data);
  }
  if (made_ == nullptr) return;
  made_->push_back({.name = std::string(key.name),
                    .type = key.type,
                    .n = key.n,
                    .k = key.k,
                    .row_map = {key.row_map.begin(), key.row_map.end()},
                    .data = panel});
}

void WeightsLoader::MakePanel(const Rows& rows, const PackedKey& key, uint8_t* panel) {
  const DType to = DiskTypeOf(key.type);
  if (to == rows.type) {
    ops::Pack(pool_, {.type = key.type,
                      .rows = rows.data.data(),
                      .n = key.n,
                      .k = key.k,
                      .row_map = key.row_map.empty() ? nullptr : key.row_map.data(),
                      .panel = panel});
    return;
  }
  const std::string name = fmt::format("{}: tensor {}", source_.name(), Quote(rows.tensor));
  ops::EncodePacked(pool_, kernels_,
                    {.name = name, .to = to, .n = key.n, .k = key.k, .fast = true, .out = panel},
                    ops::RowsOf(rows.type, rows.data.data(), key.k), key.row_map);
}

const StoredTensor& WeightsLoader::Take(const std::string& name) {
  const StoredTensor& tensor = source_.Tensor(name);
  taken_.insert(tensor.name);
  return tensor;
}

std::vector<float> WeightsLoader::Bias(const RowsOf& rows, int64_t n,
                                       const std::vector<int32_t>& row_map) {
  if (source_.Find(rows.tensor + ".bias") == nullptr) return {};
  const std::vector<float> in_file = Vector(rows.tensor + ".bias", rows.all);
  std::vector<float> bias(static_cast<size_t>(n));
  for (size_t i = 0; i < bias.size(); ++i) {
    bias[i] = in_file[static_cast<size_t>(rows.first) +
                      (row_map.empty() ? i : static_cast<size_t>(row_map[i]))];
  }
  return bias;
}

std::vector<int32_t> WeightsLoader::FileRows(int64_t n, int64_t head_dim) {
  std::vector<int32_t> rows(static_cast<size_t>(n));
  for (int64_t row = 0; row < n; ++row) {
    rows[static_cast<size_t>(HfRowOfGgufRow(row, head_dim))] = static_cast<int32_t>(row);
  }
  return rows;
}

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
                                       const KernelTable& kernels, ThreadPool& pool,
                                       const WeightsOptions& options) {
  return WeightsLoader(source, config, kernels, pool, options).All();
}

void Weights::ForEach(const std::function<void(const Weight&)>& visit) const {
  const auto see = [&](const Weight& matrix) {
    if (matrix.n() > 0) visit(matrix);
  };
  const auto see_expert = [&](const ExpertWeights& expert) {
    for (const Weight* matrix : {&expert.gate, &expert.up, &expert.down}) see(*matrix);
  };
  for (const Weight* table : {&embedding, &positions, &token_types, &per_layer_embedding,
                              &per_layer_projection, &classifier.dense, &classifier.out}) {
    see(*table);
  }
  for (const Weight& layer : dense) see(layer);
  if (untied_head) see(*untied_head);
  for (const LayerWeights& layer : layers) {
    for (int site = 0; site < kNumSites; ++site) see(layer.at(static_cast<Site>(site)));
    if (layer.latent) {
      const LatentWeights& latent = *layer.latent;
      for (const Weight* matrix :
           {&latent.q_a, &latent.q_b, &latent.kv_a, &latent.k_b, &latent.v_b}) {
        see(*matrix);
      }
    }
    if (layer.convolution) {
      see(layer.convolution->in);
      see(layer.convolution->out);
    }
    if (layer.delta) {
      const DeltaWeights& delta = *layer.delta;
      for (const Weight* matrix : {&delta.qkv, &delta.z, &delta.alpha, &delta.beta, &delta.out}) {
        see(*matrix);
      }
    }
    if (layer.rwkv) {
      const RwkvWeights& rwkv = *layer.rwkv;
      for (const Weight* matrix : rwkv.matrices()) see(*matrix);
    }
    if (layer.per_layer) {
      see(layer.per_layer->gate);
      see(layer.per_layer->out);
    }
    see(layer.output_gate);
    see(layer.router);
    see(layer.shared_gate);
    for (const ExpertWeights& expert : layer.experts) see_expert(expert);
    see_expert(layer.shared);
  }
}

int64_t Weights::bytes() const {
  int64_t total = 0;
  ForEach([&](const Weight& matrix) { total += matrix.bytes(); });
  return total;
}

}  // namespace bakestone
