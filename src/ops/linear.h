// Matrix products with packed weights: y[m, i] = sum over k of x[m, k] * W[i, k].
//
// The input rows are first put into the form that the panel's type wants (QuantizedRows holds
// several forms of the same rows, so q, k, v or gate, up share them), then any number of panels is
// multiplied in one parallel loop. Fused forms give the same bits as the separate ones.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/pack.h"
#include "ops/context.h"
#include "ops/lora.h"
#include "ops/quantized_rows.h"
#include "tensor/buffer.h"
#include "tensor/dtype.h"
#include "tensor/matrix_view.h"

namespace bakestone::ops {

// Owns a panel. Movable.
struct PackedMatrix {
  Buffer<uint8_t> storage;
  Panel panel{};
};

// Packs `rows` of a GGUF tensor (n rows of RowBytes(type, k)). row_map: panel row i is file row
// row_map[i] ([n], or empty for none). Throws kUnsupported for a type no matrix has, kOutOfMemory.
PackedMatrix Pack(ThreadPool& pool, DType type, const uint8_t* rows, int64_t n, int64_t k,
                  std::span<const int32_t> row_map = {});

// Packs into args.panel, which must outlive the result. args.k is a multiple of the type's block.
Panel Pack(ThreadPool& pool, const PackArgs& args);

// The form of activations that `type` takes at this precision.
ActType ActTypeFor(PanelType type, Precision precision);

// Puts x [rows, k] into `out` in the forms asked for. A NaN or infinity throws kInternal naming
// `what`.
void Quantize(Context& context, MatrixView<const float> x, std::span<const ActType> types,
              QuantizedRows& out, const char* what);

// RMS norm of x into the forms asked for, and into y [rows, k] too when it has data (it may be x).
// weight [k].
void RmsNormQuantize(Context& context, MatrixView<const float> x, std::span<const float> weight,
                     float eps, MatrixView<float> y, std::span<const ActType> types,
                     QuantizedRows& out, const char* what);

// The same with a layer norm; bias [k] or empty.
void LayerNormQuantize(Context& context, MatrixView<const float> x, std::span<const float> weight,
                       std::span<const float> bias, float eps, std::span<const ActType> types,
                       QuantizedRows& out, const char* what);

// gelu(gate) * up, by its tanh form, of rows [rows, k] into the forms asked for.
void GeGluQuantize(Context& context, MatrixView<const float> gate, MatrixView<const float> up,
                   std::span<const ActType> types, QuantizedRows& out, const char* what);

struct Product {
  Panel panel;
  const float* bias = nullptr;  // [n]
  MatrixView<float> y;          // [rows, n]
};

// All products of x in one parallel loop, then what adapters add to them. epilogue: kStore or kAdd.
void MatMul(Context& context, const QuantizedRows& x, std::span<const Product> products,
            Precision precision, Epilogue epilogue = Epilogue::kStore,
            std::span<const LoraRun> adapters = {});

// out row i = panel row ids[i], f32: embedding look-up. Every id is in [0, n).
void Embed(Context& context, const Panel& panel, std::span<const int32_t> ids,
           MatrixView<float> out);
// Panel rows [begin, begin + out.rows) as f32.
void DequantizeRows(const KernelTable& kernels, const Panel& panel, int64_t begin,
                    MatrixView<float> out);

}  // namespace bakestone::ops
