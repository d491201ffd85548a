#include "model/sequence_state.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "base/error.h"

namespace bakestone {
namespace {

ModelConfig Config() {
  ModelConfig config;
  config.num_layers = 2;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 8;
  config.context_length = 200;
  return config;
}

class SequenceStateTest : public ::testing::Test {
 protected:
  void Write(SequenceState& state, int64_t layer, int64_t page, uint8_t value) {
    std::memset(state.Keys(layer, page), value, 1024);
    std::memset(state.Values(layer, page), value + 1, 1024);
  }

  const ModelConfig config_ = Config();
  const int64_t page_bytes_ = KvPageBytes(config_, KvType::kBf16);
  std::unique_ptr<KvPageAllocator> allocator_ =
      MakeHeapAllocator(config_, KvType::kBf16, 4 * page_bytes_);
};

TEST_F(SequenceStateTest, APageHoldsKeysAndValuesOfAllLayers) {
  EXPECT_EQ(page_bytes_, 2 * 2 * (2 * 8) * 32 * 2);
  EXPECT_EQ(KvPageBytes(config_, KvType::kF32), 2 * page_bytes_);
  SequenceState state(config_, KvType::kBf16, *allocator_);
  state.Reserve(1);
  EXPECT_EQ(state.Values(0, 0) - state.Keys(0, 0), 1024);
  EXPECT_EQ(state.Keys(1, 0) - state.Keys(0, 0), 2048);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(state.Values(1, 0)) % 64, 0u);
}

TEST_F(SequenceStateTest, MemoryFollowsTheType) {
  ModelConfig config = Config();
  config.head_dim = 64;
  const int64_t bf16 = KvPageBytes(config, KvType::kBf16);
  EXPECT_EQ(KvPageBytes(config, KvType::kF16), bf16);
  EXPECT_EQ(KvPageBytes(config, KvType::kQ8_0), bf16 / 16 * 9);
}

TEST(KvTypeNames, AreReadAndUnknownOnesRefused) {
  for (const KvType type : {KvType::kBf16, KvType::kF16, KvType::kQ8_0}) {
    EXPECT_EQ(ParseKvType(KvTypeName(type)), type);
  }
  for (const char* name : {"f32", "q4_0", "", "BF16"}) {
    try {
      ParseKvType(name);
      FAIL() << name;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      EXPECT_NE(std::string(error.what()).find("bf16, f16 or q8_0"), std::string::npos);
    }
  }
}

TEST_F(SequenceStateTest, GrowsByPagesAndKeepsWhatIsCommitted) {
  SequenceState state(config_, KvType::kBf16, *allocator_);
  state.Reserve(40);
  EXPECT_EQ(state.num_pages(), 2);
  EXPECT_EQ(state.reserved(), 40);
  state.Commit(33);
  EXPECT_EQ(state.length(), 33);
  EXPECT_EQ(state.reserved(), 0);
  state.Reserve(30);  // 63 in all
  EXPECT_EQ(state.num_pages(), 2);
  state.Commit(0);  // every draft rejected
  EXPECT_EQ(state.length(), 33);
  state.Truncate(32);
  EXPECT_EQ(state.num_pages(), 1);
}

TEST_F(SequenceStateTest, AFailedReserveLeavesTheStateAsItWas) {
  SequenceState state(config_, KvType::kBf16, *allocator_);
  state.Reserve(64);
  state.Commit(64);
  EXPECT_THROW(state.Reserve(128), Error);  // six pages, the allocator has four
  EXPECT_EQ(state.num_pages(), 2);
  EXPECT_EQ(state.length(), 64);
  state.Reserve(64);  // the two that were taken on the way are free again
  try {
    state.Reserve(137);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(std::string(error.what()).find("200"), std::string::npos) << error.what();
  }
}

TEST_F(SequenceStateTest, ASharedPageIsCopiedBeforeItIsWritten) {
  SequenceState first(config_, KvType::kBf16, *allocator_);
  first.Reserve(32);
  Write(first, 1, 0, 7);
  first.Commit(32);
  SequenceState second(config_, KvType::kBf16, *allocator_);
  second.AdoptPrefix({first.pages()[0]});
  EXPECT_EQ(second.length(), 32);
  EXPECT_EQ(second.Keys(1, 0), first.Keys(1, 0));
  second.Reserve(1);  // a page of its own; the full one stays shared
  EXPECT_EQ(second.Keys(1, 0), first.Keys(1, 0));
  second.Truncate(20);
  second.Reserve(1);  // would write into the shared page
  EXPECT_NE(second.Keys(1, 0), first.Keys(1, 0));
  EXPECT_EQ(std::memcmp(second.Keys(1, 0), first.Keys(1, 0), 1024), 0);
  EXPECT_EQ(second.Values(1, 0)[5], 8);
  Write(second, 1, 0, 9);
  EXPECT_EQ(first.Keys(1, 0)[5], 7);
}

TEST_F(SequenceStateTest, PagesMayOutliveTheAllocator) {
  std::vector<std::shared_ptr<KvPage>> kept;
  {
    const auto allocator = MakeHeapAllocator(config_, KvType::kBf16, page_bytes_);
    kept.push_back(allocator->Allocate());
    EXPECT_THROW(allocator->Allocate(), Error);
  }
  EXPECT_EQ(kept[0]->bytes.size(), page_bytes_);
}

TEST(LayersWithoutPages, KeepAStateThatACommitMakesTheNext) {
  ModelConfig config = Config();
  config.hidden_dim = 3;
  config.taps = 3;
  config.mixers = {Mixer::kConvolution, Mixer::kAttention};
  EXPECT_EQ(config.state_size(0), 6);
  EXPECT_EQ(config.state_size(1), 0);
  EXPECT_EQ(KvPageBytes(config, KvType::kBf16) * 2, KvPageBytes(Config(), KvType::kBf16));
  const auto allocator = MakeHeapAllocator(config, KvType::kBf16, 1 << 20);
  SequenceState state(config, KvType::kBf16, *allocator);
  EXPECT_EQ(state.State(0), nullptr);
  for (const float value : {1.0f, 2.0f}) {  // a step that failed is done again
    state.Reserve(2);
    state.NextState(0)[5] = value;
    EXPECT_EQ(state.State(0), nullptr);
  }
  state.Commit(2);
  EXPECT_EQ(state.State(0)[5], 2);
  state.Reserve(1);
  state.Commit(0);
  EXPECT_EQ(state.State(0)[5], 2);
  state.Truncate(2);
  EXPECT_EQ(state.State(0)[5], 2);
  state.Truncate(0);
  EXPECT_EQ(state.State(0), nullptr);
}

TEST(LayersWithoutPages, StatesAreSharedCountedAndNeverWrittenWhileSomebodyElseHoldsThem) {
  ModelConfig config = Config();
  config.hidden_dim = 3;
  config.taps = 3;
  config.mixers = {Mixer::kConvolution, Mixer::kAttention};
  EXPECT_EQ(LayerStateBytes(Config()), 0);
  EXPECT_EQ(LayerStateBytes(config), 24);
  const int64_t page = KvPageBytes(config, KvType::kBf16);
  const auto allocator = MakeHeapAllocator(config, KvType::kBf16, 2 * page + 3 * 24);
  const auto step = [](SequenceState& state, int64_t tokens, float value) {
    state.Reserve(tokens);
    state.NextState(0)[5] = value;
    state.Commit(tokens);
  };
  SequenceState first(config, KvType::kBf16, *allocator);
  step(first, 32, 1);
  std::shared_ptr<LayerStates> after_32 = first.layer_states();
  SequenceState second(config, KvType::kBf16, *allocator);
  second.AdoptPrefix({first.pages()[0]}, after_32);
  EXPECT_EQ(second.State(0)[5], 1);
  after_32.reset();
  step(first, 1, 2);
  step(first, 1, 3);
  EXPECT_EQ(first.State(0)[5], 3);
  EXPECT_EQ(second.State(0)[5], 1);
  EXPECT_THROW(second.Reserve(1), Error);  // both pages and all three states are in use
  EXPECT_EQ(second.State(0)[5], 1);
  first.Truncate(0);
  step(second, 1, 4);
  EXPECT_EQ(second.State(0)[5], 4);
}

}  // namespace
}  // namespace bakestone
