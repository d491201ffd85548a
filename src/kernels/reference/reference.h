// The reference table: plain scalar C++ that states what every other table must compute, bit for
// bit. Written to be read beside docs/numerics.md, independent of the vector templates; it also
// serves machines that have no faster table.
#pragma once

#include "kernels/kernel_table.h"

namespace bakestone::reference {

// Sum of a virtual vector of 16 lanes: halves added until one is left.
float TreeSum(const float lanes[16]) noexcept;
// To bf16 and back, magnitudes below 2^-50 to zero.
float RoundBF16(float x) noexcept;
bool IsFinite(float x) noexcept;
void SetError(uint32_t* error, uint32_t bit) noexcept;
float SwiGlu(float gate, float up) noexcept;
float Gelu(float x) noexcept;
// One scale over n values: q = RNE(x * (127 / amax)), d = amax / 127; amax below 2^-100 gives
// zeros.
float QuantizeGroup(const float* x, int64_t n, int8_t* q, uint32_t* error) noexcept;

// matmul.cc
void MatMul(const MatMulArgs& args, Range strips, void* scratch) noexcept;
void MatMulExact(const MatMulArgs& args, Range strips, void* scratch) noexcept;
void AdapterRow(const AdapterRowArgs& args, void* scratch) noexcept;
void DequantizeStrip(const Panel& panel, int64_t strip, int64_t k0, int64_t k1,
                     float* out) noexcept;
void DequantizeRows(const Panel& panel, const int32_t* rows, int64_t count, float* out,
                    int64_t stride) noexcept;
// rows.cc
void QuantizeInt8x32(const QuantizeArgs& args, Range rows) noexcept;
void QuantizeInt8x128(const QuantizeArgs& args, Range rows) noexcept;
void QuantizeBF16(const QuantizeArgs& args, Range rows) noexcept;
void QuantizeF32(const QuantizeArgs& args, Range rows) noexcept;
void RmsNorm(const RmsNormArgs& args, Range rows) noexcept;
void Rope(const RopeArgs& args, Range rows) noexcept;
void SwiGluRows(const BinaryArgs& args, Range rows) noexcept;
void Add(const BinaryArgs& args, Range rows) noexcept;
void ComputeSoftmaxStats(const float* x, int64_t stride, int64_t k, SoftmaxStats* stats,
                         Range rows) noexcept;
void LayerNorm(const LayerNormArgs& args, Range rows) noexcept;
void GeGluRows(const BinaryArgs& args, Range rows) noexcept;
void GeluRows(const UnaryArgs& args, Range rows) noexcept;
void ErfGeGluRows(const BinaryArgs& args, Range rows) noexcept;
void ErfGeluRows(const UnaryArgs& args, Range rows) noexcept;
void SigmoidRows(const UnaryArgs& args, Range rows) noexcept;
void ExpRows(const UnaryArgs& args, Range rows) noexcept;
void GateRows(const BinaryArgs& args, Range rows) noexcept;
void ClampedSwiGluRows(const BinaryArgs& args, Range rows) noexcept;
void SoftCapRows(const UnaryArgs& args, Range rows) noexcept;
void Softmax(const float* x, int64_t k, SoftmaxStats stats, float* y) noexcept;
// delta.cc
void DeltaRule(const DeltaRuleArgs& args, Range rows) noexcept;
void RwkvRule(const RwkvRuleArgs& args, Range rows) noexcept;
// attention.cc
template <KvElement kElement>
struct AttentionOf {
  static void Write(const WriteKvArgs& args, const KvRun& run, Range rows) noexcept;
  static void Attend(const AttentionArgs& args, const KvRun& run, Range rows, int64_t kv_head,
                     void* scratch) noexcept;
  static void Segment(const AttentionArgs& args, const KvRun& run, Range rows, int64_t kv_head,
                      int64_t segment, float* partial, void* scratch) noexcept;
};
void MergeSegments(const AttentionArgs& args, const KvRun& run, Range rows, int64_t kv_head,
                   const float* partials, void* scratch) noexcept;

}  // namespace bakestone::reference
