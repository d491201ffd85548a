#include "engine/state_pool.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <utility>

#include "base/error.h"

namespace bakestone {

// Pages that nobody holds, and how many exist. A page's deleter may run on any thread that drops the
// last reference, and after the pool is gone.
struct StatePool::FreeList {
  std::mutex mutex;
  std::vector<std::unique_ptr<KvPage>> pages;
  std::atomic<int64_t> allocated{0};  // in use or free
};

namespace {

void UpdateInt(Sha256& hash, uint64_t value, int bytes) {
  std::array<uint8_t, 8> little_endian;
  for (int i = 0; i < 8; ++i) little_endian[i] = static_cast<uint8_t>(value >> (8 * i));
  hash.Update(std::span<const uint8_t>(little_endian).first(bytes));
}

}  // namespace

BlockKey RootKey(const PrefixScope& scope) {
  Sha256 hash;
  hash.Update("bakestone block 1").Update(scope.model).Update(scope.adapter);
  UpdateInt(hash, static_cast<uint64_t>(scope.kv_type), 1);
  hash.Update(scope.salt);
  return hash.Finish();
}

BlockKey ChildKey(const BlockKey& parent, std::span<const int32_t> tokens) {
  BAKESTONE_CHECK(static_cast<int64_t>(tokens.size()) == kPageTokens);
  Sha256 hash;
  hash.Update(parent);
  for (int32_t token : tokens) UpdateInt(hash, static_cast<uint32_t>(token), 4);
  return hash.Finish();
}

std::vector<BlockKey> BlockKeys(const BlockKey& root, std::span<const int32_t> tokens) {
  std::vector<BlockKey> keys;
  BlockKey parent = root;
  for (size_t begin = 0; begin + kPageTokens <= tokens.size(); begin += kPageTokens) {
    parent = ChildKey(parent, tokens.subspan(begin, kPageTokens));
    keys.push_back(parent);
  }
  return keys;
}

size_t StatePool::KeyHash::operator()(const BlockKey& key) const noexcept {
  size_t value;
  std::memcpy(&value, key.data(), sizeof value);
  return value;
}

StatePool::StatePool(const ModelConfig& config, KvType type, int64_t max_bytes)
    : config_(config), type_(type), page_bytes_(KvPageBytes(config, type)),
      capacity_(max_bytes / page_bytes_), free_(std::make_shared<FreeList>()) {
  if (capacity_ < 1) {
    Throw(ErrorCode::kInvalidArgument,
          "memory for keys and values: expected at least {} bytes (32 tokens of this model), found {}",
          page_bytes_, max_bytes);
  }
}

StatePool::~StatePool() = default;

std::shared_ptr<KvPage> StatePool::Allocate() {
  std::unique_ptr<KvPage> page;
  while (!page) {
    {
      std::lock_guard lock(free_->mutex);
      if (!free_->pages.empty()) {
        page = std::move(free_->pages.back());
        free_->pages.pop_back();
        break;
      }
    }
    if (free_->allocated < capacity_) {
      page = std::make_unique<KvPage>();
      page->bytes = Buffer<uint8_t>(page_bytes_, Fill::kZero);
      ++free_->allocated;
    } else if (!EvictOne()) {
      Throw(ErrorCode::kOutOfMemory, "keys and values: all {} pages of 32 tokens are in use", capacity_);
    }
  }
  return std::shared_ptr<KvPage>(page.release(), [free = free_](KvPage* done) {
    std::unique_ptr<KvPage> owned(done);
    std::lock_guard lock(free->mutex);
    free->pages.push_back(std::move(owned));
  });
}

std::unique_ptr<SequenceState> StatePool::Create() {
  return std::make_unique<SequenceState>(config_, type_, *this);
}

bool StatePool::EvictOne() {
  for (auto it = lru_.begin(); it != lru_.end(); ++it) {
    if (it->page.use_count() > 1) continue;  // a running request reads it
    index_.erase(it->key);
    lru_.erase(it);  // the page goes to the free list
    --cached_;
    return true;
  }
  return false;
}

std::vector<std::shared_ptr<KvPage>> StatePool::Lookup(std::span<const BlockKey> keys) {
  std::vector<std::shared_ptr<KvPage>> pages;
  for (const BlockKey& key : keys) {
    const auto found = index_.find(key);
    if (found == index_.end()) break;
    pages.push_back(found->second->page);
  }
  hit_tokens_ += static_cast<int64_t>(pages.size()) * kPageTokens;
  missed_tokens_ += static_cast<int64_t>(keys.size() - pages.size()) * kPageTokens;
  return pages;
}

void StatePool::Insert(const BlockKey& key, const std::shared_ptr<KvPage>& page) {
  if (index_.contains(key)) return;
  lru_.push_back({key, page});
  index_.emplace(key, std::prev(lru_.end()));
  ++cached_;
}

void StatePool::Touch(std::span<const BlockKey> keys) {
  for (auto key = keys.rbegin(); key != keys.rend(); ++key) {
    const auto found = index_.find(*key);
    if (found != index_.end()) lru_.splice(lru_.end(), lru_, found->second);
  }
}

StatePoolStats StatePool::stats() const {
  return {capacity_, free_->allocated, cached_, hit_tokens_, missed_tokens_};
}

}  // namespace bakestone
