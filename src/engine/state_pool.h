// The bounded memory of keys and values: hands out pages of 32 tokens, takes them back, and keeps full
// pages of finished prompts for the next request that begins with the same tokens (prefix cache).
//
// A cached page is found by its block key, a hash of everything that its contents depend on: the
// weights, the adapter's numbers (never its name), the KV type, the tenant's salt, and all tokens up to
// and including its own 32. Pages that a request holds are shared by reference count; pages that
// nobody holds are evicted, least recently used first, when a new one is needed.
//
// One thread at a time (the engine's loop); only stats() may be called from others.
#pragma once

#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/sha256.h"
#include "model/config.h"
#include "model/sequence_state.h"

namespace bakestone {

using BlockKey = Hash;

// The key that the first block of a sequence chains from.
struct PrefixScope {
  Hash model{};
  Hash adapter{};          // zeros: the base
  KvType kv_type = KvType::kBf16;
  std::string_view salt = {};  // tenants with different salts never see each other's timing
};
BlockKey RootKey(const PrefixScope& scope);
BlockKey ChildKey(const BlockKey& parent, std::span<const int32_t> tokens);  // tokens [kPageTokens]
// One key for each full block of the tokens.
std::vector<BlockKey> BlockKeys(const BlockKey& root, std::span<const int32_t> tokens);

struct StatePoolStats {
  int64_t capacity_pages = 0, allocated_pages = 0, cached_pages = 0;
  int64_t hit_tokens = 0, missed_tokens = 0;  // of prompts looked up
};

class StatePool : public KvPageAllocator {
 public:
  // Throws kInvalidArgument when max_bytes is less than one page. Memory is taken page by page, on use.
  StatePool(const ModelConfig& config, KvType type, int64_t max_bytes);
  ~StatePool() override;  // every page must have been given back

  std::shared_ptr<KvPage> Allocate() override;
  std::unique_ptr<SequenceState> Create();

  int64_t capacity_pages() const { return capacity_; }
  int64_t page_bytes() const { return page_bytes_; }

  // The cached pages of the longest prefix of the keys.
  std::vector<std::shared_ptr<KvPage>> Lookup(std::span<const BlockKey> keys);
  // Offers a full, committed page. Does nothing when the key is known.
  void Insert(const BlockKey& key, const std::shared_ptr<KvPage>& page);
  // Marks the blocks as just used, the first as the most recent: a chain is evicted from its end.
  void Touch(std::span<const BlockKey> keys);

  StatePoolStats stats() const;

 private:
  struct Entry {
    BlockKey key;
    std::shared_ptr<KvPage> page;
  };
  struct KeyHash {
    size_t operator()(const BlockKey& key) const noexcept;
  };
  struct FreeList;  // outlives the pool as long as a page does
  bool EvictOne();

  const ModelConfig& config_;
  KvType type_;
  int64_t page_bytes_;
  int64_t capacity_;
  std::shared_ptr<FreeList> free_;
  std::list<Entry> lru_;  // front: evicted first
  std::unordered_map<BlockKey, std::list<Entry>::iterator, KeyHash> index_;
  std::atomic<int64_t> cached_{0}, hit_tokens_{0}, missed_tokens_{0};
};

}  // namespace bakestone
