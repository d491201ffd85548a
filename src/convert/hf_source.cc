#include "convert/hf_source.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"
#include "base/quote.h"
#include "convert/gguf_keys.h"
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
  explicit Owner(const std::filesystem::path& path) : file(ModelFile::Open(path)), tensors(file.Tensors()) {}
  ModelFile file;
  TensorSource tensors;
  std::vector<float> rope_factors;
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
    for (int64_t layer = 0; layer < config_.num_layers; ++layer) Layer(layer);
    Take(hf_.final_norm, gguf_.final_norm, Kind::kNorm);
    if (!config_.tied_embedding) Take(hf_.head, gguf_.head);
    taken_.insert(fmt::format("{}.weight", hf_.head));  // one with the embedding, where the config says so
    CheckAllTaken();
    if (!config_.rope.frequency_factors.empty()) AddRopeFactors();
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
    if (config_.has_post_norms()) take(hf_.attention_post_norm, gguf_.attention_post_norm, Kind::kNorm);
    if (config_.has_pre_norms()) take(hf_.mlp_norm, gguf_.mlp_norm, Kind::kNorm);
    if (config_.has_post_norms()) take(hf_.mlp_post_norm, gguf_.mlp_post_norm, Kind::kNorm);
  }

  // The weight and the bias, where they are: what must be there, the model's own loading has checked.
  void Take(const std::string& hf, const std::string& gguf, Kind kind = Kind::kPlain) {
    for (const char* suffix : {".weight", ".bias"}) {
      const StoredTensor* stored = owner_.tensors.Find(hf + suffix);
      if (stored == nullptr || !taken_.insert(std::string(stored->name)).second) continue;
      if (!stored->has_type || !PanelTypeOf(stored->type) || stored->shape.empty() || stored->shape.size() > 2) {
        Throw(ErrorCode::kUnsupported, "{}: tensor {}: expected a matrix or a vector of F32, F16 or BF16, found {} {}",
              owner_.tensors.name(), Quote(stored->name), stored->type_name, stored->ShapeText());
      }
      tensors_.push_back(Made(*stored, gguf + suffix, kind));
    }
  }

  SourceTensor Made(const StoredTensor& stored, std::string name, Kind kind) const {
    SourceTensor tensor;
    tensor.name = std::move(name);
    tensor.type = stored.type;
    tensor.ne.assign(stored.shape.rbegin(), stored.shape.rend());
    tensor.rows = ops::RowsOf(stored.type, stored.data.data(), stored.cols());
    tensor.bytes = stored.data;
    tensor.forget = [this_tensors = &owner_.tensors, data = stored.data] { this_tensors->Forget(data); };
    const bool vector = tensor.ne.size() == 1;
    const int64_t head_dim = config_.head_dim;
    if (kind == Kind::kQueryKey) {
      if (stored.shape.front() % head_dim != 0) {
        Throw(ErrorCode::kCorrupt, "{}: tensor {}: expected rows of whole heads of {}, found {}", owner_.tensors.name(),
              Quote(stored.name), head_dim, stored.shape.front());
      }
      tensor.bytes = {};
      tensor.rows = [rows = tensor.rows, head_dim, vector, cols = stored.cols()](int64_t row, int64_t n, float* x) {
        if (!vector) {
          for (int64_t i = 0; i < n; ++i) rows(HfRowOfGgufRow(row + i, head_dim), 1, x + i * cols);
          return;
        }
        std::vector<float> in_order(static_cast<size_t>(cols));
        rows(0, 1, in_order.data());
        for (int64_t i = 0; i < cols; ++i) x[i] = in_order[static_cast<size_t>(HfRowOfGgufRow(i, head_dim))];
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

  void AddRopeFactors() {
    owner_.rope_factors = config_.rope.frequency_factors;
    SourceTensor tensor;
    tensor.name = "rope_freqs.weight";
    tensor.ne = {static_cast<int64_t>(owner_.rope_factors.size())};
    tensor.bytes = {reinterpret_cast<const uint8_t*>(owner_.rope_factors.data()),
                    owner_.rope_factors.size() * sizeof(float)};
    tensor.rows = ops::RowsOf(DType::kF32, tensor.bytes.data(), tensor.ne[0]);
    tensors_.push_back(std::move(tensor));
  }

  void CheckAllTaken() const {
    for (const StoredTensor& stored : owner_.tensors.tensors()) {
      if (taken_.contains(std::string(stored.name)) || owner_.tensors.MayIgnore(stored)) continue;
      Throw(ErrorCode::kUnsupported, "{}: tensor {}: expected only tensors of a plain {} model, found one that would be "
            "lost", owner_.tensors.name(), Quote(stored.name), config_.architecture);
    }
  }

  Owner& owner_;
  const ModelConfig& config_;
  const TensorNames &hf_, &gguf_;
  const bool permuted_;
  std::vector<SourceTensor> tensors_;
  std::unordered_set<std::string> taken_;
};

}  // namespace

ModelSource OpenHfSource(const std::filesystem::path& path, const HfSourceOptions& options) {
  const auto owner = std::make_shared<Owner>(path);
  const ModelConfig config = owner->file.Config();
  GgufWriter writer;
  writer.AddString("general.architecture", config.architecture);
  writer.AddString("general.type", "model");
  const std::string folder = std::filesystem::absolute(path).lexically_normal().filename().string();
  const std::string& name = config.name.empty() ? folder : config.name;
  if (!name.empty()) writer.AddString("general.name", name);
  if (const auto licence = owner->file.Licence()) writer.AddString("general.license", *licence);
  AddConfigKeys(config, owner->file.name(), writer);
  if (options.tokenizer) {
    AddTokenizerKeys(owner->file.Tokenizer(), config.vocab_size, owner->file.name(), writer);
    if (const auto chat = owner->file.ChatTemplate()) writer.AddString("tokenizer.chat_template", chat->text);
  }
  owner->header = writer.Serialize();
  ModelSource source;
  source.name = owner->file.name();
  source.files = owner->file.Files();
  source.header = std::make_shared<const GgufFile>(GgufFile::Parse(
      {reinterpret_cast<const uint8_t*>(owner->header.data()), owner->header.size()}, owner->file.name()));
  source.tensors = Builder(*owner, config).Build();
  source.owners.push_back(owner);
  return source;
}

ModelSource OpenSource(const std::filesystem::path& path) {
  return std::filesystem::is_directory(path) ? OpenHfSource(path) : OpenGgufSource(path);
}

}  // namespace bakestone
