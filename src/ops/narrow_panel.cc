#include "ops/narrow_panel.h"

#include <cstring>

#include "base/error.h"
#include "kernels/pack.h"
#include "tensor/buffer.h"

namespace bakestone::ops {
namespace {

constexpr int64_t kPairBytes = 4;            // of one lane
constexpr int16_t kLeast = (127 - 50) << 7;  // 2^-50 in bf16

int64_t NumPairs(int64_t k) { return (k + 1) / 2; }

// count: a multiple of 32, a line's.
void Flush(uint16_t* values, int64_t count) {
  constexpr int64_t kLine = 32;
  for (; count > 0; values += kLine, count -= kLine) {
    int16_t line[kLine];
    std::memcpy(line, values, sizeof(line));
    for (int64_t i = 0; i < kLine;
         ++i) {  // without branches, so that a compiler makes vectors of it
      const auto magnitude = static_cast<int16_t>(line[i] & 0x7FFF);
      const auto mask = static_cast<int16_t>(-(magnitude >= kLeast));
      line[i] = static_cast<int16_t>(line[i] & mask);
    }
    std::memcpy(values, line, sizeof(line));
  }
}

template <int64_t kLanes>
void WidenPairs(const uint8_t* from, int64_t pairs, uint8_t* to) {
  constexpr int64_t kOwn = kLanes * kPairBytes, kAll = kStripRows * kPairBytes;
  constexpr int64_t kAhead = 4096;  // as far as the kernels look (kernels/cpu/matmul.inl.h)
  for (int64_t i = 0; i < pairs; ++i, from += kOwn, to += kAll) {
    __builtin_prefetch(from + kAhead, 0, 2);
    std::memcpy(to, from, kOwn);
    std::memset(to + kOwn, 0, kAll - kOwn);
  }
}

}  // namespace

int64_t NarrowPanelBytes(int64_t n, int64_t k) {
  const int64_t narrow = (NumPairs(k) * NarrowLanes(n) * kPairBytes + 63) / 64 * 64;
  return n / kStripRows * StripBytes(PanelType::kBF16, k) + narrow;
}

Panel PackFlushed(MatrixView<const uint16_t> rows, uint8_t* to) {
  BAKESTONE_CHECK(rows.stride == rows.cols);
  PackStrips({.type = PanelType::kBF16,
              .rows = reinterpret_cast<const uint8_t*>(rows.data),
              .n = rows.rows,
              .k = rows.cols,
              .row_map = nullptr,
              .panel = to},
             {0, NumStrips(rows.rows)});
  Flush(reinterpret_cast<uint16_t*>(to), PanelBytes(PanelType::kBF16, rows.rows, rows.cols) / 2);
  return {to, rows.rows, rows.cols, PanelType::kBF16, true};
}

NarrowPanel PackNarrow(MatrixView<const uint16_t> rows, uint8_t* to) {
  const NarrowPanel panel{to, rows.rows, rows.cols};
  if (panel.whole_rows() > 0) PackFlushed(rows.Rows(0, panel.whole_rows()), to);
  if (!panel.has_narrow()) return panel;
  Buffer<uint8_t> strip(StripBytes(PanelType::kBF16, rows.cols));
  PackFlushed(rows.Rows(panel.whole_rows(), rows.rows - panel.whole_rows()), strip.data());
  to += PanelBytes(PanelType::kBF16, panel.whole_rows(), rows.cols);
  const int64_t own = NarrowLanes(rows.rows) * kPairBytes;
  for (int64_t i = 0; i < NumPairs(rows.cols); ++i) {
    std::memcpy(to + i * own, strip.data() + i * kStripRows * kPairBytes, static_cast<size_t>(own));
  }
  return panel;
}

Panel Widen(const NarrowPanel& panel, uint8_t* room) {
  BAKESTONE_CHECK(panel.has_narrow());
  const uint8_t* from = panel.data + PanelBytes(PanelType::kBF16, panel.whole_rows(), panel.k);
  const int64_t pairs = NumPairs(panel.k);
  switch (NarrowLanes(panel.n)) {
    case 4:
      WidenPairs<4>(from, pairs, room);
      break;
    case 8:
      WidenPairs<8>(from, pairs, room);
      break;
    case 12:
      WidenPairs<12>(from, pairs, room);
      break;
    default:
      WidenPairs<16>(from, pairs, room);
      break;
  }
  return {room, panel.n - panel.whole_rows(), panel.k, PanelType::kBF16, true};
}

}  // namespace bakestone::ops
