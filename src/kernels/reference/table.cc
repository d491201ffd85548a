#include "kernels/reference/reference.h"
#include "kernels/serve_tables.h"

namespace bakestone {
namespace {

template <KvElement kElement>
constexpr void FillAttention(ServeKernels& t) {
  using Of = reference::AttentionOf<kElement>;
  t.attention[static_cast<int>(kElement)] = {Of::Write, Of::Attend, Of::Segment,
                                             reference::MergeSegments};
}

constexpr ServeKernels MakeTable() {
  using namespace reference;
  ServeKernels t{};
  for (MatMulKernels& kernels : t.matmul) kernels = {MatMul, MatMulExact};
  for (DequantizeKernels& kernels : t.dequantize) kernels = {DequantizeStrip, DequantizeRows};
  t.adapter_row = AdapterRow;
  t.rows = {{QuantizeInt8x32, QuantizeInt8x128, QuantizeBF16, QuantizeF32},
            RmsNorm,
            Rope,
            SwiGluRows,
            Add,
            ComputeSoftmaxStats,
            Softmax,
            LayerNorm,
            GeGluRows,
            GeluRows,
            ErfGeGluRows,
            ErfGeluRows,
            SoftCapRows,
            DeltaRule,
            RwkvRule,
            SigmoidRows,
            ExpRows,
            GateRows,
            ClampedSwiGluRows};
  FillAttention<KvElement::kBF16>(t);
  FillAttention<KvElement::kF32>(t);
  FillAttention<KvElement::kF16>(t);
  FillAttention<KvElement::kQ8_0>(t);
  return t;
}

}  // namespace

constexpr ServeKernels kServeReference = MakeTable();

}  // namespace bakestone
