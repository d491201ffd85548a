// What a bake ends in: the table for people, and the same figures as JSON.
#pragma once

#include <string>

#include "pipeline/bake.h"

namespace bakestone::cli {

// quantize: of --quantize; empty: the base was used as it is.
std::string BakeTable(const BakeReport& report, const std::string& quantize);

}  // namespace bakestone::cli
