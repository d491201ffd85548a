// What became of a source's rows, as lines for people, as JSON, and as the note of a file of
// samples.
#pragma once

#include <string>
#include <string_view>

#include "train/dataset.h"

namespace bakestone {

std::string NoteOf(const SourceSummary& summary, const DatasetCounts& counts);
// False where the note is not one of ours.
bool ReadNote(std::string_view note, SourceSummary* summary, DatasetCounts* counts);

}  // namespace bakestone
