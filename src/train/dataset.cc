#include "train/dataset.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "base/cache_folder.h"
#include "base/error.h"
#include "base/file.h"
#include "base/hash_memory.h"
#include "data/personal_rows.h"
#include "data/reject_log.h"
#include "data/source_plan.h"
#include "train/source_summary.h"

namespace bakestone {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kExtension = ".samples";
constexpr int64_t kMaxCacheBytes = int64_t{16} << 30;

// A row as samples, or why not.
struct EncodedRow {
  std::vector<Sample> samples;
  std::string problem, unused;  // problem: it cannot be used; unused: there is nothing to use
  int64_t cut = 0;
  bool overlong = false;
  PersonalCounts personal{};
};

class RowEncoder {
 public:
  RowEncoder(const Model& model, const ChatEncoder& encode_chat, const DataSource& source,
             const ReadOptions& options)
      : model_(model), encode_chat_(encode_chat), source_(source), options_(options) {}

  // Never throws: it runs on workers.
  EncodedRow Encode(Row* row) const {
    EncodedRow encoded;
    try {
      CheckUse(*row);
      if (source_.personal_data == PersonalDataPolicy::kMask) {
        encoded.personal = MaskPersonalData(row);
      } else if (source_.personal_data == PersonalDataPolicy::kWarn) {
        encoded.personal = CountPersonalData(*row);
      }
      Fill(*row, &encoded);
    } catch (const std::exception& error) {
      encoded.samples.clear();
      encoded.problem = error.what();
    }
    for (Sample& sample : encoded.samples) sample.row = row->number;
    return encoded;
  }

 private:
  void CheckUse(const Row& row) const {
    static constexpr std::string_view kKinds[] = {"a text", "a conversation", "a preference pair"};
    const auto found = kKinds[static_cast<size_t>(row.kind)];
    const bool preference = row.kind == RowKind::kPreference;
    if (preference == (options_.use == RowUse::kPreferences) &&
        (row.kind != RowKind::kText || options_.use != RowUse::kConversations)) {
      return;
    }
    Throw(ErrorCode::kInvalidArgument, "expected {}, found {}",
          options_.use == RowUse::kPreferences ? "'chosen' and 'rejected' (method \"dpo\")"
          : options_.use == RowUse::kConversations
              ? "a conversation (method \"sft\")"
              : "a text or a conversation (method \"pretrain\")",
          found);
  }

  void Fill(const Row& row, EncodedRow* encoded) const {
    if (row.kind == RowKind::kText) {
      encoded->samples = CutText(model_.tokenizer, row.text, options_.max_tokens, row.continues);
      if (encoded->samples.empty()) encoded->unused = "no text to learn";
      return;
    }
    AddConversation(row.chat, row.tools.get(), encoded);
    if (row.kind == RowKind::kPreference) AddConversation(row.rejected, row.tools.get(), encoded);
    for (const Sample& sample : encoded->samples) {
      if (sample.num_trained > 0) continue;
      encoded->unused =
          encoded->cut > 0
              ? fmt::format("nothing to learn within the first {} tokens", options_.max_tokens)
              : "nothing to learn: no message of the assistant";
    }
    if (encoded->overlong || !encoded->unused.empty()) encoded->samples.clear();
  }

  void AddConversation(const Conversation& chat, const Json* tools, EncodedRow* encoded) const {
    Sample sample = EncodeConversation(encode_chat_, chat, tools);
    const auto most = static_cast<size_t>(options_.max_tokens);
    if (sample.tokens.size() > most) {
      ++encoded->cut;
      encoded->overlong = encoded->overlong || source_.overlong == OverlongPolicy::kDrop;
      sample.tokens.resize(most);
      sample.trained.resize(most);
      sample.num_trained = std::count(sample.trained.begin(), sample.trained.end(), uint8_t{1});
    } else if (options_.joinable) {
      sample.lead = FindLead(encode_chat_, *chat.messages, tools, sample);
    }
    encoded->samples.push_back(std::move(sample));
  }

  const Model& model_;
  const ChatEncoder& encode_chat_;
  const DataSource& source_;
  const ReadOptions& options_;
};

// One side of the split.
struct Side {
  explicit Side(const std::optional<std::filesystem::path>& path) : writer(path) {}
  void Add(const EncodedRow& encoded) {
    for (const Sample& sample : encoded.samples) {
      counts.tokens += static_cast<int64_t>(sample.tokens.size());
      counts.trained += sample.num_trained;
      writer.Add(sample.View());
    }
    counts.cut += encoded.cut;
  }
  SampleFileWriter writer;
  DatasetCounts counts;
};

class Reader {
 public:
  Reader(const Model& model, const ChatEncoder& encode_chat, const DataSource& source,
         const ReadOptions& options, const std::optional<std::filesystem::path>& cached)
      : source_(source),
        options_(options),
        encoder_(model, encode_chat, source, options),
        log_(options.rejects),
        train_(cached),
        heldout_(cached ? std::optional(std::filesystem::path(*cached) += ".heldout")
                        : std::nullopt) {
    summary_.name = source.name;
    summary_.format = source.format;
    summary_.masked = source.personal_data == PersonalDataPolicy::kMask;
  }

