// For tests: tiny random models of the llama architecture (and qwen2; lfm2 and qwen35, every second
// layer of which attends) as GGUF bytes, of any mix of tensor types, with a byte-level tokenizer
// and a ChatML template, and random adapters for them. A model is a function of its options: the
// same bytes on every machine.
#pragma once

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/rng.h"
#include "format/gguf_writer.h"
#include "model/adapter.h"
#include "model/config.h"
#include "tensor/dequantize.h"
#include "tensor/half.h"

namespace bakestone::testing {

struct TestModelOptions {
  std::string architecture = "llama";
  int64_t num_layers = 2;
  int64_t hidden_dim = 64;
  int64_t ffn_dim = 128;
  int64_t num_heads = 4;
  int64_t num_kv_heads = 2;
  int64_t head_dim = 16;
  int64_t context_length = 2048;
  DType embedding_type = DType::kQ8_0;
  // By site: q, k, v, o, gate, up, down. A type's block must divide the row length.
  std::array<DType, kNumSites> types = {DType::kQ4_1, DType::kQ4_1, DType::kQ8_0, DType::kQ4_0,
                                        DType::kQ4_1, DType::kQ4_1, DType::kQ5_1};
  bool tied = true;                      // else output.weight, of embedding_type
  bool bias = false;                     // on q, k and v
  std::vector<float> rope_factors = {};  // [head_dim / 2], or empty
  uint64_t seed = 1;
};

// Of qwen35's delta rule, and of lfm2's and its convolutions.
inline constexpr int64_t kTestKeyHeads = 2, kTestValueHeads = 4, kTestDeltaDim = 16, kTestTaps = 4;

inline constexpr int32_t kTestEndOfText = 0, kTestImStart = 1, kTestImEnd = 2;
inline constexpr int32_t kTestFirstByte = 3;  // the token of byte b is kTestFirstByte + b
inline constexpr int64_t kTestVocabSize = 262;

// The character that byte-level vocabularies write for a byte.
inline std::string ByteSymbol(int byte) {
  const auto plain = [](int b) {
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || (b >= 174 && b <= 255);
  };
  int code = byte;
  if (!plain(byte)) {
    code = 256;
    for (int b = 0; b < byte; ++b) code += plain(b) ? 0 : 1;
  }
  if (code < 128) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xC0 | (code >> 6)), static_cast<char>(0x80 | (code & 63))};
}

// One row of n weights of any type, near zero mean, root mean square about `rms`.
class RandomRows {
 public:
  RandomRows(uint64_t seed, uint64_t stream) : rng_(seed, stream) {}

  void Append(DType type, int64_t n, double rms, std::vector<uint8_t>& out) {
    for (int64_t i = 0; i < n / BlockSize(type); ++i) {
      std::vector<uint8_t> block(static_cast<size_t>(BlockBytes(type)));
      Fill(type, rms, block);
      out.insert(out.end(), block.begin(), block.end());
    }
  }

 private:
  void Fill(DType type, double rms, std::vector<uint8_t>& block) {
    if (!IsQuantized(type)) {
      const float value = static_cast<float>(rms) * rng_.Normal();
      const uint16_t half = type == DType::kBF16 ? FloatToBF16(value) : FloatToF16(value);
      if (type == DType::kF32) {
        std::memcpy(block.data(), &value, 4);
      } else {
        std::memcpy(block.data(), &half, 2);
      }
      return;
    }
    for (uint8_t& byte : block) byte = static_cast<uint8_t>(rng_.Next());
    SetScale(type, 1.0, block);
    std::vector<float> values(static_cast<size_t>(BlockSize(type)));
    DequantizeRow(type, block.data(), values.data(), BlockSize(type));
    double sum = 1e-12;
    for (const float value : values) sum += static_cast<double>(value) * value;
    const double unit = std::sqrt(sum / static_cast<double>(values.size()));
    SetScale(type, rms / unit * (0.75 + 0.5 * rng_.Uniform()), block);
  }

