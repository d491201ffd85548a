// One flat table of kernels per (device, ISA); no entry is ever null. PODs and <cstdint> only, so
// that a unit compiled for a newer CPU emits no weak symbol that the linker could choose for the
// baseline. Kernels get a Range of work units and never see threads; src/ops/ checks shapes, splits
// the work and calls. Every entry of `serve` gives the same bits in every table and for every
// split; what those bits are is docs/numerics.md. Pointers need no alignment unless said; outputs
// never alias inputs unless said.
//
// T rows (tokens), H heads, D head_dim, n outputs, k inputs.
#pragma once

#include <cstdint>

#include "kernels/panel.h"
#include "kernels/train_kernels.h"

namespace bakestone {

enum class Isa : uint8_t { kReference, kAvx2, kAvxVnni, kAvx512, kAmx, kNeon, kNeonI8mm };

struct Range {
  int64_t begin, end;  // in work units of that op
};

// Bits of an error word; set with an atomic or, never cleared by kernels.
inline constexpr uint32_t kErrorNotFinite = 1;  // a NaN or infinity in an activation

// ---- Activations ----

// How the input rows of a matrix product are held. Which one a panel type takes: ActTypeOf.
enum class ActType : uint8_t {
  kInt8x32,   // int8 in [-127, 127], one f32 scale per 32
  kInt8x128,  // the same per 128, for the types of super-blocks
  kBF16,      // rounded to bf16, below 2^-50 to zero (held as f32: exact)
  kF32,       // as they are; every panel type takes it (Precision::kExact)
};
inline constexpr int kNumActTypes = 4;

BAKESTONE_INLINE constexpr ActType ActTypeOf(PanelType type) {
  switch (type) {
    case PanelType::kF32:
    case PanelType::kF16:
      return ActType::kF32;
    case PanelType::kBF16:
      return ActType::kBF16;
    case PanelType::kQ2_K:
    case PanelType::kQ3_K:
    case PanelType::kQ4_K:
    case PanelType::kQ5_K:
    case PanelType::kQ6_K:
    case PanelType::kIQ4_XS:
      return ActType::kInt8x128;
    default:
      return ActType::kInt8x32;
  }
}

struct Activations {
  ActType type;
  int64_t rows, k;
  int64_t stride;     // values from one row to the next; >= k rounded up to even
  int8_t* q;          // [rows, stride], int8 types
  float* f;           // [rows, stride], kBF16 and kF32; padded with a zero where k is odd
  float* scale;       // [rows, k / 32] or [rows, k / 128]
  float* scaled_sum;  // kInt8x32: [rows, k / 32], scale * float(sum)
  int16_t* sum;       // kInt8x32: [rows, k / 32]; kInt8x128: [rows, k / 16]
};

struct QuantizeArgs {
  const float* x;  // [rows, x_stride], from the first of the columns on
  int64_t x_stride;
  Activations out;
  Range columns;    // of out that x has: from a multiple of 32 (kInt8x128: 256) to one, or to out.k
  uint32_t* error;  // kErrorNotFinite
};

// ---- Matrix products ----

enum class Epilogue : uint8_t {
  kStore,      // y = r
  kAdd,        // y = y + r                    (residual)
  kAddScaled,  // y = fma(scale, r, y)         (LoRA)
  kSwiGlu,     // y = SwiGlu(r of panel, r of up)
};

// Lines of 64 bytes that follow each other.
struct Lines {
  const uint8_t* first;
  int64_t count;
};

// What is read next, by who called: a kernel whose arithmetic leaves the memory idle fetches it
// into the cache meanwhile, others leave it.
struct ReadNext {
  const Lines* parts;
  int64_t count, lines;  // lines: of all parts
};

// r[m, i] = sum over k of x[m, k] * panel[i, k], + bias[i] where given.
struct MatMulArgs {
  Activations x;
  Panel panel;        // panel.k == x.k
  Panel up;           // kSwiGlu only: same type, n and k as panel
  const float* bias;  // [n] or null
  float* y;           // [x.rows, y_stride]
  int64_t y_stride;
  Epilogue epilogue;
  float scale;              // kAddScaled
  ReadNext read_next = {};  // while all strips of a call are multiplied
};

// Scratch of one call: aligned to 64, contents do not matter.
BAKESTONE_INLINE constexpr int64_t MatMulScratchBytes(int64_t k) {
  return (k + 256) * kStripRows * 4 * 3;
}

struct MatMulKernels {
  // Strips [begin, end) of 16 outputs, all rows. x.type is ActTypeOf(type), or kF32.
  void (*run)(const MatMulArgs&, Range strips, void* scratch) noexcept;
  void (*exact)(const MatMulArgs&, Range strips, void* scratch) noexcept;  // x.type kF32
};

// One row by the first matrix of an adapter, in bf16 with magnitudes below 2^-50 as zeros: h = A x
// in pair order, in the form of x.
struct AdapterRowArgs {
  Activations x;     // of one row: kBF16, or kF32
  const uint8_t* a;  // [h.k, x.k]: strips of 16 as a panel's, the last one narrow (panel.h) where
                     // h.k is no multiple of 16; aligned to 64
  Activations h;     // of one row, x's type
  uint32_t* error;   // kErrorNotFinite: in h
};

// Scratch of one call, aligned to 64.
BAKESTONE_INLINE constexpr int64_t AdapterRowScratchBytes(int64_t rank) {
  return 4 * ((rank + 63) / 64 * 64);
}

// Panel to f32, bit for bit what tensor/dequantize.h makes of the file's row.
struct DequantizeKernels {
  // k0 and k1 are multiples of the panel's block (32 for plain types; k1 may be k): out [k1 -
  // k0][16].
  void (*strip)(const Panel&, int64_t strip, int64_t k0, int64_t k1, float* out) noexcept;
  // rows[i] of the panel -> out + i * stride, k floats each.
  void (*rows)(const Panel&, const int32_t* rows, int64_t count, float* out,
               int64_t stride) noexcept;
};

// ---- Rows ----

struct RmsNormArgs {
  const float* x;  // [T, x_stride]; may alias y
  int64_t x_stride;
  const float* weight;  // [k]
  float eps;
  float* y;  // y = x * (1 / sqrt(mean(x^2) + eps)) * weight
  int64_t y_stride, k;
};

struct LayerNormArgs {
  const float* x;  // [T, x_stride]; may alias y
  int64_t x_stride;
  const float* weight;  // [k]
  const float* bias;    // [k], or null
  float eps;
  float* y;  // y = (x - mean) * (1 / sqrt(mean((x - mean)^2) + eps)) * weight + bias
  int64_t y_stride, k;
};

// Hugging Face's half-split: channels i and i + dim / 2 of each head turn by the angle of cos, sin.
struct RopeArgs {
  float* x;  // [T, stride], heads * head_dim channels, in place
  int64_t stride, heads, head_dim;
  int64_t dim;             // rotated channels, even, <= head_dim
  const float *cos, *sin;  // [T, dim / 2]
};

struct BinaryArgs {
  const float *a, *b;  // [T, *_stride]
  float* y;            // may alias a or b
  int64_t a_stride, b_stride, y_stride, k;
};

struct UnaryArgs {
  const float* x;  // [T, x_stride]; may alias y
  float* y;
  int64_t x_stride, y_stride, k;
  float factor;  // soft_cap: the cap; exp: what x is multiplied by; others: unused
};

struct SoftmaxStats {
  float max;
  float sum;  // of exp(x - max): virtual width 16
};

// One head of the gated delta rule over rows that follow each other, S [key_dim, value_dim]:
//   S = decay S;  c = rate (v - S^T k);  S = S + k c^T;  y = S^T q
// S^T k and S^T q are sums over key_dim in order, from +0; every product and every sum is rounded
// (docs/numerics.md).
struct DeltaRuleArgs {
  const float *q, *k, *v;  // [T, stride]: key_dim, key_dim and value_dim channels of the head
  int64_t stride;
  const float *decay, *rate;  // [T, gate_stride]
  int64_t gate_stride;
  const float* before;  // S before the first row
  float* after;         // S after the last; may be `before`
  float* y;             // [T, y_stride]
  int64_t y_stride;
  int64_t key_dim, value_dim;
};

// One head of RWKV-7's rule over rows that follow each other, S [dim, dim]:
//   c = S^T removal;  S = (decay S - (removal * rate) c^T) + k v^T;  y = S^T r
// with decay, removal, rate, k and r by row of S. Sums run over rows of S in order, from +0; every
// product and every sum is rounded (docs/numerics.md).
struct RwkvRuleArgs {
  const float *r, *decay, *k, *v, *removal, *rate;  // [T, stride]: dim channels of the head
  int64_t stride;
  const float* before;  // S before the first row
  float* after;         // S after the last; may be `before`
  float* y;             // [T, y_stride]
  int64_t y_stride;
  int64_t dim;
};

struct RowKernels {
  void (*quantize[kNumActTypes])(const QuantizeArgs&, Range rows) noexcept;
  void (*rms_norm)(const RmsNormArgs&, Range rows) noexcept;
  void (*rope)(const RopeArgs&, Range rows) noexcept;
  void (*swiglu)(const BinaryArgs&, Range rows) noexcept;  // y = a / (1 + exp(-a)) * b
  void (*add)(const BinaryArgs&, Range rows) noexcept;     // y = a + b
  // stats[row] of x [T, stride]; k >= 1
  void (*softmax_stats)(const float* x, int64_t stride, int64_t k, SoftmaxStats* stats,
                        Range rows) noexcept;
  // y[i] = exp(x[i] - max) * (1 / sum); may be in place
  void (*softmax)(const float* x, int64_t k, SoftmaxStats stats, float* y) noexcept;
  void (*layer_norm)(const LayerNormArgs&, Range rows) noexcept;
  void (*geglu)(const BinaryArgs&, Range rows) noexcept;      // y = gelu(a) * b
  void (*gelu)(const UnaryArgs&, Range rows) noexcept;        // the tanh form: docs/numerics.md
  void (*erf_geglu)(const BinaryArgs&, Range rows) noexcept;  // the same two with erf
  void (*erf_gelu)(const UnaryArgs&, Range rows) noexcept;
  void (*soft_cap)(const UnaryArgs&, Range rows) noexcept;         // y = cap * tanh(x / cap)
  void (*delta_rule)(const DeltaRuleArgs&, Range rows) noexcept;   // at least one row
  void (*rwkv_rule)(const RwkvRuleArgs&, Range rows) noexcept;     // at least one row
  void (*sigmoid)(const UnaryArgs&, Range rows) noexcept;          // y = 1 / (1 + exp(-x))
  void (*exp)(const UnaryArgs&, Range rows) noexcept;              // y = exp(factor * x)
  void (*gate)(const BinaryArgs&, Range rows) noexcept;            // y = b * sigmoid(a)
  void (*clamped_swiglu)(const BinaryArgs&, Range rows) noexcept;  // docs/numerics.md
};

// ---- Attention ----

enum class KvElement : uint8_t { kBF16, kF32, kF16, kQ8_0 };
inline constexpr int kNumKvElements = 4;
inline constexpr int64_t kKvBlock = 32;        // tokens of a page
inline constexpr int64_t kKvStep = 64;         // tokens of a softmax step
inline constexpr int64_t kKvSegment = 512;     // tokens of a segment
inline constexpr int64_t kAttentionTile = 16;  // most tokens of a tile

// A page holds 32 consecutive slots of one layer, head after head; D even, at most 512. Slots not
// yet written hold any finite value.
//   bf16       keys [D / 2][32][2], values [16][D][2] (slot pairs interleaved)
//   f16, f32   keys [D][32], values [32][D]
//   Q8_0       W = D rounded up to 32; keys [W / 4][32][4], values [8][W][4]: q + 128 as uint8, 128
//              in channels beyond D; then f32 scales [W / 32][32], one for 32 channels of a slot
BAKESTONE_INLINE constexpr int64_t KvHeadBytes(KvElement element, int64_t head_dim) {
  if (element == KvElement::kQ8_0) return (head_dim + 31) / 32 * (32 + 4) * kKvBlock;
  return head_dim * kKvBlock * (element == KvElement::kF32 ? 4 : 2);
}
struct KvRun {  // rows [row_begin, row_end) are slots SlotOf of one sequence
  int64_t row_begin, row_end, first_slot;
  uint8_t* const* k_pages;  // [slots / 32], aligned to 64
  uint8_t* const* v_pages;
  int64_t slot_step =
      1;  // 0: all rows attend as the row of slot first_slot does; nothing is written
  int64_t last_slot = INT64_MAX;  // no row sees a later one, wherever its own would be
};
BAKESTONE_INLINE constexpr int64_t SlotOf(const KvRun& run, int64_t row) {
  return run.first_slot + run.slot_step * (row - run.row_begin);
}
BAKESTONE_INLINE constexpr int64_t LastVisibleSlot(const KvRun& run, int64_t row) {
  const int64_t slot = SlotOf(run, row);
  return slot < run.last_slot ? slot : run.last_slot;
}

struct WriteKvArgs {
  const float *k, *v;  // [T, k_stride], [T, v_stride]: kv_heads * D channels, keys already rotated
  int64_t k_stride, v_stride;
  int64_t kv_heads, head_dim;
  uint32_t* error;
};

// Row t attends to slots 0 .. its own of its run, or to the last `window` of them; of those, to
// what the run's last_slot leaves.
struct AttentionArgs {
  const float* q;  // [T, q_stride]: heads * D
  float* out;      // [T, out_stride]: heads * D
  int64_t q_stride, out_stride;
  int64_t heads, kv_heads, head_dim;  // heads a multiple of kv_heads
  float scale;                        // of q . k, 1 / sqrt(D)
  int64_t window = 0;                 // 0: no limit
  float soft_cap = 0;                 // c: scores become c * tanh(score / c); 0: as they are
  const float* sinks = nullptr;  // [heads]: a score beside the slots' that brings no value; or null
};

BAKESTONE_INLINE constexpr int64_t FirstVisibleSlot(const AttentionArgs& args, int64_t slot) {
  return args.window > 0 && slot >= args.window ? slot - args.window + 1 : 0;
}

BAKESTONE_INLINE constexpr int64_t AttentionScratchBytes(int64_t heads_per_kv, int64_t head_dim) {
  const int64_t rows = kAttentionTile * heads_per_kv, width = (head_dim + 31) / 32 * 32;
  return 4 * (rows * (3 * width + kKvStep + 12) + 512);
}

// What one row of a tile (row of the run x query head of the group, heads fastest) knows of one
// segment:
// acc [D rounded up to 16], then m and l.
BAKESTONE_INLINE constexpr int64_t AttentionPartialStride(int64_t head_dim) {
  return (head_dim + 15) / 16 * 16 + 16;
}

struct AttentionKernels {  // one for each KvElement
  // Rows of the step. Calls that run at the same time never write to the same page.
  void (*write)(const WriteKvArgs&, const KvRun&, Range rows) noexcept;
  // Rows [begin, end) of one run (at most kAttentionTile), the query heads of one key/value head.
  void (*tile)(const AttentionArgs&, const KvRun&, Range rows, int64_t kv_head,
               void* scratch) noexcept;
  // The same in two halves, with the same bits, so that threads can share one row: each segment by
  // itself (first slot segment * kKvSegment), then all that the rows see merged in order. partials:
  // [segments, rows * heads / kv_heads, AttentionPartialStride], from the first row's first segment
  // on.
  void (*segment)(const AttentionArgs&, const KvRun&, Range rows, int64_t kv_head, int64_t segment,
                  float* partial, void* scratch) noexcept;
  void (*merge)(const AttentionArgs&, const KvRun&, Range rows, int64_t kv_head,
                const float* partials, void* scratch) noexcept;
};

// ---- Encoding: f32 to the blocks of files ----

struct EncodeArgs {
  const float* x;  // [rows, k], finite, magnitudes below 2^15
  const float*
      importance;   // [k], above 0: what the error of a column's weights counts; null: all alike
  uint8_t* blocks;  // [rows, bytes of a row of k]; aligned to 2
  int64_t k;        // a multiple of the type's block
};

// Bytes depend on a row's x and importance only: not on the table, not on the split. By panel type,
// which names the type of the file's blocks here.
using EncodeRows = void (*)(const EncodeArgs&, Range rows) noexcept;
struct EncodeKernels {
  EncodeRows rows[kNumPanelTypes];
  // A few candidates in place of the search, for encoding while a model loads: five to twelve times
  // as fast, squared errors 4 to 13 % larger on normal weights. Takes no importance.
  EncodeRows fast[kNumPanelTypes];
};
// Raised when the bytes of `fast` change: part of what names weights that were made by it.
inline constexpr uint32_t kFastEncodeVersion = 1;

// ---- The table ----

struct ServeKernels {
  MatMulKernels matmul[kNumPanelTypes];
  DequantizeKernels dequantize[kNumPanelTypes];
  void (*adapter_row)(const AdapterRowArgs&, void* scratch) noexcept;
  RowKernels rows;
  AttentionKernels attention[kNumKvElements];
};

struct KernelTable {
  Isa isa;
  ServeKernels serve;
  TrainKernels train;
  EncodeKernels encode;
};

// "reference", "avx2", "avxvnni", "avx512", "amx", "neon", "neon_i8mm"
const char* IsaName(Isa isa);

// The fastest table this machine can run, or the one named; null or "": the fastest. Throws
// kInvalidArgument for a name that no table of this processor family has (those are listed),
// kUnsupported when the CPU lacks what the table needs (named). All that can run: AvailableKernels,
// kernels/isa.h.
const KernelTable& ChooseKernels(const char* isa_name);

}  // namespace bakestone
