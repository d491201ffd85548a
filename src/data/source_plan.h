// What becomes of each row of a source: learned, held out, or left out because it stands there
// already. Found in one pass over the file before any is tokenized; what is kept a row is small,
// and the sets that are compared lie in a temporary file, so that a source larger than memory
// works.
//
// The split is a function of what the rows say: it does not change when rows are added, taken away
// or moved, but for those that become alike. Rows that belong together stay on one side: rows of
// one stated group, near duplicates, and conversations with the same first question or the same
// answer of five words and more (paraphrases of a question would tell the answer).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "data/data_source.h"
#include "data/row_source.h"

namespace bakestone {

// How far reading a source is; bytes of the file, 0 of 0 where that is not known.
struct ReadProgress {
  int64_t rows = 0, bytes = 0, file_bytes = 0;
};

enum class RowFate : uint8_t { kTrain, kHeldOut, kExactDuplicate, kNearDuplicate, kRejected };

struct SourcePlan {
  std::vector<RowFate> fates;  // [rows of the file]
  std::vector<int64_t> twins;  // [rows]; of a duplicate: the index of the row that is kept; else -1
  int64_t groups = 0, heldout_groups = 0;
  int64_t largest_group = 0;  // rows

  int64_t Count(RowFate fate) const;
};

// Similarity from which a row is a near duplicate, and from which two rows may not be on two sides.
inline constexpr double kNearDuplicate = 0.8, kTogether = 0.5;

struct SourcePlanOptions {
  ThreadPool* pool = nullptr;     // null: this thread alone
  std::filesystem::path scratch;  // folder for the temporary file; empty: the system's
  std::function<void(const ReadProgress&)> progress;  // may throw to stop
};

// True if the source asks for anything that needs a plan.
bool NeedsPlan(const DataSource& source);

// Reads the source once. Throws what reading throws; kInvalidArgument when nothing would be left to
// train on or to hold out.
SourcePlan PlanSource(const DataSource& source, const SourcePlanOptions& options);

// The text of a source's rows, for those who score it: of the held-out side where it is split, else
// of all. Up to max_bytes, whole rows.
std::string TextToScoreOf(const DataSource& source, int64_t max_bytes,
                          const SourcePlanOptions& options);

// A source's rows in blocks, parsed by all threads, in the file's order.
struct RowBlock {
  int64_t first = 0;      // index of its first row
  ReadProgress progress;  // with its rows
  std::vector<RawRow> raw;
  std::vector<ParsedRow> rows;
};
void ForEachBlock(const DataSource& source, ThreadPool* pool,
                  const std::function<void(RowBlock& block)>& body,
                  std::string* container = nullptr, std::string* unit = nullptr);

}  // namespace bakestone
