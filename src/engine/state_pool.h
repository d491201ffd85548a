// The bounded memory of keys and values: hands out pages of 32 tokens, takes them back, and keeps
// full pages of finished prompts for the next request that begins with the same tokens (prefix
// cache).
//
// Where layers keep a state instead (model/sequence_state.h), the states of all layers after a
// token are handed out likewise, each counted as so many pages. In the cache they lie beside the
// page that ends with their token; a page from which on a chain has none is of no use, so that a
// lookup ends with the last one that has. They are so large that only some blocks have them
// (state_blocks).
//
// A cached page is found by its block key, a hash of everything that its contents depend on: the
// weights, the adapter's numbers (never its name), the KV type, the tenant's salt, and all tokens
// up to and including its own 32. Pages that a request holds are shared by reference count; pages
// that nobody holds are evicted, least recently used first, when a new one is needed.
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
  Hash adapter{};  // zeros: the base
  KvType kv_type = KvType::kBf16;
  std::string_view salt = {};  // tenants with different salts never see each other's timing
  bool far = false;            // rotated by the far factors (ModelConfig::far)
};
BlockKey RootKey(const PrefixScope& scope);
BlockKey ChildKey(const BlockKey& parent, std::span<const int32_t> tokens);  // tokens [kPageTokens]
// One key for each full block of the tokens.
std::vector<BlockKey> BlockKeys(const BlockKey& root, std::span<const int32_t> tokens);

struct StatePoolStats {
  int64_t capacity_pages = 0, allocated_pages = 0;  // allocated: used, or kept for later
  int64_t used_pages = 0, cached_pages = 0;         // used: by sequences or by the cache
  int64_t pages_per_state = 0, allocated_states = 0, cached_states = 0;  // of layers' states
  int64_t hit_tokens = 0, missed_tokens = 0;                             // of prompts looked up
};

// What a lookup found of a sequence's blocks.
struct CachedPrefix {
  std::vector<std::shared_ptr<KvPage>> pages;
  std::shared_ptr<LayerStates> states;  // after them; null where no layer keeps a state
  int64_t known_pages = 0;  // of the blocks, these and those behind them that have no states
};

class StatePool : public KvPageAllocator {
 public:
  // Throws kInvalidArgument when max_bytes is less than one page and a sequence's states. Memory is
  // taken page by page, on use.
  StatePool(const ModelConfig& config, KvType type, int64_t max_bytes);
  ~StatePool() override;  // every page must have been given back

  std::shared_ptr<KvPage> Allocate() override;
  std::shared_ptr<LayerStates> AllocateStates() override;
  std::unique_ptr<SequenceState> Create();

  int64_t capacity_pages() const { return capacity_; }
  int64_t page_bytes() const { return page_bytes_; }
  // What a sequence takes beside the pages of its tokens: two states, while a step writes one from
  // the other.
  int64_t sequence_state_pages() const { return 2 * pages_per_state_; }
  // Every how many blocks of a prompt its states are worth keeping: where they take no more than
  // the pages between them, and a step is not cut for a few rows. 0: no layer keeps a state.
  int64_t state_blocks() const { return state_blocks_; }

  // The cached pages of the longest prefix of the keys that a sequence can begin with.
  CachedPrefix Lookup(std::span<const BlockKey> keys);
  // Offers a full, committed page. Does nothing when the key is known.
  void Insert(const BlockKey& key, const std::shared_ptr<KvPage>& page);
  // Offers the states after a block that was inserted. False when they are known, or the block has
  // gone.
  bool InsertStates(const BlockKey& key, const std::shared_ptr<LayerStates>& states);
  // Forgets a block's states.
  void DropStates(const BlockKey& key);
  // Marks the blocks as just used, the first as the most recent: a chain is evicted from its end.
  void Touch(std::span<const BlockKey> keys);

  StatePoolStats stats() const;

 private:
  struct Entry {
    BlockKey key;
    std::shared_ptr<KvPage> page;
    std::shared_ptr<LayerStates> states;  // after its last token; null: not kept
  };
  struct KeyHash {
    size_t operator()(const BlockKey& key) const noexcept;
  };
  struct FreeList;  // outlives the pool as long as a page does
  bool Fits(int64_t pages) const;
  bool EvictOne();

  const ModelConfig& config_;
  KvType type_;
  int64_t page_bytes_, state_bytes_, pages_per_state_, state_blocks_;
  int64_t capacity_;
  std::shared_ptr<FreeList> free_;
  std::list<Entry> lru_;  // front: evicted first
  std::unordered_map<BlockKey, std::list<Entry>::iterator, KeyHash> index_;
  std::atomic<int64_t> cached_{0}, cached_states_{0}, hit_tokens_{0}, missed_tokens_{0};
};

}  // namespace bakestone
