// LoRA adapters as a PEFT folder: adapter_config.json and adapter_model.safetensors, as the Python
// package `peft` reads and writes them. Reading accepts F32, F16 and BF16 tensors, rank_pattern,
// alpha_pattern, rsLoRA and DoRA; anything that would change the result and is not supported
// (biases, modules_to_save, other methods, fan_in_fan_out) is refused by name. Writing gives F32.
// Functions without state; any thread.
#pragma once

#include <filesystem>

#include "format/adapter_file.h"

namespace bakestone {

// Throws kNotFound, kCorrupt or kUnsupported naming the file and the field or tensor.
AdapterFile ReadPeftAdapter(const std::filesystem::path& folder);

// Writes tensors, a model card and the configuration, each whole or not at all, the configuration
// last: a folder with one is complete. Entries may be in any order; base_hash goes into the
// safetensors metadata.
void WritePeftAdapter(AdapterFile adapter, const std::filesystem::path& folder);

}  // namespace bakestone
