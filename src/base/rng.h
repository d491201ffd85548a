// Philox 4x32-10, a counter-based generator (Salmon et al., "Parallel random numbers: as easy as 1,
// 2, 3", 2011). A draw is a pure function of (seed, stream, counter): nothing to save, nothing to
// lock, the same on every machine. Sampling uses stream = choice index, counter = position in the
// sequence.
#pragma once

#include <array>
#include <cstdint>

namespace bakestone {

// Sixteen random bytes as four words.
std::array<uint32_t, 4> Philox(uint64_t seed, uint64_t stream, uint64_t counter) noexcept;

// Uniform in [0, 1), 53 bits.
double UniformDouble(uint64_t seed, uint64_t stream, uint64_t counter) noexcept;

// A sequence drawn from one stream; the counter is the whole state and can be saved and restored.
class Rng {
 public:
  Rng(uint64_t seed, uint64_t stream) : seed_(seed), stream_(stream) {}
  uint64_t Next() noexcept;
  double Uniform() noexcept { return UniformDouble(seed_, stream_, counter_++); }
  float Normal() noexcept;                  // mean 0, variance 1, within +-6
  uint64_t Below(uint64_t bound) noexcept;  // unbiased, in [0, bound); bound > 0
  uint64_t counter() const noexcept { return counter_; }
  void set_counter(uint64_t counter) noexcept { counter_ = counter; }

 private:
  uint64_t seed_, stream_, counter_ = 0;
};

}  // namespace bakestone
