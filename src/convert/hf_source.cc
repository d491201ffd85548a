#include "convert/hf_source.h"

#include <algorithm>
#include <deque>
#include <iterator>
#include <unordered_set>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"
#include "base/quote.h"
#include "convert/gguf_keys.h"
#include "convert/interleaved_experts.h"
#include "convert/latent_stacks.h"
#include "convert/rwkv_parts.h"
#include "convert/stored_source.h"
#include "convert/tensor_pairs.h"
#include "format/gguf_writer.h"
#include "format/q_k_permute.h"
#include "kernels/pack.h"
#include "model/families/families.h"
#include "model/model_file.h"
#include "tensor/dequantize.h"

namespace bakestone {
namespace {

// Everything that a source of a folder points into.
struct Owner {
  explicit Owner(const std::filesystem::path& path)
      : file(ModelFile::Open(path)), tensors(file.Tensors()) {}
  ModelFile file;
  TensorSource tensors;
  std::deque<std::vector<float>> rope_factors;
  std::string header;
};

const TensorNames& GgufNamesOf(const std::string& architecture) {
  for (const Family& family : Families()) {
    if (family.architecture == architecture) return *family.gguf;
  }
  return kGgufNames;
}

class Builder {
 public:
  Builder(Owner& owner, const ModelConfig& config)
      : owner_(owner),
        config_(config),
        hf_(config.names != nullptr ? *config.names : kHfNames),
        gguf_(GgufNamesOf(config.architecture)),
        permuted_(GgufPermutesQueryKey(config.architecture)) {}

  std::vector<SourceTensor> Build() {
    Take(hf_.embedding, gguf_.embedding);
    TakePairs(-1);
    for (int64_t layer = 0; layer < config_.num_layers; ++layer) Layer(layer);
    Take(hf_.final_norm, gguf_.final_norm, Kind::kNorm);
    if (!config_.tied_embedding) Take(hf_.head, gguf_.head);
    TakeDense();
    taken_.insert(
        fmt::format("{}.weight", hf_.head));  // one with the embedding, where the config says so
    CheckAllTaken();
    AddRopeFactors();
    return std::move(tensors_);
  }

 private:
  enum class Kind : uint8_t { kPlain, kNorm, kQueryKey };

  void Layer(int64_t layer) {
    const auto take = [&](const char* hf, const char* gguf, Kind kind = Kind::kPlain) {
      if (hf == nullptr || gguf == nullptr) return;
      Take(hf_.Layer(layer, hf), gguf_.Layer(layer, gguf), kind);
    };
    if (config_.has_pre_norms()) take(hf_.attention_norm, gguf_.attention_norm, Kind::kNorm);
    take(hf_.q_k_v, gguf_.q_k_v);
    if (config_.kv_layer(layer) != layer) DropKeysAndValues(layer);
    for (int i = 0; i < kNumSites; ++i) {
      const auto at = static_cast<size_t>(i);
      const bool query_key = static_cast<Site>(i) == Site::kQ || static_cast<Site>(i) == Site::kK;
      if (static_cast<Site>(i) == Site::kGate) take(hf_.gate_up, gguf_.gate_up);
      take(hf_.sites[at], gguf_.sites[at], query_key && permuted_ ? Kind::kQueryKey : Kind::kPlain);
    }
    if (config_.qk_norm != QkNorm::kNone) {
      take(hf_.q_norm, gguf_.q_norm, Kind::kNorm);
      take(hf_.k_norm, gguf_.k_norm, Kind::kNorm);
    }
    if (config_.has_post_norms()) {
      take(hf_.attention_post_norm, gguf_.attention_post_norm, Kind::kNorm);
    }
    if (config_.has_pre_norms()) take(hf_.mlp_norm, gguf_.mlp_norm, Kind::kNorm);
    if (config_.has_post_norms()) take(hf_.mlp_post_norm, gguf_.mlp_post_norm, Kind::kNorm);
    if (config_.has_experts(layer)) Experts(layer);
    TakePairs(layer);
    if (config_.latent.kv_rank > 0) SplitLatent(layer);
    if (config_.mixer(layer) == Mixer::kRwkv) TakeRwkv(layer);
  }

