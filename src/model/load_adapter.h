// An adapter from disk, whatever its format, and the base that it belongs to.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "model/adapter.h"
#include "model/model.h"

namespace bakestone {

// A GGUF adapter (a file) or a PEFT folder. Throws Error naming what does not fit the model;
// kInvalidArgument where the adapter says that its base had other norms: it was trained on another
// model. One that says nothing (PEFT's own, say) is known by its shapes only.
std::shared_ptr<const Adapter> LoadAdapter(const std::filesystem::path& path, const Model& model);

// SHA-256 in hex of all layers' norms and the last one, rounded to bf16. Quantizing leaves norms as
// they are and training a whole model moves them, so that it tells models of one shape apart,
// whatever types their files are of.
std::string NormsHash(const Weights& weights);

}  // namespace bakestone
