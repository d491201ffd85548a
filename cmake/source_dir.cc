#include "base/source_dir.h"

namespace bakestone {

const char* SourceDir() { return BAKESTONE_SOURCE_DIR; }

}  // namespace bakestone
