// Between an adapter's matrices as files have them and as the decoder does. Families differ in what
// lies in one matrix: queries by head before a gate's rows (Qwen3.5), queries, keys and values, or
// gate and up, one after the other (Phi-3). Functions without state; any thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "format/adapter_file.h"
#include "model/config.h"

namespace bakestone {

// The entries of the decoder's own matrices that an entry of a file stands for; none: itself.
// Throws kInvalidArgument where its shape is not the base's, kUnsupported where a gate is changed.
std::optional<std::vector<AdapterEntry>> SplitEntry(const AdapterFile& file,
                                                    const AdapterEntry& entry,
                                                    const ModelConfig& config);

// The other way, of all entries of a file: pairs of matrices that lie together become one pair of
// their ranks' sum, whose scale is theirs. They have one scale; with DoRA all of them have pairs.
void JoinEntries(const ModelConfig& config, AdapterFile& file);

}  // namespace bakestone
