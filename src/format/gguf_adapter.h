// LoRA adapters as GGUF files, as llama.cpp reads them: general.type "adapter", adapter.type
// "lora", adapter.lora.alpha, and per matrix `blk.N.attn_q.weight.lora_a` / `.lora_b`. Two traps
// are handled here and nowhere else. The scale of the format is always alpha / rank: rsLoRA and
// per-entry alphas are folded into adapter.lora.alpha and, where that is not enough, into B. And
// architectures whose query and key rows are permuted in GGUF (q_k_permute.h) have the rows of
// their lora_b permuted too. Experts' pairs are stacked by layer. Functions without state; any
// thread.
#pragma once

#include <cstdint>
#include <filesystem>

#include "format/adapter_file.h"

namespace bakestone {

class GgufFile;

// Of the base model: needed to permute q and k rows.
struct HeadShape {
  int64_t num_heads = 0, num_kv_heads = 0, head_dim = 0;
};

// Throws kCorrupt or kUnsupported naming the file and key or tensor; kInvalidArgument if the
// architecture permutes rows and the heads do not fit. The result has use_rslora false.
AdapterFile ReadGgufAdapter(const std::filesystem::path& path, const HeadShape& heads);
AdapterFile ReadGgufAdapter(const GgufFile& file, const HeadShape& heads);

// adapter.architecture must be set: loaders compare it with the base's. DoRA is refused: the format
// cannot hold it. Writes whole or not at all.
void WriteGgufAdapter(AdapterFile adapter, const HeadShape& heads,
                      const std::filesystem::path& path);

}  // namespace bakestone
