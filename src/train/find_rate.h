// A learning rate to begin with, found by trying: a few dozen steps of a stage with a rate that
// grows from step to step until the loss rises (L. Smith, "Cyclical learning rates for training
// neural networks", 2017). What is suggested lies between the rate at which the loss fell fastest
// and a tenth of that at which it was lowest: a place to start from, not a measured optimum.
// Nothing is kept of the steps.
#pragma once

#include <cstdint>
#include <vector>

#include "tensor/aligned_vector.h"
#include "train/trainer.h"

namespace bakestone {

struct RateFinding {
  std::vector<double> rates, losses;  // tried, ascending; losses smoothed over some steps
  double fastest = 0;                 // where the smoothed loss fell fastest
  double lowest = 0;                  // where it was lowest
  double suggested = 0;
};

// initial: values that the stage starts from. Throws kInvalidArgument where no rate lowered the
// loss; kCancelled.
RateFinding FindRate(const Model& model, const Recipe& recipe, const StageRecipe& stage,
                     const StageData& data, AlignedVector<float> initial,
                     const KernelTable& kernels, ThreadPool& pool, const TrainOptions& options,
                     TrainObserver& observer);

// From losses of single steps: smooths them, cuts where they run away, and finds the three rates.
RateFinding JudgeRates(const std::vector<double>& rates, const std::vector<double>& losses);

}  // namespace bakestone