  void TakePairs(int64_t layer) {
    for (const TensorPair& pair : PairsOf(config_, gguf_, hf_, layer)) {
      const StoredTensor* stored = owner_.tensors.Find(pair.folder);
      if (stored == nullptr && pair.optional) continue;
      if (stored == nullptr) stored = &owner_.tensors.Tensor(pair.folder);  // throws
      taken_.insert(pair.folder);
      tensors_.push_back(ToGguf(pair, SourceOf(owner_.tensors, *stored)));
    }
  }

  void TakeRwkv(int64_t layer) {
    std::vector<std::string> taken;
    auto made = RwkvPartsToGguf({config_, gguf_, hf_, layer}, owner_.tensors, taken);
    std::move(made.begin(), made.end(), std::back_inserter(tensors_));
    taken_.insert(taken.begin(), taken.end());
  }

  // Behind an encoder.
  void TakeDense() {
    for (size_t i = 0; i < config_.encoder.dense.size(); ++i) {
      const std::string& name = config_.encoder.dense[i].tensor;
      if (owner_.tensors.Find(name + ".bias") != nullptr) {
        Throw(ErrorCode::kUnsupported,
              "{}: tensor {}: expected a dense layer without a bias, for which GGUF has no tensor",
              owner_.tensors.name(), Quote(name + ".bias"));
      }
      Take(name, GgufDense(i));
    }
  }

  void SplitLatent(int64_t layer) {
    const std::string name = hf_.Layer(layer, hf_.kv_b) + ".weight";
    taken_.insert(name);
    auto parts = SplitKeysAndValues(config_.latent, config_.num_heads,
                                    SourceOf(owner_.tensors, owner_.tensors.Tensor(name)));
    parts[0].name = gguf_.Layer(layer, gguf_.k_b) + ".weight";
    parts[1].name = gguf_.Layer(layer, gguf_.v_b) + ".weight";
    std::move(parts.begin(), parts.end(), std::back_inserter(tensors_));
  }

  // Of a layer that reads another's: nothing uses them.
  void DropKeysAndValues(int64_t layer) {
    for (const char* name : {hf_.sites[static_cast<size_t>(Site::kK)],
                             hf_.sites[static_cast<size_t>(Site::kV)], hf_.k_norm}) {
      taken_.insert(hf_.Layer(layer, name) + ".weight");
    }
  }

  void Experts(int64_t layer) {
    const auto take = [&](const char* hf, const char* gguf) {
      Take(hf_.Layer(layer, hf), gguf_.Layer(layer, gguf));
    };
    take(hf_.router, gguf_.router);
    if (hf_.interleaved_gate_up != nullptr) {
      std::vector<std::string> taken;
      auto made = InterleavedToGguf(config_, gguf_, hf_, layer, owner_.tensors, taken);
      std::move(made.begin(), made.end(), std::back_inserter(tensors_));
      taken_.insert(taken.begin(), taken.end());
      return;
    }
    const bool fused = gguf_.stacked_gate_up != nullptr && hf_.stacked_gate_up != nullptr &&
                       owner_.tensors.Find(hf_.Layer(layer, hf_.stacked_gate_up)) != nullptr;
    if (fused) FusedStack(layer);
    for (size_t which = 0; which < 3; ++which) {
      if (!fused || which == 2) Stack(layer, which);
      if (config_.router.shared_dim > 0) take(hf_.shared[which], gguf_.shared[which]);
    }
    if (config_.router.shared_gate) {
      TakeVector(hf_.Layer(layer, hf_.shared_gate) + ".weight",
                 gguf_.Layer(layer, gguf_.shared_gate) + ".weight");
    }
  }

