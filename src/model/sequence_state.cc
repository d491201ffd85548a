#include "model/sequence_state.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace bakestone {
namespace {

// Bytes of the keys (or of the values) of one layer in one page.
int64_t PartBytes(const ModelConfig& config, KvType type, int64_t layer) {
  return config.layer_kv_heads(layer) * KvHeadBytes(ElementOf(type), config.layer_head_dim(layer));
}

int64_t PagesFor(int64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

class HeapAllocator : public KvPageAllocator {
 public:
  HeapAllocator(int64_t page_bytes, int64_t state_bytes, int64_t max_bytes)
      : page_bytes_(page_bytes), state_bytes_(state_bytes), max_bytes_(max_bytes) {}

  std::shared_ptr<KvPage> Allocate() override {
    auto page = Hold<KvPage>(page_bytes_);
    page->bytes = Buffer<uint8_t>(page_bytes_, Fill::kZero);
    return page;
  }

  std::shared_ptr<LayerStates> AllocateStates() override {
    auto states = Hold<LayerStates>(state_bytes_);
    states->values = Buffer<float>(state_bytes_ / static_cast<int64_t>(sizeof(float)), Fill::kZero);
    return states;
  }

 private:
  template <class T>
  std::shared_ptr<T> Hold(int64_t bytes) {
    if (held_->fetch_add(bytes) + bytes > max_bytes_) {
      const int64_t held = held_->fetch_sub(bytes) - bytes;
      Throw(ErrorCode::kOutOfMemory,
            "KV cache: expected {} more bytes below the limit of {}, found {} in use", bytes,
            max_bytes_, held);
    }
    // The count lives as long as the last of them, whatever becomes of the allocator.
    return std::shared_ptr<T>(new T, [held = held_, bytes](T* done) {
      delete done;
      held->fetch_sub(bytes);
    });
  }

  const int64_t page_bytes_, state_bytes_, max_bytes_;
  std::shared_ptr<std::atomic<int64_t>> held_ = std::make_shared<std::atomic<int64_t>>(0);
};

}  // namespace

const char* KvTypeName(KvType type) noexcept {
  constexpr const char* kNames[] = {"bf16", "f32", "f16", "q8_0"};
  return kNames[static_cast<int>(type)];
}

KvType ParseKvType(std::string_view name) {
  for (const KvType type : {KvType::kBf16, KvType::kF16, KvType::kQ8_0}) {
    if (name == KvTypeName(type)) return type;
  }
  Throw(ErrorCode::kInvalidArgument,
        "type of keys and values: expected bf16, f16 or q8_0, found '{}'", name);
}

KvElement ElementOf(KvType type) noexcept {
  static_assert(static_cast<int>(KvType::kF16) == static_cast<int>(KvElement::kF16) &&
                static_cast<int>(KvType::kQ8_0) == static_cast<int>(KvElement::kQ8_0));
  return static_cast<KvElement>(type);
}

int64_t KvPageBytes(const ModelConfig& config, KvType type) {
  int64_t bytes = 0;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    if (config.owns_kv(layer)) bytes += 2 * PartBytes(config, type, layer);
  }
  return std::max<int64_t>(bytes, 64);  // pages count tokens where no layer has keys and values
}

int64_t LayerStateBytes(const ModelConfig& config) {
  int64_t floats = 0;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) floats += config.state_size(layer);
  return floats * static_cast<int64_t>(sizeof(float));
}

std::unique_ptr<KvPageAllocator> MakeHeapAllocator(const ModelConfig& config, KvType type,
                                                   int64_t max_bytes) {
  return std::make_unique<HeapAllocator>(KvPageBytes(config, type), LayerStateBytes(config),
                                         max_bytes);
}

SequenceState::SequenceState(const ModelConfig& config, KvType type, KvPageAllocator& allocator)
    : config_(config), type_(type), allocator_(allocator), state_bytes_(LayerStateBytes(config)) {
  int64_t page = 0, state = 0;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    const int64_t owner = config.kv_layer(layer);
    page_offsets_.push_back(owner == layer ? page : page_offsets_[static_cast<size_t>(owner)]);
    part_bytes_.push_back(PartBytes(config, type, owner));
    state_offsets_.push_back(state);
    if (config.owns_kv(layer)) page += 2 * part_bytes_.back();
    state += config.state_size(layer);
  }
}

