// Tokenized samples in one file, mapped and not read: a set that is larger than memory trains as a
// small one does. A cache of ours, not a format for others; whoever finds it damaged or of another
// key makes it anew.
//
// Little-endian. "BKSAMPLE", u32 version, u32 zero. Then each sample: i32 tokens[n], u8 trained[n],
// zeros up to a multiple of 4. Index, 32 bytes a sample: u64 offset, u32 n, u32 trained tokens, i64
// lead, i64 row of the source. Note: a JSON object of the maker's. Trailer, 64 bytes: u64 offset of
// the index, samples, offset of the note, length of the note; SHA-256 of everything before that
// hash.
//
// A SampleFile is immutable: any number of threads may read it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/hash_memory.h"
#include "base/mapped_file.h"
#include "base/sha256.h"

namespace bakestone {

// One sample, owned by nobody.
struct SampleView {
  std::span<const int32_t> tokens;
  std::span<const uint8_t>
      trained;  // [tokens]; 1: this token is predicted and learned. Never the first
  int64_t num_trained = 0;
  // Tokens before the first turn (the system prompt): a conversation that is joined to another one
  // with the same lead goes on without repeating it. kStandsAlone: not to be joined.
  int64_t lead = kStandsAlone;
  int64_t row = 0;  // of the source, 1-based; 0: none

  static constexpr int64_t kStandsAlone = -1;
};

struct Sample {
  std::vector<int32_t> tokens;
  std::vector<uint8_t> trained;
  int64_t num_trained = 0;
  int64_t lead = kStandsAlone;
  int64_t row = 0;

  static constexpr int64_t kStandsAlone = SampleView::kStandsAlone;
  SampleView View() const { return {tokens, trained, num_trained, lead, row}; }
};

class SampleFile {
 public:
  // Null where there is no such file or it is damaged; what was wrong goes to the log. The whole
  // file is held against its hash, unless `memory` knows that it has been.
  static std::shared_ptr<const SampleFile> Open(const std::filesystem::path& path,
                                                const HashMemory& memory);

  int64_t size() const { return num_samples_; }
  SampleView At(int64_t index) const;
  std::string_view note() const { return note_; }

 private:
  friend class SampleFileWriter;
  void Parse(std::span<const uint8_t> bytes);  // throws kCorrupt

  MappedFile file_;
  std::vector<uint8_t> memory_;  // of a set that has no file
  std::span<const uint8_t> bytes_;
  int64_t num_samples_ = 0, index_ = 0;
  std::string note_;
};

// Writes one, whole or not at all. Without a path the samples stay in memory.
class SampleFileWriter {
 public:
  explicit SampleFileWriter(const std::optional<std::filesystem::path>& path);
  void Add(const SampleView& sample);
  int64_t size() const { return static_cast<int64_t>(index_.size()); }
  // The finished set. Throws kIo naming the file.
  std::shared_ptr<const SampleFile> Finish(std::string_view note);

 private:
  struct Entry {
    uint64_t offset;
    uint32_t tokens, trained;
    int64_t lead, row;
  };
  static_assert(sizeof(Entry) == 32);
  void Write(const void* data, size_t size);

  std::optional<std::filesystem::path> path_;
  std::optional<AtomicFile> file_;
  std::vector<uint8_t> buffer_;  // not yet written, or all of it
  Sha256 hash_;
  uint64_t size_ = 0;
  std::vector<Entry> index_;

  friend class SampleFile;
};

}  // namespace bakestone
