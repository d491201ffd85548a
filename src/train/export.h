// From the trainer's masters to adapters that others read: values as they were served, that is
// rounded to bf16, so that what is exported is what was measured.
#pragma once

#include <span>
#include <string>

#include "format/adapter_file.h"
#include "model/model.h"
#include "model/trainer_pass.h"
#include "train/recipe.h"

namespace bakestone {

AdapterFile MakeAdapterFile(const Model& model, const TrainLayout& layout,
                            std::span<const float> masters, const LoraRecipe& lora,
                            const std::string& name);

}  // namespace bakestone
