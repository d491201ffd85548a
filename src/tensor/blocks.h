// The quantized blocks of GGUF files, little-endian, as they lie on disk. Alignment is 1 byte or 2:
// a block may be read in place from a mapped file at any block boundary. w[j] is weight j of the
// block; f16 fields hold IEEE binary16 bits (half.h). lo(x) = x & 15, hi(x) = x >> 4.
//
// Decoding goes float by float exactly as written below, each product and sum rounded to binary32:
// the values equal those of the Python package `gguf` bit for bit (dequantize.h).
#pragma once

#include <cstdint>

namespace bakestone {

inline constexpr int kSuperBlock = 256;  // weights of a K-quant or IQ4_XS block

// 32 weights: w[j] = d * (lo(qs[j]) - 8), w[j + 16] = d * (hi(qs[j]) - 8)
struct BlockQ4_0 {
  uint16_t d;
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_0) == 18);

// 32 weights: w[j] = d * lo(qs[j]) + m, w[j + 16] = d * hi(qs[j]) + m
struct BlockQ4_1 {
  uint16_t d, m;
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_1) == 20);

// 32 weights of 5 bits: bit 4 of weight j is bit j of the little-endian word qh; the rest as Q4_0.
// w = d * (q - 16)
struct BlockQ5_0 {
  uint16_t d;
  uint8_t qh[4];
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ5_0) == 22);

// 32 weights of 5 bits, bits as in Q5_0: w = d * q + m
struct BlockQ5_1 {
  uint16_t d, m;
  uint8_t qh[4];
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ5_1) == 24);

// 32 weights: w[j] = d * qs[j]
struct BlockQ8_0 {
  uint16_t d;
  int8_t qs[32];
};
static_assert(sizeof(BlockQ8_0) == 34);

// 256 weights in 16 groups of 16; group g has scale lo(scales[g]) and minimum hi(scales[g]).
// Per 128 weights 32 bytes of qs: bits 2s..2s+1 of byte l are weight 32 * s + l of that half.
// w = (d * lo) * q - (dmin * hi)
struct BlockQ2_K {
  uint8_t scales[16];
  uint8_t qs[64];
  uint16_t d, dmin;
};
static_assert(sizeof(BlockQ2_K) == 84);

// 256 weights in 16 groups of 16; low two bits as Q2_K; the third of weight 32 * i + l is bit i of
// hmask[l], and 4 is subtracted where it is 0. Scale of group g, 6 bits, less 32:
//   low four: g < 8 ? lo(scales[g]) : hi(scales[g - 8]);  high two: bits 2(g/4).. of scales[8 + g %
//   4]
// w = (d * (scale - 32)) * (q - (bit ? 0 : 4))
struct BlockQ3_K {
  uint8_t hmask[32];
  uint8_t qs[64];
  uint8_t scales[12];
  uint16_t d;
};
static_assert(sizeof(BlockQ3_K) == 110);

// 256 weights in 8 groups of 32; scale sc and minimum m of group j, 6 bits each (s = scales):
//   j < 4:  sc = s[j] & 63,                              m = s[j + 4] & 63
//   j >= 4: sc = lo(s[j + 4]) | (s[j - 4] >> 6) << 4,    m = hi(s[j + 4]) | (s[j] >> 6) << 4
// Per 64 weights 32 bytes of qs: low nibbles are the first 32, high nibbles the next 32.
// w = (d * sc) * q - (dmin * m)
struct BlockQ4_K {
  uint16_t d, dmin;
  uint8_t scales[12];
  uint8_t qs[128];
};
static_assert(sizeof(BlockQ4_K) == 144);

// As Q4_K with a fifth bit: of weight 32 * j + l it is bit j of qh[l].
struct BlockQ5_K {
  uint16_t d, dmin;
  uint8_t scales[12];
  uint8_t qh[32];
  uint8_t qs[128];
};
static_assert(sizeof(BlockQ5_K) == 176);

// 256 weights of 6 bits in 16 groups of 16 with int8 scales. Per 128 weights 64 bytes of ql and 32
// of qh, l < 32: w[l], w[l + 32] take the low nibbles of ql[l], ql[l + 32]; w[l + 64], w[l + 96]
// the high ones; their upper two bits are bits 0-1, 2-3, 4-5, 6-7 of qh[l] in that order. w = (d *
// scales[g]) * (q - 32)
struct BlockQ6_K {
  uint8_t ql[128];
  uint8_t qh[64];
  int8_t scales[16];
  uint16_t d;
};
static_assert(sizeof(BlockQ6_K) == 210);

// 32 weights: w[j] = d * kIQ4Values[lo(qs[j])], w[j + 16] = d * kIQ4Values[hi(qs[j])]
struct BlockIQ4_NL {
  uint16_t d;
  uint8_t qs[16];
};
static_assert(sizeof(BlockIQ4_NL) == 18);

// 256 weights in 8 groups of 32, each coded as IQ4_NL (16 bytes of qs). Scale of group g, 6 bits,
// less 32: low four are nibble g % 2 of scales_l[g / 2], high two are bits 2g..2g+1 of scales_h. w
// = (d * (scale - 32)) * kIQ4Values[q]
struct BlockIQ4_XS {
  uint16_t d;
  uint16_t scales_h;
  uint8_t scales_l[4];
  uint8_t qs[128];
};
static_assert(sizeof(BlockIQ4_XS) == 136);

// 32 weights: w[j] = E8M0ToFloatHalf(e) * kMXFP4Values[lo(qs[j])], w[j + 16] with hi(qs[j])
struct BlockMXFP4 {
  uint8_t e;
  uint8_t qs[16];
};
static_assert(sizeof(BlockMXFP4) == 17);

// The non-uniform code of IQ4_NL and IQ4_XS.
inline constexpr int8_t kIQ4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                          1,    13,   25,  38,  53,  69,  89,  113};
// E2M1, doubled so that it is integer.
inline constexpr int8_t kMXFP4Values[16] = {0, 1,  2,  3,  4,  6,  8,  12,
                                            0, -1, -2, -3, -4, -6, -8, -12};

}  // namespace bakestone
