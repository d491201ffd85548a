// From a recipe to what is trained: the layout of its tensors, their values before the first step,
// and the adapter that they are served as.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/adapter.h"
#include "model/model.h"
#include "model/train_layout.h"
#include "tensor/aligned_vector.h"
#include "train/recipe.h"

namespace bakestone {

TrainLayout LayoutOf(const Model& model, const Recipe& recipe);

// What multiplies B (A x): alpha / rank, or alpha / sqrt(rank) with rsLoRA.
float PairScale(const LoraRecipe& lora);

// Pairs: A uniform in +-1/sqrt(in), B zero, magnitudes the norms of the base's rows. The model's
// own tensors: their values, exactly. A function of the base, the layout and the seed.
AlignedVector<float> InitialValues(const Model& model, const TrainLayout& layout, uint64_t seed,
                                   const KernelTable& kernels, ThreadPool& pool);

// Puts the pairs of lora.start in place of the initial ones. Throws kInvalidArgument for an adapter
// of another base, or of another shape than the recipe's.
void StartFrom(const Model& model, const TrainLayout& layout, const LoraRecipe& lora,
               std::span<float> values);

// Rounds the pairs into the adapter, as they are used in training and in serving. Of a layout with
// pairs.
void SetAdapter(const TrainLayout& layout, std::span<const float> values, const LoraRecipe& lora,
                Adapter* adapter);

}  // namespace bakestone
