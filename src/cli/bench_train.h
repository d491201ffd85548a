// bakestone bench MODEL --train: how fast training steps are, against the machine's arithmetic.
#pragma once

#include "cli/verbs.h"

namespace bakestone::cli {

// True where the arguments of bench ask for this.
bool AsksForTraining(const Arguments& arguments);
int BenchTrain(const Arguments& arguments);

}  // namespace bakestone::cli
