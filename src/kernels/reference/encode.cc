// The encoders over sixteen lanes of plain C++: the same templates as the vector tables, so the
// same bytes. What the bytes are worth is tested against the decoder and against independent
// encoders.
#include <cmath>

#include "kernels/cpu/encode_table.inl.h"
#include "kernels/serve_tables.h"

namespace bakestone {
namespace {

struct PlainLanes {
  struct F {
    float v[16];
  };
  struct I {
    int32_t v[16];
  };

  template <class T, class Each>
  static T Make(const Each& each) {
    T out;
    for (int i = 0; i < 16; ++i) out.v[i] = each(i);
    return out;
  }
  static F Set(float x) {
    return Make<F>([&](int) { return x; });
  }
  static F Zero() { return Set(0); }
  static F Load(const float* p) {
    return Make<F>([&](int i) { return p[i]; });
  }
  static void Store(float* p, const F& x) {
    for (int i = 0; i < 16; ++i) p[i] = x.v[i];
  }
  static F Add(const F& a, const F& b) {
    return Make<F>([&](int i) { return a.v[i] + b.v[i]; });
  }
  static F Sub(const F& a, const F& b) {
    return Make<F>([&](int i) { return a.v[i] - b.v[i]; });
  }
  static F Mul(const F& a, const F& b) {
    return Make<F>([&](int i) { return a.v[i] * b.v[i]; });
  }
  static F Div(const F& a, const F& b) {
    return Make<F>([&](int i) { return a.v[i] / b.v[i]; });
  }
  static F Fma(const F& a, const F& b, const F& c) {
    return Make<F>([&](int i) { return std::fma(a.v[i], b.v[i], c.v[i]); });
  }
  static F Min(const F& a, const F& b) {
    return Make<F>([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
  }
  static F Max(const F& a, const F& b) {
    return Make<F>([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
  }
  static F Abs(const F& x) {
    return Make<F>([&](int i) { return std::fabs(x.v[i]); });
  }
  static F SelectLess(const F& x, const F& y, const F& a, const F& b) {
    return Make<F>([&](int i) { return x.v[i] < y.v[i] ? a.v[i] : b.v[i]; });
  }
  static I Nearest(const F& x) {
    return Make<I>([&](int i) { return static_cast<int32_t>(std::nearbyint(x.v[i])); });
  }
  static void StoreI8(int8_t* p, const I& x) {
    for (int i = 0; i < 16; ++i) p[i] = static_cast<int8_t>(x.v[i]);
  }
};

}  // namespace

constexpr EncodeKernels kEncodeReference = MakeEncodeTable<PlainLanes>();

}  // namespace bakestone
