// How a stage reads a source: what its method can use, and how long a sample may be.
#pragma once

#include "train/dataset.h"
#include "train/recipe_stage.h"

namespace bakestone {

ReadOptions ReadingOf(const StageRecipe& stage);

}  // namespace bakestone
