#include "convert/quantize.h"

#include <gmock/gmock.h>

#include <map>

#include "base/file.h"
#include "base/sha256.h"
#include "convert/test_source.h"
#include "model/model.h"

namespace bakestone {
namespace {

using ::testing::HasSubstr;

class QuantizeTest : public testing::ConvertTest {
 protected:
  QuantizePlan Plan(const ModelSource& source, const char* mix,
                    const std::vector<std::string>& overrides = {}) {
    PlanOptions options{.mix = FindQuantMix(mix)};
    for (const std::string& text : overrides) options.overrides.push_back(ParseTypeOverride(text));
    return PlanQuantize(source, options);
  }
  static std::map<std::string, DType> TypesOf(const QuantizePlan& plan) {
    std::map<std::string, DType> types;
    for (const PlannedTensor& planned : plan.tensors) types[planned.tensor->name] = planned.type;
    return types;
  }
};

TEST_F(QuantizeTest, MixesGiveMoreBitsToValuesAndDownOfSomeLayersAndToTheHead) {
  auto wide = testing::WideModel(DType::kF16);
  wide.num_layers = 16;
  const ModelSource source = OpenGgufSource(Write("m.gguf", wide));
  const auto types = TypesOf(Plan(source, "q4_k_m"));
  EXPECT_EQ(types.at("token_embd.weight"), DType::kQ6_K);  // the head too
  EXPECT_EQ(types.at("output_norm.weight"), DType::kF32);
  EXPECT_EQ(types.at("blk.3.attn_q.weight"), DType::kQ4_K);
  const std::map<int, DType> expected = {{0, DType::kQ6_K},  {1, DType::kQ6_K}, {2, DType::kQ4_K},
                                         {3, DType::kQ4_K},  {4, DType::kQ6_K}, {13, DType::kQ6_K},
                                         {12, DType::kQ4_K}, {15, DType::kQ6_K}};
  for (const auto& [layer, type] : expected) {
    EXPECT_EQ(types.at(fmt::format("blk.{}.attn_v.weight", layer)), type) << layer;
    EXPECT_EQ(types.at(fmt::format("blk.{}.ffn_down.weight", layer)), type) << layer;
  }
  const auto small = TypesOf(Plan(source, "Q4_K_S"));
  EXPECT_EQ(small.at("blk.3.attn_v.weight"), DType::kQ5_K);
  EXPECT_EQ(small.at("blk.4.attn_v.weight"), DType::kQ4_K);
  EXPECT_EQ(small.at("blk.1.ffn_down.weight"), DType::kQ5_K);
  EXPECT_EQ(small.at("blk.2.ffn_down.weight"), DType::kQ4_K);
}

TEST_F(QuantizeTest, ShortRowsGetATypeThatFitsAndTheReasonIsKept) {
  auto narrow = testing::WideModel(DType::kF32);
  narrow.hidden_dim = 64;
  narrow.head_dim = 16;
  const ModelSource source = OpenGgufSource(Write("m.gguf", narrow));
  const QuantizePlan plan = Plan(source, "Q4_K_M");
  const auto types = TypesOf(plan);
  EXPECT_EQ(types.at("token_embd.weight"), DType::kQ8_0);
  EXPECT_EQ(types.at("blk.1.attn_q.weight"), DType::kQ5_0);
  EXPECT_EQ(types.at("blk.1.ffn_down.weight"), DType::kQ4_K);
  for (const PlannedTensor& planned : plan.tensors) {
    if (planned.tensor->name != "blk.1.attn_q.weight") continue;
    EXPECT_EQ(planned.reason, PlanReason::kRowLength);
    EXPECT_EQ(planned.wanted, DType::kQ4_K);
  }
  EXPECT_THAT(MessageOf([&] { Plan(source, "Q4_K_M", {"attn_q.weight=q4_k"}); }),
              HasSubstr("Q5_0 fits"));
}

TEST_F(QuantizeTest, EveryMixWritesAModelThatLoadsAndCarriesItsMetadata) {
  const std::filesystem::path path = Write("m.gguf", testing::WideModel(DType::kF32)),
                              out = folder_ / "out.gguf";
  const ModelSource source = OpenGgufSource(path);
  for (const QuantMix& mix : QuantMixes()) {
    const QuantizePlan plan = Plan(source, std::string(mix.name).c_str());
    WriteQuantized(source, plan, out, kernels_, pool_);
    const auto model = Model::Load(out, kernels_, pool_);
    EXPECT_EQ(model->licence, "apache-2.0");
    EXPECT_TRUE(model->chat_template.has_value());
    const GgufFile file = GgufFile::Open(out);
    EXPECT_EQ(file.GetU32("general.file_type"), mix.file_type);
    EXPECT_EQ(file.GetStrings("bakestone.source.sha256").at(0), ToHex(HashOfFile(path)));
    EXPECT_EQ(file.Tensor("blk.2.attn_q.weight").type, mix.base);
  }
}

TEST_F(QuantizeTest, BytesAreThoseOfEncodingAWholeTensorOnOneThread) {
  const ModelSource source = OpenGgufSource(Write("m.gguf", testing::WideModel(DType::kBF16)));
  WriteQuantized(source, Plan(source, "Q5_K_S"), folder_ / "out.gguf", kernels_, pool_);
  const GgufFile file = GgufFile::Open(folder_ / "out.gguf");
  const SourceTensor& tensor = *source.Find("blk.3.ffn_up.weight");
  std::vector<uint8_t> expected(static_cast<size_t>(256 * RowBytes(DType::kQ5_K, 256)));
  ThreadPool one(1);
  ops::Encode(one, kernels_,
              {.name = "t", .to = DType::kQ5_K, .n = 256, .k = 256, .out = expected.data()},
              tensor.rows);
  const auto found = file.Tensor("blk.3.ffn_up.weight").data;
  EXPECT_TRUE(std::equal(found.begin(), found.end(), expected.begin(), expected.end()));
}

TEST_F(QuantizeTest, ASmallTypeIsNotMadeLargerUnlessAsked) {
  const ModelSource source = OpenGgufSource(Write("m.gguf", testing::WideModel(DType::kQ4_1)));
  const QuantizePlan plan = Plan(source, "Q8_0", {"blk.1.attn_o*=q8_0"});
  for (const PlannedTensor& planned : plan.tensors) {
    const bool asked = planned.tensor->name == "blk.1.attn_output.weight";
    if (planned.tensor->ne.size() < 2) continue;
    EXPECT_EQ(planned.type, asked ? DType::kQ8_0 : DType::kQ4_1) << planned.tensor->name;
    EXPECT_EQ(planned.reason, asked ? PlanReason::kOverride : PlanReason::kAlreadySmall);
    EXPECT_EQ(planned.requantized(), asked);
  }
}

TEST_F(QuantizeTest, WhatIsStoppedLeavesTheOldFile) {
  const ModelSource source = OpenGgufSource(Write("m.gguf", testing::WideModel(DType::kF32)));
  WriteFileAtomically(folder_ / "out.gguf", "old");
  const auto stop = [](int64_t done, int64_t, const std::string&) {
    if (done > 0) Throw(ErrorCode::kCancelled, "stopped");
  };
  EXPECT_THROW(WriteQuantized(source, Plan(source, "Q6_K"), folder_ / "out.gguf", kernels_, pool_,
                              {.progress = stop}),
               Error);
  EXPECT_EQ(ReadFile(folder_ / "out.gguf"), "old");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 2);
}

TEST_F(QuantizeTest, OverridesSayWhatTheyExpect) {
  const ModelSource source = OpenGgufSource(Write("m.gguf", testing::WideModel(DType::kF32)));
  EXPECT_THAT(MessageOf([] { ParseTypeOverride("q8_0"); }), HasSubstr("PATTERN=TYPE"));
  EXPECT_THAT(MessageOf([] { ParseTypeOverride("attn_q=q9"); }), HasSubstr("found 'q9'"));
  EXPECT_THAT(MessageOf([&] { Plan(source, "Q8_0", {"blk.77.*=q8_0"}); }),
              HasSubstr("found 'blk.77.*'"));
  EXPECT_THAT(MessageOf([&] { Plan(source, "Q8_0", {"attn_norm.weight=q8_0"}); }),
              HasSubstr("fits a matrix"));
}

TEST_F(QuantizeTest, AWeightThatF16CannotHoldIsAnError) {
  const std::filesystem::path path = folder_ / "m.gguf";
  GgufWriter writer;
  writer.AddString("general.architecture", "llama");
  const std::vector<uint16_t> values(64, 0x4900);  // bf16 524,288
  const int64_t ne[] = {32, 2};
  writer.AddTensor("blk.0.attn_q.weight", DType::kBF16, ne,
                   std::span(reinterpret_cast<const uint8_t*>(values.data()), 128));
  writer.Write(path);
  const ModelSource source = OpenGgufSource(path);
  EXPECT_THAT(MessageOf([&] {
                WriteQuantized(source, Plan(source, "F16"), folder_ / "o.gguf", kernels_, pool_);
              }),
              HasSubstr("write bf16 or f32 instead"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "o.gguf"));
}

}  // namespace
}  // namespace bakestone
