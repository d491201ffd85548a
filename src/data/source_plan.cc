#include "data/source_plan.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <map>
#include <numeric>
#include <unordered_map>

#include <nlohmann/json.hpp>
#include <unistd.h>

#include "base/error.h"
#include "base/mapped_file.h"
#include "base/sha256.h"
#include "data/min_hash.h"

namespace bakestone {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kBlockRows = 1024, kBlockBytes = size_t{16} << 20;
// A text without rows of its own is split in blocks of this size.
constexpr size_t kSplitText = size_t{8} << 10;

std::array<uint64_t, 2> HashOfText(std::string_view text) {
  const Hash hash = HashOf(text);
  std::array<uint64_t, 2> parts;
  std::memcpy(parts.data(), hash.data(), sizeof(parts));
  return parts;
}

// Signatures and shingle sets of all rows, in a file that vanishes with the process.
class Spill {
 public:
  explicit Spill(std::filesystem::path folder) {
    if (folder.empty()) folder = std::filesystem::temp_directory_path();
    std::error_code code;
    std::filesystem::create_directories(folder, code);
    name_ = (folder / ".bakestone-plan-XXXXXX").string();
    const int fd = mkstemp(name_.data());
    file_ = fd < 0 ? nullptr : fdopen(fd, "w+b");
    if (file_ == nullptr) {
      Throw(ErrorCode::kIo, "{}: cannot write a temporary file: {}", folder.string(),
            std::strerror(errno));
    }
  }
  ~Spill() {
    if (file_ != nullptr) std::fclose(file_);
    unlink(name_.c_str());
  }
  Spill(const Spill&) = delete;
  Spill& operator=(const Spill&) = delete;

  void Add(const Signature& signature, const std::vector<uint32_t>& shingles) {
    begins_.push_back(size_);
    Write(signature.data(), signature.size());
    Write(shingles.data(), shingles.size());
  }
  void Finish() {
    begins_.push_back(size_);
    if (std::fflush(file_) != 0) Full();
    mapped_ = MappedFile::Open(name_);
  }
  Signature SignatureOf(size_t row) const {
    Signature signature;
    std::memcpy(signature.data(), At(row), sizeof(signature));
    return signature;
  }
  std::span<const uint32_t> ShinglesOf(size_t row) const {
    return {At(row) + kMinHashes,
            static_cast<size_t>(begins_[row + 1] - begins_[row]) - kMinHashes};
  }

 private:
  const uint32_t* At(size_t row) const {
    return reinterpret_cast<const uint32_t*>(mapped_.bytes().data()) + begins_[row];
  }
  void Write(const uint32_t* words, size_t count) {
    if (std::fwrite(words, sizeof(uint32_t), count, file_) != count) Full();
    size_ += static_cast<int64_t>(count);
  }
  [[noreturn]] void Full() const {
    Throw(ErrorCode::kIo, "{}: cannot write; is the disk full?", name_);
  }

  std::string name_;
  std::FILE* file_ = nullptr;
  MappedFile mapped_;
  std::vector<int64_t> begins_;  // words
  int64_t size_ = 0;
};

class Sets {  // union-find; the root is the smallest member
 public:
  void Grow(size_t size) {
    const size_t old = parents_.size();
    parents_.resize(size);
    std::iota(parents_.begin() + static_cast<int64_t>(old), parents_.end(), old);
  }
  size_t Root(size_t i) {
    while (parents_[i] != i) i = parents_[i] = parents_[parents_[i]];
    return i;
  }
  void Join(size_t a, size_t b) {
    a = Root(a);
    b = Root(b);
    parents_[std::max(a, b)] = std::min(a, b);
  }

 private:
  std::vector<size_t> parents_;
};

int64_t WordsIn(std::string_view text) {
  int64_t words = 0;
  bool inside = false;
  for (const char c : text) {
    const bool space = c == ' ' || c == '\n' || c == '\t' || c == '\r';
    words += !space && !inside;
    inside = !space;
  }
  return words;
}

// What a row is known by.
struct RowKeys {
  std::array<uint64_t, 2> content{};
  std::vector<std::array<uint64_t, 2>> together;  // rows that share one stay on one side
  Signature signature{};
  std::vector<uint32_t> shingles;
};

RowKeys KeysOf(const Row& row) {
  RowKeys keys;
  const std::string text = row.AllText();
  keys.content = HashOfText(text);
  keys.shingles = Shingles(text);
  keys.signature = MinHash(keys.shingles);
  if (!row.group.empty()) keys.together.push_back(HashOfText("group\n" + row.group));
  if (row.kind == RowKind::kText) return keys;
  const Json& messages = *row.chat.messages;
  const auto first = std::find_if(messages.begin(), messages.end(),
                                  [](const Json& message) { return message["role"] == "user"; });
  if (first != messages.end()) {
    keys.together.push_back(HashOfText("question\n" + (*first)["content"].get<std::string>()));
  }
  const Json& last = messages.back();
  const auto& answer = last["content"].get_ref<const std::string&>();
  if (last["role"] == "assistant" && WordsIn(answer) >= 5) {
    keys.together.push_back(HashOfText("answer\n" + answer));
  }
  return keys;
}

class Planner {
 public:
  Planner(const DataSource& source, const SourcePlanOptions& options)
      : source_(source), options_(options), spill_(options.scratch) {}

