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

// Inner products of the rows of `panel` that begin at `first`.
MatMulArgs FirstProduct(const LoraRun& run, const Activations& x, const Panel& panel, int64_t first,
                        float* inner) {
  return {x, panel, {}, nullptr, inner + first, run.lora.a.n, Epilogue::kStore, 1.0f};
}

MatMulArgs SecondProduct(const LoraRun& run, const Activations& form, float* y) {
  return {form, run.lora.b, {}, nullptr, y, run.y.stride, Epilogue::kAddScaled, run.lora.scale};
}

// All inner products of a run, by one thread. room: scratch of the kernel; strip: of Widen.
void RunFirstProduct(decltype(MatMulKernels::run) kernel, const LoraRun& run, const Activations& x,
                     float* inner, uint8_t* room, uint8_t* strip) {
  const Panel whole = run.lora.a.whole();
  if (whole.n > 0) kernel(FirstProduct(run, x, whole, 0, inner), {0, NumStrips(whole.n)}, room);
  if (!run.lora.a.has_narrow()) return;
  kernel(FirstProduct(run, x, Widen(run.lora.a, strip), whole.n, inner), {0, 1}, room);
}

// Rows [row, row + rows) of a run.
struct Piece {
  const LoraRun* run;
  int64_t row, rows;
};

// What one thread needs for a piece of any of the runs.
struct PieceRoom {
  int64_t kernel = 0, strip = 0, floats = 0;  // bytes, bytes, floats of InnerFloats

  explicit PieceRoom(std::span<const LoraRun> runs) {
    for (const LoraRun& run : runs) {
      kernel = std::max(kernel, MatMulScratchBytes(std::max(run.lora.a.k, run.lora.b.k)));
      kernel = std::max(kernel, AdapterRowScratchBytes(run.lora.b.k));
      strip = std::max(strip, StripBytes(PanelType::kBF16, run.lora.a.k));
      floats = std::max(floats, InnerFloats(std::min(run.y.rows, kPieceRows), run.lora.a.n));
    }
    kernel = (kernel + 63) / 64 * 64;
  }
  int64_t bytes() const { return kernel + strip + 2 * floats * 4; }
};

void RunPiece(Context& context, const QuantizedRows& x, const Piece& piece, const PieceRoom& sizes,
              Precision precision, uint8_t* room) {
  const ActType type = LoraActType(precision);
  const LoraRun& run = *piece.run;
  const Activations in = x.form(type, run.begin + piece.row, piece.rows);
  if (piece.rows == 1) {
    const AdapterRowArgs args{
        in, run.lora.a.data, run.lora.b, run.lora.scale, run.y.Row(piece.row), context.error()};
    return context.serve().adapter_row(args, room);
  }
  auto* inner = reinterpret_cast<float*>(room + sizes.kernel + sizes.strip);
  const Activations form = InnerForm(type, inner + sizes.floats, piece.rows, run.lora.a.n);
  const auto kernel = ProductKernel(context, run.lora.b, precision);
  RunFirstProduct(kernel, run, in, inner, room, room + sizes.kernel);
  context.serve().rows.quantize[static_cast<int>(type)](
      {inner, run.lora.a.n, form, {0, form.k}, context.error()}, {0, piece.rows});
  kernel(SecondProduct(run, form, run.y.Row(piece.row)), {0, NumStrips(run.lora.b.n)}, room);
}

// Whole pieces of rows, each by one thread: many small products without a barrier between them. One
// at a time, as there is not much to do for a thread while the last ones are computed.
void RunPieces(Context& context, const QuantizedRows& x, std::span<const LoraRun> runs,
               int64_t count, Precision precision) {
  std::vector<Piece> pieces;
  pieces.reserve(static_cast<size_t>(count));
  for (const LoraRun& run : runs) {
    for (int64_t row = 0; row < run.y.rows; row += kPieceRows) {
      pieces.push_back({&run, row, std::min(kPieceRows, run.y.rows - row)});
    }
  }
  const PieceRoom sizes(runs);
  context.Reserve(sizes.bytes());
  context.pool().ParallelFor(count, 1, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t i = begin; i < end; ++i) {
      RunPiece(context, x, pieces[static_cast<size_t>(i)], sizes, precision,
               context.scratch(thread));
    }
  });
}

// Few of them: the outputs of each product are split.
void RunWhole(Context& context, const QuantizedRows& x, std::span<const LoraRun> runs,
              Precision precision) {
  const ActType type = LoraActType(precision);
  int64_t floats = 0, most_rows = 0, most_k = 0, strips = 0;
  for (const LoraRun& run : runs) {
    floats += InnerFloats(run.y.rows, run.lora.a.n);
    if (run.lora.a.has_narrow()) strips += StripBytes(PanelType::kBF16, run.lora.a.k);
    most_rows = std::max(most_rows, run.y.rows);
    most_k = std::max({most_k, run.lora.a.k, run.lora.b.k});
  }
  Buffer<float>& room = context.lora();
  if (room.size() < 2 * floats + strips / 4) room = Buffer<float>(2 * floats + strips / 4);
  auto* strip = reinterpret_cast<uint8_t*>(room.data() + 2 * floats);
  std::vector<ProductJob> first, second;
  std::vector<QuantizeArgs> forms;
  int64_t first_units = 0, second_units = 0, at = 0;
  for (const LoraRun& run : runs) {
    float* inner = room.data() + at;
    const Activations form = InnerForm(type, inner + floats, run.y.rows, run.lora.a.n);
    const Activations rows = x.form(type, run.begin, run.y.rows);
    const auto kernel = ProductKernel(context, run.lora.b, precision);
    const auto add_first = [&](const Panel& panel, int64_t begin) {
      first.push_back({FirstProduct(run, rows, panel, begin, inner), kernel, first_units});
      first_units += NumUnits(panel);
    };
    if (run.lora.a.whole_rows() > 0) add_first(run.lora.a.whole(), 0);
    if (run.lora.a.has_narrow()) {
      add_first(Widen(run.lora.a, strip), run.lora.a.whole_rows());
      strip += StripBytes(PanelType::kBF16, run.lora.a.k);
    }
    forms.push_back({inner, run.lora.a.n, form, {0, form.k}, context.error()});
    second.push_back({SecondProduct(run, form, run.y.data), kernel, second_units});
    second_units += NumUnits(run.lora.b);
    at += InnerFloats(run.y.rows, run.lora.a.n);
  }
  RunProductJobs(context, first, first_units, most_rows, most_k);
  const auto quantize = context.serve().rows.quantize[static_cast<int>(type)];
  context.pool().ParallelFor(most_rows, 0, [&](int64_t begin, int64_t end, int) {
    for (const QuantizeArgs& args : forms) {
      const Range rows{begin, std::min(end, args.out.rows)};
      if (rows.begin < rows.end) quantize(args, rows);
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
    BAKESTONE_CHECK(lora.b.type == PanelType::kBF16);
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