  // Gate and up of all experts, which both formats have in one tensor.
  void FusedStack(int64_t layer) {
    const std::string name = hf_.Layer(layer, hf_.stacked_gate_up);
    const StoredTensor& stored = owner_.tensors.Tensor(name);
    const int64_t experts = config_.router.experts, rows = 2 * config_.ffn_dim,
                  cols = config_.hidden_dim;
    if (!stored.has_type || !PanelTypeOf(stored.type) || stored.cols() != cols ||
        stored.rows() != experts * rows) {
      Throw(ErrorCode::kCorrupt, "{}: tensor {}: expected {} rows of {} weights, found {} of {}",
            owner_.tensors.name(), Quote(name), experts * rows, cols, stored.ShapeText(),
            stored.type_name);
    }
    taken_.insert(name);
    tensors_.push_back(Made(stored, gguf_.Layer(layer, gguf_.stacked_gate_up), Kind::kPlain));
    tensors_.back().ne = {cols, rows, experts};
  }

  // By its whole name; one row of a matrix is a vector, too.
  void TakeVector(const std::string& hf, const std::string& gguf) {
    const StoredTensor& stored = owner_.tensors.Tensor(hf);
    taken_.insert(hf);
    tensors_.push_back(Made(stored, gguf, Kind::kPlain));
    tensors_.back().ne = {stored.cols()};
    if (tensors_.back().type == DType::kF32) return;
    tensors_.back().type = DType::kF32;
    tensors_.back().bytes = {};
  }

  // One of the matrices (gate, up, down) of all experts of a layer, wherever each lies.
  void Stack(int64_t layer, size_t which) {
    const bool down = which == 2;
    const int64_t experts = config_.router.experts;
    const int64_t n = down ? config_.hidden_dim : config_.ffn_dim,
                  k = down ? config_.ffn_dim : config_.hidden_dim;
    const auto has = [&](const char* name) {
      return name != nullptr && owner_.tensors.Find(hf_.Layer(layer, name)) != nullptr;
    };
    const bool both = !down && has(hf_.stacked_gate_up), stacked = both || has(hf_.stacked[which]);
    std::vector<const StoredTensor*> parts;
    for (int64_t expert = 0; expert < experts; ++expert) {
      const std::string name = both      ? hf_.Layer(layer, hf_.stacked_gate_up)
                               : stacked ? hf_.Layer(layer, hf_.stacked[which])
                                         : hf_.Layer(layer, hf_.experts) + std::to_string(expert) +
                                               "." + hf_.of_expert[which] + ".weight";
      const StoredTensor& part = owner_.tensors.Tensor(name);
      const int64_t rows = stacked ? experts * (both ? 2 : 1) * n : n;
      if (!part.has_type || !PanelTypeOf(part.type) || part.cols() != k || part.rows() != rows ||
          (!parts.empty() && parts[0]->type != part.type)) {
        Throw(ErrorCode::kCorrupt,
              "{}: tensor {}: expected {} rows of {} weights of one type, found {} of {}",
              owner_.tensors.name(), Quote(name), rows, k, part.ShapeText(), part.type_name);
      }
      taken_.insert(name);
      parts.push_back(&part);
    }
    SourceTensor tensor;
    for (const StoredTensor* part : parts) {
      if (tensor.stored.empty() || !stacked) tensor.stored.emplace_back(part->name);
    }
    tensor.name = gguf_.Layer(layer, gguf_.stacked[which]);
    tensor.type = parts[0]->type;
    tensor.ne = {k, n, experts};
    const int64_t step = both ? 2 * n : n, first = both && which == 1 ? n : 0;
    tensor.rows = [parts, n, k, stacked, step, first](int64_t row, int64_t count, float* x) {
      for (int64_t i = 0; i < count; ++i) {
        const int64_t expert = (row + i) / n,
                      at = (stacked ? expert * step : 0) + first + (row + i) % n;
        const StoredTensor& part = *parts[static_cast<size_t>(expert)];
        ops::RowsOf(part.type, part.data.data(), k)(at, 1, x + i * k);
      }
    };
    tensor.forget = [this_tensors = &owner_.tensors, parts] {
      for (const StoredTensor* part : parts) this_tensors->Forget(part->data);
    };
    tensors_.push_back(std::move(tensor));
  }