  // Writes the block's scale d, and the minimum that centres its weights.
  static void SetScale(DType type, double d, std::vector<uint8_t>& block) {
    const auto put = [&](size_t at, double value) {
      const uint16_t half = FloatToF16(static_cast<float>(value));
      std::memcpy(block.data() + at, &half, 2);
    };
    switch (type) {
      case DType::kQ4_1:
        put(2, -7.5 * d);
        break;
      case DType::kQ5_1:
        put(2, -15.5 * d);
        break;
      case DType::kQ2_K:
        put(82, 1.5 * d);
        break;
      case DType::kQ4_K:
        put(2, 7.5 * d);
        break;
      case DType::kQ5_K:
        put(2, 15.5 * d);
        break;
      default:
        break;
    }
    switch (type) {
      case DType::kMXFP4:
        block[0] = static_cast<uint8_t>(127 + std::lround(std::log2(d)));
        break;
      case DType::kQ2_K:
        put(80, d);
        break;
      case DType::kQ3_K:
        put(108, d);
        break;
      case DType::kQ6_K:
        put(208, d);
        break;
      default:
        put(0, d);
        break;
    }
  }

  Rng rng_;
};

class TestModelWriter {
 public:
  explicit TestModelWriter(const TestModelOptions& options) : options_(options) {}

  std::string Serialize() {
    Metadata();
    Vocabulary();
    const int64_t hidden = options_.hidden_dim, ffn = options_.ffn_dim;
    const int64_t q = options_.num_heads * options_.head_dim;
    const int64_t kv = options_.num_kv_heads * options_.head_dim;
    Matrix("token_embd.weight", options_.embedding_type, kTestVocabSize, hidden, 0.3);
    for (int64_t layer = 0; layer < options_.num_layers; ++layer) {
      const std::string prefix = fmt::format("blk.{}.", layer);
      Vector(prefix + "attn_norm.weight", hidden, 1.0);
      Vector(prefix + (delta() ? "post_attention_norm.weight" : "ffn_norm.weight"), hidden, 1.0);
      if (!Attends(layer)) State(prefix);
      for (const char* norm : {"attn_q_norm.weight", "attn_k_norm.weight"}) {
        if ((delta() || convolution()) && Attends(layer)) {
          Vector(prefix + norm, options_.head_dim, 1.0);
        }
      }
      const char* names[] = {"attn_q",   "attn_k", "attn_v",  "attn_output",
                             "ffn_gate", "ffn_up", "ffn_down"};
      const int64_t rows[] = {delta() ? 2 * q : q, kv, kv, hidden, ffn, ffn, hidden};
      const int64_t cols[] = {hidden, hidden, hidden, q, hidden, hidden, ffn};
      for (size_t site = 0; site < kNumSites; ++site) {
        if (site < 4 && !Attends(layer)) continue;
        const std::string name = prefix + names[site];
        Matrix(name + ".weight", options_.types[site], rows[site], cols[site],
               1.5 / std::sqrt(static_cast<double>(cols[site])));
        if (options_.bias && site < 3) Vector(name + ".bias", rows[site], 0.0);
      }
    }
    Vector(convolution() ? "token_embd_norm.weight" : "output_norm.weight", hidden, 1.0);
    if (!options_.tied) {
      Matrix("output.weight", options_.embedding_type, kTestVocabSize, hidden, 0.3);
    }
    if (!options_.rope_factors.empty()) {
      Tensor("rope_freqs.weight", DType::kF32, {static_cast<int64_t>(options_.rope_factors.size())},
             BytesOf(options_.rope_factors));
    }
    return writer_.Serialize();
  }

 private:
  bool delta() const { return options_.architecture == "qwen35"; }
  bool convolution() const { return options_.architecture == "lfm2"; }
  bool Attends(int64_t layer) const { return layer % 2 == 1 || !(delta() || convolution()); }

