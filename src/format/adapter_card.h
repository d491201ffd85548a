// The model card of an adapter: README.md with a head in YAML, as the hub reads it.
#pragma once

#include <string>

#include "format/adapter_file.h"

namespace bakestone {

std::string AdapterCard(const AdapterFile& adapter);

}  // namespace bakestone
