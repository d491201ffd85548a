// bakestone bench --serve URL: load on a server that speaks OpenAI's API, ours or another.
#pragma once

#include "cli/verbs.h"

namespace bakestone::cli {

// True where the arguments of bench ask for this.
bool AsksForLoad(const Arguments& arguments);
int BenchServe(const Arguments& arguments);

}  // namespace bakestone::cli
