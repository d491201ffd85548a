#include "ops/lora.h"

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "ops/linear.h"
#include "ops/product_jobs.h"

namespace bakestone::ops {
namespace {

// Rows of a run that one thread computes from x to y: enough that its panels are worth reading
// again.
constexpr int64_t kPieceRows = 64;

// Floats of `rows` inner products and of their form as the second product's input, each.
int64_t InnerFloats(int64_t rows, int64_t rank) { return rows * ((rank + 63) / 64 * 64); }

Activations InnerForm(ActType type, float* data, int64_t rows, int64_t rank) {
  return {type, rows, rank, InnerFloats(1, rank), nullptr, data, nullptr, nullptr, nullptr};
}

MatMulArgs FirstProduct(const LoraRun& run, const Activations& x, float* inner) {
  return {x, run.lora.a, {}, nullptr, inner, run.lora.a.n, Epilogue::kStore, 1.0f};
}

MatMulArgs SecondProduct(const LoraRun& run, const Activations& form, float* y) {
  return {form, run.lora.b, {}, nullptr, y, run.y.stride, Epilogue::kAddScaled, run.lora.scale};
}

// Whole pieces of rows, each by one thread: many small products without a barrier between them.
void RunPieces(Context& context, const QuantizedRows& x, std::span<const LoraRun> runs,
               int64_t pieces, Precision precision) {
  const ActType type = LoraActType(precision);
  int64_t scratch = 0, floats = 0;
  for (const LoraRun& run : runs) {
    scratch = std::max(scratch, MatMulScratchBytes(std::max(run.lora.a.k, run.lora.b.k)));
    floats = std::max(floats, InnerFloats(std::min(run.y.rows, kPieceRows), run.lora.a.n));
  }
  scratch = (scratch + 63) / 64 * 64;
  context.Reserve(scratch + 2 * floats * 4);
  const auto quantize = context.serve().rows.quantize[static_cast<int>(type)];
  context.pool().ParallelFor(
      pieces, std::max<int64_t>(1, pieces / (4 * context.pool().num_threads())),
      [&](int64_t begin, int64_t end, int thread) {
        uint8_t* room = context.scratch(thread);
        auto* inner = reinterpret_cast<float*>(room + scratch);
        int64_t first = 0;  // piece of the run
        for (const LoraRun& run : runs) {
          const int64_t count = (run.y.rows + kPieceRows - 1) / kPieceRows;
          for (int64_t piece = std::max(begin - first, int64_t{0});
               piece < std::min(end - first, count); ++piece) {
            const int64_t row = piece * kPieceRows, rows = std::min(kPieceRows, run.y.rows - row);
            const Activations form = InnerForm(type, inner + floats, rows, run.lora.a.n);
            const auto kernel = ProductKernel(context, run.lora.a, precision);
            kernel(FirstProduct(run, x.form(type, run.begin + row, rows), inner),
                   {0, NumStrips(run.lora.a.n)}, room);
            quantize({inner, run.lora.a.n, form, context.error()}, {0, rows});
            kernel(SecondProduct(run, form, run.y.Row(row)), {0, NumStrips(run.lora.b.n)}, room);
          }
          first += count;
          if (first >= end) return;
        }
      });
}

// Few of them: the outputs of each product are split.
void RunWhole(Context& context, const QuantizedRows& x, std::span<const LoraRun> runs,
              Precision precision) {
  const ActType type = LoraActType(precision);
  int64_t floats = 0, most_rows = 0, most_k = 0;
  for (const LoraRun& run : runs) {
    floats += InnerFloats(run.y.rows, run.lora.a.n);
    most_rows = std::max(most_rows, run.y.rows);
    most_k = std::max({most_k, run.lora.a.k, run.lora.b.k});
  }
  Buffer<float>& room = context.lora();
  if (room.size() < 2 * floats) room = Buffer<float>(2 * floats);
  std::vector<ProductJob> first, second;
  int64_t first_units = 0, second_units = 0, at = 0;
  for (const LoraRun& run : runs) {
    float* inner = room.data() + at;
    const Activations form = InnerForm(type, inner + floats, run.y.rows, run.lora.a.n);
    const auto kernel = ProductKernel(context, run.lora.a, precision);
    first.push_back(
        {FirstProduct(run, x.form(type, run.begin, run.y.rows), inner), kernel, first_units});
    second.push_back({SecondProduct(run, form, run.y.data), kernel, second_units});
    first_units += NumUnits(run.lora.a);
    second_units += NumUnits(run.lora.b);
    at += InnerFloats(run.y.rows, run.lora.a.n);
  }
  RunProductJobs(context, first, first_units, most_rows, most_k);
  const auto quantize = context.serve().rows.quantize[static_cast<int>(type)];
  context.pool().ParallelFor(most_rows, 0, [&](int64_t begin, int64_t end, int) {
    for (size_t i = 0; i < runs.size(); ++i) {
      const Range rows{begin, std::min(end, runs[i].y.rows)};
      if (rows.begin < rows.end) {
        quantize({first[i].args.y, first[i].args.y_stride, second[i].args.x, context.error()},
                 rows);
      }
    }
  });
  RunProductJobs(context, second, second_units, most_rows, most_k);
}

}  // namespace

ActType LoraActType(Precision precision) { return ActTypeFor(PanelType::kBF16, precision); }

void Lora(Context& context, const QuantizedRows& x, std::span<const LoraRun> runs,
          Precision precision) {
  int64_t pieces = 0;
  for (const LoraRun& run : runs) {
    const LoraPanels& lora = run.lora;
    BAKESTONE_CHECK(lora.a.type == PanelType::kBF16 && lora.b.type == PanelType::kBF16);
    BAKESTONE_CHECK(lora.a.k == x.k() && lora.b.k == lora.a.n && run.y.cols == lora.b.n);
    BAKESTONE_CHECK(run.begin >= 0 && run.begin + run.y.rows <= x.rows());
    pieces += (run.y.rows + kPieceRows - 1) / kPieceRows;
  }
  if (pieces == 0) return;
  if (pieces >= 2 * context.pool().num_threads()) {
    RunPieces(context, x, runs, pieces, precision);
  } else {
    RunWhole(context, x, runs, precision);
  }
  context.ThrowIfError("the inner product of an adapter");
}

}  // namespace bakestone::ops
