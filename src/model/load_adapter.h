// An adapter from disk, whatever its format.
#pragma once

#include <filesystem>
#include <memory>

#include "model/adapter.h"
#include "model/model.h"

namespace bakestone {

// A GGUF adapter (a file) or a PEFT folder. Throws Error naming what does not fit the model.
std::shared_ptr<const Adapter> LoadAdapter(const std::filesystem::path& path, const Model& model);

}  // namespace bakestone
