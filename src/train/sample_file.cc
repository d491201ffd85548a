#include "train/sample_file.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/log.h"

namespace bakestone {
namespace {

constexpr std::string_view kSampleMagic = "BKSAMPLE";
constexpr uint32_t kSampleVersion = 1;
constexpr size_t kHeaderBytes = 16, kEntryBytes = 32, kTrailerBytes = 64, kHashBytes = 32;
constexpr size_t kBufferBytes = size_t{1} << 20;

template <class T>
T Load(const uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

}  // namespace

std::shared_ptr<const SampleFile> SampleFile::Open(const std::filesystem::path& path,
                                                   const HashMemory& memory) {
  if (!std::filesystem::exists(path)) return nullptr;
  try {
    auto file = std::make_shared<SampleFile>();
    file->file_ = MappedFile::Open(path);
    const auto bytes = file->file_.bytes();
    file->Parse(bytes);
    const Hash hash = memory.HashOf(path, kHashBytes);
    if (!std::equal(hash.begin(), hash.end(), bytes.end() - kHashBytes)) {
      Throw(ErrorCode::kCorrupt, "{}: expected the hash that stands at its end", path.string());
    }
    return file;
  } catch (const Error& error) {
    LogWarning("tokenized data is made anew: {}", error.what());
    return nullptr;
  }
}

void SampleFile::Parse(std::span<const uint8_t> bytes) {
  const auto check = [&](bool good) {
    if (!good) Throw(ErrorCode::kCorrupt, "{}: expected tokenized samples", file_.path().string());
  };
  check(bytes.size() >= kHeaderBytes + kTrailerBytes &&
        std::memcmp(bytes.data(), kSampleMagic.data(), kSampleMagic.size()) == 0 &&
        Load<uint32_t>(bytes.data() + kSampleMagic.size()) == kSampleVersion);
  const uint8_t* trailer = bytes.data() + bytes.size() - kTrailerBytes;
  const auto index = Load<uint64_t>(trailer), samples = Load<uint64_t>(trailer + 8),
             note = Load<uint64_t>(trailer + 16), note_bytes = Load<uint64_t>(trailer + 24);
  const uint64_t end = bytes.size() - kTrailerBytes;
  check(index <= end && samples <= (end - index) / kEntryBytes &&
        note == index + samples * kEntryBytes && note_bytes == end - note && index % 8 == 0);
  bytes_ = bytes;
  index_ = static_cast<int64_t>(index);
  num_samples_ = static_cast<int64_t>(samples);
  note_.assign(reinterpret_cast<const char*>(bytes.data() + note), note_bytes);
}

SampleView SampleFile::At(int64_t index) const {
  BAKESTONE_CHECK(index >= 0 && index < num_samples_);
  SampleFileWriter::Entry entry;
  std::memcpy(&entry, bytes_.data() + index_ + index * static_cast<int64_t>(kEntryBytes),
              kEntryBytes);
  const auto limit = static_cast<uint64_t>(index_);
  BAKESTONE_CHECK(entry.offset <= limit && entry.tokens <= (limit - entry.offset) / 5);
  const uint8_t* at = bytes_.data() + entry.offset;
  SampleView sample;
  sample.tokens = {reinterpret_cast<const int32_t*>(at), entry.tokens};
  sample.trained = {at + size_t{4} * entry.tokens, entry.tokens};
  sample.num_trained = entry.trained;
  sample.lead = entry.lead;
  sample.row = entry.row;
  return sample;
}

SampleFileWriter::SampleFileWriter(const std::optional<std::filesystem::path>& path) : path_(path) {
  if (path) file_.emplace(*path);
  Write(kSampleMagic.data(), kSampleMagic.size());
  const std::array<uint32_t, 2> version = {kSampleVersion, 0};
  Write(version.data(), sizeof(version));
}

void SampleFileWriter::Write(const void* data, size_t size) {
  const auto* bytes = static_cast<const uint8_t*>(data);
  buffer_.insert(buffer_.end(), bytes, bytes + size);
  size_ += size;
  if (!file_ || buffer_.size() < kBufferBytes) return;
  hash_.Update(buffer_);
  file_->Write(buffer_);
  buffer_.clear();
}

void SampleFileWriter::Add(const SampleView& sample) {
  static constexpr std::array<uint8_t, 4> kZeros = {};
  index_.push_back({size_, static_cast<uint32_t>(sample.tokens.size()),
                    static_cast<uint32_t>(sample.num_trained), sample.lead, sample.row});
  Write(sample.tokens.data(), sample.tokens.size_bytes());
  Write(sample.trained.data(), sample.trained.size());
  Write(kZeros.data(), (4 - size_ % 4) % 4);
}

std::shared_ptr<const SampleFile> SampleFileWriter::Finish(std::string_view note) {
  static constexpr std::array<uint8_t, 8> kZeros = {};
  Write(kZeros.data(), (8 - size_ % 8) % 8);
  const uint64_t index = size_;
  for (const Entry& entry : index_) Write(&entry, sizeof(entry));
  const std::array<uint64_t, 4> trailer = {index, index_.size(), size_, note.size()};
  Write(note.data(), note.size());
  Write(trailer.data(), sizeof(trailer));
  hash_.Update(buffer_);
  const Hash hash = hash_.Finish();
  buffer_.insert(buffer_.end(), hash.begin(), hash.end());
  auto samples = std::make_shared<SampleFile>();
  if (file_) {
    file_->Write(buffer_);
    file_->Commit();
    samples->file_ = MappedFile::Open(*path_);
    samples->Parse(samples->file_.bytes());
  } else {
    samples->memory_ = std::move(buffer_);
    samples->Parse(samples->memory_);
  }
  return samples;
}

}  // namespace bakestone
