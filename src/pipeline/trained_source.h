// A trained model whole, as a source that convert/ writes: the base's tensors, with the values of
// what was trained in place of its own, row by row. Pairs are merged as convert/merge.h does.
// Matrices that were trained are bf16, the type that training multiplies with; vectors f32; the
// rest is the base's.
//
// For what no adapter beside its base can hold: full fine-tuning and DoRA. Keeps references to
// model, layout and values; rows may be read by any number of threads.
#pragma once

#include <span>

#include "convert/model_source.h"
#include "convert/quantize.h"
#include "model/model.h"
#include "model/train_layout.h"
#include "train/recipe_stage.h"

namespace bakestone {

// values: the layout's. Throws kUnsupported where the base is no GGUF file.
ModelSource OpenTrainedSource(const Model& model, const TrainLayout& layout,
                              std::span<const float> values, const LoraRecipe& lora);

// Every tensor in the type that the source has it in.
QuantizePlan PlanAsIs(const ModelSource& source);

}  // namespace bakestone
