// Where the source tree is, for tests, benchmarks and generators that read committed data. Never
// linked into the program: only what links bakestone_source_dir (cmake/) has it, so that this one
// small unit is all that depends on the tree's path.
#pragma once

namespace bakestone {

const char* SourceDir();

}  // namespace bakestone
