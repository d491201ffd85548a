// Between the two AVX-512 units of training: the products on vdpbf16ps need a unit with flags of
// its own.
#pragma once

#include <cstdint>

#include "kernels/train_kernels.h"

namespace bakestone {

void TrainGemmBf16Dot(const TrainGemmArgs& args, int64_t row_begin, int64_t row_end,
                      int64_t panel_begin, int64_t panel_end) noexcept;
void TrainOuterBf16Dot(const TrainOuterArgs& args, int64_t col_begin, int64_t col_end) noexcept;

}  // namespace bakestone
