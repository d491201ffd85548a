#include "kernels/reference/reference.h"
#include "kernels/serve_tables.h"

namespace bakestone {
namespace {

constexpr ServeKernels MakeTable() {
  using namespace reference;
  ServeKernels t{};
  for (MatMulKernels& kernels : t.matmul) kernels = {MatMul, MatMulExact};
  for (DequantizeKernels& kernels : t.dequantize) kernels = {DequantizeStrip, DequantizeRows};
  t.rows = {{QuantizeInt8x32, QuantizeInt8x128, QuantizeBF16, QuantizeF32},
            RmsNorm,
            Rope,
            SwiGluRows,
            Add,
            ComputeSoftmaxStats,
            Softmax};
  t.attention[static_cast<int>(KvElement::kBF16)] = {WriteKvBF16, AttentionBF16, SegmentBF16,
                                                     MergeSegments};
  t.attention[static_cast<int>(KvElement::kF32)] = {WriteKvF32, AttentionF32, SegmentF32,
                                                    MergeSegments};
  return t;
}

}  // namespace

constexpr ServeKernels kServeReference = MakeTable();

}  // namespace bakestone
