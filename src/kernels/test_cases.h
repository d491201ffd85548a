// Inputs for the kernel tests and their goldens: drawn from Philox, so that every machine makes the
// same bytes. Test code only.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/sha256.h"
#include "kernels/kernel_table.h"
#include "tensor/buffer.h"

namespace bakestone::testing {

// Every table that runs here, the reference first; where the CPU has AVX-512, also what it would
// not choose: avx512 without bf16 (and with bf16 dot products), avxvnni in AVX-512's encoding, amx
// emulated. In kernels_test only: serve_test.cc.
std::vector<const KernelTable*> Tables();
std::string TableName(int index);

// n floats of mean 0 and variance 1, times scale; every 97th is an outlier of eight times that.
std::vector<float> RandomFloats(int64_t n, uint64_t seed, float scale = 1.0f);

// n rows of k weights in the file's form, with scales of ordinary size.
std::vector<uint8_t> RandomTensor(PanelType type, int64_t n, int64_t k, uint64_t seed);

struct PanelCase {
  std::vector<uint8_t> rows;  // as in a file
  Buffer<uint8_t> storage;
  Panel panel;
};
PanelCase RandomPanel(PanelType type, int64_t n, int64_t k, uint64_t seed);

// Activations that own their memory.
struct ActivationCase {
  std::vector<int8_t> q;
  std::vector<float> f, scale, scaled_sum;
  std::vector<int16_t> sum;
  Activations view;
  uint32_t error = 0;
};
ActivationCase MakeActivations(const KernelTable& table, ActType type, const std::vector<float>& x,
                               int64_t rows, int64_t k);

enum class Tiny { kNone, kThere, kFlushed };  // BF16 weights below 2^-50

struct MatMulCase {
  PanelType type;
  int64_t m, n, k;
  bool exact = false;
  Epilogue epilogue = Epilogue::kStore;
  bool bias = false;
  Tiny tiny = Tiny::kNone;
};
// y [m, n], made with activations quantized by the same table.
std::vector<float> RunMatMul(const KernelTable& table, const MatMulCase& c);

// Keys and values of `slots` slots are written, then the last `rows` of them attend.
struct AttentionCase {
  KvElement element;
  int64_t heads, kv_heads, head_dim, slots, rows;
  int64_t tile = kAttentionTile;  // rows a tile: must not matter
  bool by_segment = false;        // each segment by itself, then merged: must not matter
  int64_t window = 0;
  float soft_cap = 0;
  bool sinks = false;      // Sinks()
  bool both_ways = false;  // every row sees all slots
  int64_t ahead =
      0;  // slots behind its own that a row sees, as far as there are any; counted by the window
};
// The sinks of such a case: [heads].
std::vector<float> Sinks(const AttentionCase& c);

const char* KvElementName(KvElement element);

class AttentionRunner {
 public:
  AttentionRunner(const KernelTable& table, const AttentionCase& c);  // writes the keys and values
  const std::vector<float>& Run();                                    // [rows, heads * head_dim]
  // All keys and values as written: to compare what is written.
  std::span<const uint8_t> pages() const { return storage_.span(); }

 private:
  void RunTile(const AttentionArgs& args, const KvRun& run, Range rows, int64_t kv_head);

  const KernelTable& table_;
  const AttentionCase c_;
  std::vector<float> q_, sinks_, out_;
  Buffer<uint8_t> storage_, scratch_;
  std::vector<uint8_t*> k_pages_, v_pages_;
};
std::vector<float> RunAttention(const KernelTable& table, const AttentionCase& c);

// One head over rows that follow each other, some steps of it.
struct DeltaCase {
  int64_t key_dim, value_dim, rows;
  int64_t step = 1000;  // rows of a call: must not matter
};
// y [rows, value_dim], then the state after them.
std::vector<float> RunDelta(const KernelTable& table, const DeltaCase& c);
// RWKV-7's rule with key_dim and value_dim alike: the same.
std::vector<float> RunRwkv(const KernelTable& table, const DeltaCase& c);

const char* PanelTypeName(PanelType type);
// k of one block, or an odd number for plain types.
int64_t SmallK(PanelType type);

// One hash per kernel and type: what goldens.txt holds.
struct Golden {
  std::string name, hash;
};
std::vector<Golden> ComputeGoldens(const KernelTable& table);

}  // namespace bakestone::testing
