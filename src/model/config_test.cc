#include "model/config.h"

#include <gmock/gmock.h>

#include <functional>

#include "format/gguf.h"
#include "format/gguf_writer.h"
#include "model/test_model.h"

namespace bakestone {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// A plausible llama header, to be spoilt key by key; no tensor but the embedding.
struct Header {
  std::string architecture = "llama";
  uint32_t layers = 2, context = 128, hidden = 64, ffn = 96, heads = 4, kv_heads = 2;
  float eps = 1e-5f, theta = 10000;
  std::function<void(GgufWriter&)> more = [](GgufWriter&) {};

  std::string Bytes() const {
    GgufWriter writer;
    writer.AddString("general.architecture", architecture);
    writer.AddU32(architecture + ".block_count", layers);
    writer.AddU32(architecture + ".context_length", context);
    writer.AddU32(architecture + ".embedding_length", hidden);
    writer.AddU32(architecture + ".feed_forward_length", ffn);
    writer.AddU32(architecture + ".attention.head_count", heads);
    writer.AddU32(architecture + ".attention.head_count_kv", kv_heads);
    writer.AddF32(architecture + ".attention.layer_norm_rms_epsilon", eps);
    writer.AddF32(architecture + ".rope.freq_base", theta);
    static const std::vector<uint8_t> embedding(64 * 10 * 4);
    writer.AddTensor("token_embd.weight", DType::kF32, std::array<int64_t, 2>{64, 10}, embedding);
    more(writer);
    return writer.Serialize();
  }
};

ModelConfig Read(const std::string& bytes) {
  const std::span<const uint8_t> span(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  return ReadConfig(GgufFile::Parse(span, "m.gguf"));
}

void ExpectError(const Header& header, ErrorCode code,
                 const ::testing::Matcher<const std::string&>& message) {
  try {
    Read(header.Bytes());
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code);
    EXPECT_THAT(std::string(error.what()), AllOf(HasSubstr("m.gguf"), message));
  }
}

TEST(Config, ReadsALlamaFile) {
  const ModelConfig config = Read(testing::MakeTestModel());
  EXPECT_EQ(config.architecture, "llama");
  EXPECT_EQ(config.num_layers, 2);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.q_dim(), 64);
  EXPECT_EQ(config.kv_dim(), 32);
  EXPECT_EQ(config.vocab_size, testing::kTestVocabSize);
  EXPECT_EQ(config.rope.dim, 16);
  EXPECT_TRUE(config.tied_embedding);
  EXPECT_TRUE(config.permuted_qk);
  EXPECT_FALSE(Read(testing::MakeTestModel({.architecture = "qwen2"})).permuted_qk);
}

TEST(Config, HeadSizeMayDifferFromHiddenOverHeads) {
  const ModelConfig config = Read(testing::MakeTestModel({.hidden_dim = 64, .head_dim = 32}));
  EXPECT_EQ(config.q_dim(), 128);
}

TEST(Config, ReadsRopeScaling) {
  Header header;
  header.more = [](GgufWriter& writer) {
    writer.AddString("llama.rope.scaling.type", "linear");
    writer.AddF32("llama.rope.scaling.factor", 4);
  };
  EXPECT_EQ(Read(header.Bytes()).rope.linear_scale, 4);
  header.more = [](GgufWriter& writer) { writer.AddString("llama.rope.scaling.type", "dynamic"); };
  ExpectError(header, ErrorCode::kUnsupported, HasSubstr("dynamic"));
  const std::vector<float> factors = {1, 1, 1, 1, 2, 4, 8, 8};
  EXPECT_EQ(Read(testing::MakeTestModel({.rope_factors = factors})).rope.frequency_factors,
            factors);
}

TEST(Config, AWindowShorterThanTheContextIsThatOfEveryLayer) {
  Header header;
  header.more = [](GgufWriter& writer) { writer.AddU32("llama.attention.sliding_window", 64); };
  const ModelConfig config = Read(header.Bytes());
  EXPECT_EQ(config.windows, std::vector<int64_t>(static_cast<size_t>(config.num_layers), 64));
  header.more = [](GgufWriter& writer) {
    writer.AddU32("llama.attention.sliding_window", 1 << 30);
  };
  EXPECT_EQ(Read(header.Bytes()).window(0), 0);
}

