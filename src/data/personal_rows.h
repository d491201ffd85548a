// Personal data (personal_data.h) in whole rows: counted, or masked before anything learns it. Pure
// functions for any thread.
#pragma once

#include <array>
#include <cstdint>

#include "data/personal_data.h"
#include "data/row.h"

namespace bakestone {

using PersonalCounts = std::array<int64_t, kNumPersonalKinds>;

// Findings of each kind in all that the row says.
PersonalCounts CountPersonalData(const Row& row);
// The same, and each becomes its kind in brackets: in texts, contents of messages and texts within
// tool calls.
PersonalCounts MaskPersonalData(Row* row);

}  // namespace bakestone
