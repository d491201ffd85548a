#include "tensor/arena.h"

#include <gtest/gtest.h>

#include <cstring>

namespace bakestone {
namespace {

TEST(Arena, HandsOutTheSameMemoryAgainAfterAScope) {
  Arena arena;
  float* first = nullptr;
  int64_t held = 0;
  for (int round = 0; round < 3; ++round) {
    Arena::Scope scope(arena);
    float* small = arena.Take<float>(100);
    {
      Arena::Scope inner(arena);
      std::memset(arena.Take<uint8_t>(3 << 20), 1, 3 << 20);  // needs a second block
    }
    float* after = arena.Take<float>(7);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(small) % kBufferAlignment, 0u);
    EXPECT_EQ(after - small, 112);  // 400 bytes rounded up to 448
    if (round == 0) {
      first = small;
      held = arena.bytes();
    }
    EXPECT_EQ(small, first);
    EXPECT_EQ(arena.bytes(), held);
  }
}

TEST(Arena, RefusesSizesThatWrap) {
  Arena arena;
  EXPECT_THROW(arena.Take<double>(INT64_MAX / 4), Error);
  EXPECT_THROW(arena.Take<double>(-1), Error);
}

}  // namespace
}  // namespace bakestone
