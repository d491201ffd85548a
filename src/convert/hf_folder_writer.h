// A GGUF model as a Hugging Face folder: config.json, generation_config.json, tokenizer.json,
// tokenizer_config.json, README.md with the licence, model.safetensors; of encoders the modules of
// sentence-transformers too. The settings are read back
// from the config and held against the model's, as gguf_keys.h does the other way. Each file is
// whole or not there, and config.json comes last: a folder that has it is complete.
#pragma once

#include <filesystem>
#include <optional>

#include "convert/quantize.h"
#include "model/config.h"

namespace bakestone {

// Its tensors alone, of `type`, into model.safetensors, and those of dense layers behind an encoder
// into folders of their own. The config has been checked (LostInFolder).
void WriteHfTensors(const ModelSource& source, const ModelConfig& config, DType type,
                    const std::filesystem::path& out, const KernelTable& kernels, ThreadPool& pool,
                    const ConvertProgress& progress = {});

// How an encoder's rows become a vector, as sentence-transformers lays it beside a model:
// modules.json, 1_Pooling, and the sizes of the dense layers.
void WriteModules(const ModelConfig& config, const std::filesystem::path& out);

// type: F32, F16 or BF16 for all tensors; absent: the matrices' own where all have one of them,
// else F32 (exact). Throws kUnsupported naming a setting that would be lost, or a family that
// cannot be written yet (LostInFolder); kCorrupt for a weight that f16 cannot hold.
void WriteHfFolder(const std::filesystem::path& model, const std::filesystem::path& out,
                   std::optional<DType> type, const KernelTable& kernels, ThreadPool& pool,
                   const ConvertProgress& progress = {});

}  // namespace bakestone
