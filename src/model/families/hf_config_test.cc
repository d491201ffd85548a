// config.json in the spellings of transformers 4 and 5, and those that lie.
#include "model/families/hf_config.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <functional>
#include <string>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "format/hf_folder.h"
#include "format/safetensors.h"

namespace bakestone {
namespace {

using Json = nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

// Of a config with an embedding of 10 rows and nothing else.
ModelConfig Read(const Json& json, const std::string& embedding = "model.embed_tokens") {
  static const std::vector<uint8_t> zeros(10 * 64 * 4);
  SafetensorsWriter writer;
  writer.AddTensor(embedding + ".weight", DType::kF32, std::vector<int64_t>{10, 64}, zeros);
  const std::string bytes = writer.Serialize();
  return ReadConfig(HfFolder::Parse(
      json.dump(), {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, "m"));
}

Json Plain(const char* type) {
  return {{"model_type", type},      {"num_hidden_layers", 4},         {"hidden_size", 64},
          {"intermediate_size", 96}, {"num_attention_heads", 4},       {"num_key_value_heads", 2},
          {"rms_norm_eps", 1e-5},    {"max_position_embeddings", 256}, {"vocab_size", 10}};
}

Json With(Json json, const Json& more) {
  json.update(more);
  return json;
}

void ExpectError(const Json& json, ErrorCode code,
                 const ::testing::Matcher<const std::string&>& message,
                 const std::string& embedding = "model.embed_tokens") {
  try {
    Read(json, embedding);
    ADD_FAILURE() << "no error: " << json.dump();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code);
    EXPECT_THAT(std::string(error.what()), AllOf(HasSubstr("config.json"), message));
  }
}

TEST(HfConfig, RopeOfTransformers4And5IsTheSame) {
  const ModelConfig old =
      Read(With(Plain("llama"),
                {{"rope_theta", 5e5}, {"rope_scaling", {{"type", "linear"}, {"factor", 2}}}}));
  const ModelConfig now = Read(
      With(Plain("llama"),
           {{"rope_parameters", {{"rope_theta", 5e5}, {"rope_type", "linear"}, {"factor", 2}}}}));
  for (const ModelConfig& config : {old, now}) {
    EXPECT_EQ(config.rope.theta, 5e5);
    EXPECT_EQ(config.rope.linear_scale, 2);
    EXPECT_EQ(config.rope.dim, 16);
  }
  EXPECT_EQ(Read(Plain("llama")).rope.theta, 10000);
  EXPECT_EQ(Read(With(Plain("llama"), {{"rope_scaling", nullptr}, {"rope_theta", 5e5}})).rope.theta,
            5e5);
}

// What a folder says of biases is held to the tensors that it has.
TEST(HfConfig, BiasesAreThoseOfTheTensors) {
  const auto read = [](const Json& json, bool bias) {
    static const std::vector<uint8_t> zeros(64 * 64 * 4);
    SafetensorsWriter writer;
    writer.AddTensor("model.embed_tokens.weight", DType::kF32, std::vector<int64_t>{10, 64},
                     std::span(zeros).first(10 * 64 * 4));
    const std::string query = "model.layers.0.self_attn.q_proj";
    writer.AddTensor(query + ".weight", DType::kF32, std::vector<int64_t>{64, 64}, zeros);
    if (bias) {
      writer.AddTensor(query + ".bias", DType::kF32, std::vector<int64_t>{64},
                       std::span(zeros).first(64 * 4));
    }
    const std::string bytes = writer.Serialize();
    ReadConfig(HfFolder::Parse(
        json.dump(), {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, "m"));
  };
  for (const bool bias : {false, true}) {
    read(Plain("llama"), bias);
    read(With(Plain("llama"), {{"attention_bias", bias}}), bias);
    try {
      read(With(Plain("llama"), {{"attention_bias", !bias}}), bias);
      ADD_FAILURE() << bias;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kCorrupt);
      EXPECT_THAT(std::string(error.what()),
                  AllOf(HasSubstr("attention_bias"), HasSubstr("self_attn.q_proj.bias")));
    }
  }
}

TEST(HfConfig, ModernBertOfTransformers4HasTwoBasesAndAPeriod) {
  const Json plain =
      With(Plain("modernbert"), {{"num_key_value_heads", 4}, {"hidden_activation", "gelu"}});
  const std::string embedding = "model.embeddings.tok_embeddings";
  const ModelConfig usual = Read(plain, embedding);
  EXPECT_EQ(usual.rope.theta, 160000);
  EXPECT_EQ(usual.local_rope.theta, 10000);
  EXPECT_EQ(usual.windows, (std::vector<int64_t>{0, 129, 129, 0}));
  const ModelConfig other = Read(With(plain, {{"global_rope_theta", 5e4},
                                              {"local_rope_theta", 2e4},
                                              {"local_attention", 9},
                                              {"global_attn_every_n_layers", 2}}),
                                 embedding);
  EXPECT_EQ(other.rope.theta, 5e4);
  EXPECT_EQ(other.local_rope.theta, 2e4);
  EXPECT_EQ(other.windows, (std::vector<int64_t>{0, 9, 0, 9}));
  EXPECT_EQ(other.layer_rope(2), LayerRope::kMain);
  EXPECT_EQ(other.layer_rope(3), LayerRope::kLocal);
}

TEST(HfConfig, PositionsOfXlmRobertaBeginBehindThePadding) {
  const Json plain =
      With(Plain("xlm-roberta"), {{"num_key_value_heads", 4}, {"hidden_act", "gelu"}});
  const std::string embedding = "roberta.embeddings.word_embeddings";
  const ModelConfig config = Read(With(plain, {{"pad_token_id", 4}}), embedding);
  EXPECT_EQ(config.encoder.first_position, 5);
  EXPECT_EQ(config.encoder.positions, 251);
  EXPECT_EQ(config.context_length, 251);
  EXPECT_EQ(Read(plain, embedding).encoder.first_position, 2);
  for (const double lie : {-1.0, 1.5, 255.0}) {
    ExpectError(With(plain, {{"pad_token_id", lie}}), ErrorCode::kCorrupt,
                HasSubstr("pad_token_id"), embedding);
  }
}

TEST(HfConfig, Gemma3OfTransformers4HasTwoRopesAndAPattern) {
  const ModelConfig config =
      Read(With(Plain("gemma3_text"), {{"rope_theta", 1e6},
                                       {"rope_local_base_freq", 1e4},
                                       {"rope_scaling", {{"rope_type", "linear"}, {"factor", 8}}},
                                       {"sliding_window", 64},
                                       {"sliding_window_pattern", 3},
                                       {"query_pre_attn_scalar", 25}}));
  EXPECT_EQ(config.rope.theta, 1e6);
  EXPECT_EQ(config.rope.linear_scale, 8);
  EXPECT_EQ(config.local_rope.theta, 1e4);
  EXPECT_EQ(config.local_rope.linear_scale, 1);
  EXPECT_EQ(config.windows, (std::vector<int64_t>{64, 64, 0, 64}));
  EXPECT_EQ(config.layer_rope(2), LayerRope::kMain);
  EXPECT_EQ(config.layer_rope(3), LayerRope::kLocal);
  EXPECT_FLOAT_EQ(config.attention_scale, 0.2f);
  EXPECT_TRUE(config.tied_embedding);
}

TEST(HfConfig, Llama3ScalingKeepsWhatTurnsOftenAndStretchesWhatDoesNot) {
  const ModelConfig config =
      Read(With(Plain("llama"), {{"head_dim", 64},
                                 {"rope_theta", 5e5},
                                 {"rope_scaling",
                                  {{"rope_type", "llama3"},
                                   {"factor", 8},
                                   {"low_freq_factor", 1},
                                   {"high_freq_factor", 4},
                                   {"original_max_position_embeddings", 8192}}}}));
  ASSERT_EQ(config.rope.frequency_factors.size(), 32u);
  EXPECT_EQ(config.rope.frequency_factors.front(), 1);
  EXPECT_EQ(config.rope.frequency_factors.back(), 8);
}

TEST(HfConfig, LongRopeHasFactorsForBothSidesOfItsOriginalContext) {
  const Json factors = std::vector<double>(8, 2.0), more = std::vector<double>(8, 3.0);
  const ModelConfig config = Read(
      With(Plain("phi3"),
           {{"original_max_position_embeddings", 64},
            {"rope_scaling", {{"type", "su"}, {"short_factor", factors}, {"long_factor", more}}}}));
  EXPECT_EQ(config.context_length, 256);
  EXPECT_EQ(config.rope.near_context, 64);
  EXPECT_EQ(config.rope.far_factors, std::vector<float>(8, 3.0f));
  EXPECT_FALSE(config.far(64));
  EXPECT_TRUE(config.far(65));
  EXPECT_EQ(config.rope.frequency_factors, std::vector<float>(8, 2.0f));
  EXPECT_NEAR(config.rope.magnitude, std::sqrt(1 + std::log(4.0) / std::log(64.0)), 1e-12);
}

Json Gemma4(const Json& more) {
  return With(
      With(Plain("gemma4_text"),
           {{"head_dim", 8},
            {"sliding_window", 16},
            {"layer_types",
             {"sliding_attention", "full_attention", "sliding_attention", "full_attention"}}}),
      more);
}

TEST(HfConfig, Gemma4SaysHeadsAsAWholeOrByLayer) {
  const Json global = {
      {"rope_type", "proportional"}, {"rope_theta", 1e6}, {"partial_rotary_factor", 0.25}};
  const Json local = {{"rope_type", "default"}, {"rope_theta", 1e4}};
  const ModelConfig whole = Read(
      Gemma4({{"global_head_dim", 32},
              {"attention_k_eq_v", true},
              {"num_global_key_value_heads", 1},
              {"rope_parameters", {{"full_attention", global}, {"sliding_attention", local}}}}));
  EXPECT_EQ(whole.head_dims, (std::vector<int64_t>{8, 32, 8, 32}));
  EXPECT_EQ(whole.kv_head_counts, (std::vector<int64_t>{2, 1, 2, 1}));
  EXPECT_EQ(whole.keys_as_values, (std::vector<bool>{false, true, false, true}));
  EXPECT_EQ(whole.rope.dim, 32);
  EXPECT_EQ(whole.local_rope.dim, 8);
  EXPECT_TRUE(whole.local_rope.frequency_factors.empty());
  ASSERT_EQ(whole.rope.frequency_factors.size(), 16u);
  EXPECT_EQ(whole.rope.frequency_factors[3], 1);
  EXPECT_EQ(whole.rope.frequency_factors[4], 1e30f);
  const Json own = {{"1", {{"head_dim", 32}}},
                    {"3", {{"head_dim", 32}, {"num_key_value_heads", 1}}}};
  const ModelConfig by_layer = Read(Gemma4({{"per_layer_config", own}}));
  EXPECT_EQ(by_layer.head_dims, whole.head_dims);
  EXPECT_EQ(by_layer.kv_head_counts, (std::vector<int64_t>{2, 2, 2, 1}));
  EXPECT_TRUE(by_layer.keys_as_values.empty());
}

TEST(HfConfig, Gemma4NamesWhatItCannotBe) {
  const auto refused = [](const Json& more, const char* what) {
    ExpectError(Gemma4(more), ErrorCode::kUnsupported, HasSubstr(what));
  };
  const auto corrupt = [](const Json& more, const char* what) {
    ExpectError(Gemma4(more), ErrorCode::kCorrupt, HasSubstr(what));
  };
  refused({{"per_layer_config", {{"1", {{"sliding_window", 4}}}}}},
          "per_layer_config.1: expected head_dim");
  refused({{"per_layer_config", {{"1", {{"head_dim", 32}}}}}}, "heads of layer 3");
  refused({{"use_bidirectional_attention", "all"}}, "attention to later tokens");
  refused({{"enable_moe_block", true},
           {"num_experts", 4},
           {"top_k_experts", 2},
           {"moe_intermediate_size", 8},
           {"num_kv_shared_layers", 2},
           {"use_double_wide_mlp", true}},
          "num_experts");
  corrupt({{"per_layer_config", {{"1", {{"head_dim", 7}}}}}}, "even size");
  corrupt({{"per_layer_config", {{"0", {{"num_key_value_heads", 3}}}}}}, "a divisor of 4");
  corrupt({{"per_layer_config", {{"1", 4}}}}, "per_layer_config.1: expected an object");
  corrupt({{"global_head_dim", 4096}}, "global_head_dim");
  corrupt({{"num_kv_shared_layers", 3}}, "expected a layer without a window before layer 1");
  corrupt({{"num_kv_shared_layers", 4}}, "num_kv_shared_layers: expected a number from 1 to 3");
  corrupt({{"enable_moe_block", true}}, "num_experts");
}

TEST(HfConfig, WindowsAreUsedWhereTheModelSaysSo) {
  EXPECT_TRUE(Read(With(Plain("qwen2"), {{"sliding_window", 32}, {"use_sliding_window", false}}))
                  .windows.empty());
  EXPECT_EQ(
      Read(With(Plain("qwen2"),
                {{"sliding_window", 32}, {"use_sliding_window", true}, {"max_window_layers", 3}}))
          .windows,
      (std::vector<int64_t>{0, 0, 0, 32}));
  EXPECT_EQ(Read(With(Plain("mistral"), {{"sliding_window", 32}})).windows,
            std::vector<int64_t>(4, 32));
  EXPECT_TRUE(Read(With(Plain("mistral"), {{"sliding_window", nullptr}})).windows.empty());
}

TEST(HfConfig, AFlagBesideTheTypeChoosesTheFamily) {
  const Json plain = With(Plain("gemma3_text"), {{"sliding_window", 64}});
  const ModelConfig decoder = Read(With(plain, {{"use_bidirectional_attention", false}}));
  EXPECT_EQ(decoder.architecture, "gemma3");
  EXPECT_EQ(decoder.windows[0], 64);
  const ModelConfig encoder = Read(With(plain, {{"use_bidirectional_attention", true}}));
  EXPECT_EQ(encoder.architecture, "gemma-embedding");
  EXPECT_TRUE(encoder.encoder.both_ways);
  EXPECT_EQ(encoder.windows[0], 65);
}

// What sentence-transformers puts behind a model: a copy of EmbeddingGemma's folder with one file
// changed.
TEST(HfConfig, ModulesBehindAnEncoderAreReadOrRefused) {
  const auto folder =
      std::filesystem::path(::testing::TempDir()) / ("modules_" + std::to_string(::getpid()));
  std::filesystem::remove_all(folder);
  const auto source = std::filesystem::path(BAKESTONE_TEST_DATA) / "families" /
                      "gemma3_text+use_bidirectional_attention";
  std::filesystem::copy(source, folder, std::filesystem::copy_options::recursive);
  const auto with = [&](const char* file, const Json& text) {
    WriteFileAtomically(folder / file, text.dump());
    return ReadConfig(HfFolder::Open(folder));
  };
  const auto refused = [&](const char* file, const Json& text, const char* what) {
    try {
      with(file, text);
      ADD_FAILURE() << "no error: " << text.dump();
    } catch (const Error& error) {
      EXPECT_THAT(std::string(error.what()), HasSubstr(what));
    }
  };
  EXPECT_EQ(with("1_Pooling/config.json", {{"pooling_mode", "cls"}}).encoder.pooling,
            Pooling::kFirst);
  EXPECT_EQ(with("1_Pooling/config.json", {{"pooling_mode_lasttoken", true}}).encoder.pooling,
            Pooling::kLast);
  refused("1_Pooling/config.json", {{"pooling_mode", "weightedmean"}}, "weightedmean");
  refused("1_Pooling/config.json", {{"pooling_mode_max_tokens", true}}, "pooling_mode_max_tokens");
  with("1_Pooling/config.json", {{"pooling_mode_mean_tokens", true}});
  const auto dense = [](const Json& width, const char* activation) {
    return Json{{"out_features", width}, {"activation_function", activation}};
  };
  EXPECT_TRUE(with("2_Dense/config.json", dense(48, "torch.nn.modules.activation.Tanh"))
                  .encoder.dense[0]
                  .tanh);
  refused("2_Dense/config.json", dense(48, "torch.nn.modules.activation.ReLU"), "ReLU");
  for (const Json& width : {Json(0), Json(-1), Json(1e9), Json("48"), Json()}) {
    refused("2_Dense/config.json", dense(width, "x.Identity"), "out_features");
  }
  with("2_Dense/config.json", dense(48, "x.Identity"));
  const auto module = [](const char* type, const char* path) {
    return Json::array({Json{{"type", type}, {"path", path}}});
  };
  refused("modules.json", module("sentence_transformers.models.CNN", "2_CNN"), "CNN");
  refused("modules.json", module("sentence_transformers.models.Dense", "5_Dense"), "5_Dense");
  refused("modules.json", module("sentence_transformers.models.Dense", "../2_Dense"), "../2_Dense");
  refused("modules.json", Json::array({Json{{"type", 3}}}), "modules.json");
  refused("modules.json", Json::object(), "modules.json");
  std::filesystem::remove_all(folder);
}

TEST(HfConfig, NamesTheFieldThatLies) {
  const auto spoilt = [](const char* field, const Json& value) {
    return With(Plain("llama"), {{field, value}});
  };
  for (const Json& value : {Json(0), Json(-1), Json(1e300), Json(2.5), Json(nullptr)}) {
    ExpectError(spoilt("num_hidden_layers", value), ErrorCode::kCorrupt,
                HasSubstr("num_hidden_layers"));
  }
  ExpectError(spoilt("hidden_size", "64"), ErrorCode::kCorrupt,
              HasSubstr("hidden_size: expected a number"));
  ExpectError(spoilt("num_key_value_heads", 3), ErrorCode::kCorrupt,
              HasSubstr("divisor of the 4 heads"));
  ExpectError(spoilt("head_dim", 1024), ErrorCode::kCorrupt, HasSubstr("head_dim"));
  ExpectError(spoilt("rms_norm_eps", 2), ErrorCode::kCorrupt, HasSubstr("rms_norm_eps"));
  ExpectError(spoilt("tie_word_embeddings", false), ErrorCode::kCorrupt,
              HasSubstr("tie_word_embeddings"));
  ExpectError(spoilt("rope_scaling", 3), ErrorCode::kCorrupt,
              HasSubstr("rope_scaling: expected an object"));
  ExpectError(spoilt("rope_scaling", {{"type", "dynamic"}, {"factor", 2}}), ErrorCode::kUnsupported,
              HasSubstr("'dynamic'"));
  ExpectError(spoilt("rope_scaling", {{"type", "linear"}}), ErrorCode::kCorrupt,
              HasSubstr("factor"));
  ExpectError(spoilt("partial_rotary_factor", 0.01), ErrorCode::kCorrupt,
              HasSubstr("partial_rotary_factor"));
  ExpectError(spoilt("num_local_experts", 8), ErrorCode::kUnsupported, HasSubstr("experts"));
  ExpectError(spoilt("model_type", "llamma"), ErrorCode::kUnsupported,
              HasSubstr("the nearest known is llama"));
  ExpectError(With(Plain("gemma2"), {{"layer_types", {"full_attention"}}}), ErrorCode::kCorrupt,
              HasSubstr("one name for each of 4 layers"));
  ExpectError(With(Plain("gemma2"), {{"layer_types", {"a", "b", "c", "d"}}}),
              ErrorCode::kUnsupported, HasSubstr("'a'"));
  ExpectError(With(Plain("gemma3"), {{"use_bidirectional_attention", true}}),
              ErrorCode::kUnsupported, HasSubstr("attention to later tokens"));
  ExpectError(
      With(Plain("phi3"), {{"rope_scaling", {{"type", "longrope"}, {"short_factor", {1, 2}}}}}),
      ErrorCode::kCorrupt, HasSubstr("short_factor"));
}

}  // namespace
}  // namespace bakestone
