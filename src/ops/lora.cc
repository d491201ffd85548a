#include "ops/lora.h"

#include <algorithm>

#include "base/error.h"
#include "ops/linear.h"
#include "ops/product_jobs.h"

namespace bakestone::ops {
namespace {

// Rows of a run whose inner products one thread computes at a time: many share what is read of A,
// but there should be work for every thread.
int64_t PieceRows(std::span<const LoraRun> runs, int threads) {
  constexpr int64_t kLeast = 16, kMost = 64;
  int64_t rows = 0;
  for (const LoraRun& run : runs) rows += run.rows.end - run.rows.begin;
  return std::clamp(rows / (4 * threads) / kLeast * kLeast, kLeast, kMost);
}

// Floats of a row of inner products.
int64_t StrideOf(const LoraRun& run) { return (run.lora->a.n + 63) / 64 * 64; }

// Whether `next` is multiplied like `run`, and lies behind it so that both are one panel.
bool GoOn(const LoraRun& run, const LoraRun& next) {
  const NarrowPanel &a = run.lora->a, &b = next.lora->a;
  return !a.has_narrow() && !b.has_narrow() && a.k == b.k &&
         b.data == a.data + NarrowPanelBytes(a.n, a.k) && run.rows.begin == next.rows.begin &&
         run.rows.end == next.rows.end;
}

}  // namespace

ActType LoraActType(Precision precision) { return ActTypeFor(PanelType::kBF16, precision); }

// What one thread needs for a piece, in bytes.
struct LoraTerms::PieceRoom {
  int64_t kernel, strip, raw;