  SourceSamples Read() {
    if (NeedsPlan(source_)) {
      plan_ = PlanSource(
          source_,
          {.pool = options_.pool, .scratch = options_.cache, .progress = options_.plan_progress});
    }
    ForEachBlock(
        source_, options_.pool, [this](RowBlock& block) { Take(block); }, &summary_.container,
        &summary_.unit);
    log_.Finish();
    const int64_t unused = summary_.rejected + summary_.unlearned + summary_.overlong;
    if (unused > 0) summary_.rejects = options_.rejects;
    CheckResult();
    const int64_t unit = options_.use == RowUse::kPreferences ? 2 : 1;
    const auto finish = [&](Side* side) {
      return Dataset(side->writer.Finish(NoteOf(summary_, side->counts)), side->counts,
                     source_.weight, unit);
    };
    Dataset train = finish(&train_), heldout = finish(&heldout_);
    return {std::move(train), std::move(heldout), std::move(summary_)};
  }

 private:
  void Take(RowBlock& block) {
    std::vector<EncodedRow> encoded(block.rows.size());
    const auto fate = [&](size_t i) {
      return plan_.fates.empty() ? RowFate::kTrain
                                 : plan_.fates.at(static_cast<size_t>(block.first) + i);
    };
    const auto work = [&](int64_t begin, int64_t end, int) {
      for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
        if (!block.rows[i].row) continue;
        const bool used = fate(i) == RowFate::kTrain || fate(i) == RowFate::kHeldOut;
        if (used) encoded[i] = encoder_.Encode(block.rows[i].row.get());
      }
    };
    const auto count = static_cast<int64_t>(encoded.size());
    if (options_.pool != nullptr) {
      options_.pool->ParallelFor(count, 4, work);
    } else {
      work(0, count, 0);
    }
    for (size_t i = 0; i < encoded.size(); ++i) {
      Count(block.raw[i], block.rows[i], encoded[i], fate(i));
    }
    if (options_.progress) options_.progress(block.progress);
  }

  void Count(const RawRow& raw, const ParsedRow& parsed, const EncodedRow& encoded, RowFate fate) {
    ++summary_.rows;
    const std::string& problem = parsed.row ? encoded.problem : parsed.problem;
    if (!problem.empty()) {
      ++summary_.rejected;
      if (summary_.first_reject.empty()) {
        summary_.first_reject = fmt::format("{} {}: {}", summary_.unit, raw.number, problem);
      }
      log_.Add(raw, problem);
      return;
    }
    ++summary_.formats[std::string(RowFormatName(parsed.row->format))];
    if (fate == RowFate::kExactDuplicate) ++summary_.exact_duplicates;
    if (fate == RowFate::kNearDuplicate) ++summary_.near_duplicates;
    if (fate != RowFate::kTrain && fate != RowFate::kHeldOut) return;
    CountPersonal(encoded.personal);
    if (encoded.overlong) {
      ++summary_.overlong;
      log_.Add(raw,
               fmt::format("longer than {} tokens ('overlong' is \"drop\")", options_.max_tokens));
    } else if (!encoded.unused.empty()) {
      ++summary_.unlearned;
      log_.Add(raw, encoded.unused);
    } else if (fate == RowFate::kHeldOut) {
      ++summary_.heldout;
      heldout_.Add(encoded);
    } else {
      ++summary_.learned;
      train_.Add(encoded);
    }
  }

  void CountPersonal(const PersonalCounts& counts) {
    bool any = false;
    for (size_t kind = 0; kind < counts.size(); ++kind) {
      if (counts[kind] == 0) continue;
      any = true;
      summary_.personal[std::string(PersonalKindName(static_cast<PersonalKind>(kind)))] +=
          counts[kind];
    }
    summary_.personal_rows += any;
  }

  void CheckResult() const {
    const std::string file = source_.path.string();
    if (static_cast<double>(summary_.rejected) >
        source_.max_rejected * static_cast<double>(summary_.rows)) {
      Throw(ErrorCode::kInvalidArgument, "{}, {}{}", file, summary_.first_reject,
            summary_.rejected == 1 && summary_.rows == 1
                ? std::string()
                : fmt::format(
                      " ({} of {} {}s cannot be used, 'max_rejected' allows {:g} %{})",
                      summary_.rejected, summary_.rows, summary_.unit, source_.max_rejected * 100,
                      summary_.rejects.empty() ? "" : "; all: " + summary_.rejects.string()));
    }
    if (train_.counts.trained == 0) {
      Throw(ErrorCode::kInvalidArgument,
            "{}: expected at least one token to learn, found none (no text, or no message of the "
            "assistant "
            "within {} tokens)",
            file, options_.max_tokens);
    }
  }