TEST(Config, NamesTheFieldOfAHostileValue) {
  ExpectError({.layers = 0}, ErrorCode::kCorrupt, HasSubstr("llama.block_count"));
  ExpectError({.layers = 4000000000u}, ErrorCode::kCorrupt, HasSubstr("found 4000000000"));
  ExpectError({.context = 0}, ErrorCode::kCorrupt, HasSubstr("llama.context_length"));
  ExpectError({.hidden = 0}, ErrorCode::kCorrupt, HasSubstr("llama.embedding_length"));
  ExpectError({.ffn = 0}, ErrorCode::kCorrupt, HasSubstr("llama.feed_forward_length"));
  ExpectError({.heads = 0}, ErrorCode::kCorrupt, HasSubstr("llama.attention.head_count"));
  ExpectError({.heads = 5, .kv_heads = 5}, ErrorCode::kCorrupt, HasSubstr("divisor"));
  ExpectError({.kv_heads = 3}, ErrorCode::kCorrupt, HasSubstr("head_count_kv: expected a divisor"));
  ExpectError({.kv_heads = 0}, ErrorCode::kCorrupt, HasSubstr("head_count_kv"));
  ExpectError({.hidden = 60}, ErrorCode::kCorrupt, HasSubstr("head size: expected an even number"));
  ExpectError({.heads = 128, .kv_heads = 2}, ErrorCode::kCorrupt, HasSubstr("head_count"));
  ExpectError({.eps = 0}, ErrorCode::kCorrupt, HasSubstr("layer_norm_rms_epsilon"));
  ExpectError({.eps = 2}, ErrorCode::kCorrupt, HasSubstr("layer_norm_rms_epsilon"));
  ExpectError({.theta = -1}, ErrorCode::kCorrupt, HasSubstr("rope.freq_base"));
  ExpectError({.theta = std::nanf("")}, ErrorCode::kCorrupt, HasSubstr("rope.freq_base"));
}

TEST(Config, NamesTheNearestFamilyAndWhatIsMissing) {
  ExpectError(
      {.architecture = "granitemoe"}, ErrorCode::kUnsupported,
      AllOf(HasSubstr("found 'granitemoe'"), HasSubstr("a mixture of experts in this family"),
            HasSubstr("the nearest known is granite")));
  ExpectError({.architecture = "gemna2"}, ErrorCode::kUnsupported,
              HasSubstr("nearest known is gemma2"));
}

TEST(Config, RefusesMechanismsByName) {
  ExpectError({.architecture = "mamba"}, ErrorCode::kUnsupported,
              AllOf(HasSubstr("mamba"), HasSubstr("llama")));
  const auto refused = [](const char* key, uint32_t value, const char* what) {
    Header header;
    header.more = [=](GgufWriter& writer) { writer.AddU32(key, value); };
    ExpectError(header, ErrorCode::kUnsupported, AllOf(HasSubstr(key), HasSubstr(what)));
  };
  Header experts = {.architecture = "qwen2"};
  experts.more = [](GgufWriter& writer) { writer.AddU32("qwen2.expert_count", 8); };
  ExpectError(experts, ErrorCode::kUnsupported,
              AllOf(HasSubstr("qwen2.expert_count"), HasSubstr("experts")));
  refused("llama.attention.value_length", 8, "key length");
  Header adapter;
  adapter.more = [](GgufWriter& writer) { writer.AddString("general.type", "adapter"); };
  ExpectError(adapter, ErrorCode::kUnsupported, HasSubstr("adapter"));
}

TEST(Config, RefusesBadFrequencyFactors) {
  ExpectError({.more =
                   [](GgufWriter& writer) {
                     static const std::vector<uint8_t> zeros(8 * 4);
                     writer.AddTensor("rope_freqs.weight", DType::kF32, std::array<int64_t, 1>{8},
                                      zeros);
                   }},
              ErrorCode::kCorrupt, HasSubstr("rope_freqs.weight"));
  ExpectError({.more =
                   [](GgufWriter& writer) {
                     static const std::vector<uint8_t> zeros(5 * 4);
                     writer.AddTensor("rope_freqs.weight", DType::kF32, std::array<int64_t, 1>{5},
                                      zeros);
                   }},
              ErrorCode::kCorrupt, HasSubstr("expected 8 numbers"));
}

}  // namespace
}  // namespace bakestone