uint8_t* SequenceState::Keys(int64_t layer, int64_t page) const noexcept {
  return pages_[static_cast<size_t>(page)]->bytes.data() +
         page_offsets_[static_cast<size_t>(layer)];
}

uint8_t* SequenceState::Values(int64_t layer, int64_t page) const noexcept {
  return Keys(layer, page) + part_bytes_[static_cast<size_t>(layer)];
}

void SequenceState::Expect(int64_t tokens) {
  BAKESTONE_CHECK(length_ == 0 && reserved_ == 0);
  far_ = config_.far(tokens);
}

void SequenceState::Reserve(int64_t n) {
  BAKESTONE_CHECK(n >= 0);
  if (n > config_.context_length - length_) {
    Throw(ErrorCode::kInvalidArgument,
          "sequence: expected at most the context length of {} tokens, found {} + {}",
          config_.context_length, length_, n);
  }
  if (!far_ && config_.far(length_ + n)) {
    Throw(ErrorCode::kInvalidArgument,
          "sequence: expected at most {} tokens, as it was begun, found {} + {}",
          config_.rope.near_context, length_, n);
  }
  // Everything that can fail comes first, into locals: an error leaves the state as it was.
  const int64_t open = length_ / kPageTokens;  // the page that position length() lies in
  std::shared_ptr<KvPage> copy;
  if (n > 0 && length_ % kPageTokens != 0 && pages_[static_cast<size_t>(open)].use_count() > 1) {
    copy = allocator_.Allocate();
    const KvPage& shared = *pages_[static_cast<size_t>(open)];
    std::memcpy(copy->bytes.data(), shared.bytes.data(), static_cast<size_t>(shared.bytes.size()));
  }
  std::vector<std::shared_ptr<KvPage>> pages = pages_;
  while (static_cast<int64_t>(pages.size()) < PagesFor(length_ + n)) {
    pages.push_back(allocator_.Allocate());
  }
  if (n > 0 && state_bytes_ > 0 && next_states_ == nullptr) {
    next_states_ = allocator_.AllocateStates();
  }
  if (copy != nullptr) pages[static_cast<size_t>(open)] = std::move(copy);
  pages_ = std::move(pages);
  reserved_ = n;
}

void SequenceState::Commit(int64_t n) {
  BAKESTONE_CHECK(n >= 0 && n <= reserved_);
  if (n > 0 && state_bytes_ > 0) {
    BAKESTONE_CHECK(n == reserved_);
    std::swap(states_, next_states_);
    if (next_states_.use_count() > 1) next_states_.reset();  // others begin with it
  }
  length_ += n;
  reserved_ = 0;
  pages_.resize(static_cast<size_t>(PagesFor(length_)));
}

void SequenceState::Truncate(int64_t n) {
  BAKESTONE_CHECK(n >= 0 && n <= length_ && (n == 0 || n == length_ || state_bytes_ == 0));
  if (n == 0) states_.reset();
  length_ = n;
  reserved_ = 0;
  pages_.resize(static_cast<size_t>(PagesFor(length_)));
}

void SequenceState::AdoptPrefix(std::vector<std::shared_ptr<KvPage>> full_pages,
                                std::shared_ptr<LayerStates> states) {
  BAKESTONE_CHECK(length_ == 0 && reserved_ == 0 &&
                  (states != nullptr) == (!full_pages.empty() && state_bytes_ > 0));
  BAKESTONE_CHECK(states == nullptr || states->values.bytes() == state_bytes_);
  BAKESTONE_CHECK(static_cast<int64_t>(full_pages.size()) * kPageTokens <= config_.context_length);
  for (const std::shared_ptr<KvPage>& page : full_pages) {
    BAKESTONE_CHECK(page != nullptr && page->bytes.size() == KvPageBytes(config_, type_));
  }
  pages_ = std::move(full_pages);
  states_ = std::move(states);
  length_ = static_cast<int64_t>(pages_.size()) * kPageTokens;
}

}  // namespace bakestone