  SourcePlan Plan() {
    ForEachBlock(source_, options_.pool, [this](RowBlock& block) { Take(block); });
    spill_.Finish();
    FindAlike();
    MarkDuplicates();
    if (source_.heldout > 0) Split();
    return std::move(plan_);
  }

 private:
  struct PairHash {
    size_t operator()(const std::array<uint64_t, 2>& key) const { return key[0]; }
  };

  void Take(RowBlock& block) {
    std::vector<RowKeys> keys(block.rows.size());
    const auto work = [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        const auto& row = block.rows[static_cast<size_t>(i)].row;
        if (row) keys[static_cast<size_t>(i)] = KeysOf(*row);
      }
    };
    const auto count = static_cast<int64_t>(keys.size());
    if (options_.pool != nullptr) {
      options_.pool->ParallelFor(count, 8, work);
    } else {
      work(0, count, 0);
    }
    sets_.Grow(plan_.fates.size() + keys.size());
    for (size_t i = 0; i < keys.size(); ++i) {
      const size_t index = plan_.fates.size();
      plan_.fates.push_back(block.rows[i].row ? RowFate::kTrain : RowFate::kRejected);
      grouped_ = grouped_ || (block.rows[i].row && !block.rows[i].row->group.empty());
      plan_.twins.push_back(-1);
      contents_.push_back(keys[i].content);
      spill_.Add(keys[i].signature, keys[i].shingles);
      for (const auto& key : keys[i].together) {
        const auto [found, is_new] = together_.try_emplace(key, index);
        if (!is_new) sets_.Join(index, found->second);
      }
    }
    if (options_.progress) options_.progress(block.progress);
  }

  bool Rejected(size_t row) const { return plan_.fates[row] == RowFate::kRejected; }

  // Rows whose signatures agree in a band are compared with those before them that are not alike.
  void FindAlike() {
    constexpr size_t kMostCompared = 16;
    std::vector<std::pair<uint64_t, size_t>> band(plan_.fates.size());
    for (int number = 0; number < kBands; ++number) {
      band.clear();
      for (size_t row = 0; row < plan_.fates.size(); ++row) {
        if (!Rejected(row) && !spill_.ShinglesOf(row).empty()) {
          band.emplace_back(BandHash(spill_.SignatureOf(row), number), row);
        }
      }
      std::sort(band.begin(), band.end());
      for (size_t begin = 0; begin < band.size();) {
        size_t end = begin;
        std::vector<size_t> distinct;
        for (; end < band.size() && band[end].first == band[begin].first; ++end) {
          const size_t row = band[end].second;
          bool near = false;
          for (const size_t other : distinct) near = Compare(other, row) || near;
          if (!near && distinct.size() < kMostCompared) distinct.push_back(row);
        }
        begin = end;
      }
    }
  }

  // True if the later row is a near duplicate of the earlier one.
  bool Compare(size_t earlier, size_t later) {
    if (plan_.twins[later] == static_cast<int64_t>(earlier)) return true;
    const double similarity = Jaccard(spill_.ShinglesOf(earlier), spill_.ShinglesOf(later));
    if (similarity >= kTogether) sets_.Join(earlier, later);
    if (similarity < kNearDuplicate) return false;
    int64_t& twin = plan_.twins[later];
    const auto row = static_cast<int64_t>(earlier);
    twin = twin < 0 ? row : std::min(twin, row);
    return true;
  }

  void MarkDuplicates() {
    std::unordered_map<std::array<uint64_t, 2>, size_t, PairHash> first;
    for (size_t row = 0; row < plan_.fates.size(); ++row) {
      if (Rejected(row)) continue;
      const auto [found, is_new] = first.try_emplace(contents_[row], row);
      if (!is_new) {
        sets_.Join(found->second, row);
        plan_.twins[row] = static_cast<int64_t>(found->second);
        if (source_.duplicates != DuplicatePolicy::kKeep) {
          plan_.fates[row] = RowFate::kExactDuplicate;
        }
      } else if (plan_.twins[row] >= 0) {
        // Its twin may itself be left out: what is alike to a row that is gone stays out with it.
        if (source_.duplicates == DuplicatePolicy::kNear) {
          plan_.fates[row] = RowFate::kNearDuplicate;
        }
      }
    }
  }

