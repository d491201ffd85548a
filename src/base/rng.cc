#include "base/rng.h"

namespace bakestone {

std::array<uint32_t, 4> Philox(uint64_t seed, uint64_t stream, uint64_t counter) noexcept {
  uint32_t c0 = static_cast<uint32_t>(counter), c1 = static_cast<uint32_t>(counter >> 32);
  uint32_t c2 = static_cast<uint32_t>(stream), c3 = static_cast<uint32_t>(stream >> 32);
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53} * c0;
    const uint64_t p1 = uint64_t{0xCD9E8D57} * c2;
    const uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    const uint32_t n2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(p1);
    c3 = static_cast<uint32_t>(p0);
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return {c0, c1, c2, c3};
}

double UniformDouble(uint64_t seed, uint64_t stream, uint64_t counter) noexcept {
  const auto words = Philox(seed, stream, counter);
  const uint64_t bits = (uint64_t{words[0]} << 32) | words[1];
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

uint64_t Rng::Next() noexcept {
  const auto words = Philox(seed_, stream_, counter_++);
  return (uint64_t{words[0]} << 32) | words[1];
}

// The sum of twelve uniforms less six has variance 1 and needs no libm, so that initial weights are
// the same bits on every machine. Its tails end at +-6, which no initializer minds.
float Rng::Normal() noexcept {
  double sum = -6.0;
  for (int i = 0; i < 12; ++i) sum += Uniform();
  return static_cast<float>(sum);
}

__extension__ using Wide = unsigned __int128;

uint64_t Rng::Below(uint64_t bound) noexcept {
  // Lemire's multiply-and-reject.
  while (true) {
    const Wide product = static_cast<Wide>(Next()) * bound;
    if (static_cast<uint64_t>(product) >= (0 - bound) % bound) {
      return static_cast<uint64_t>(product >> 64);
    }
  }
}

}  // namespace bakestone