  // The weight and the bias, where they are: what must be there, the model's own loading has
  // checked.
  void Take(const std::string& hf, const std::string& gguf, Kind kind = Kind::kPlain) {
    for (const char* suffix : {".weight", ".bias"}) {
      const StoredTensor* stored = owner_.tensors.Find(hf + suffix);
      if (stored == nullptr || !taken_.insert(std::string(stored->name)).second) continue;
      if (!stored->has_type || !PanelTypeOf(stored->type) || stored->shape.empty() ||
          stored->shape.size() > 2) {
        Throw(ErrorCode::kUnsupported,
              "{}: tensor {}: expected a matrix or a vector of F32, F16 or BF16, found {} {}",
              owner_.tensors.name(), Quote(stored->name), stored->type_name, stored->ShapeText());
      }
      tensors_.push_back(Made(*stored, gguf + suffix, kind));
    }
  }

  SourceTensor Made(const StoredTensor& stored, std::string name, Kind kind) const {
    SourceTensor tensor = SourceOf(owner_.tensors, stored);
    tensor.name = std::move(name);
    const bool vector = tensor.ne.size() == 1;
    const int64_t head_dim = config_.head_dim;
    if (kind == Kind::kQueryKey) {
      if (stored.shape.front() % head_dim != 0) {
        Throw(ErrorCode::kCorrupt, "{}: tensor {}: expected rows of whole heads of {}, found {}",
              owner_.tensors.name(), Quote(stored.name), head_dim, stored.shape.front());
      }
      tensor.bytes = {};
      tensor.rows = [rows = tensor.rows, head_dim, vector, cols = stored.cols()](
                        int64_t row, int64_t n, float* x) {
        if (!vector) {
          for (int64_t i = 0; i < n; ++i) rows(HfRowOfGgufRow(row + i, head_dim), 1, x + i * cols);
          return;
        }
        std::vector<float> in_order(static_cast<size_t>(cols));
        rows(0, 1, in_order.data());
        for (int64_t i = 0; i < cols; ++i) {
          x[i] = in_order[static_cast<size_t>(HfRowOfGgufRow(i, head_dim))];
        }
      };
    }
    if (kind == Kind::kNorm && config_.norms_less_one && tensor.name.ends_with(".weight")) {
      tensor.bytes = {};
      tensor.rows = [rows = tensor.rows, cols = stored.cols()](int64_t row, int64_t n, float* x) {
        rows(row, n, x);
        for (int64_t i = 0; i < n * cols; ++i) x[i] += 1;
      };
    }
    if (vector && tensor.type != DType::kF32) {  // as other readers of GGUF expect of vectors
      tensor.type = DType::kF32;
      tensor.bytes = {};
    }
    return tensor;
  }

  // Divisors of frequencies, but for those that the keys give (YaRN's).
  void AddRopeFactors() {
    const RopeConfig& rope = config_.rope;
    if (rope.yarn.factor > 0) return;
    const bool two = !rope.far_factors.empty();
    AddFactors(two ? "rope_factors_short.weight" : "rope_freqs.weight", rope.frequency_factors);
    AddFactors("rope_factors_long.weight", rope.far_factors);
  }

