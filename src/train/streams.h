// Streams of the random generator, so that no two uses of a seed draw the same numbers.
#pragma once

#include <cstdint>

namespace bakestone {

inline constexpr uint64_t kInitStream = 1, kDataStream = 2, kReplayStream = 3;

}  // namespace bakestone