  const DataSource& source_;
  const ReadOptions& options_;
  const RowEncoder encoder_;
  RejectLog log_;
  Side train_, heldout_;
  SourcePlan plan_;
  SourceSummary summary_;
};

// All that the samples follow from.
std::string CacheKey(const Model& model, const DataSource& source, const ReadOptions& options,
                     const HashMemory& memory) {
  std::string key =
      fmt::format("samples 1|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}", ToHex(model.file_hash),
                  ToHex(memory.HashOf(source.path)), source.path.filename().string(), source.format,
                  source.group, source.heldout, static_cast<int>(source.duplicates),
                  static_cast<int>(source.personal_data), static_cast<int>(source.overlong),
                  options.max_tokens, options.joinable, static_cast<int>(options.use));
  for (const auto& [field, column] : source.columns) key += "|" + field + "=" + column;
  return ToHex(HashOf(key));
}

std::optional<SourceSamples> Cached(const std::filesystem::path& path, const DataSource& source,
                                    const ReadOptions& options, const HashMemory& memory) {
  const auto train = SampleFile::Open(path, memory);
  const auto heldout = SampleFile::Open(std::filesystem::path(path) += ".heldout", memory);
  if (!train || !heldout) return std::nullopt;
  const int64_t unit = options.use == RowUse::kPreferences ? 2 : 1;
  SourceSamples samples;
  DatasetCounts train_counts, heldout_counts;
  SourceSummary ignored;
  if (!ReadNote(train->note(), &samples.summary, &train_counts) ||
      !ReadNote(heldout->note(), &ignored, &heldout_counts)) {
    return std::nullopt;
  }
  samples.summary.name = source.name;
  // Only a whole reading writes the file of rejected rows.
  const SourceSummary& summary = samples.summary;
  if (summary.rejected + summary.unlearned + summary.overlong > 0) return std::nullopt;
  samples.train = Dataset(train, train_counts, source.weight, unit);
  samples.heldout = Dataset(heldout, heldout_counts, source.weight, unit);
  return samples;
}

}  // namespace

DatasetCounts& DatasetCounts::operator+=(const DatasetCounts& other) {
  tokens += other.tokens;
  trained += other.trained;
  cut += other.cut;
  return *this;
}

Dataset::Dataset(std::shared_ptr<const SampleFile> samples, const DatasetCounts& counts,
                 double weight, int64_t unit)
    : size_(samples->size() / unit), unit_(unit), counts_(counts) {
  parts_.push_back({std::move(samples), 0, size_, weight});
}

int64_t Dataset::epoch_size() const {
  int64_t units = 0;
  for (const Part& part : parts_) {
    units += std::llround(part.weight * static_cast<double>(part.size));
  }
  return units;
}

SampleView Dataset::At(int64_t unit, int64_t which) const {
  BAKESTONE_CHECK(unit >= 0 && unit < size_ && which >= 0 && which < unit_);
  const auto after =
      std::upper_bound(parts_.begin(), parts_.end(), unit,
                       [](int64_t wanted, const Part& part) { return wanted < part.begin; });
  const Part& part = *(after - 1);
  return part.samples->At((unit - part.begin) * unit_ + which);
}

void Dataset::Append(const Dataset& other) {
  if (parts_.empty()) unit_ = other.unit_;
  BAKESTONE_CHECK(unit_ == other.unit_);
  for (const Part& part : other.parts_) {
    parts_.push_back({part.samples, size_ + part.begin, part.size, part.weight});
  }
  size_ += other.size_;
  counts_ += other.counts_;
}

SourceSamples ReadDataset(const Model& model, const ChatEncoder& encode_chat,
                          const DataSource& source, const ReadOptions& options) {
  std::error_code code;
  if (!std::filesystem::is_regular_file(source.path, code)) {
    Throw(std::filesystem::exists(source.path, code) ? ErrorCode::kInvalidArgument
                                                     : ErrorCode::kNotFound,
          "source '{}': {}: expected a data file, found {}", source.name, source.path.string(),
          std::filesystem::is_directory(source.path, code) ? "a folder" : "none");
  }
  if (options.cache.empty()) {
    return Reader(model, encode_chat, source, options, std::nullopt).Read();
  }
  const HashMemory memory(options.cache);
  const auto path = options.cache / (CacheKey(model, source, options, memory) + kExtension);
  if (auto samples = Cached(path, source, options, memory)) return std::move(*samples);
  SourceSamples samples = Reader(model, encode_chat, source, options, path).Read();
  TrimFolder(options.cache, kExtension, kMaxCacheBytes, path);
  return samples;
}

}  // namespace bakestone
