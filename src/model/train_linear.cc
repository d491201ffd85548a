#include "model/train_linear.h"

#include <algorithm>
#include <array>

#include "ops/train_rows.h"

namespace bakestone {
namespace {

int64_t Even(int64_t rows) { return rows + rows % 2; }

void Reserve(Buffer<uint16_t>& buffer, int64_t size) {
  if (buffer.size() < size) buffer = Buffer<uint16_t>(size, Fill::kZero);
}

// s dz B of every pair, in bf16.
void PairsInner(const TrainKernels& kernels, ThreadPool& pool, const GroupShape& shape,
                const LoraGroup& lora, const uint16_t* dz, int64_t rows, LinearScratch& scratch) {
  const int64_t size = (rows + kTrainTileRows) * lora.r;
  for (Buffer<uint16_t>* buffer : {&scratch.d_xa, &scratch.xa_pairs, &scratch.d_xa_pairs}) {
    Reserve(*buffer, size);
  }
  for (size_t i = 0; i < static_cast<size_t>(shape.num_sites); ++i) {
    const LoraGroup::Part& part = lora.parts[i];
    if (part.rank == 0) continue;
    const int64_t out = shape.out_begin[i + 1] - shape.out_begin[i];
    TrainGemmArgs up{};
    up.segments[0] = {dz + shape.out_begin[i], shape.out, part.b_backward, out * kTrainLanes, out};
    up.num_segments = 1;
    up.store = TrainStore::kBF16;
    up.rows = rows;
    up.cols = ops::PadRank(part.rank);
    up.out = scratch.d_xa.data() + part.r_begin;
    up.out_stride = lora.r;
    up.column_scale = lora.scale + part.r_begin;
    ops::TrainGemm(kernels, pool, up);
  }
}

// Gradients of the pairs.
void PairsBackward(const TrainKernels& kernels, ThreadPool& pool, const GroupShape& shape,
                   const LoraGroup& lora, const uint16_t* dz, const LinearBackward& args,
                   LinearScratch& scratch) {
  ops::PackOuter(kernels, pool, args.xa, args.rows, lora.r, scratch.xa_pairs.data());
  ops::PackOuter(kernels, pool, scratch.d_xa.data(), args.rows, lora.r, scratch.d_xa_pairs.data());
  const int64_t even = Even(args.rows);
  for (size_t i = 0; i < static_cast<size_t>(shape.num_sites); ++i) {
    const LoraSlot* slot = args.slots[i];
    if (slot == nullptr) continue;
    const int64_t first = lora.parts[i].r_begin * even;
    ops::TrainOuter(kernels, pool,
                    {.s = scratch.xa_pairs.data() + first,
                     .s_panel_stride = even * kTrainLanes,
                     .z = dz + shape.out_begin[i],
                     .z_stride = shape.out,
                     .rows = args.rows,
                     .r = slot->rank,
                     .cols = slot->out,
                     .out = args.gradients + slot->b_offset,
                     .out_row_stride = 1,
                     .out_col_stride = slot->rank});
    ops::TrainOuter(kernels, pool,
                    {.s = scratch.d_xa_pairs.data() + first,
                     .s_panel_stride = even * kTrainLanes,
                     .z = args.x,
                     .z_stride = shape.in,
                     .rows = args.rows,
                     .r = slot->rank,
                     .cols = slot->in,
                     .out = args.gradients + slot->a_offset,
                     .out_row_stride = slot->in,
                     .out_col_stride = 1});
  }
}

// Gradients of the magnitudes; returns dz.
const uint16_t* MagnitudeBackward(const TrainKernels& kernels, ThreadPool& pool,
                                  const GroupShape& shape, const LoraGroup& lora,
                                  const LinearBackward& args, LinearScratch& scratch) {
  for (size_t i = 0; i < static_cast<size_t>(shape.num_sites); ++i) {
    const LoraSlot* slot = args.slots[i];
    if (slot == nullptr) continue;
    const int64_t first = shape.out_begin[i];
    ops::TrainColumnDot(kernels, pool,
                        {.a = nullptr,
                         .a_bf16 = args.dy + first,
                         .a_stride = shape.out,
                         .b = args.y + first,
                         .b_stride = shape.out,
                         .factor = lora.inverse_magnitude + first,
                         .rows = args.rows,
                         .sums = args.gradients + slot->magnitude_offset},
                        slot->out);
  }
  Reserve(scratch.dz, (args.rows + kTrainTileRows) * shape.out);
  ops::TrainScaleRows(kernels, pool, args.dy, lora.output_scale, nullptr, args.rows, shape.out,
                      scratch.dz.data());
  return scratch.dz.data();
}

void MatricesBackward(const TrainKernels& kernels, ThreadPool& pool, const GroupShape& shape,
                      const LinearBackward& args, LinearScratch& scratch) {
  bool packed = false;
  for (size_t i = 0; i < static_cast<size_t>(shape.num_sites); ++i) {
    const MatrixSlot* slot = args.matrices[i];
    if (slot == nullptr) continue;
    if (!packed) PackRowPairs(kernels, pool, args.x, args.rows, shape.in, scratch.x_pairs);
    packed = true;
    AddMatrixGradient(kernels, pool,
                      {.dy = args.dy,
                       .dy_stride = shape.out,
                       .first = shape.out_begin[i],
                       .cols = slot->out,
                       .x_pairs = scratch.x_pairs.data(),
                       .in = shape.in,
                       .rows = args.rows,
                       .out = args.gradients + slot->offset},
                      scratch.dy_columns);
    if (slot->bias_offset < 0) continue;
    ops::TrainColumnDot(kernels, pool,
                        {.a = nullptr,
                         .a_bf16 = args.dy + shape.out_begin[i],
                         .a_stride = shape.out,
                         .b = nullptr,
                         .b_stride = 0,
                         .factor = nullptr,
                         .rows = args.rows,
                         .sums = args.gradients + slot->bias_offset},
                        slot->out);
  }
}

}  // namespace

int64_t LinearScratch::bytes() const noexcept {
  return d_xa.bytes() + xa_pairs.bytes() + d_xa_pairs.bytes() + dz.bytes() + dy_columns.bytes() +
         x_pairs.bytes();
}

void PackRowPairs(const TrainKernels& kernels, ThreadPool& pool, const uint16_t* x, int64_t rows,
                  int64_t in, Buffer<uint16_t>& pairs) {
  Reserve(pairs, ops::PanelSize(in, Even(rows)));
  ops::PackOuter(kernels, pool, x, rows, in, pairs.data());
}

void AddMatrixGradient(const TrainKernels& kernels, ThreadPool& pool, const MatrixGradient& args,
                       Buffer<uint16_t>& columns) {
  const int64_t even = Even(args.rows);
  Reserve(columns, (args.cols + kTrainTileRows) * even);
  ops::TrainTranspose(kernels, pool, args.dy + args.first, args.dy_stride, args.rows, args.cols,
                      even, columns.data());
  TrainGemmArgs product{};
  product.segments[0] = {columns.data(), even, args.x_pairs, even * kTrainLanes, even};
  product.num_segments = 1;
  product.store = TrainStore::kAddF32;
  product.rows = args.cols;
  product.cols = product.out_stride = args.in;
  product.out = args.out;
  ops::TrainGemm(kernels, pool, product);
}

void Forward(const TrainKernels& kernels, ThreadPool& pool, const GroupShape& shape,
             const LoraGroup& lora, const uint16_t* panels, const LinearForward& args) {
  TrainGemmArgs product{};
  product.segments[0] = {args.x, shape.in, panels, shape.in * kTrainLanes, shape.in};
  product.num_segments = 1;
  product.rows = args.rows;
  if (lora.r > 0) {
    TrainGemmArgs down = product;
    down.segments[0].panels = lora.a_forward;
    down.cols = down.out_stride = lora.r;
    down.out = args.xa;
    down.store = TrainStore::kBF16;
    down.column_scale = lora.scale;
    ops::TrainGemm(kernels, pool, down);
  }
  product.out_stride = shape.out;
  product.store = args.store;
  const int64_t element = args.store == TrainStore::kBF16 ? 2 : 4;
  const auto sites = static_cast<size_t>(shape.num_sites);
  std::array<TrainGemmArgs, 3> products;
  for (size_t i = 0; i < sites; ++i) {
    const int64_t first = shape.out_begin[i];
    product.segments[0].panels = panels + first * shape.in;
    if (lora.r > 0) {
      const LoraGroup::Part& part = lora.parts[i];
      product.segments[1] = {args.xa + part.r_begin, lora.r, part.b_forward,
                             part.inner * kTrainLanes, part.inner};
      product.num_segments = part.rank == 0 ? 1 : 2;
      product.column_scale = lora.output_scale == nullptr ? nullptr : lora.output_scale + first;
    }
    product.cols = shape.out_begin[i + 1] - first;
    product.out = static_cast<char*>(args.out) + first * element;
    products[i] = product;
  }
  if (args.after != nullptr) {
    ops::TrainGemm(kernels, pool, {products.data(), sites}, *args.after);
    return;
  }
  for (size_t i = 0; i < sites; ++i) ops::TrainGemm(kernels, pool, products[i]);
}

void Backward(const TrainKernels& kernels, ThreadPool& pool, const GroupShape& shape,
              const LoraGroup& lora, const uint16_t* transposed, const LinearBackward& args,
              LinearScratch& scratch) {
  const uint16_t* dz = args.dy;
  if (lora.output_scale != nullptr) {
    dz = MagnitudeBackward(kernels, pool, shape, lora, args, scratch);
  }
  if (lora.r > 0) PairsInner(kernels, pool, shape, lora, dz, args.rows, scratch);
  if (args.dx != nullptr) {
    TrainGemmArgs product{};
    product.segments[0] = {dz, shape.out, transposed, shape.out * kTrainLanes, shape.out};
    product.segments[1] = {scratch.d_xa.data(), lora.r, lora.a_backward, lora.inner * kTrainLanes,
                           lora.inner};
    product.num_segments = lora.r > 0 ? 2 : 1;
    product.store = args.store;
    product.rows = args.rows;
    product.cols = product.out_stride = shape.in;
    product.out = args.dx;
    if (args.after != nullptr) {
      ops::TrainGemm(kernels, pool, {&product, 1}, *args.after);
    } else {
      ops::TrainGemm(kernels, pool, product);
    }
  }
  if (lora.r > 0) PairsBackward(kernels, pool, shape, lora, dz, args, scratch);
  MatricesBackward(kernels, pool, shape, args, scratch);
}

}  // namespace bakestone
