// The actions of `bakestone data`, one file each; as verbs (verbs.h).
#pragma once

#include "cli/verbs.h"

namespace bakestone::cli {

int DataMake(const Arguments& arguments);
int DataShow(const Arguments& arguments);

}  // namespace bakestone::cli
