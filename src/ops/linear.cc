#include "ops/linear.h"

#include <algorithm>

#include "base/error.h"
#include "ops/product_jobs.h"

namespace bakestone::ops {
namespace {

// How rows are split: a few rows a unit in prefill, one when there is one.
int64_t RowGrain(int64_t rows, int threads) {
  return std::max<int64_t>(1, std::min<int64_t>(8, rows / (2 * threads)));
}

// Has `body(row, out)` make every row in y, or in scratch where y has no data, and puts it in the
// forms.
template <class Body>
void MakeRowsAndQuantize(Context& context, MatrixView<float> y, std::span<const ActType> types,
                         QuantizedRows& out, const Body& body) {
  const RowKernels& kernels = context.serve().rows;
  context.Reserve(out.k() * 4);
  const int64_t grain = RowGrain(out.rows(), context.pool().num_threads());
  context.pool().ParallelFor(out.rows(), grain, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t row = begin; row < end; ++row) {
      float* made =
          y.data != nullptr ? y.Row(row) : reinterpret_cast<float*>(context.scratch(thread));
      body(row, made);
      for (const ActType type : types) {
        const QuantizeArgs args{
            made, out.k(), out.form(type, row, 1), {0, out.k()}, context.error()};
        kernels.quantize[static_cast<int>(type)](args, {0, 1});
      }
    }
  });
}

}  // namespace

PackedMatrix Pack(ThreadPool& pool, DType type, const uint8_t* rows, int64_t n, int64_t k,
                  std::span<const int32_t> row_map) {
  const auto panel_type = PanelTypeOf(type);
  if (!panel_type) {
    Throw(ErrorCode::kUnsupported, "a matrix of type {}: expected a floating or quantized type",
          DTypeName(type));
  }
  RowBytes(type, k);  // throws where k is no multiple of the block
  BAKESTONE_CHECK(n > 0 && k > 0 && (row_map.empty() || static_cast<int64_t>(row_map.size()) == n));
  PackedMatrix out;
  out.storage = Buffer<uint8_t>(PanelBytes(*panel_type, n, k));
  out.panel = Pack(pool, {*panel_type, rows, n, k, row_map.empty() ? nullptr : row_map.data(),
                          out.storage.data()});
  return out;
}

Panel Pack(ThreadPool& pool, const PackArgs& args) {
  pool.ParallelFor(NumStrips(args.n), 4,
                   [&](int64_t begin, int64_t end, int) { PackStrips(args, {begin, end}); });
  return {args.panel, args.n, args.k, args.type};
}

ActType ActTypeFor(PanelType type, Precision precision) {
  return precision == Precision::kExact ? ActType::kF32 : ActTypeOf(type);
}

void Quantize(Context& context, MatrixView<const float> x, std::span<const ActType> types,
              QuantizedRows& out, const char* what) {
  out.Reset(types, x.rows, x.cols);
  const int64_t grain = RowGrain(x.rows, context.pool().num_threads());
  for (const ActType type : types) {
    const QuantizeArgs args{x.data, x.stride, out.form(type), {0, x.cols}, context.error()};
    const auto kernel = context.serve().rows.quantize[static_cast<int>(type)];
    context.pool().ParallelFor(
        x.rows, grain, [&](int64_t begin, int64_t end, int) { kernel(args, {begin, end}); });
  }
  context.ThrowIfError(what);
}

void RmsNormQuantize(Context& context, MatrixView<const float> x, std::span<const float> weight,
                     float eps, MatrixView<float> y, std::span<const ActType> types,
                     QuantizedRows& out, const char* what) {
  BAKESTONE_CHECK(static_cast<int64_t>(weight.size()) == x.cols);
  BAKESTONE_CHECK(y.data == nullptr || (y.rows == x.rows && y.cols == x.cols));
  out.Reset(types, x.rows, x.cols);
  const RowKernels& kernels = context.serve().rows;
  MakeRowsAndQuantize(context, y, types, out, [&](int64_t row, float* made) {
    kernels.rms_norm({x.Row(row), x.stride, weight.data(), eps, made, x.cols, x.cols}, {0, 1});
  });
  context.ThrowIfError(what);
}

void LayerNormQuantize(Context& context, MatrixView<const float> x, std::span<const float> weight,
                       std::span<const float> bias, float eps, std::span<const ActType> types,
                       QuantizedRows& out, const char* what) {
  BAKESTONE_CHECK(static_cast<int64_t>(weight.size()) == x.cols);
  BAKESTONE_CHECK(bias.empty() || bias.size() == weight.size());
  out.Reset(types, x.rows, x.cols);
  const float* shift = bias.empty() ? nullptr : bias.data();
  const RowKernels& kernels = context.serve().rows;
  MakeRowsAndQuantize(context, {}, types, out, [&](int64_t row, float* made) {
    kernels.layer_norm({x.Row(row), x.stride, weight.data(), shift, eps, made, x.cols, x.cols},
                       {0, 1});
  });
  context.ThrowIfError(what);
}

