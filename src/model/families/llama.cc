#include <cmath>
#include <limits>
#include <string>

#include "base/error.h"
#include "format/gguf.h"
#include "format/q_k_permute.h"
#include "model/families/families.h"
#include "tensor/dequantize.h"

namespace bakestone {
namespace {

// Far above any model that exists, far below where a product of two could wrap.
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxHeads = 4096;
constexpr int64_t kMaxHeadDim = 512;  // of the attention kernels
constexpr int64_t kMaxWidth = int64_t{1} << 20;
constexpr int64_t kMaxContext = int64_t{1} << 30;

// Reads the keys of one architecture, each with its bounds; errors name file and key.
class Reader {
 public:
  explicit Reader(const GgufFile& file)
      : file_(file), prefix_(std::string(file.GetString("general.architecture")) + ".") {}

  std::string Key(const char* key) const { return prefix_ + key; }
  bool Has(const char* key) const { return file_.Has(Key(key)); }

  int64_t Size(const char* key, int64_t max) const {
    return Check(key, static_cast<int64_t>(file_.GetU32(Key(key))), max);
  }
  int64_t Size(const char* key, int64_t max, int64_t fallback) const {
    return Has(key) ? Size(key, max) : fallback;
  }
  double Positive(const char* key, double fallback) const {
    const double value = file_.GetF64(Key(key), fallback);
    if (!std::isfinite(value) || value <= 0 || value > 1e15) {
      Throw(ErrorCode::kCorrupt, "{}: {}: expected a positive number, found {}", file_.name(),
            Key(key), value);
    }
    return value;
  }
  // A mechanism that this family's reader does not map: its key must be absent or hold 0.
  void Refuse(const char* key, const char* what) const {
    if (Has(key) && file_.GetU64(Key(key)) != 0) {
      Throw(ErrorCode::kUnsupported, "{}: {}: expected 0, found {}: {} is not supported",
            file_.name(), Key(key), file_.GetU64(Key(key)), what);
    }
  }
  const GgufFile& file() const { return file_; }

 private:
  int64_t Check(const char* key, int64_t value, int64_t max) const {
    if (value < 1 || value > max) {
      Throw(ErrorCode::kCorrupt, "{}: {}: expected a number from 1 to {}, found {}", file_.name(),
            Key(key), max, value);
    }
    return value;
  }

