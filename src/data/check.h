// What is in a source, before anything is trained on it: its form, lengths, duplicates, personal
// data, signs of poor quality, rows that cannot be read. One pass, or two where duplicates are
// looked for.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/thread_pool.h"
#include "data/data_source.h"
#include "data/personal_data.h"
#include "data/quality.h"
#include "data/row.h"
#include "data/source_plan.h"

namespace bakestone {

struct Lengths {
  int64_t least = 0, p5 = 0, median = 0, p95 = 0, most = 0, sum = 0;
};

struct Example {
  int64_t line = 0;
  std::string text;  // a reason, or what was found
};

struct SourceReport {
  std::string container, unit;             // "JSON lines, gzip"; "line"
  std::map<std::string, int64_t> formats;  // rows of each
  int64_t rows = 0, rejected = 0;
  int64_t exact_duplicates = 0, near_duplicates = 0;
  int64_t train_rows = 0, heldout_rows = 0, groups = 0, largest_group = 0;
  Lengths characters;  // of a row
  Lengths tokens;      // all 0 without a measure
  std::array<int64_t, kNumQualitySigns> signs{};
  std::array<int64_t, kNumPersonalKinds> personal{};
  int64_t personal_rows = 0;
  std::vector<Example> rejects, personal_examples, duplicate_examples;  // the first few
  std::array<std::vector<int64_t>, kNumQualitySigns> sign_lines;        // the first few
};

struct CheckOptions {
  ThreadPool* pool = nullptr;
  std::function<int64_t(const Row&)> count_tokens;  // from any thread; empty: not counted
  std::function<void(const ReadProgress&)> progress;
};

SourceReport CheckSource(const DataSource& source, const CheckOptions& options);

nlohmann::ordered_json ToJson(const SourceReport& report);

}  // namespace bakestone
