// The first half of an MLP: products, their activation, and the forms that the last product takes.
#pragma once

#include <cstdint>
#include <span>

#include "ops/linear.h"

namespace bakestone::ops {

// What an MLP makes of its first products.
enum class Activation : uint8_t { kSwiGlu, kGeGlu, kErfGeGlu, kGelu, kErfGelu };
struct ActivatedProducts {
  Product first, up;  // without y; up: of the gated ones only
  Activation activation;
};

// The activation of products of x [rows, n] into the forms asked for, without being anywhere as a
// whole. adapters: added to first, product 0, and up, product 1. out is not x. Same bits as MatMul,
// the activation (ops/rows.h) and Quantize.
void MatMulActivateQuantize(Context& context, const QuantizedRows& x,
                            const ActivatedProducts& products, Precision precision,
                            std::span<const LoraRun> adapters, std::span<const ActType> types,
                            QuantizedRows& out, const char* what);

}  // namespace bakestone::ops