void GeGluQuantize(Context& context, MatrixView<const float> gate, MatrixView<const float> up,
                   std::span<const ActType> types, QuantizedRows& out, const char* what) {
  BAKESTONE_CHECK(gate.rows == up.rows && gate.cols == up.cols);
  out.Reset(types, gate.rows, gate.cols);
  const RowKernels& kernels = context.serve().rows;
  MakeRowsAndQuantize(context, {}, types, out, [&](int64_t row, float* made) {
    kernels.geglu({gate.Row(row), up.Row(row), made, 0, 0, 0, gate.cols}, {0, 1});
  });
  context.ThrowIfError(what);
}

void MatMul(Context& context, const QuantizedRows& x, std::span<const Product> products,
            Precision precision, Epilogue epilogue, std::span<const LoraRun> adapters) {
  BAKESTONE_CHECK(epilogue == Epilogue::kStore || epilogue == Epilogue::kAdd);
  constexpr size_t kMaxProducts = 8;
  BAKESTONE_CHECK(products.size() <= kMaxProducts);
  ProductJob jobs[kMaxProducts];
  int64_t units = 0;
  for (size_t i = 0; i < products.size(); ++i) {
    const Product& p = products[i];
    BAKESTONE_CHECK(p.panel.k == x.k() && p.y.rows == x.rows() && p.y.cols == p.panel.n);
    jobs[i].args = {x.form(ActTypeFor(p.panel.type, precision)),
                    p.panel,
                    {},
                    p.bias,
                    p.y.data,
                    p.y.stride,
                    epilogue,
                    1.0f};
    jobs[i].run = ProductKernel(context, p.panel, precision);
    jobs[i].first_unit = units;
    units += NumUnits(p.panel);
  }
  ShowJobs(context.watcher(), {jobs, products.size()});
  if (x.rows() == 0) return;
  LoraTerms terms(context, x, adapters, precision);
  context.Reserve(std::max(MatMulScratchBytes(x.k()), terms.scratch_bytes()));
  const int64_t grain = UnitGrain(units, x.rows(), context.pool().num_threads());
  ForPartsAndUnits(context.pool(), x.rows(), units, grain,
                   [&](Range rows, int64_t begin, int64_t end, int thread) {
                     for (size_t i = 0; i < products.size(); ++i) {
                       const Range strips = StripsOf(jobs[i], {begin, end});
                       if (strips.begin >= strips.end) continue;
                       MatMulArgs args = RowsOf(jobs[i].args, rows);
                       const Range outputs{strips.begin * kStripRows,
                                           std::min(strips.end * kStripRows, args.panel.n)};
                       args.read_next = terms.Reads(static_cast<int64_t>(i), outputs, rows, thread);
                       jobs[i].run(args, strips, context.scratch(thread));
                       terms.Add(static_cast<int64_t>(i), outputs, rows, args.y + outputs.begin,
                                 args.y_stride, context.scratch(thread));
                     }
                   });
}

void Embed(Context& context, const Panel& panel, std::span<const int32_t> ids,
           MatrixView<float> out) {
  BAKESTONE_CHECK(out.rows == static_cast<int64_t>(ids.size()) && out.cols == panel.k);
  for (const int32_t id : ids) BAKESTONE_CHECK(id >= 0 && id < panel.n);
  const DequantizeKernels& kernels = context.serve().dequantize[static_cast<int>(panel.type)];
  context.pool().ParallelFor(out.rows, RowGrain(out.rows, context.pool().num_threads()),
                             [&](int64_t begin, int64_t end, int) {
                               kernels.rows(panel, ids.data() + begin, end - begin, out.Row(begin),
                                            out.stride);
                             });
}

void DequantizeRows(const KernelTable& kernels, const Panel& panel, int64_t begin,
                    MatrixView<float> out) {
  BAKESTONE_CHECK(begin >= 0 && begin + out.rows <= panel.n && out.cols == panel.k);
  for (int64_t i = 0; i < out.rows; ++i) {
    const auto row = static_cast<int32_t>(begin + i);
    kernels.serve.dequantize[static_cast<int>(panel.type)].rows(panel, &row, 1, out.Row(i),
                                                                out.stride);
  }
}

}  // namespace bakestone::ops
