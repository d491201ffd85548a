// One flat table of kernels per (device, ISA); no entry is ever null. PODs and <cstdint> only, so that
// a unit compiled for a newer CPU emits no weak symbol that the linker could choose for the baseline.
// Kernels get a Range of work units and never see threads; src/ops/ checks shapes, splits the work and
// calls. Bits: docs/numerics.md.
#pragma once

#include <cstdint>

#include "kernels/train_kernels.h"

namespace bakestone {

enum class Isa : uint8_t { kReference, kAvx2, kAvx512 };

struct Range {
  int64_t begin, end;  // in work units of that op
};

// The packed form of one weight matrix [n, k]: rows interleaved by 16 (kernels/panel.h).
enum class PanelType : uint8_t {
  kF32, kF16, kBF16, kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ8_0, kQ2_K, kQ3_K, kQ4_K, kQ5_K, kQ6_K, kIQ4_NL,
  kIQ4_XS, kMXFP4,
};
inline constexpr int kNumPanelTypes = 16;

struct Panel {
  const uint8_t* data;
  int64_t n, k;
  PanelType type;
};

struct KernelTable {
  Isa isa;
  TrainKernels train;
};

// The fastest table this machine can run, or the one named ("reference", "avx2", "avx512").
// Throws kInvalidArgument for an unknown name (the known ones are listed), kUnsupported when the CPU
// lacks what the table needs (named).
const KernelTable& ChooseKernels(const char* isa_name);

}  // namespace bakestone
