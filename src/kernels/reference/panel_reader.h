// One row of a panel as plain numbers: how panels are read, written for reading. The layout is in
// kernels/panel.h; the vector tables read whole strips instead.
#pragma once

#include <cstdint>

#include "kernels/panel.h"

namespace bakestone::reference {

// 32 weights: value = d * q + m, q with its bias taken off or looked up in the codebook.
struct Block32 {
  int32_t q[32];
  float d, m;
};

// 256 weights in 16 groups of 16: value = (d * scale) * q - dmin * min.
struct SuperBlock {
  int32_t q[256];
  int32_t scale[16], min[16];
  float d, dmin;
};

bool HasMin(PanelType type);

Block32 ReadBlock32(const Panel& panel, int64_t row, int64_t block);
SuperBlock ReadSuperBlock(const Panel& panel, int64_t row, int64_t block);
// Weight k of a plain panel (F32, F16, BF16); zero in the padding.
float ReadPlain(const Panel& panel, int64_t row, int64_t k);

// Weights [k0, k1) of a row, as tensor/dequantize.h decodes them. k0 is a multiple of the block.
void DequantizeRow(const Panel& panel, int64_t row, int64_t k0, int64_t k1, float* out);

}  // namespace bakestone::reference
