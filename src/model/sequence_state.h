// What a sequence remembers: keys and values in ref-counted pages of 32 tokens, each layer's part
// in the layout that the attention kernel reads (kernels/kernel_table.h). Defined here because the
// decoder reads it; allocated and shared by engine/'s StatePool.
//
// Layers that are not attention (ModelConfig::mixers) have no part of the pages; they keep a state
// of fixed size beside them, which a step writes anew: what was before stays until Commit, so that
// a step that fails can be done again. Such a state cannot go back to an earlier token: Commit
// keeps all tokens of a step or none, and pages of a prefix are of no use without the states after
// its last token.
//
// A SequenceState belongs to one thread at a time. Pages and layers' states may be shared between
// sequences (a common prefix). What is shared is never written: Reserve first copies the page that
// would be, and a step writes its states elsewhere anyway.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "kernels/kernel_table.h"
#include "model/config.h"
#include "tensor/buffer.h"

namespace bakestone {

// How keys and values are kept. Do not renumber: prefix keys hash it.
//   kBf16  the default
//   kF32   for exact arithmetic (Precision::kExact)
//   kF16   as much memory as bf16; closer to f32 (queries and probabilities stay f32)
//   kQ8_0  9 bytes for bf16's 16: 8-bit integers, one f32 scale for 32 channels
enum class KvType : uint8_t { kBf16, kF32, kF16, kQ8_0 };

// "bf16", "f32", "f16", "q8_0".
const char* KvTypeName(KvType type) noexcept;
// The type of a name that serving can use: bf16, f16 or q8_0. Throws kInvalidArgument naming them.
KvType ParseKvType(std::string_view name);
KvElement ElementOf(KvType type) noexcept;

inline constexpr int64_t kPageTokens = 32;

// Bytes of one page (32 tokens) of all layers that have keys and values of their own: what
// admission multiplies.
int64_t KvPageBytes(const ModelConfig& config, KvType type);

// Bytes of what the layers that are not attention remember after a token; a sequence holds two of
// them. 0: there are none.
int64_t LayerStateBytes(const ModelConfig& config);

// One page: K and V of all layers for 32 consecutive absolute positions.
struct KvPage {
  Buffer<uint8_t> bytes;  // KvPageBytes: layer by layer, keys then values
};

// The states of all layers after one token.
struct LayerStates {
  Buffer<float> values;  // LayerStateBytes: layer by layer, ModelConfig::state_size floats each
};

// Both hold finite numbers at first (zeros, or what an earlier one held), and throw kOutOfMemory
// when the pool is full.
class KvPageAllocator {
 public:
  virtual ~KvPageAllocator() = default;
  virtual std::shared_ptr<KvPage> Allocate() = 0;
  virtual std::shared_ptr<LayerStates> AllocateStates() = 0;
};

// A plain allocator with a limit, for tests, eval and single sequences.
std::unique_ptr<KvPageAllocator> MakeHeapAllocator(const ModelConfig& config, KvType type,
                                                   int64_t max_bytes);

class SequenceState {
 public:
  SequenceState(const ModelConfig& config, KvType type, KvPageAllocator& allocator);

  KvType kv_type() const noexcept { return type_; }
  int64_t length() const noexcept { return length_; }  // committed tokens
  // Before the first token: the most tokens that the sequence will have. It decides how positions
  // are rotated where the model has far factors (ModelConfig::far); whoever says nothing stays
  // within near_context.
  void Expect(int64_t tokens);
  bool far() const noexcept { return far_; }
  // Room for n uncommitted tokens after length(). Throws kOutOfMemory (state unchanged), or
  // kInvalidArgument beyond the context length, or beyond what was expected.
  void Reserve(int64_t n);
  // Keeps the first n uncommitted tokens (n may be less than was reserved: rejected drafts; with
  // layers that keep a state, 0 or all).
  void Commit(int64_t n);
  // Forgets committed tokens from n on; with layers that keep a state, n is 0 or length().
  void Truncate(int64_t n);

  int64_t reserved() const noexcept { return reserved_; }  // uncommitted tokens there is room for

  // One layer's part of page i, which holds tokens [32 i, 32 i + 32). Pointers stay valid until
  // Reserve, Commit, Truncate or destruction.
  int64_t num_pages() const noexcept { return static_cast<int64_t>(pages_.size()); }
  uint8_t* Keys(int64_t layer, int64_t page) const noexcept;
  uint8_t* Values(int64_t layer, int64_t page) const noexcept;

  // A layer's state (ModelConfig::state_size floats): after the committed tokens, null for zeros
  // while there are none; and where a step puts it after the reserved ones.
  const float* State(int64_t layer) const noexcept {
    return states_ ? states_->values.data() + state_offsets_[static_cast<size_t>(layer)] : nullptr;
  }
  float* NextState(int64_t layer) noexcept {
    return next_states_->values.data() + state_offsets_[static_cast<size_t>(layer)];
  }

  // Prefix sharing: the pages held so far (the first length() / 32 are full) and the layers' states
  // after the committed tokens (null where no layer keeps one), and a sequence that starts with
  // full pages of another and, where layers keep a state, theirs after the last of those.
  const std::vector<std::shared_ptr<KvPage>>& pages() const noexcept { return pages_; }
  const std::shared_ptr<LayerStates>& layer_states() const noexcept { return states_; }
  void AdoptPrefix(std::vector<std::shared_ptr<KvPage>> full_pages,
                   std::shared_ptr<LayerStates> states = nullptr);  // only while length() == 0

 private:
  const ModelConfig& config_;
  KvType type_;
  KvPageAllocator& allocator_;
  std::vector<int64_t> part_bytes_;  // keys, or values, of each layer in one page
  // Of each layer, in a page and in a state; a layer that reads another's keys and values has that
  // one's.
  std::vector<int64_t> page_offsets_, state_offsets_;
  int64_t state_bytes_;
  std::shared_ptr<LayerStates> states_, next_states_;  // the next are nobody else's
  int64_t length_ = 0, reserved_ = 0;
  bool far_ = false;
  std::vector<std::shared_ptr<KvPage>> pages_;
};

}  // namespace bakestone
