// A folder of files that can be made again: the oldest go when it outgrows its limit. Any number of
// processes may share it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

namespace bakestone {

// Removes the oldest files of that extension until the rest is within max_bytes; `keep` stays. Also
// what a writer that was killed left behind more than a day ago (AtomicFile's temporary files).
void TrimFolder(const std::filesystem::path& folder, std::string_view extension, int64_t max_bytes,
                const std::filesystem::path& keep);

}  // namespace bakestone
