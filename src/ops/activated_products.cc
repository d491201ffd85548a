#include "ops/activated_products.h"

#include <algorithm>

#include "base/error.h"
#include "ops/product_jobs.h"

namespace bakestone::ops {
namespace {

bool IsGated(Activation activation) {
  return activation != Activation::kGelu && activation != Activation::kErfGelu;
}

// y = activation(y, up), or of y alone.
void Activate(const RowKernels& kernels, Activation activation, float* y, const float* up,
              int64_t stride, int64_t rows, int64_t cols) {
  const BinaryArgs two{y, up, y, stride, stride, stride, cols};
  const UnaryArgs one{y, y, stride, stride, cols, 0};
  switch (activation) {
    case Activation::kSwiGlu:
      return kernels.swiglu(two, {0, rows});
    case Activation::kGeGlu:
      return kernels.geglu(two, {0, rows});
    case Activation::kErfGeGlu:
      return kernels.erf_geglu(two, {0, rows});
    case Activation::kGelu:
      return kernels.gelu(one, {0, rows});
    case Activation::kErfGelu:
      return kernels.erf_gelu(one, {0, rows});
  }
}

// Columns of an activation that one thread makes and quantizes at a time, while they are in its
// cache: whole groups of every form.
int64_t ActivatedWidth(const Panel& gate, std::span<const ActType> types, int64_t rows,
                       int threads) {
  constexpr int64_t kUnit = 2 * kStripRows;  // also a group of kInt8x32
  const int64_t width = kUnit * UnitGrain(NumUnits(gate), rows, threads);
  const bool super = std::find(types.begin(), types.end(), ActType::kInt8x128) != types.end();
  return super ? (width + 255) / 256 * 256 : width;
}

}  // namespace

void MatMulActivateQuantize(Context& context, const QuantizedRows& x,
                            const ActivatedProducts& products, Precision precision,
                            std::span<const LoraRun> adapters, std::span<const ActType> types,
                            QuantizedRows& out, const char* what) {
  const Panel &first = products.first.panel, &up = products.up.panel;
  const bool gated = IsGated(products.activation);
  BAKESTONE_CHECK(first.k == x.k() && gated == (up.data != nullptr));
  BAKESTONE_CHECK(!gated || (first.n == up.n && first.k == up.k));
  BAKESTONE_CHECK(&out != &x);
  out.Reset(types, x.rows(), first.n);
  if (x.rows() == 0) return;
  LoraTerms terms(context, x, adapters, precision);
  const bool fused = products.activation == Activation::kSwiGlu && first.type == up.type &&
                     terms.empty() && products.first.bias == nullptr && products.up.bias == nullptr;
  const auto job = [&](const Product& product) {
    return ProductJob{{x.form(ActTypeFor(product.panel.type, precision)),
                       product.panel,
                       {},
                       product.bias,
                       nullptr,
                       0,
                       Epilogue::kStore,
                       1.0f},
                      ProductKernel(context, product.panel, precision),
                      0};
  };
  ProductJob jobs[2] = {job(products.first), gated ? job(products.up) : ProductJob{}};
  ShowJobs(context.watcher(), {jobs, gated ? size_t{2} : size_t{1}});
  if (fused) jobs[0].args.epilogue = Epilogue::kSwiGlu;
  const int64_t matrices = gated && !fused ? 2 : 1;
  const int threads = context.pool().num_threads();
  const int64_t width = ActivatedWidth(first, types, x.rows(), threads);
  const int64_t most = std::min(x.rows(), kRowsUnpackedFor);  // at a time
  const int64_t product_bytes =
      (std::max(MatMulScratchBytes(x.k()), terms.scratch_bytes()) + 63) / 64 * 64;
  context.Reserve(product_bytes + matrices * most * width * 4);
  const int64_t units = (first.n + width - 1) / width;
  const auto make = [&](Range rows, Range columns, int thread) {
    uint8_t* scratch = context.scratch(thread);
    auto* y = reinterpret_cast<float*>(scratch + product_bytes);
    for (int64_t i = 0; i < matrices; ++i) {
      MatMulArgs part = RowsOf(jobs[i].args, rows);
      part.panel = PartOf(part.panel, columns);
      if (fused) part.up = PartOf(up, columns);
      if (part.bias != nullptr) part.bias += columns.begin;
      part.y = y + i * most * width;
      part.y_stride = width;
      part.read_next = terms.Reads(i, columns, rows, thread);
      jobs[i].run(part, {0, NumStrips(part.panel.n)}, scratch);
      terms.Add(i, columns, rows, part.y, width, scratch);
    }
    const int64_t count = rows.end - rows.begin;
    if (!fused) {
      Activate(context.serve().rows, products.activation, y, y + most * width, width, count,
               columns.end - columns.begin);
    }
    for (const ActType type : types) {
      const QuantizeArgs quantize{y, width, out.form(type, rows.begin, count), columns,
                                  context.error()};
      context.serve().rows.quantize[static_cast<int>(type)](quantize, {0, count});
    }
  };
  ForPartsAndUnits(context.pool(), x.rows(), units, 1,
                   [&](Range rows, int64_t begin, int64_t end, int thread) {
                     for (int64_t unit = begin; unit < end; ++unit) {
                       const Range columns{unit * width, std::min((unit + 1) * width, first.n)};
                       for (int64_t row = rows.begin; row < rows.end; row += most) {
                         make({row, std::min(row + most, rows.end)}, columns, thread);
                       }
                     }
                   });
  context.ThrowIfError(what);
}

}  // namespace bakestone::ops
