// The file that keeps a stage's reference log-probabilities, so that a resumed run has the very
// ones that it began with and does not compute them again.
//
//   "BAKEREFS"  u32 version = 1  u32 zero  u64 units of train, of heldout  32 bytes SHA-256 of the
//               stage's key
//   f64 chosen[units], rejected[units], of train, then of heldout
//   SHA-256 of all bytes before it
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "train/step_source.h"

namespace bakestone {

struct StageReferences {
  References train, heldout;
};

void WriteReferences(const std::filesystem::path& path, const std::string& key,
                     const StageReferences& references);
// nullopt where there is none of this key, or it is damaged: it is made again.
std::optional<StageReferences> ReadReferences(const std::filesystem::path& path,
                                              const std::string& key);

}  // namespace bakestone