  PieceRoom(int64_t k, int64_t columns, int64_t rows)
      : kernel((std::max(MatMulScratchBytes(k), AdapterRowScratchBytes(columns)) + 63) / 64 * 64),
        strip(StripBytes(PanelType::kBF16, k)),
        raw(rows * columns * 4) {}
  int64_t bytes() const { return kernel + strip + raw; }
};

LoraTerms::LoraTerms(Context& context, const QuantizedRows& x, std::span<const LoraRun> runs,
                     Precision precision)
    : runs_(runs),
      type_(LoraActType(precision)),
      kernel_(ProductKernel(context, {nullptr, 0, 0, PanelType::kBF16, true}, precision)) {
  if (runs.empty()) return;
  int64_t floats = 0;
  for (const LoraRun& run : runs) {
    const LoraPanels& lora = *run.lora;
    BAKESTONE_CHECK(lora.b.type == PanelType::kBF16 && lora.b.flushed);
    BAKESTONE_CHECK(lora.a.k == x.k() && lora.b.k == lora.a.n);
    BAKESTONE_CHECK(run.rows.begin >= 0 && run.rows.begin <= run.rows.end &&
                    run.rows.end <= x.rows());
    floats += (run.rows.end - run.rows.begin) * StrideOf(run);
    scratch_bytes_ = std::max(scratch_bytes_, MatMulScratchBytes(lora.b.k));
  }
  inner_.reserve(runs.size());
  float* inner = context.ReserveInner(floats);
  for (const LoraRun& run : runs) {
    inner_.push_back(inner);
    inner += (run.rows.end - run.rows.begin) * StrideOf(run);
  }
  reads_.resize(static_cast<size_t>(context.pool().num_threads()) * runs.size());
  Multiply(context, x);
}

void LoraTerms::Multiply(Context& context, const QuantizedRows& x) {
  const int64_t most = PieceRows(runs_, context.pool().num_threads());
  std::vector<Piece> pieces;
  pieces.reserve(runs_.size());
  int64_t columns = 0;  // of any piece
  for (size_t i = 0, end; i < runs_.size(); i = end) {
    const int64_t rows = runs_[i].rows.end - runs_[i].rows.begin;
    int64_t n = runs_[i].lora->a.n;
    for (end = i + 1; rows > 1 && end < runs_.size() && GoOn(runs_[end - 1], runs_[end]); ++end) {
      n += runs_[end].lora->a.n;
    }
    columns = std::max(columns, n);
    for (int64_t row = 0; row < rows; row += most) {
      pieces.push_back({i, end, {row, std::min(row + most, rows)}});
    }
  }
  const PieceRoom room(x.k(), columns, most);
  context.Reserve(room.bytes());
  context.pool().ParallelFor(std::ssize(pieces), 1, [&](int64_t begin, int64_t end, int thread) {
    for (; begin < end; ++begin) {
      MultiplyPiece(context, x, pieces[static_cast<size_t>(begin)], room, context.scratch(thread));
    }
  });
  context.ThrowIfError("the inner product of an adapter");
}

void LoraTerms::MultiplyPiece(Context& context, const QuantizedRows& x, const Piece& piece,
                              const PieceRoom& room, uint8_t* scratch) const {
  const LoraRun& first = runs_[piece.begin];
  const int64_t rows = piece.rows.end - piece.rows.begin;
  const Activations in = x.form(type_, first.rows.begin + piece.rows.begin, rows);
  NarrowPanel a = first.lora->a;
  if (rows == 1) {
    return context.serve().adapter_row(
        {in, a.data, Inner(piece.begin, piece.rows), context.error()}, scratch);
  }
  for (size_t i = piece.begin + 1; i < piece.end; ++i) a.n += runs_[i].lora->a.n;
  auto* raw = reinterpret_cast<float*>(scratch + room.kernel + room.strip);
  const auto multiply = [&](const Panel& panel, int64_t from) {
    kernel_({in, panel, {}, nullptr, raw + from, a.n, Epilogue::kStore, 1.0f},
            {0, NumStrips(panel.n)}, scratch);
  };
  const Panel whole = a.whole();
  if (whole.n > 0) multiply(whole, 0);
  if (a.has_narrow()) multiply(Widen(a, scratch + room.kernel), whole.n);
  for (size_t i = piece.begin; i < piece.end; ++i) {
    const int64_t rank = runs_[i].lora->a.n;
    context.serve().rows.quantize[static_cast<int>(type_)](
        {raw, a.n, Inner(i, piece.rows), {0, rank}, context.error()}, {0, rows});
    raw += rank;
  }
}

Activations LoraTerms::Inner(size_t run, Range rows) const {
  const int64_t stride = StrideOf(runs_[run]);
  return {type_,
          rows.end - rows.begin,
          runs_[run].lora->a.n,
          stride,
          nullptr,
          inner_[run] + rows.begin * stride,
          nullptr,
          nullptr,
          nullptr};
}

ReadNext LoraTerms::Reads(int64_t product, Range outputs, Range rows, int thread) noexcept {
  Lines* parts = reads_.data() + thread * std::ssize(runs_);
  ReadNext next{parts, 0, 0};
  for (const LoraRun& run : runs_) {
    const bool read =
        run.product == product && run.rows.begin < rows.end && rows.begin < run.rows.end;
    if (!read) continue;
    const Panel part = PartOf(run.lora->b, outputs);
    parts[next.count] = {part.data, PanelBytes(part.type, part.n, part.k) / 64};
    next.lines += parts[next.count++].count;
  }
  return next;
}

void LoraTerms::Add(int64_t product, Range outputs, Range rows, float* y, int64_t stride,
                    void* scratch) const noexcept {
  for (size_t i = 0; i < runs_.size(); ++i) {
    const LoraRun& run = runs_[i];
    const Range own = {std::max(rows.begin, run.rows.begin), std::min(rows.end, run.rows.end)};
    if (run.product != product || own.begin >= own.end) continue;
    const Panel part = PartOf(run.lora->b, outputs);
    kernel_({Inner(i, {own.begin - run.rows.begin, own.end - run.rows.begin}),
             part,
             {},
             nullptr,
             y + (own.begin - rows.begin) * stride,
             stride,
             Epilogue::kAddScaled,
             run.lora->scale},
            {0, NumStrips(part.n)}, scratch);
  }
}

}  // namespace bakestone::ops
