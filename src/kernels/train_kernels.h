// The training half of the kernel table: bf16 products, backward passes, loss, optimizer.
#pragma once

#include <cstdint>

namespace bakestone {

struct TrainKernels {};

}  // namespace bakestone
