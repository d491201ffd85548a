#include "engine/state_pool.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <utility>

#include "base/error.h"

namespace bakestone {

// Pages and states that nobody holds, and how many exist. A deleter may run on any thread that
// drops the last reference, and after the pool is gone.
struct StatePool::FreeList {
  std::mutex mutex;
  std::vector<std::unique_ptr<KvPage>> pages;
  std::vector<std::unique_ptr<LayerStates>> states;
  std::atomic<int64_t> allocated{0}, allocated_states{0};  // in use or free

  // One that nobody holds, or null.
  template <class T>
  std::unique_ptr<T> Take(std::vector<std::unique_ptr<T>>& list) {
    std::lock_guard lock(mutex);
    if (list.empty()) return nullptr;
    std::unique_ptr<T> one = std::move(list.back());
    list.pop_back();
    return one;
  }
  template <class T>
  int64_t Count(const std::vector<std::unique_ptr<T>>& list) {
    std::lock_guard lock(mutex);
    return static_cast<int64_t>(list.size());
  }
  template <class T>
  void Return(std::vector<std::unique_ptr<T>>& list, T* done) {
    std::unique_ptr<T> owned(done);
    std::lock_guard lock(mutex);
    list.push_back(std::move(owned));
  }
};

namespace {

// States in a prompt are kept no closer than this, a segment of attention: each ends a step.
constexpr int64_t kLeastStateBlocks = 512 / kPageTokens;

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
  UpdateInt(hash, scope.far ? 1 : 0, 1);
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
    : config_(config),
      type_(type),
      page_bytes_(KvPageBytes(config, type)),
      state_bytes_(LayerStateBytes(config)),
      pages_per_state_((state_bytes_ + page_bytes_ - 1) / page_bytes_),
      state_blocks_(pages_per_state_ == 0 ? 0 : std::max(kLeastStateBlocks, pages_per_state_)),
      capacity_(max_bytes / page_bytes_),
      free_(std::make_shared<FreeList>()) {
  const int64_t least = 1 + sequence_state_pages();
  if (capacity_ < least) {
    Throw(ErrorCode::kInvalidArgument,
          "memory for keys and values: expected at least {} bytes (32 tokens of this model{}), "
          "found {}",
          least * page_bytes_, least > 1 ? " and what its layers remember" : "", max_bytes);
  }
}

StatePool::~StatePool() = default;

bool StatePool::Fits(int64_t pages) const {
  return free_->allocated + free_->allocated_states * pages_per_state_ + pages <= capacity_;
}

std::shared_ptr<KvPage> StatePool::Allocate() {
  std::unique_ptr<KvPage> page;
  while (!(page = free_->Take(free_->pages))) {
    if (Fits(1)) {
      page = std::make_unique<KvPage>();
      page->bytes = Buffer<uint8_t>(page_bytes_, Fill::kZero);
      ++free_->allocated;
      break;
    }
    if (free_->Take(free_->states)) {
      --free_->allocated_states;
    } else if (!EvictOne()) {
      Throw(ErrorCode::kOutOfMemory, "keys and values: all {} pages of 32 tokens are in use",
            capacity_);
    }
  }
  return std::shared_ptr<KvPage>(page.release(),
                                 [free = free_](KvPage* done) { free->Return(free->pages, done); });
}

std::shared_ptr<LayerStates> StatePool::AllocateStates() {
  std::unique_ptr<LayerStates> states;
  while (!(states = free_->Take(free_->states))) {
    if (Fits(pages_per_state_)) {
      states = std::make_unique<LayerStates>();
      states->values =
          Buffer<float>(state_bytes_ / static_cast<int64_t>(sizeof(float)), Fill::kZero);
      ++free_->allocated_states;
      break;
    }
    if (free_->Take(free_->pages)) {
      --free_->allocated;
    } else if (!EvictOne()) {
      Throw(ErrorCode::kOutOfMemory,
            "keys and values: all {} pages of 32 tokens are in use; {} more are needed for what "
            "layers remember",
            capacity_, pages_per_state_);
    }
  }
  return std::shared_ptr<LayerStates>(
      states.release(), [free = free_](LayerStates* done) { free->Return(free->states, done); });
}

std::unique_ptr<SequenceState> StatePool::Create() {
  return std::make_unique<SequenceState>(config_, type_, *this);
}

bool StatePool::EvictOne() {
  for (auto it = lru_.begin(); it != lru_.end(); ++it) {
    const bool read = it->page.use_count() > 1;  // by a running request
    if (read && (!it->states || it->states.use_count() > 1)) continue;
    if (it->states) --cached_states_;
    it->states.reset();  // what is evicted goes to the free lists
    if (read) return true;
    index_.erase(it->key);
    lru_.erase(it);
    --cached_;
    return true;
  }
  return false;
}

CachedPrefix StatePool::Lookup(std::span<const BlockKey> keys) {
  CachedPrefix found;
  size_t usable = 0;
  for (const BlockKey& key : keys) {
    const auto at = index_.find(key);
    if (at == index_.end()) break;
    found.pages.push_back(at->second->page);
    if (state_bytes_ > 0 && !at->second->states) continue;
    found.states = at->second->states;
    usable = found.pages.size();
  }
  found.known_pages = static_cast<int64_t>(found.pages.size());
  found.pages.resize(usable);
  hit_tokens_ += static_cast<int64_t>(usable) * kPageTokens;
  missed_tokens_ += static_cast<int64_t>(keys.size() - usable) * kPageTokens;
  return found;
}

void StatePool::Insert(const BlockKey& key, const std::shared_ptr<KvPage>& page) {
  if (index_.contains(key)) return;
  lru_.push_back({key, page, nullptr});
  index_.emplace(key, std::prev(lru_.end()));
  ++cached_;
}

bool StatePool::InsertStates(const BlockKey& key, const std::shared_ptr<LayerStates>& states) {
  const auto found = index_.find(key);
  if (found == index_.end() || found->second->states) return false;
  found->second->states = states;
  ++cached_states_;
  return true;
}

void StatePool::DropStates(const BlockKey& key) {
  const auto found = index_.find(key);
  if (found == index_.end() || !found->second->states) return;
  found->second->states.reset();
  --cached_states_;
}

void StatePool::Touch(std::span<const BlockKey> keys) {
  for (auto key = keys.rbegin(); key != keys.rend(); ++key) {
    const auto found = index_.find(*key);
    if (found != index_.end()) lru_.splice(lru_.end(), lru_, found->second);
  }
}

StatePoolStats StatePool::stats() const {
  return {.capacity_pages = capacity_,
          .allocated_pages = free_->allocated,
          .used_pages = free_->allocated - free_->Count(free_->pages),
          .cached_pages = cached_,
          .pages_per_state = pages_per_state_,
          .allocated_states = free_->allocated_states,
          .cached_states = cached_states_,
          .hit_tokens = hit_tokens_,
          .missed_tokens = missed_tokens_};
}

}  // namespace bakestone
