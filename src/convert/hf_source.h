// A Hugging Face folder as a model to be written: GGUF's names, GGUF's order of rows, GGUF's
// metadata, and norms as GGUF has them. Nothing is converted until a row is asked for.
#pragma once

#include <filesystem>

#include "convert/model_source.h"

namespace bakestone {

struct HfSourceOptions {
  bool metadata = true;   // false: only the tensors, also of what GGUF's keys cannot say
  bool tokenizer = true;  // false: without one (the folder may lack it)
};

// Throws as HfFolder::Open and ReadConfig do; kUnsupported naming what GGUF cannot hold.
ModelSource OpenHfSource(const std::filesystem::path& folder, const HfSourceOptions& options = {});

// Either: a folder is taken for Hugging Face's.
ModelSource OpenSource(const std::filesystem::path& path, const HfSourceOptions& options = {});

}  // namespace bakestone
