// Which tensors patterns choose, and that they lie one after another.
#include "model/train_layout.h"

#include <gmock/gmock.h>

#include "base/error.h"

namespace bakestone {
namespace {

using ::testing::HasSubstr;

ModelConfig SmallConfig(bool tied) {
  ModelConfig config;
  config.num_layers = 3;
  config.hidden_dim = 32;
  config.ffn_dim = 48;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 16;
  config.vocab_size = 61;
  config.tied_embedding = tied;
  return config;
}

void ExpectCovers(const TrainLayout& layout) {
  int64_t end = 0;
  for (const TrainTensor& tensor : layout.tensors) {
    EXPECT_EQ(tensor.offset, end) << tensor.name;
    end += tensor.size();
  }
  EXPECT_EQ(end, layout.size);
}

const TrainTensor* Named(const TrainLayout& layout, const std::string& name) {
  for (const TrainTensor& tensor : layout.tensors) {
    if (tensor.name == name) return &tensor;
  }
  return nullptr;
}

std::string MessageOf(const TrainShape& shape) {
  try {
    TrainLayout::Make(SmallConfig(true), shape);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(TrainLayout, PatternsFitWholeNamesOrTheirEnds) {
  EXPECT_TRUE(FitsPattern("q_proj", "layers.3.self_attn.q_proj"));
  EXPECT_TRUE(FitsPattern("self_attn.*", "layers.3.self_attn.q_proj"));
  EXPECT_TRUE(FitsPattern("layers.3.*", "layers.3.self_attn.q_proj"));
  EXPECT_TRUE(FitsPattern("layers.*.q_proj", "layers.13.self_attn.q_proj"));
  EXPECT_TRUE(FitsPattern("*", "norm"));
  EXPECT_FALSE(FitsPattern("proj", "layers.3.self_attn.q_proj"));
  EXPECT_FALSE(FitsPattern("layers.3", "layers.3.self_attn.q_proj"));
  EXPECT_FALSE(FitsPattern("layers.1.*", "layers.13.self_attn.q_proj"));
  EXPECT_FALSE(FitsPattern("", "norm"));
}

TEST(TrainLayout, PairsCoverEveryTargetOnceAndAreFound) {
  const TrainLayout layout = TrainLayout::Make(SmallConfig(true), {.rank = 3});
  ExpectCovers(layout);
  ASSERT_EQ(layout.slots.size(), 21u);
  for (const LoraSlot& slot : layout.slots) {
    EXPECT_EQ(layout.Find(slot.id), &slot);
    EXPECT_EQ(slot.b_offset, slot.a_offset + slot.rank * slot.in);
    EXPECT_EQ(slot.magnitude_offset, -1);
  }
  EXPECT_EQ(layout.Find({3, Site::kQ}), nullptr);
  EXPECT_EQ(layout.lowest_layer(3), 0);
  const TrainLayout some = TrainLayout::Make(
      SmallConfig(true), {.targets = {"layers.1.mlp.*", "layers.2.*.o_proj"}, .rank = 3});
  EXPECT_EQ(some.slots.size(), 4u);
  EXPECT_EQ(some.lowest_layer(3), 1);
}

TEST(TrainLayout, DoraHasAMagnitudeForEveryOutputThatDoesNotDecay) {
  const TrainLayout layout = TrainLayout::Make(SmallConfig(true), {.rank = 2, .dora = true});
  ExpectCovers(layout);
  EXPECT_TRUE(layout.dora());
  const TrainTensor* magnitude = Named(layout, "layers.0.self_attn.k_proj.lora_magnitude_vector");
  ASSERT_NE(magnitude, nullptr);
  EXPECT_EQ(magnitude->size(), 32);
  EXPECT_FALSE(magnitude->decays);
}

TEST(TrainLayout, TheWholeModelHasEveryTensorOnceAndATiedHeadIsTheEmbedding) {
  for (const bool tied : {true, false}) {
    const TrainLayout layout = TrainLayout::Make(SmallConfig(tied), {}, {{1, Site::kQ}});
    ExpectCovers(layout);
    // Embedding, 9 tensors a layer, the final norm, one bias.
    EXPECT_EQ(layout.tensors.size(), 1u + 27u + 1u + 1u + (tied ? 0u : 1u));
    EXPECT_EQ(Named(layout, "lm_head.weight") == nullptr, tied);
    EXPECT_EQ(layout.head_rows().rows, 61);
    EXPECT_FALSE(Named(layout, "layers.2.input_layernorm.weight")->decays);
    EXPECT_FALSE(Named(layout, "layers.1.self_attn.q_proj.bias")->decays);
    EXPECT_TRUE(Named(layout, "layers.2.mlp.down_proj.weight")->decays);
    EXPECT_TRUE(Named(layout, "embed_tokens.weight")->embedding);
    EXPECT_EQ(layout.FindMatrix({2, Site::kDown})->in, 48);
  }
  const TrainLayout top = TrainLayout::Make(SmallConfig(true), {.targets = {"layers.2.*", "norm"}});
  EXPECT_EQ(top.embedding.rows, 0);
  EXPECT_EQ(top.lowest_layer(3), 2);
}

TEST(TrainLayout, RowsOfNewTokensAreTheLastOnes) {
  const TrainLayout layout = TrainLayout::Make(
      SmallConfig(false), {.rank = 2, .rows = TrainedRows::kNew, .first_new_row = 58});
  ExpectCovers(layout);
  EXPECT_EQ(layout.embedding.rows, 3);
  EXPECT_EQ(layout.head.first, 58);
  EXPECT_TRUE(layout.head.Holds(60));
  EXPECT_FALSE(layout.head.Holds(57));
  EXPECT_EQ(layout.lowest_layer(3), 0);
}

TEST(TrainLayout, WhatCannotBeMeantIsNamed) {
  EXPECT_THAT(MessageOf({.targets = {"q_prj"}, .rank = 4}), HasSubstr("found 'q_prj'"));
  EXPECT_THAT(MessageOf({.targets = {"q_proj", "layers.3.*"}, .rank = 4}),
              HasSubstr("found 'layers.3.*'"));
  EXPECT_THAT(MessageOf({.targets = {"lm_head"}}), HasSubstr("found 'lm_head'"));  // tied
  EXPECT_THAT(MessageOf({.targets = {}, .rank = 4}), HasSubstr("something to train"));
  EXPECT_THAT(MessageOf({.rank = 1025}), HasSubstr("1 to 1024"));
}

}  // namespace
}  // namespace bakestone
