// Sixteen lanes in four registers; the same names as vec_avx512.h. Needs the dot product
// instructions; in a unit that also has i8mm, 8-bit weights stay unsigned (usdot). Minimum and
// maximum give the number where one operand is a NaN, as the clamps of Exp want it.
#pragma once

#include <arm_neon.h>

#include <cstdint>

#include "tensor/inline.h"

namespace bakestone {
namespace {

struct V128 {
  struct F {
    float32x4_t v[4];
  };
  struct I {
    int32x4_t v[4];
  };
  struct B {
    uint8x16_t v[4];
  };

  static constexpr int kRows = 4;  // weights are read again for each row: 8 B are 32 registers
  static constexpr bool kWideTiles = false;  // too few registers for tiles of two strips
  static constexpr int kPairRows = 2;  // 2 x 4 even, odd and 8 weight registers, sums at the end
  static constexpr int kPairWidth = 1;
#if defined(__ARM_FEATURE_MATMUL_INT8)
  static constexpr int kByteBias = 128;
#else
  static constexpr int kByteBias = 0;  // sdot: 8-bit weights are made signed
#endif

  // Part by part: f(0) .. f(3) fill the registers of a T.
  template <class T, class Each>
  BAKESTONE_INLINE static T Make(const Each& each) {
    return {{each(0), each(1), each(2), each(3)}};
  }
#define BAKESTONE_EACH [&](int i) __attribute__((always_inline))

  BAKESTONE_INLINE static uint32x4_t Mask4(int64_t n, int i) {
    constexpr int32_t kLanes[4] = {0, 1, 2, 3};
    const int32_t left = n > 16 ? 16 : n < 0 ? 0 : static_cast<int32_t>(n);
    return vcgtq_s32(vdupq_n_s32(left - 4 * i), vld1q_s32(kLanes));
  }

