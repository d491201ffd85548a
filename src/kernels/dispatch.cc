// Which table runs: asked of the CPU once, at start.
#include <cstring>

#include "base/error.h"
#include "kernels/isa.h"
#include "kernels/kernel_table.h"
#include "kernels/serve_tables.h"

namespace bakestone {
namespace {

struct Candidate {
  const KernelTable* table;
  const char* missing;  // what this CPU lacks, or null
};

#if defined(__x86_64__)

const char* MissingForAvx2() {
  if (!__builtin_cpu_supports("avx2")) return "AVX2";
  if (!__builtin_cpu_supports("fma")) return "FMA";
  if (!__builtin_cpu_supports("f16c")) return "F16C";
  return nullptr;
}

const char* MissingForAvx512() {
  if (const char* missing = MissingForAvx2()) return missing;
  if (!__builtin_cpu_supports("avx512f")) return "AVX512F";
  if (!__builtin_cpu_supports("avx512bw")) return "AVX512BW";
  if (!__builtin_cpu_supports("avx512dq")) return "AVX512DQ";
  if (!__builtin_cpu_supports("avx512vl")) return "AVX512VL";
  if (!__builtin_cpu_supports("avx512vnni")) return "AVX512_VNNI";
  return nullptr;
}

#endif

constexpr int kMaxTables = 3;

// Slowest first.
int Candidates(Candidate* out) {
  static const KernelTable reference{Isa::kReference, kServeReference, kTrainReference};
  out[0] = {&reference, nullptr};
#if defined(__x86_64__)
  static const KernelTable avx2{Isa::kAvx2, kServeAvx2, kTrainAvx2};
  static const KernelTable avx512{Isa::kAvx512, kServeAvx512, kTrainAvx512};
  out[1] = {&avx2, MissingForAvx2()};
  out[2] = {&avx512, MissingForAvx512()};
  return 3;
#else
  return 1;
#endif
}

}  // namespace

const char* IsaName(Isa isa) {
  switch (isa) {
    case Isa::kReference: return "reference";
    case Isa::kAvx2: return "avx2";
    case Isa::kAvx512: return "avx512";
  }
  return "?";
}

const KernelTable& ChooseKernels(const char* isa_name) {
  Candidate candidates[kMaxTables];
  const int count = Candidates(candidates);
  const bool fastest = isa_name == nullptr || *isa_name == 0;
  for (int i = count - 1; i >= 0; --i) {
    if (fastest) {
      if (candidates[i].missing == nullptr) return *candidates[i].table;
      continue;
    }
    if (std::strcmp(isa_name, IsaName(candidates[i].table->isa)) != 0) continue;
    if (candidates[i].missing == nullptr) return *candidates[i].table;
    Throw(ErrorCode::kUnsupported, "kernels '{}': this CPU has no {}; leave the choice to the program",
          isa_name, candidates[i].missing);
  }
#if defined(__x86_64__)
  constexpr const char* kKnown = "reference, avx2, avx512";
#else
  constexpr const char* kKnown = "reference";
#endif
  Throw(ErrorCode::kInvalidArgument, "kernels: expected one of {}, found '{}'", kKnown, isa_name);
}

int AvailableKernels(const KernelTable** tables) {
  Candidate candidates[kMaxTables];
  const int count = Candidates(candidates);
  int available = 0;
  for (int i = 0; i < count; ++i) {
    if (candidates[i].missing == nullptr) tables[available++] = candidates[i].table;
  }
  return available;
}

std::vector<const KernelTable*> AvailableKernels() {
  const KernelTable* tables[kMaxTables];
  const int count = AvailableKernels(tables);
  return {tables, tables + count};
}

}  // namespace bakestone