  const GgufFile& file_;
  std::string prefix_;
};

void ReadHeads(const Reader& reader, ModelConfig& config) {
  const std::string& name = reader.file().name();
  config.num_heads = reader.Size("attention.head_count", kMaxHeads);
  config.num_kv_heads = reader.Size("attention.head_count_kv", kMaxHeads, config.num_heads);
  if (config.num_heads % config.num_kv_heads != 0) {
    Throw(ErrorCode::kCorrupt, "{}: {}: expected a divisor of the {} heads, found {}", name,
          reader.Key("attention.head_count_kv"), config.num_heads, config.num_kv_heads);
  }
  if (!reader.Has("attention.key_length") && config.hidden_dim % config.num_heads != 0) {
    Throw(ErrorCode::kCorrupt, "{}: {}: expected a divisor of the embedding length {}, found {}",
          name, reader.Key("attention.head_count"), config.hidden_dim, config.num_heads);
  }
  config.head_dim =
      reader.Size("attention.key_length", kMaxHeadDim, config.hidden_dim / config.num_heads);
  if (config.head_dim % 2 != 0 || config.head_dim > kMaxHeadDim) {
    Throw(ErrorCode::kCorrupt, "{}: head size: expected an even number up to {}, found {}", name,
          kMaxHeadDim, config.head_dim);
  }
  const int64_t value_length = reader.Size("attention.value_length", kMaxHeadDim, config.head_dim);
  if (value_length != config.head_dim) {
    Throw(ErrorCode::kUnsupported, "{}: {}: expected the key length {}, found {}", name,
          reader.Key("attention.value_length"), config.head_dim, value_length);
  }
}

// Llama 3's scaling comes as a tensor of divisors.
std::vector<float> ReadFrequencyFactors(const GgufFile& file, int64_t rope_dim) {
  const GgufTensor* tensor = file.FindTensor("rope_freqs.weight");
  if (tensor == nullptr) return {};
  if (tensor->type != DType::kF32 || tensor->elements() != rope_dim / 2) {
    Throw(ErrorCode::kCorrupt,
          "{}: tensor 'rope_freqs.weight': expected {} numbers of type F32, found {} of type {}",
          file.name(), rope_dim / 2, tensor->elements(), DTypeName(tensor->type));
  }
  std::vector<float> factors(static_cast<size_t>(rope_dim / 2));
  DequantizeRow(tensor->type, tensor->data.data(), factors.data(), rope_dim / 2);
  for (size_t i = 0; i < factors.size(); ++i) {
    if (!std::isfinite(factors[i]) || factors[i] <= 0) {
      Throw(ErrorCode::kCorrupt,
            "{}: tensor 'rope_freqs.weight'[{}]: expected a positive number, found {}", file.name(),
            i, factors[i]);
    }
  }
  return factors;
}

void ReadRope(const Reader& reader, ModelConfig& config) {
  const GgufFile& file = reader.file();
  RopeConfig& rope = config.rope;
  rope.theta = reader.Positive("rope.freq_base", 10000.0);
  rope.dim = reader.Size("rope.dimension_count", kMaxHeadDim, config.head_dim);
  if (rope.dim != config.head_dim) {
    Throw(ErrorCode::kUnsupported,
          "{}: {}: expected the head size {}, found {}: partial rotation "
          "is not supported",
          file.name(), reader.Key("rope.dimension_count"), config.head_dim, rope.dim);
  }
  const std::string key = reader.Key("rope.scaling.type");
  const std::string_view type = file.GetString(key, "none");
  if (type == "linear") {
    rope.linear_scale = reader.Positive("rope.scaling.factor", 1.0);
  } else if (type == "none" && !file.Has(key)) {
    rope.linear_scale =
        reader.Positive("rope.scale_linear", 1.0);  // files before GGUF's scaling keys
  } else if (type != "none") {
    Throw(ErrorCode::kUnsupported, "{}: {}: expected none or linear, found '{}'", file.name(), key,
          type);
  }
  rope.frequency_factors = ReadFrequencyFactors(file, rope.dim);
}

}  // namespace

ModelConfig ReadLlama(const GgufFile& file) {
  const Reader reader(file);
  reader.Refuse("expert_count", "a mixture of experts");
  ModelConfig config;
  config.architecture = file.GetString("general.architecture");
  config.name = file.GetString("general.name", "");
  config.num_layers = reader.Size("block_count", kMaxLayers);
  config.context_length = reader.Size("context_length", kMaxContext);
  config.hidden_dim = reader.Size("embedding_length", kMaxWidth);
  config.ffn_dim = reader.Size("feed_forward_length", kMaxWidth);
  ReadHeads(reader, config);
  ReadRope(reader, config);
  const int64_t window = reader.Size("attention.sliding_window",
                                     std::numeric_limits<uint32_t>::max(), config.context_length);
  if (window < config.context_length) {  // Mistral's first model: the same in every layer
    if (config.architecture != "llama") {
      Throw(ErrorCode::kUnsupported,
            "{}: {}: expected the context length {} or more, found {}: which layers of this "
            "architecture have a window is not known",
            file.name(), reader.Key("attention.sliding_window"), config.context_length, window);
    }
    config.windows.assign(static_cast<size_t>(config.num_layers), window);
  }
  const double eps = reader.Positive("attention.layer_norm_rms_epsilon", 1e-5);
  if (eps >= 1) {
    Throw(ErrorCode::kCorrupt, "{}: {}: expected a number below 1, found {}", file.name(),
          reader.Key("attention.layer_norm_rms_epsilon"), eps);
  }
  config.norm_eps = static_cast<float>(eps);
  const GgufTensor& embedding = file.Tensor("token_embd.weight");
  config.vocab_size = embedding.rows();
  if (config.vocab_size < 1 || config.vocab_size > std::numeric_limits<int32_t>::max()) {
    Throw(ErrorCode::kCorrupt,
          "{}: tensor 'token_embd.weight': expected 1 to 2^31 - 1 rows, found {}", file.name(),
          config.vocab_size);
  }
  config.tied_embedding = file.FindTensor("output.weight") == nullptr;
  config.permuted_qk = GgufPermutesQueryKey(config.architecture);
  return config;
}

}  // namespace bakestone