  void AddFactors(const char* name, const std::vector<float>& factors) {
    if (factors.empty()) return;
    const std::vector<float>& kept = owner_.rope_factors.emplace_back(factors);
    SourceTensor tensor;
    tensor.name = name;
    tensor.ne = {static_cast<int64_t>(kept.size())};
    tensor.bytes = {reinterpret_cast<const uint8_t*>(kept.data()), kept.size() * sizeof(float)};
    tensor.rows = ops::RowsOf(DType::kF32, tensor.bytes.data(), tensor.ne[0]);
    tensors_.push_back(std::move(tensor));
  }

  void CheckAllTaken() {
    for (const StoredTensor& stored : owner_.tensors.tensors()) {
      for (int64_t i = 0; i < config_.ignored_layers;
           ++i) {  // of further tokens: not run, and not kept
        if (stored.name.starts_with(hf_.Layer(config_.num_layers + i, ""))) {
          taken_.insert(std::string(stored.name));
        }
      }
      if (taken_.contains(std::string(stored.name)) || owner_.tensors.MayIgnore(stored)) continue;
      Throw(ErrorCode::kUnsupported,
            "{}: tensor {}: expected only tensors of a plain {} model, found one that would be "
            "lost",
            owner_.tensors.name(), Quote(stored.name), config_.architecture);
    }
  }

  Owner& owner_;
  const ModelConfig& config_;
  const TensorNames &hf_, &gguf_;
  const bool permuted_;
  std::vector<SourceTensor> tensors_;
  std::unordered_set<std::string> taken_;
};

// All but what depends on tensors.
void AddMetadata(const ModelConfig& config, const Owner& owner, const std::filesystem::path& path,
                 bool tokenizer, GgufWriter& writer) {
  writer.AddString("general.architecture", config.architecture);
  writer.AddString("general.type", "model");
  const std::string folder = std::filesystem::absolute(path).lexically_normal().filename().string();
  const std::string& name = config.name.empty() ? folder : config.name;
  if (!name.empty()) writer.AddString("general.name", name);
  if (const auto licence = owner.file.Licence()) writer.AddString("general.license", *licence);
  AddConfigKeys(config, owner.file.name(), writer);
  if (config.encoder.token_types) {  // llama.cpp asks for their number
    const auto rows =
        owner.tensors.Tensor(std::string(config.names->token_types) + ".weight").rows();
    writer.AddU32("tokenizer.ggml.token_type_count", static_cast<uint32_t>(rows));
  }
  if (!tokenizer) return;
  AddTokenizerKeys(owner.file.Tokenizer(), config, owner.file.name(), writer);
  if (const auto chat = owner.file.ChatTemplate()) {
    writer.AddString("tokenizer.chat_template", chat->text);
  }
}

}  // namespace

ModelSource OpenHfSource(const std::filesystem::path& path, const HfSourceOptions& options) {
  const auto owner = std::make_shared<Owner>(path);
  const ModelConfig config = owner->file.Config();
  GgufWriter writer;
  if (options.metadata) AddMetadata(config, *owner, path, options.tokenizer, writer);
  ModelSource source;
  source.name = owner->file.name();
  source.files = owner->file.Files();
  source.tensors = Builder(*owner, config).Build();
  source.owners.push_back(owner);
  if (!options.metadata) return source;
  if (config.rwkv.heads > 0) {
    const RwkvLayer first = {config, GgufNamesOf(config.architecture), *config.names};
    for (const RwkvRank& one : RwkvRanks(first, source)) {
      writer.AddU32(config.architecture + "." + one.gguf, static_cast<uint32_t>(one.rank));
    }
  }
  owner->header = writer.Serialize();
  source.header = std::make_shared<const GgufFile>(GgufFile::Parse(
      {reinterpret_cast<const uint8_t*>(owner->header.data()), owner->header.size()},
      owner->file.name()));
  return source;
}

ModelSource OpenSource(const std::filesystem::path& path, const HfSourceOptions& options) {
  return std::filesystem::is_directory(path) ? OpenHfSource(path, options) : OpenGgufSource(path);
}

}  // namespace bakestone
