// The filter tables, one for each file of filters.
#pragma once

#include <span>

#include "text/chat/builtins.h"

namespace bakestone::chat {

std::span<const NamedBuiltin> StringFilters();
std::span<const NamedBuiltin> SequenceFilters();
std::span<const NamedBuiltin> ScalarFilters();

}  // namespace bakestone::chat
