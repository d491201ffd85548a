// The serving half of a table, filled from one vector class: every entry, so that none is null.
#pragma once

#include "kernels/cpu/adapter_row.inl.h"
#include "kernels/cpu/attention_float.inl.h"
#include "kernels/cpu/attention_q8.inl.h"
#include "kernels/cpu/delta.inl.h"
#include "kernels/cpu/matmul_wide.inl.h"
#include "kernels/cpu/rows.inl.h"
#include "kernels/cpu/write_kv.inl.h"
#include "kernels/serve_tables.h"

namespace bakestone {
namespace {

template <class V, PanelType kType>
constexpr void FillType(ServeKernels& t) {
  constexpr int kIndex = static_cast<int>(kType);
  t.matmul[kIndex] = {MatMul<V, kType>, MatMulExact<V, kType>};
  t.dequantize[kIndex] = {DequantizeStrip<V, kType>, DequantizeRows<V, kType>};
}

template <class V, template <class> class Writer, template <class> class Pages>
constexpr void FillAttention(ServeKernels& t) {
  t.attention[static_cast<int>(Writer<V>::kElement)] = {
      WriteKv<V, Writer>, RunAttention<V, Pages>, RunSegment<V, Pages>, MergeSegments<V, PagesF32>};
}

template <class V>
constexpr ServeKernels MakeTable() {
  ServeKernels t{};
  FillType<V, PanelType::kF32>(t);
  FillType<V, PanelType::kF16>(t);
  FillType<V, PanelType::kBF16>(t);
  FillType<V, PanelType::kQ4_0>(t);
  FillType<V, PanelType::kQ4_1>(t);
  FillType<V, PanelType::kQ5_0>(t);
  FillType<V, PanelType::kQ5_1>(t);
  FillType<V, PanelType::kQ8_0>(t);
  FillType<V, PanelType::kQ2_K>(t);
  FillType<V, PanelType::kQ3_K>(t);
  FillType<V, PanelType::kQ4_K>(t);
  FillType<V, PanelType::kQ5_K>(t);
  FillType<V, PanelType::kQ6_K>(t);
  FillType<V, PanelType::kIQ4_NL>(t);
  FillType<V, PanelType::kIQ4_XS>(t);
  FillType<V, PanelType::kMXFP4>(t);
  t.adapter_row = AdapterRow<V>;
  t.rows = {
      {QuantizeInt8x32<V>, QuantizeInt8x128<V>, QuantizeFloat<V, true>, QuantizeFloat<V, false>},
      RmsNorm<V>,
      Rope<V>,
      Binary<V, SwiGlu<V>>,
      Binary<V, V::Add>,
      ComputeSoftmaxStats<V>,
      Softmax<V>,
      LayerNorm<V>,
      Binary<V, GeGlu<V>>,
      Unary<V, Plain<V, Gelu<V>>>,
      Binary<V, ErfGeGlu<V>>,
      Unary<V, Plain<V, ErfGelu<V>>>,
      Unary<V, SoftCap<V>>,
      DeltaRule<V>,
      RwkvRule<V>,
      Unary<V, Plain<V, Sigmoid<V>>>,
      Unary<V, ScaledExp<V>>,
      Binary<V, Gate<V>>,
      Binary<V, ClampedSwiGlu<V>>};
  FillAttention<V, WriterBF16, PagesBF16>(t);
  FillAttention<V, WriterF32, PagesF32>(t);
  FillAttention<V, WriterF16, PagesF16>(t);
  FillAttention<V, WriterQ8, PagesQ8>(t);
  return t;
}

}  // namespace
}  // namespace bakestone
