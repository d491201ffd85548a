// Models and adapters from one format into the other, with nothing changed but the format. What
// lies at a path decides what becomes of it.
#pragma once

#include <filesystem>

#include "convert/model_source.h"

namespace bakestone {

enum class Artifact : uint8_t { kGgufModel, kGgufAdapter, kHfModel, kPeftAdapter };

// Throws kNotFound or kUnsupported where it is none of them.
Artifact ArtifactAt(const std::filesystem::path& path);

// A PEFT folder becomes a GGUF adapter, and a GGUF adapter a PEFT folder. `base` is the model that
// it belongs to: its architecture and heads say how rows of q and k are ordered, and every shape is
// held against it. Throws kInvalidArgument for an adapter of another base, kUnsupported for what
// the other format cannot hold.
void ExportAdapter(const std::filesystem::path& adapter, const ModelSource& base,
                   const std::filesystem::path& out);

}  // namespace bakestone
