// What a bake ends in: the table for people, and the same figures as JSON.
#pragma once

#include <string>

#include "pipeline/bake.h"

namespace bakestone::cli {

std::string BakeTable(const BakeReport& report);

}  // namespace bakestone::cli
