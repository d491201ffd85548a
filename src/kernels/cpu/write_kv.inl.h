// Keys and values into pages over a vector class: rounded or quantized by vectors, then scattered.
#pragma once

#include <cstdint>

#include "kernels/cpu/rows.inl.h"
#include "kernels/kernel_table.h"
#include "tensor/half.h"

namespace bakestone {
namespace {

BAKESTONE_INLINE void Put16(uint8_t* p, uint16_t x) { __builtin_memcpy(p, &x, 2); }
BAKESTONE_INLINE void Put32(uint8_t* p, uint32_t x) { __builtin_memcpy(p, &x, 4); }

// Each writer: one head of one slot. `slot` is that of the page.
template <class V>
struct WriterBF16 {
  static constexpr KvElement kElement = KvElement::kBF16;
  BAKESTONE_INLINE static void Write(const float* k, const float* v, int64_t dim, int64_t slot,
                                     uint8_t* keys, uint8_t* values, uint32_t*) {
    for (int64_t d = 0; d < dim; d += 16) {
      alignas(64) float a[16], b[16];
      V::Store(a, RoundBF16<V>(V::LoadN(k + d, dim - d)));
      V::Store(b, RoundBF16<V>(V::LoadN(v + d, dim - d)));
      const int64_t n = dim - d < 16 ? dim - d : 16;
      for (int64_t i = 0; i < n; i += 2) {
        Put32(keys + (d + i) * 64 + slot * 4, BitsOfFloat(a[i]) >> 16 | BitsOfFloat(a[i + 1]));
      }
      uint8_t* out = values + (slot / 2 * dim + d) * 4 + slot % 2 * 2;
      for (int64_t i = 0; i < n; ++i) {
        Put16(out + 4 * i, static_cast<uint16_t>(BitsOfFloat(b[i]) >> 16));
      }
    }
  }
};

template <class V>
struct WriterF16 {
  static constexpr KvElement kElement = KvElement::kF16;
  BAKESTONE_INLINE static uint16_t Half(float x) {
    return FloatToF16(x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x);
  }
  BAKESTONE_INLINE static void Write(const float* k, const float* v, int64_t dim, int64_t slot,
                                     uint8_t* keys, uint8_t* values, uint32_t*) {
    for (int64_t d = 0; d < dim; ++d) {
      Put16(keys + (d * kKvBlock + slot) * 2, Half(k[d]));
      Put16(values + (slot * dim + d) * 2, Half(v[d]));
    }
  }
};

template <class V>
struct WriterF32 {
  static constexpr KvElement kElement = KvElement::kF32;
  BAKESTONE_INLINE static void Write(const float* k, const float* v, int64_t dim, int64_t slot,
                                     uint8_t* keys, uint8_t* values, uint32_t*) {
    for (int64_t d = 0; d < dim; ++d) {
      __builtin_memcpy(keys + (d * kKvBlock + slot) * 4, k + d, 4);
      __builtin_memcpy(values + (slot * dim + d) * 4, v + d, 4);
    }
  }
};

template <class V>
struct WriterQ8 {
  static constexpr KvElement kElement = KvElement::kQ8_0;

  // Quantizes n (at most 32) of x; the rest is zero.
  BAKESTONE_INLINE static float Quantize(const float* x, int64_t n, uint8_t* q, uint32_t* error) {
    alignas(64) float group[32];
    LoadGroup<V>(x, n, group);
    int16_t sum;
    const float scale = QuantizeGroup<V>(group, reinterpret_cast<int8_t*>(q), &sum, error);
    for (int64_t i = 0; i < 32; ++i) q[i] ^= 0x80;  // + 128
    return scale;
  }

  BAKESTONE_INLINE static void Write(const float* k, const float* v, int64_t dim, int64_t slot,
                                     uint8_t* keys, uint8_t* values, uint32_t* error) {
    const int64_t width = (dim + 31) / 32 * 32, scales = width * kKvBlock;
    for (int64_t d = 0; d < dim; d += 32) {
      alignas(64) uint8_t a[32], b[32];
      const float dk = Quantize(k + d, dim - d, a, error);
      const float dv = Quantize(v + d, dim - d, b, error);
      uint8_t* out = values + (slot / 4 * width + d) * 4 + slot % 4;
      for (int64_t i = 0; i < 32; ++i) out[4 * i] = b[i];
      for (int64_t i = 0; i < 32; i += 4) {
        __builtin_memcpy(keys + (d + i) * kKvBlock + slot * 4, a + i, 4);
      }
      __builtin_memcpy(keys + scales + (d + slot) * 4, &dk, 4);
      __builtin_memcpy(values + scales + (d + slot) * 4, &dv, 4);
    }
  }
};

template <class V, template <class> class Writer>
void WriteKv(const WriteKvArgs& args, const KvRun& run, Range rows) noexcept {
  const int64_t dim = args.head_dim, bytes = KvHeadBytes(Writer<V>::kElement, dim);
  auto largest = V::SetI(0);
  for (int64_t t = rows.begin; t < rows.end; ++t) {
    const int64_t slot = run.first_slot + (t - run.row_begin), page = slot / kKvBlock;
    const float *k = args.k + t * args.k_stride, *v = args.v + t * args.v_stride;
    for (int64_t i = 0; i < args.kv_heads * dim; i += 16) {
      const int64_t n = args.kv_heads * dim - i;
      const auto magnitude = V::SetI(0x7FFFFFFF);
      largest = V::MaxI(largest, V::AndI(V::Bits(V::LoadN(k + i, n)), magnitude));
      largest = V::MaxI(largest, V::AndI(V::Bits(V::LoadN(v + i, n)), magnitude));
    }
    for (int64_t h = 0; h < args.kv_heads; ++h) {
      Writer<V>::Write(k + h * dim, v + h * dim, dim, slot % kKvBlock,
                       run.k_pages[page] + h * bytes, run.v_pages[page] + h * bytes, args.error);
    }
  }
  if (V::MaxOfI(largest) >= kInfinityBits) SetError(args.error);
}

}  // namespace
}  // namespace bakestone
