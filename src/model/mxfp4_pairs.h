// MXFP4 as Hugging Face folders have it: 16 bytes for 32 weights, the codes of weights 2 j and 2 j
// + 1 in byte j, the lower first, and the block's scale apart. Pure; any thread.
#pragma once

#include <cstdint>

#include "tensor/blocks.h"

namespace bakestone {

inline BlockMXFP4 BlockOfPairs(const uint8_t* pairs, uint8_t scale) {
  uint8_t codes[32];
  for (int j = 0; j < 16; ++j) {
    codes[2 * j] = pairs[j] & 15;
    codes[2 * j + 1] = pairs[j] >> 4;
  }
  BlockMXFP4 block{.e = scale, .qs = {}};
  for (int j = 0; j < 16; ++j) block.qs[j] = static_cast<uint8_t>(codes[j] | codes[j + 16] << 4);
  return block;
}

}  // namespace bakestone
