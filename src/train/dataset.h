// From a source of a recipe to samples: its rows (data/) read in blocks, encoded (encode.h) by all
// threads, in the file's order whatever their number. Nothing is left out silently: every row that
// is not used is counted, and stands in a file with its line and the reason.
//
// Samples are kept in memory, or in a folder of files that are mapped (a source larger than memory
// works) and found again by what they were made from.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/thread_pool.h"
#include "data/data_source.h"
#include "data/source_plan.h"
#include "model/model.h"
#include "train/encode.h"
#include "train/sample_file.h"

namespace bakestone {

// What was read, for people and for the record.
struct DatasetCounts {
  int64_t tokens = 0, trained = 0;
  int64_t cut = 0;  // samples that were longer than the limit and lost their end

  DatasetCounts& operator+=(const DatasetCounts& other);
};

// Samples of one or several sources, one after another. Immutable but for Append; any number of
// threads may read it. What is drawn is a unit: a sample, or with preferences two, what was chosen
// and what was rejected.
class Dataset {
 public:
  struct Part {
    std::shared_ptr<const SampleFile> samples;
    int64_t begin = 0, size = 0;  // units: index of the first, how many
    double weight = 1;            // how often an epoch sees each
  };

  Dataset() = default;
  Dataset(std::shared_ptr<const SampleFile> samples, const DatasetCounts& counts, double weight = 1,
          int64_t unit = 1);

  int64_t size() const { return size_; }  // units
  int64_t unit() const { return unit_; }  // samples in one
  int64_t epoch_size() const;             // units drawn in one epoch: sizes times weights
  SampleView At(int64_t unit, int64_t which = 0) const;
  const DatasetCounts& counts() const { return counts_; }
  const std::vector<Part>& parts() const { return parts_; }
  // Throws kInvalidArgument where units differ.
  void Append(const Dataset& other);

 private:
  std::vector<Part> parts_;
  int64_t size_ = 0, unit_ = 1;
  DatasetCounts counts_;
};

// What became of a source's rows.
struct SourceSummary {
  std::string name, container, unit;       // "JSON lines, gzip"; unit: "line"
  std::map<std::string, int64_t> formats;  // rows of each
  std::string format = "auto";             // as the recipe stated it
  int64_t rows = 0, learned = 0, heldout = 0;
  int64_t rejected = 0;                               // cannot be read or rendered
  int64_t unlearned = 0;                              // nothing in it to learn
  int64_t overlong = 0;                               // left out, being longer than the limit
  int64_t exact_duplicates = 0, near_duplicates = 0;  // left out
  int64_t personal_rows = 0;
  std::map<std::string, int64_t> personal;  // findings of each kind
  bool masked = false;
  std::string first_reject;       // "line 12: ..."
  std::filesystem::path rejects;  // file with all of them; empty: none, or none was asked for

  std::string Line() const;  // for people: what it is and how much
  std::vector<std::string> Warnings() const;
};
nlohmann::ordered_json ToJson(const SourceSummary& summary);

struct SourceSamples {
  Dataset train, heldout;
  SourceSummary summary;
};

// What a method can use; other rows are rejected.
enum class RowUse : uint8_t { kTextsAndConversations, kConversations, kPreferences };

struct ReadOptions {
  int64_t max_tokens = 512;  // the longest sample
  bool joinable = false;     // find the lead of conversations
  RowUse use = RowUse::kTextsAndConversations;
  ThreadPool* pool = nullptr;     // null: this thread alone
  std::filesystem::path rejects;  // file for the rows that are not used; empty: none is written
  std::filesystem::path cache;    // folder for the samples; empty: in memory
  // While it is compared and split (if the source asks for that), and while it is tokenized. May
  // throw to stop.
  std::function<void(const ReadProgress&)> plan_progress = {}, progress = {};
};

// Reads one source. Throws kNotFound, or kInvalidArgument naming file, line, expected and found,
// when more rows than the source allows cannot be used, or when nothing in it would be trained.
SourceSamples ReadDataset(const Model& model, const ChatEncoder& encode_chat,
                          const DataSource& source, const ReadOptions& options);

}  // namespace bakestone