  // What mixes tokens in a layer that does not attend.
  void State(const std::string& prefix) {
    const int64_t hidden = options_.hidden_dim, values = kTestValueHeads * kTestDeltaDim;
    const int64_t channels = convolution() ? hidden : 2 * kTestKeyHeads * kTestDeltaDim + values;
    const auto matrix = [&](const char* name, int64_t rows, int64_t cols) {
      Matrix(prefix + name + ".weight", options_.types[0], rows, cols,
             1.5 / std::sqrt(static_cast<double>(cols)));
    };
    Matrix(prefix + (convolution() ? "shortconv.conv.weight" : "ssm_conv1d.weight"), DType::kF32,
           channels, kTestTaps, 0.5);
    if (convolution()) {
      matrix("shortconv.in_proj", 3 * hidden, hidden);
      matrix("shortconv.out_proj", hidden, hidden);
      return;
    }
    matrix("attn_qkv", channels, hidden);
    matrix("attn_gate", values, hidden);
    matrix("ssm_alpha", kTestValueHeads, hidden);
    matrix("ssm_beta", kTestValueHeads, hidden);
    matrix("ssm_out", hidden, values);
    Vector(prefix + "ssm_dt.bias", kTestValueHeads, 0.0);
    Vector(prefix + "ssm_norm.weight", kTestDeltaDim, 1.0);
    Vector(prefix + "ssm_a", kTestValueHeads, -0.5);
  }

  void Metadata() {
    const std::string& arch = options_.architecture;
    const auto u32 = [&](const char* key, int64_t value) {
      writer_.AddU32(arch + key, static_cast<uint32_t>(value));
    };
    writer_.AddString("general.architecture", arch);
    writer_.AddString("general.name", "tiny random");
    writer_.AddString("general.license", "apache-2.0");
    u32(".block_count", options_.num_layers);
    u32(".context_length", options_.context_length);
    u32(".embedding_length", options_.hidden_dim);
    u32(".feed_forward_length", options_.ffn_dim);
    u32(".attention.head_count", options_.num_heads);
    if (convolution()) {
      std::vector<int32_t> heads;
      for (int64_t layer = 0; layer < options_.num_layers; ++layer) {
        heads.push_back(Attends(layer) ? static_cast<int32_t>(options_.num_kv_heads) : 0);
      }
      writer_.AddI32s(arch + ".attention.head_count_kv", heads);
      u32(".shortconv.l_cache", kTestTaps);
    } else {
      u32(".attention.head_count_kv", options_.num_kv_heads);
    }
    if (delta()) {
      u32(".full_attention_interval", 2);
      u32(".ssm.conv_kernel", kTestTaps);
      u32(".ssm.group_count", kTestKeyHeads);
      u32(".ssm.time_step_rank", kTestValueHeads);
      u32(".ssm.state_size", kTestDeltaDim);
      u32(".ssm.inner_size", kTestValueHeads * kTestDeltaDim);
    }
    u32(".attention.key_length", options_.head_dim);
    u32(".attention.value_length", options_.head_dim);
    writer_.AddF32(arch + ".attention.layer_norm_rms_epsilon", 1e-5f);
    writer_.AddF32(arch + ".rope.freq_base", 10000.0f);
  }

  void Vocabulary() {
    std::vector<std::string> tokens = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
    std::vector<int32_t> types(3, 3);
    for (int byte = 0; byte < 256; ++byte) tokens.push_back(ByteSymbol(byte));
    const std::string space = ByteSymbol(' ');
    tokens.insert(tokens.end(), {space + "t", "he", space + "the"});
    types.resize(tokens.size(), 1);
    BAKESTONE_CHECK(static_cast<int64_t>(tokens.size()) == kTestVocabSize);
    const std::vector<std::string> merges = {space + " t", "h e", space + "t he"};
    writer_.AddString("tokenizer.ggml.model", "gpt2");
    writer_.AddString("tokenizer.ggml.pre", "gpt-2");
    writer_.AddStrings("tokenizer.ggml.tokens", std::span<const std::string>(tokens));
    writer_.AddI32s("tokenizer.ggml.token_type", types);
    writer_.AddStrings("tokenizer.ggml.merges", std::span<const std::string>(merges));
    writer_.AddU32("tokenizer.ggml.bos_token_id", kTestImStart);
    writer_.AddU32("tokenizer.ggml.eos_token_id", kTestImEnd);
    writer_.AddU32("tokenizer.ggml.unknown_token_id", kTestEndOfText);
    writer_.AddBool("tokenizer.ggml.add_bos_token", false);
    writer_.AddString("tokenizer.chat_template",
                      "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + "
                      "message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
                      "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}");
  }

