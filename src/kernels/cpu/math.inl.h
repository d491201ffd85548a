// exp and the activations over a vector class: the steps of kernels/math.h, lane by lane.
#pragma once

#include "kernels/math.h"
#include "tensor/inline.h"

namespace bakestone {
namespace {

template <class V>
BAKESTONE_INLINE typename V::F Exp(typename V::F x) {
  x = V::Min(x, V::Set(math::kExpMax));
  x = V::Max(x, V::Set(math::kExpMin));
  const auto round = V::Set(math::kRound);
  const auto n = V::Sub(V::Fma(x, V::Set(math::kLog2E), round), round);
  auto r = V::Fma(n, V::Set(-math::kLn2High), x);
  r = V::Fma(n, V::Set(-math::kLn2Low), r);
  auto p = V::Set(math::kExpP[5]);
#pragma GCC unroll 5
  for (int i = 4; i >= 0; --i) p = V::Fma(p, r, V::Set(math::kExpP[i]));
  const auto e = V::Add(V::Fma(p, V::Mul(r, r), r), V::Set(1.0f));
  const auto k = V::Truncate(n), half = V::template Shr<1>(k), bias = V::SetI(127);
  const auto a = V::OfBits(V::template Shl<23>(V::AddI(half, bias)));
  const auto b = V::OfBits(V::template Shl<23>(V::AddI(V::SubI(k, half), bias)));
  return V::Mul(V::Mul(e, a), b);
}

// The bits of exp(x) for x from math::kExpVisibleBF16 to 0, where 2^n is one factor and never
// denormal; elsewhere anything.
template <class V>
BAKESTONE_INLINE typename V::I VisibleExpBits(typename V::F x) {
  const auto round = V::Set(math::kRound);
  const auto shifted = V::Fma(x, V::Set(math::kLog2E), round);
  const auto n = V::Sub(shifted, round);
  auto r = V::Fma(n, V::Set(-math::kLn2High), x);
  r = V::Fma(n, V::Set(-math::kLn2Low), r);
  auto p = V::Set(math::kExpP[5]);
#pragma GCC unroll 5
  for (int i = 4; i >= 0; --i) p = V::Fma(p, r, V::Set(math::kExpP[i]));
  const auto e = V::Add(V::Fma(p, V::Mul(r, r), r), V::Set(1.0f));
  // The low bits of `shifted` are n; what lies above them leaves the word with the shift.
  return V::AddI(V::Bits(e), V::template Shl<23>(V::Bits(shifted)));
}

// exp(x) for x <= 0, zero where that is below 2^-50.
template <class V>
BAKESTONE_INLINE typename V::F ExpOrZero(typename V::F x) {
  return V::OfBits(V::KeepWhere(VisibleExpBits<V>(x), x, math::kExpVisible));
}

// Nearest bf16, ties to even, as the upper half of each word.
template <class V>
BAKESTONE_INLINE typename V::I RoundBitsBF16(typename V::I bits) {
  const auto odd = V::AndI(V::template ShrU<16>(bits), V::SetI(1));
  const auto rounded = V::AddI(bits, V::AddI(odd, V::SetI(0x7FFF)));
  return V::AndI(rounded, V::SetI(static_cast<int32_t>(0xFFFF0000u)));
}

// exp(x) for x <= 0 rounded to bf16, zero where that is below 2^-50.
template <class V>
BAKESTONE_INLINE typename V::F ExpOrZeroBF16(typename V::F x) {
  const auto rounded = RoundBitsBF16<V>(VisibleExpBits<V>(x));
  return V::OfBits(V::KeepWhere(rounded, x, math::kExpVisibleBF16));
}

template <class V>
BAKESTONE_INLINE typename V::F SwiGlu(typename V::F gate, typename V::F up) {
  const auto negative = V::OfBits(V::AddI(V::Bits(gate), V::SetI(INT32_MIN)));  // flips the sign
  return V::Mul(V::Div(gate, V::Add(V::Set(1.0f), Exp<V>(negative))), up);
}

template <class V>
BAKESTONE_INLINE typename V::F Sigmoid(typename V::F x) {
  const auto negative = V::OfBits(V::AddI(V::Bits(x), V::SetI(INT32_MIN)));
  return V::Div(V::Set(1.0f), V::Add(V::Set(1.0f), Exp<V>(negative)));
}

template <class V>
BAKESTONE_INLINE typename V::F ClampedSwiGlu(typename V::F gate, typename V::F up) {
  const auto one = V::Set(1.0f), limit = V::Set(math::kClampedLimit);
  const auto g = V::Min(gate, limit);
  const auto u = V::Min(V::Max(up, V::Set(-math::kClampedLimit)), limit);
  const auto e = Exp<V>(V::Mul(V::Set(math::kClampedRate), g));
  return V::Mul(V::Div(g, V::Add(one, e)), V::Add(u, one));
}

template <class V>
BAKESTONE_INLINE typename V::F Gelu(typename V::F x) {
  const auto cube = V::Mul(V::Mul(x, x), x);
  const auto inner = V::Fma(cube, V::Set(math::kGeluCubic), x);
  return V::Div(x, V::Add(V::Set(1.0f), Exp<V>(V::Mul(inner, V::Set(math::kGeluRate)))));
}

template <class V>
BAKESTONE_INLINE typename V::F ErfGelu(typename V::F x) {
  const auto t = V::Abs(x);
  const auto v = V::Div(V::Set(1.0f), V::Fma(t, V::Set(0.25f), V::Set(1.0f)));
  auto q = V::Set(math::kTailQ[math::kTailDegree]);
#pragma GCC unroll 9
  for (int i = math::kTailDegree - 1; i >= 0; --i) q = V::Fma(q, v, V::Set(math::kTailQ[i]));
  const auto tail = V::Mul(Exp<V>(V::Mul(V::Mul(t, V::Set(-0.5f)), t)), q);
  return V::Mul(x, V::SelectLess(x, V::Zero(), tail, V::Sub(V::Set(1.0f), tail)));
}

template <class V>
BAKESTONE_INLINE typename V::F GeGlu(typename V::F gate, typename V::F up) {
  return V::Mul(Gelu<V>(gate), up);
}

template <class V>
BAKESTONE_INLINE typename V::F ErfGeGlu(typename V::F gate, typename V::F up) {
  return V::Mul(ErfGelu<V>(gate), up);
}

// x * sigmoid(gate).
template <class V>
BAKESTONE_INLINE typename V::F Gate(typename V::F gate, typename V::F x) {
  return V::Mul(Sigmoid<V>(gate), x);
}

// exp(factor * x).
template <class V>
BAKESTONE_INLINE typename V::F ScaledExp(typename V::F x, float factor) {
  return Exp<V>(V::Mul(V::Set(factor), x));
}

// A function of x alone, as those that have a factor are called.
template <class V, typename V::F (*kFunction)(typename V::F)>
BAKESTONE_INLINE typename V::F Plain(typename V::F x, float) {
  return kFunction(x);
}

// cap * tanh(x / cap).
template <class V>
BAKESTONE_INLINE typename V::F SoftCap(typename V::F x, float cap) {
  const auto e = V::Add(Exp<V>(V::Mul(x, V::Set(2.0f / cap))), V::Set(1.0f));
  return V::Sub(V::Set(cap), V::Div(V::Set(cap + cap), e));
}

// To bf16 (nearest, ties to even) and back, below 2^-50 to zero; x is finite.
template <class V>
BAKESTONE_INLINE typename V::F RoundBF16(typename V::F x) {
  return V::KeepFrom(V::OfBits(RoundBitsBF16<V>(V::Bits(x))), 0x1p-50f);
}

}  // namespace
}  // namespace bakestone