  // A group's side is a draw from the smallest hash of its rows.
  void Split() {
    if (!source_.group.empty() && !grouped_) {
      Throw(ErrorCode::kInvalidArgument,
            "{}: 'group': expected rows with a field '{}', found none: rows that belong together "
            "would stand on both sides",
            source_.path.string(), source_.group);
    }
    std::map<size_t, std::pair<std::array<uint64_t, 2>, int64_t>> groups;  // root -> hash, rows
    for (size_t row = 0; row < plan_.fates.size(); ++row) {
      if (plan_.fates[row] != RowFate::kTrain) continue;
      auto& [hash, rows] = groups.try_emplace(sets_.Root(row), contents_[row], 0).first->second;
      hash = std::min(hash, contents_[row]);
      ++rows;
    }
    const auto is_heldout = [&](size_t root) {
      return static_cast<double>(groups[root].first[1] >> 11) * 0x1p-53 < source_.heldout;
    };
    for (size_t row = 0; row < plan_.fates.size(); ++row) {
      if (plan_.fates[row] == RowFate::kTrain && is_heldout(sets_.Root(row))) {
        plan_.fates[row] = RowFate::kHeldOut;
      }
    }
    plan_.groups = static_cast<int64_t>(groups.size());
    for (const auto& [root, group] : groups) {
      plan_.heldout_groups += is_heldout(root);
      plan_.largest_group = std::max(plan_.largest_group, group.second);
    }
    for (const RowFate side : {RowFate::kTrain, RowFate::kHeldOut}) {
      if (plan_.Count(side) > 0) continue;
      Throw(ErrorCode::kInvalidArgument,
            "{}: 'heldout' = {:g}: expected rows on both sides, found none {}: the {} rows form {} "
            "group{} "
            "(alike, or of one answer); give more data, or a file of its own to measure",
            source_.path.string(), source_.heldout,
            side == RowFate::kTrain ? "to train on" : "to hold out", plan_.fates.size(),
            plan_.groups, plan_.groups == 1 ? "" : "s");
    }
  }

  const DataSource& source_;
  const SourcePlanOptions& options_;
  Spill spill_;
  Sets sets_;
  std::unordered_map<std::array<uint64_t, 2>, size_t, PairHash> together_;
  std::vector<std::array<uint64_t, 2>> contents_;
  SourcePlan plan_;
  bool grouped_ = false;  // whether a row has the field of the source's groups
};

}  // namespace

int64_t SourcePlan::Count(RowFate fate) const {
  return std::count(fates.begin(), fates.end(), fate);
}

bool NeedsPlan(const DataSource& source) {
  return source.heldout > 0 || source.duplicates != DuplicatePolicy::kKeep;
}

SourcePlan PlanSource(const DataSource& source, const SourcePlanOptions& options) {
  return Planner(source, options).Plan();
}

std::string TextToScoreOf(const DataSource& source, int64_t max_bytes,
                          const SourcePlanOptions& options) {
  SourcePlan plan;
  if (source.heldout > 0) plan = PlanSource(source, options);
  std::string text;
  ForEachBlock(source, options.pool, [&](RowBlock& block) {
    for (size_t i = 0; i < block.rows.size(); ++i) {
      const auto index = static_cast<size_t>(block.first) + i;
      if (!block.rows[i].row || static_cast<int64_t>(text.size()) >= max_bytes) continue;
      if (!plan.fates.empty() && plan.fates[index] != RowFate::kHeldOut) continue;
      const Row& row = *block.rows[i].row;
      text += row.AllText();
      if (row.kind != RowKind::kText) text += "\n";
    }
  });
  return text;
}

void ForEachBlock(const DataSource& source, ThreadPool* pool,
                  const std::function<void(RowBlock& block)>& body, std::string* container,
                  std::string* unit) {
  const auto rows = RowSource::Open(source.path, source.heldout > 0 ? kSplitText : kMaxTextRow);
  if (container != nullptr) *container = rows->container();
  if (unit != nullptr) *unit = rows->unit();
  RowOptions options;
  options.format = ParseRowFormat(source.format).value_or(RowFormat::kAuto);
  options.columns = source.columns;
  options.group = source.group;
  int64_t next = 0;
  while (true) {
    RowBlock block;
    block.first = next;
    size_t bytes = 0;
    RawRow row;
    while (block.raw.size() < kBlockRows && bytes < kBlockBytes && rows->Next(&row)) {
      bytes += row.bytes.size();
      block.raw.push_back(std::move(row));
    }
    if (block.raw.empty()) return;
    next += static_cast<int64_t>(block.raw.size());
    const RowSource::Progress progress = rows->progress();
    block.progress = {next, progress.bytes, progress.file_bytes};
    block.rows.resize(block.raw.size());
    const auto parse = [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        block.rows[static_cast<size_t>(i)] = ParseRaw(block.raw[static_cast<size_t>(i)], options);
      }
    };
    const auto count = static_cast<int64_t>(block.raw.size());
    if (pool != nullptr) {
      pool->ParallelFor(count, 16, parse);
    } else {
      parse(0, count, 0);
    }
    body(block);
  }
}

}  // namespace bakestone
