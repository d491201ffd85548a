// Which table runs: asked of the CPU once, at start.
#include <cstring>
#include <string>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

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

// Not every compiler's __builtin_cpu_supports knows the name.
const char* MissingForAvxVnni() {
  if (const char* missing = MissingForAvx2()) return missing;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d) == 0 || (a & 1u << 4) == 0) return "AVX-VNNI";
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

// The operating system must save the tiles, and be asked for them once per process (Intel's manual,
// volume 1, 18.5; Linux, Documentation/arch/x86/xstate.rst); threads inherit the permission.
const char* MissingForAmx() {
  if (const char* missing = MissingForAvx512()) return missing;
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kBF16 = 1u << 22, kTile = 1u << 24, kInt8 = 1u << 25;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kTile) == 0) return "AMX-TILE";
  if ((d & kInt8) == 0) return "AMX-INT8";
  if ((d & kBF16) == 0) return "AMX-BF16";
  if (!__builtin_cpu_supports("avx512bf16")) return "AVX512-BF16";
  constexpr long kRequestPermission = 0x1023,
                 kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static const bool permitted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return permitted ? nullptr : "permission to use AMX tiles (the operating system refused it)";
}

#elif defined(__aarch64__)

// The units are built for armv8.2-a: atomics came with 8.1.
const char* MissingForNeon() {
  const unsigned long capabilities = getauxval(AT_HWCAP);
  if ((capabilities & HWCAP_ATOMICS) == 0) return "LSE atomics";
  if ((capabilities & HWCAP_ASIMDDP) == 0) return "dot product instructions (asimddp)";
  return nullptr;
}

const char* MissingForNeonI8mm() {
  if (const char* missing = MissingForNeon()) return missing;
  if ((getauxval(AT_HWCAP2) & HWCAP2_I8MM) == 0) return "int8 matrix extension (i8mm)";
  return nullptr;
}

#endif

#if defined(__x86_64__)
// On AMD, vdpbf16ps does twice the work of an f32 multiply-add at the same rate; on Intel's server
// cores it is slower than the multiply-adds it replaces (112 against 222 GFLOP/s measured).
bool HasFastDots() {
  return __builtin_cpu_supports("avx512bf16") != 0 && __builtin_cpu_is("amd") != 0;
}
const TrainKernels& TrainAvx512() {
  if (!__builtin_cpu_supports("avx512bf16")) return kTrainAvx512;
  return HasFastDots() ? kTrainAvx512Bf16Dot : kTrainAvx512Bf16;
}
#endif

constexpr int kMaxTables = 5;

// Slowest first.
int Candidates(Candidate* out) {
  static const KernelTable reference{Isa::kReference, kServeReference, kTrainReference,
                                     kEncodeReference};
  out[0] = {&reference, nullptr};
#if defined(__x86_64__)
  static const KernelTable avx2{Isa::kAvx2, kServeAvx2, kTrainAvx2, kEncodeAvx2};
  static const KernelTable avxvnni{Isa::kAvxVnni, kServeAvxVnni, kTrainAvx2, kEncodeAvx2};
  static const KernelTable avx512 = Avx512Table(DotsPay());
  out[1] = {&avx2, MissingForAvx2()};
  out[2] = {&avxvnni, MissingForAvxVnni()};
  static const KernelTable amx = WithTiles(kTilesAmx);
  out[3] = {&avx512, MissingForAvx512()};
  out[4] = {&amx, MissingForAmx()};
  return 5;
#elif defined(__aarch64__)
  static const KernelTable neon{Isa::kNeon, kServeNeon, kTrainReference, kEncodeNeon};
  static const KernelTable i8mm{Isa::kNeonI8mm, kServeNeonI8mm, kTrainReference, kEncodeNeon};
  out[1] = {&neon, MissingForNeon()};
  out[2] = {&i8mm, MissingForNeonI8mm()};
  return 3;
#else
  return 1;
#endif
}

}  // namespace

#if defined(__x86_64__)
bool DotsPay() {
  static const bool pay = HasFastDots() && kDotsAvx512.in_pair_order();
  return pay;
}

KernelTable Avx512Table(bool with_dots) {
  KernelTable table{Isa::kAvx512, kServeAvx512, TrainAvx512(), kEncodeAvx512};
  if (!with_dots) return table;
  table.serve.matmul[static_cast<int>(PanelType::kBF16)].run = kDotsAvx512.matmul;
  AttentionKernels& attention = table.serve.attention[static_cast<int>(KvElement::kBF16)];
  attention.tile = kDotsAvx512.attention_tile;
  attention.segment = kDotsAvx512.attention_segment;
  return table;
}

KernelTable WithTiles(const TileKernels& tiles) {
  KernelTable table = Avx512Table(false);
  table.isa = Isa::kAmx;
  for (int i = 0; i < kNumPanelTypes; ++i) {
    if (tiles.matmul[i] != nullptr) table.serve.matmul[i].run = tiles.matmul[i];
  }
  AttentionKernels& attention = table.serve.attention[static_cast<int>(KvElement::kBF16)];
  attention.tile = tiles.attention_tile;
  attention.segment = tiles.attention_segment;
  table.train.product = "tdpbf16ps";
  table.train.tiles = true;
  table.train.gemm = tiles.train_gemm;
  table.train.outer = tiles.train_outer;
  return table;
}
#endif

const char* IsaName(Isa isa) {
  switch (isa) {
    case Isa::kReference:
      return "reference";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvxVnni:
      return "avxvnni";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAmx:
      return "amx";
    case Isa::kNeon:
      return "neon";
    case Isa::kNeonI8mm:
      return "neon_i8mm";
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
    Throw(ErrorCode::kUnsupported,
          "kernels '{}': this CPU has no {}; leave the choice to the program", isa_name,
          candidates[i].missing);
  }
  std::string known;
  for (int i = 0; i < count; ++i) {
    known += known.empty() ? "" : ", ";
    known += IsaName(candidates[i].table->isa);
  }
  Throw(ErrorCode::kInvalidArgument, "kernels: expected one of {}, found '{}'", known, isa_name);
}

std::vector<const KernelTable*> AvailableKernels() {
  Candidate candidates[kMaxTables];
  const int count = Candidates(candidates);
  std::vector<const KernelTable*> available;
  for (int i = 0; i < count; ++i) {
    if (candidates[i].missing == nullptr) available.push_back(candidates[i].table);
  }
  return available;
}

const char* MissingForVectors() {
  Candidate candidates[kMaxTables];
  return Candidates(candidates) > 1 ? candidates[1].missing : nullptr;
}

}  // namespace bakestone