  static std::vector<uint8_t> BytesOf(const std::vector<float>& values) {
    std::vector<uint8_t> bytes(values.size() * sizeof(float));
    std::memcpy(bytes.data(), values.data(), bytes.size());
    return bytes;
  }

  void Vector(const std::string& name, int64_t n, float centre) {
    Rng rng(options_.seed, ++stream_);
    std::vector<float> values(static_cast<size_t>(n));
    for (float& value : values) value = centre + 0.1f * rng.Normal();
    Tensor(name, DType::kF32, {n}, BytesOf(values));
  }

  void Matrix(const std::string& name, DType type, int64_t rows, int64_t cols, double rms) {
    RandomRows random(options_.seed, ++stream_);
    std::vector<uint8_t> bytes;
    for (int64_t row = 0; row < rows; ++row) random.Append(type, cols, rms, bytes);
    Tensor(name, type, {cols, rows}, std::move(bytes));
  }

  void Tensor(const std::string& name, DType type, const std::vector<int64_t>& ne,
              std::vector<uint8_t> bytes) {
    data_.push_back(std::make_unique<std::vector<uint8_t>>(std::move(bytes)));
    writer_.AddTensor(name, type, ne, std::span<const uint8_t>(*data_.back()));
  }

  const TestModelOptions options_;
  GgufWriter writer_;
  std::vector<std::unique_ptr<std::vector<uint8_t>>> data_;
  uint64_t stream_ = 0;
};

// The bytes of the GGUF file.
inline std::string MakeTestModel(const TestModelOptions& options = {}) {
  return TestModelWriter(options).Serialize();
}

// Written anew at each call; the caller removes it.
inline void WriteTestModel(const std::filesystem::path& path,
                           const TestModelOptions& options = {}) {
  std::FILE* file = std::fopen(path.c_str(), "wb");
  BAKESTONE_CHECK(file != nullptr);
  const std::string bytes = MakeTestModel(options);
  const size_t written = std::fwrite(bytes.data(), 1, bytes.size(), file);
  BAKESTONE_CHECK(std::fclose(file) == 0 && written == bytes.size());
}

// Pairs at the sites given, as far as layers have them, both A and B random (so that it changes
// every answer), published.
inline std::shared_ptr<Adapter> MakeTestAdapter(const ModelConfig& config,
                                                const std::vector<Site>& sites, int64_t rank,
                                                uint64_t seed) {
  auto adapter = std::make_shared<Adapter>(config, fmt::format("test-{}", seed));
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    for (const Site site : sites) {
      const LinearId id = {static_cast<int32_t>(layer), site};
      if (!HasSite(config, id)) continue;
      const LinearShape shape = ShapeOf(config, id);
      Rng rng(seed, static_cast<uint64_t>(id.index()));
      std::vector<float> a(static_cast<size_t>(rank * shape.k));
      std::vector<float> b(static_cast<size_t>(shape.n * rank));
      const float scale = 1.0f / std::sqrt(static_cast<float>(shape.k));
      for (float& value : a) value = scale * rng.Normal();
      for (float& value : b) value = 0.3f * rng.Normal();
      adapter->Set(id, DenseView<const float>(a.data(), rank, shape.k),
                   DenseView<const float>(b.data(), shape.n, rank), 1.0f);
    }
  }
  adapter->Publish();
  return adapter;
}

}  // namespace bakestone::testing