  BAKESTONE_INLINE static F Zero() { return Set(0); }
  BAKESTONE_INLINE static F Set(float x) {
    const float32x4_t v = vdupq_n_f32(x);
    return {{v, v, v, v}};
  }
  BAKESTONE_INLINE static F Load(const float* p) {
    return Make<F>(BAKESTONE_EACH { return vld1q_f32(p + 4 * i); });
  }
  BAKESTONE_INLINE static F LoadN(const float* p, int64_t n) {
    if (n >= 16) return Load(p);
    alignas(16) float part[16] = {};
    for (int64_t i = 0; i < n; ++i) part[i] = p[i];
    return Load(part);
  }
  BAKESTONE_INLINE static void Store(float* p, F x) {
    for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, x.v[i]);
  }
  BAKESTONE_INLINE static void StoreN(float* p, F x, int64_t n) {
    if (n >= 16) return Store(p, x);
    alignas(16) float part[16];
    Store(part, x);
    for (int64_t i = 0; i < n; ++i) p[i] = part[i];
  }
  BAKESTONE_INLINE static F LoadHalf(const uint8_t* p) {
    return Make<F>(
        BAKESTONE_EACH { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p + 8 * i))); });
  }
  BAKESTONE_INLINE static F LoadEven(const uint8_t* p) { return OfBits(Shl<16>(AsI(LoadB(p)))); }
  BAKESTONE_INLINE static F LoadOdd(const uint8_t* p) {
    return OfBits(AndI(AsI(LoadB(p)), SetI(static_cast<int32_t>(0xFFFF0000u))));
  }
  BAKESTONE_INLINE static F Add(F a, F b) {
    return Make<F>(BAKESTONE_EACH { return vaddq_f32(a.v[i], b.v[i]); });
  }
  BAKESTONE_INLINE static F Sub(F a, F b) {
    return Make<F>(BAKESTONE_EACH { return vsubq_f32(a.v[i], b.v[i]); });
  }
  BAKESTONE_INLINE static F Mul(F a, F b) {
    return Make<F>(BAKESTONE_EACH { return vmulq_f32(a.v[i], b.v[i]); });
  }
  BAKESTONE_INLINE static F Div(F a, F b) {
    return Make<F>(BAKESTONE_EACH { return vdivq_f32(a.v[i], b.v[i]); });
  }
  BAKESTONE_INLINE static F Fma(F a, F b, F c) {
    return Make<F>(BAKESTONE_EACH { return vfmaq_f32(c.v[i], a.v[i], b.v[i]); });
  }
  BAKESTONE_INLINE static F Min(F a, F b) {
    return Make<F>(BAKESTONE_EACH { return vminnmq_f32(a.v[i], b.v[i]); });
  }
  BAKESTONE_INLINE static F Max(F a, F b) {
    return Make<F>(BAKESTONE_EACH { return vmaxnmq_f32(a.v[i], b.v[i]); });
  }
  BAKESTONE_INLINE static F Abs(F x) {
    return Make<F>(BAKESTONE_EACH { return vabsq_f32(x.v[i]); });
  }
  BAKESTONE_INLINE static F KeepFrom(F a, float limit) {
    const float32x4_t least = vdupq_n_f32(limit);
    return Make<F>(BAKESTONE_EACH {
      const uint32x4_t bits = vreinterpretq_u32_f32(a.v[i]);
      return vreinterpretq_f32_u32(vandq_u32(bits, vcageq_f32(a.v[i], least)));
    });
  }
  BAKESTONE_INLINE static F FmaFrom(F a, F b, F acc, float limit) {
    return Fma(KeepFrom(a, limit), b, acc);
  }
  BAKESTONE_INLINE static F SelectLess(F x, F y, F a, F b) {
    return Make<F>(BAKESTONE_EACH { return vbslq_f32(vcltq_f32(x.v[i], y.v[i]), a.v[i], b.v[i]); });
  }
  BAKESTONE_INLINE static I KeepWhere(I a, F x, float limit) {
    const float32x4_t least = vdupq_n_f32(limit);
    return Make<I>(BAKESTONE_EACH {
      return vandq_s32(a.v[i], vreinterpretq_s32_u32(vcgeq_f32(x.v[i], least)));
    });
  }
  BAKESTONE_INLINE static F FirstN(F a, F b, int64_t n) {
    return Make<F>(BAKESTONE_EACH { return vbslq_f32(Mask4(n, i), a.v[i], b.v[i]); });
  }

  BAKESTONE_INLINE static I Bits(F x) {
    return Make<I>(BAKESTONE_EACH { return vreinterpretq_s32_f32(x.v[i]); });
  }
  BAKESTONE_INLINE static F OfBits(I x) {
    return Make<F>(BAKESTONE_EACH { return vreinterpretq_f32_s32(x.v[i]); });
  }
  BAKESTONE_INLINE static I SetI(int32_t x) {
    const int32x4_t v = vdupq_n_s32(x);
    return {{v, v, v, v}};
  }
  BAKESTONE_INLINE static I AddI(I a, I b) {
    return Make<I>(BAKESTONE_EACH { return vaddq_s32(a.v[i], b.v[i]); });
  }
  BAKESTONE_INLINE static I SubI(I a, I b) {
    return Make<I>(BAKESTONE_EACH { return vsubq_s32(a.v[i], b.v[i]); });
  }
  BAKESTONE_INLINE static I MulI(I a, I b) {
    return Make<I>(BAKESTONE_EACH { return vmulq_s32(a.v[i], b.v[i]); });
  }
  BAKESTONE_INLINE static I AndI(I a, I b) {
    return Make<I>(BAKESTONE_EACH { return vandq_s32(a.v[i], b.v[i]); });
  }
  BAKESTONE_INLINE static I OrI(I a, I b) {
    return Make<I>(BAKESTONE_EACH { return vorrq_s32(a.v[i], b.v[i]); });
  }
  BAKESTONE_INLINE static I MaxI(I a, I b) {
    return Make<I>(BAKESTONE_EACH { return vmaxq_s32(a.v[i], b.v[i]); });
  }
  template <int kShift>
  BAKESTONE_INLINE static I Shl(I a) {
    return Make<I>(BAKESTONE_EACH { return vshlq_n_s32(a.v[i], kShift); });
  }
  template <int kShift>
  BAKESTONE_INLINE static I Shr(I a) {
    return Make<I>(BAKESTONE_EACH { return vshrq_n_s32(a.v[i], kShift); });
  }
  template <int kShift>
  BAKESTONE_INLINE static I ShrU(I a) {
    return Make<I>(BAKESTONE_EACH {
      return vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(a.v[i]), kShift));
    });
  }
  BAKESTONE_INLINE static F ToFloat(I x) {
    return Make<F>(BAKESTONE_EACH { return vcvtq_f32_s32(x.v[i]); });
  }
  BAKESTONE_INLINE static I Truncate(F x) {
    return Make<I>(BAKESTONE_EACH { return vcvtq_s32_f32(x.v[i]); });
  }
  BAKESTONE_INLINE static I Nearest(F x) {
    return Make<I>(BAKESTONE_EACH { return vcvtnq_s32_f32(x.v[i]); });
  }
  BAKESTONE_INLINE static I LoadU8(const uint8_t* p) {
    const uint8x16_t bytes = vld1q_u8(p);
    const uint16x8_t lo = vmovl_u8(vget_low_u8(bytes)), hi = vmovl_high_u8(bytes);
    return {{vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(lo))),
             vreinterpretq_s32_u32(vmovl_high_u16(lo)),
             vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(hi))),
             vreinterpretq_s32_u32(vmovl_high_u16(hi))}};
  }
  BAKESTONE_INLINE static I LoadI8(const uint8_t* p) {
    const int8x16_t bytes = vreinterpretq_s8_u8(vld1q_u8(p));
    const int16x8_t lo = vmovl_s8(vget_low_s8(bytes)), hi = vmovl_high_s8(bytes);
    return {{vmovl_s16(vget_low_s16(lo)), vmovl_high_s16(lo), vmovl_s16(vget_low_s16(hi)),
             vmovl_high_s16(hi)}};
  }
  BAKESTONE_INLINE static void StoreI8(int8_t* p, I x) {
    const int16x8_t lo = vmovn_high_s32(vmovn_s32(x.v[0]), x.v[1]);
    const int16x8_t hi = vmovn_high_s32(vmovn_s32(x.v[2]), x.v[3]);
    vst1q_s8(p, vmovn_high_s16(vmovn_s16(lo), hi));
  }
  BAKESTONE_INLINE static int32_t SumI(I x) {
    return vaddvq_s32(vaddq_s32(vaddq_s32(x.v[0], x.v[1]), vaddq_s32(x.v[2], x.v[3])));
  }
  BAKESTONE_INLINE static int32_t MaxOfI(I x) {
    return vmaxvq_s32(vmaxq_s32(vmaxq_s32(x.v[0], x.v[1]), vmaxq_s32(x.v[2], x.v[3])));
  }

  // Lane i: the greatest lane, or the sum, of v[i], i < n; any number in the others.
  BAKESTONE_INLINE static I MaxOfEach(const I (&v)[16], int n) {
    alignas(64) int32_t lanes[16] = {};
    for (int i = 0; i < n; ++i) lanes[i] = MaxOfI(v[i]);
    return Make<I>(BAKESTONE_EACH { return vld1q_s32(lanes + 4 * i); });
  }
  BAKESTONE_INLINE static I SumOfEach(const I (&v)[16], int n) {
    alignas(64) int32_t lanes[16] = {};
    for (int i = 0; i < n; ++i) lanes[i] = SumI(v[i]);
    return Make<I>(BAKESTONE_EACH { return vld1q_s32(lanes + 4 * i); });
  }
  BAKESTONE_INLINE static void StoreI16N(int16_t* p, I x, int64_t n) {
    alignas(64) int32_t lanes[16];
    for (int i = 0; i < 4; ++i) vst1q_s32(lanes + 4 * i, x.v[i]);
    for (int64_t i = 0; i < n; ++i) p[i] = static_cast<int16_t>(lanes[i]);
  }

  BAKESTONE_INLINE static B LoadB(const uint8_t* p) {
    return Make<B>(BAKESTONE_EACH { return vld1q_u8(p + 16 * i); });
  }
  BAKESTONE_INLINE static B SetB(int x) {
    const uint8x16_t v = vdupq_n_u8(static_cast<uint8_t>(x));
    return {{v, v, v, v}};
  }
  BAKESTONE_INLINE static B AndB(B a, B b) {
    return Make<B>(BAKESTONE_EACH { return vandq_u8(a.v[i], b.v[i]); });
  }
  BAKESTONE_INLINE static B OrB(B a, B b) {
    return Make<B>(BAKESTONE_EACH { return vorrq_u8(a.v[i], b.v[i]); });
  }
  template <int kShift>
  BAKESTONE_INLINE static B ShrB(B a) {
    return Make<B>(BAKESTONE_EACH { return vshrq_n_u8(a.v[i], kShift); });
  }
  template <int kShift>
  BAKESTONE_INLINE static B ShlB(B a) {
    return Make<B>(BAKESTONE_EACH { return vshlq_n_u8(a.v[i], kShift); });
  }
  BAKESTONE_INLINE static B Lookup(const uint8_t* table16, B nibbles) {
    const uint8x16_t table = vld1q_u8(table16);
    return Make<B>(BAKESTONE_EACH { return vqtbl1q_u8(table, nibbles.v[i]); });
  }
  BAKESTONE_INLINE static I AsI(B x) {
    return Make<I>(BAKESTONE_EACH { return vreinterpretq_s32_u8(x.v[i]); });
  }

  // Weights below 128 are their own signed form; with a bias of 128 that is a flip of the sign bit.
  template <int kBits, int kGroup>
  BAKESTONE_INLINE static int32x4_t Dot1(int32x4_t acc, uint8x16_t w, int8x16_t a) {
    if constexpr (kBits < 8) {
      return vdotq_laneq_s32(acc, vreinterpretq_s8_u8(w), a, kGroup);
    } else {
#if defined(__ARM_FEATURE_MATMUL_INT8)
      return vusdotq_laneq_s32(acc, w, a, kGroup);
#else
      return vdotq_laneq_s32(acc, vreinterpretq_s8_u8(veorq_u8(w, vdupq_n_u8(0x80))), a, kGroup);
#endif
    }
  }
  template <int kBits, int kGroup>
  BAKESTONE_INLINE static void DotGroup(I* acc, const B& w, int8x16_t a) {
    for (int i = 0; i < 4; ++i) acc->v[i] = Dot1<kBits, kGroup>(acc->v[i], w.v[i], a);
  }
  template <int kBits, int kSteps>
  BAKESTONE_INLINE static I Dot(I acc, const B* w, const int8_t* a) {
    static_assert(kSteps % 4 == 0);
#pragma GCC unroll 2
    for (int j = 0; j < kSteps; j += 4) {
      const int8x16_t x = vld1q_s8(a + 4 * j);
      DotGroup<kBits, 0>(&acc, w[j], x);
      DotGroup<kBits, 1>(&acc, w[j + 1], x);
      DotGroup<kBits, 2>(&acc, w[j + 2], x);
      DotGroup<kBits, 3>(&acc, w[j + 3], x);
    }
    return acc;
  }
  BAKESTONE_INLINE static I DotPairs(I acc, I pairs, const int16_t* sums) {
    const int16x4_t even = vdup_n_s16(sums[0]), odd = vdup_n_s16(sums[1]);
    return Make<I>(BAKESTONE_EACH {
      const int32x4_t first = vmlal_s16(acc.v[i], vmovn_s32(pairs.v[i]), even);
      return vmlal_s16(first, vshrn_n_s32(pairs.v[i], 16), odd);
    });
  }

  BAKESTONE_INLINE static float TreeSum(F x) {
    const float32x4_t a = vaddq_f32(vaddq_f32(x.v[0], x.v[2]), vaddq_f32(x.v[1], x.v[3]));
    const float32x2_t b = vadd_f32(vget_low_f32(a), vget_high_f32(a));
    return vget_lane_f32(b, 0) + vget_lane_f32(b, 1);
  }
  BAKESTONE_INLINE static float MaxOf(F x) {
    return vmaxnmvq_f32(vmaxnmq_f32(vmaxnmq_f32(x.v[0], x.v[2]), vmaxnmq_f32(x.v[1], x.v[3])));
  }
#undef BAKESTONE_EACH
};

}  // namespace
}  // namespace bakestone
