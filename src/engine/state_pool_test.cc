#include "engine/state_pool.h"

#include <numeric>
#include <string>

#include <gtest/gtest.h>

#include "base/error.h"

namespace bakestone {
namespace {

ModelConfig TinyConfig() {
  ModelConfig config;
  config.num_layers = 2;
  config.hidden_dim = 32;
  config.num_heads = 2;
  config.num_kv_heads = 1;
  config.head_dim = 16;
  config.vocab_size = 64;
  config.context_length = 1024;
  return config;
}

std::vector<int32_t> Tokens(int64_t n, int32_t first = 0) {
  std::vector<int32_t> tokens(n);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

class StatePoolTest : public ::testing::Test {
 protected:
  ModelConfig config_ = TinyConfig();
  int64_t page_ = KvPageBytes(config_, KvType::kBf16);
};

TEST_F(StatePoolTest, GivesOutNoMoreThanItsLimitAndTakesBack) {
  StatePool pool(config_, KvType::kBf16, 3 * page_ + page_ / 2);
  EXPECT_EQ(pool.capacity_pages(), 3);
  auto a = pool.Allocate(), b = pool.Allocate(), c = pool.Allocate();
  EXPECT_THROW(pool.Allocate(), Error);
  const KvPage* freed = b.get();
  b.reset();
  EXPECT_EQ(pool.stats().used_pages, 2);
  EXPECT_EQ(pool.stats().allocated_pages, 3);
  b = pool.Allocate();
  EXPECT_EQ(b.get(), freed);
  EXPECT_EQ(pool.stats().used_pages, 3);
  EXPECT_EQ(pool.stats().allocated_pages, 3);
}

TEST_F(StatePoolTest, TooSmallForOnePageIsAnError) {
  EXPECT_THROW(StatePool(config_, KvType::kBf16, page_ - 1), Error);
}

TEST_F(StatePoolTest, FindsTheLongestCachedPrefix) {
  StatePool pool(config_, KvType::kBf16, 8 * page_);
  const BlockKey root = RootKey({});
  const auto keys = BlockKeys(root, Tokens(100));
  ASSERT_EQ(keys.size(), 3u);
  for (const auto& key : keys) pool.Insert(key, pool.Allocate());
  EXPECT_EQ(pool.Lookup(keys).pages.size(), 3u);
  auto other = Tokens(100);
  other[40] = 7;  // in the second block: the third must not match either
  EXPECT_EQ(pool.Lookup(BlockKeys(root, other)).pages.size(), 1u);
}

TEST_F(StatePoolTest, EvictsTheEndOfTheOldestChainFirstAndNeverWhatIsRead) {
  StatePool pool(config_, KvType::kBf16, 4 * page_);
  const auto old_keys = BlockKeys(RootKey({}), Tokens(64));
  const auto new_keys = BlockKeys(RootKey({}), Tokens(64, 1000));
  for (const auto& key : old_keys) pool.Insert(key, pool.Allocate());
  for (const auto& key : new_keys) pool.Insert(key, pool.Allocate());
  pool.Touch(old_keys);
  pool.Touch(new_keys);
  auto reading = pool.Lookup(std::span(old_keys).first(1));
  auto first = pool.Allocate();
  EXPECT_EQ(pool.Lookup(old_keys).pages.size(), 1u);
  EXPECT_EQ(pool.Lookup(new_keys).pages.size(), 2u);
  auto second = pool.Allocate();  // the old first block is being read: the new chain's end goes
  EXPECT_EQ(pool.Lookup(old_keys).pages.size(), 1u);
  EXPECT_EQ(pool.Lookup(new_keys).pages.size(), 1u);
  EXPECT_EQ(pool.stats().cached_pages, 2);
}

TEST_F(StatePoolTest, PagesMayOutliveThePool) {
  std::shared_ptr<KvPage> page;
  {
    StatePool pool(config_, KvType::kBf16, page_);
    page = pool.Allocate();
  }
  page->bytes[0] = 1;
}

// Four layers, two of which keep a state of 3 pages together.
class StatesInThePool : public ::testing::Test {
 protected:
  StatesInThePool() {
    config_.num_layers = 4;
    config_.taps = 3;
    config_.hidden_dim = page_ * 5 / 2 / 16;
    config_.mixers = {Mixer::kConvolution, Mixer::kAttention, Mixer::kConvolution,
                      Mixer::kAttention};
  }
  ModelConfig config_ = TinyConfig();
  int64_t page_ = KvPageBytes(config_, KvType::kBf16);
};

TEST_F(StatesInThePool, CountAsPagesAndTakeTheirPlaceInTurn) {
  EXPECT_EQ(LayerStateBytes(config_), page_ * 5 / 2);
  EXPECT_THROW(StatePool(config_, KvType::kBf16, 7 * page_ - 1), Error);  // a page and two states
  StatePool pool(config_, KvType::kBf16, 7 * page_);
  EXPECT_EQ(pool.sequence_state_pages(), 6);
  {
    auto a = pool.AllocateStates(), b = pool.AllocateStates();
    auto page = pool.Allocate();
    EXPECT_THROW(pool.AllocateStates(), Error);
    EXPECT_THROW(pool.Allocate(), Error);
  }
  std::vector<std::shared_ptr<KvPage>> pages;
  for (int i = 0; i < 7; ++i) pages.push_back(pool.Allocate());  // what states had is pages' now
  EXPECT_EQ(pool.stats().allocated_states, 0);
  EXPECT_THROW(pool.Allocate(), Error);
  pages.resize(4);
  EXPECT_EQ(pool.AllocateStates()->values.bytes(), page_ * 5 / 2);
  EXPECT_EQ(pool.stats().allocated_pages, 4);
}

TEST_F(StatesInThePool, ALookupEndsWithTheLastBlockThatHasThem) {
  StatePool pool(config_, KvType::kBf16, 40 * page_);
  EXPECT_EQ(pool.state_blocks(), 16);
  const auto keys = BlockKeys(RootKey({}), Tokens(160));
  for (const auto& key : keys) pool.Insert(key, pool.Allocate());
  EXPECT_EQ(pool.Lookup(keys).pages.size(), 0u);
  EXPECT_EQ(pool.Lookup(keys).known_pages, 5);
  const auto states = pool.AllocateStates();
  EXPECT_TRUE(pool.InsertStates(keys[1], states));
  EXPECT_FALSE(pool.InsertStates(keys[1], pool.AllocateStates()));
  EXPECT_FALSE(pool.InsertStates(RootKey({}), states));
  EXPECT_EQ(pool.Lookup(keys).pages.size(), 2u);
  EXPECT_EQ(pool.Lookup(keys).states, states);
  EXPECT_EQ(pool.Lookup(std::span(keys).first(1)).states, nullptr);
  EXPECT_TRUE(pool.InsertStates(keys[3], states));
  EXPECT_EQ(pool.Lookup(keys).pages.size(), 4u);
  EXPECT_EQ(pool.stats().cached_states, 2);
  pool.DropStates(keys[3]);
  EXPECT_EQ(pool.Lookup(keys).pages.size(), 2u);
  EXPECT_EQ(pool.stats().cached_states, 1);
}

TEST_F(StatesInThePool, AreEvictedThoughTheirPageIsRead) {
  StatePool pool(config_, KvType::kBf16, 8 * page_);
  const auto keys = BlockKeys(RootKey({}), Tokens(64));
  for (const auto& key : keys) {
    pool.Insert(key, pool.Allocate());
    EXPECT_TRUE(pool.InsertStates(key, pool.AllocateStates()));
  }
  const CachedPrefix first = pool.Lookup(std::span(keys).first(1));
  const std::vector<std::shared_ptr<KvPage>> both = pool.Lookup(keys).pages;
  const auto more = pool.AllocateStates();  // the second's, which nobody begins with
  EXPECT_EQ(pool.Lookup(keys).pages.size(), 1u);
  EXPECT_EQ(pool.stats().cached_pages, 2);
  EXPECT_THROW(pool.AllocateStates(), Error);
}

TEST(BlockKey, EverythingThatTheContentsDependOnChangesIt) {
  Hash other{};
  other[0] = 1;
  const std::vector<BlockKey> keys = {
      RootKey({}), RootKey({.model = other, .adapter = {}, .salt = {}}),
      RootKey({.model = {}, .adapter = other, .salt = {}}),
      RootKey({.model = {}, .adapter = {}, .kv_type = KvType::kF32, .salt = {}}),
      RootKey({.model = {}, .adapter = {}, .salt = "tenant"})};
  for (size_t i = 0; i < keys.size(); ++i) {
    for (size_t j = 0; j < i; ++j) EXPECT_NE(keys[i], keys[j]) << i << " " << j;
  }
  EXPECT_NE(ChildKey(keys[0], Tokens(32)), ChildKey(keys[1], Tokens(32)));
  EXPECT_NE(ChildKey(keys[0], Tokens(32)), ChildKey(keys[0], Tokens(32, 1)));
}

}  // namespace
}  // namespace bakestone
