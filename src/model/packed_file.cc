#include "model/packed_file.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <utility>

#include <fmt/format.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/log.h"

namespace bakestone {
namespace {

constexpr std::string_view kMagic = "BKPANELS";
constexpr uint32_t kLayoutVersion = 1;
constexpr size_t kHeaderBytes = 64, kTrailerBytes = 56, kHashBytes = 32, kPanelAlignment = 64;

template <class T>
void Put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

std::string Header(const Hash& source) {
  std::string header(kMagic);
  Put(header, kLayoutVersion);
  Put(header, kPanelVersion);
  header.append(reinterpret_cast<const char*>(source.data()), source.size());
  header.resize(kHeaderBytes);
  return header;
}

Hash HashOfRowMap(std::span<const int32_t> row_map) {
  if (row_map.empty()) return {};
  return HashOf(std::span(reinterpret_cast<const uint8_t*>(row_map.data()), row_map.size_bytes()));
}

std::span<const uint8_t> BytesOf(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// Reads fields in order; a field beyond the end is damage.
class Reader {
 public:
  Reader(const std::filesystem::path& path, std::span<const uint8_t> bytes)
      : path_(path), bytes_(bytes) {}

  std::span<const uint8_t> Take(uint64_t count) {
    if (count > bytes_.size()) {
      Throw(ErrorCode::kCorrupt, "{}: expected {} more bytes, found {}", path_.string(), count,
            bytes_.size());
    }
    const auto taken = bytes_.first(static_cast<size_t>(count));
    bytes_ = bytes_.subspan(static_cast<size_t>(count));
    return taken;
  }
  template <class T>
  T Take() {
    T value;
    std::memcpy(&value, Take(sizeof value).data(), sizeof value);
    return value;
  }

 private:
  const std::filesystem::path& path_;
  std::span<const uint8_t> bytes_;
};

// Bytes of a panel whose shape came from a file; 0 where the shape is none.
uint64_t CheckedPanelBytes(PanelType type, int64_t n, int64_t k) {
  constexpr int64_t kMost = int64_t{1} << 31;
  if (n < 1 || k < 1 || n > kMost || k > kMost) return 0;
  const auto bytes = CheckedMul<int64_t>(NumStrips(n), StripBytes(type, k));
  return bytes ? static_cast<uint64_t>(*bytes) : 0;
}

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kPiece = 2 * kHugePage;  // of writing

// Bytes of the mapping that begins at `data` that lie on huge pages, as the system says.
size_t HugeBytes(const uint8_t* data) {
  std::ifstream maps("/proc/self/smaps");
  const std::string begin = fmt::format("{:x}-", reinterpret_cast<uintptr_t>(data));
  constexpr std::string_view kField = "FilePmdMapped:";
  bool inside = false;
  for (std::string line; std::getline(maps, line);) {
    inside = inside || line.starts_with(begin);
    if (inside && line.starts_with(kField)) {
      return std::strtoull(line.c_str() + kField.size(), nullptr, 10) << 10;
    }
  }
  return 0;
}

// Asks for huge pages, reads a byte of each (which also brings a cold file in, a huge page at a
// time), and says whether they came.
bool MapHuge(std::span<const uint8_t> bytes) {
  if (bytes.size() < kPiece) return true;
  madvise(const_cast<uint8_t*>(bytes.data()), bytes.size(), MADV_HUGEPAGE);  // best effort
  for (size_t at = 0; at < bytes.size(); at += kHugePage) {
    [[maybe_unused]] const volatile uint8_t touched = bytes[at];
  }
  return HugeBytes(bytes.data()) >= bytes.size() / 10 * 9;
}

}  // namespace

std::shared_ptr<const PackedFile> PackedFile::Open(const std::filesystem::path& path,
                                                   const Hash& source, const HashMemory& memory) {
  try {
    auto packed = std::make_shared<PackedFile>();
    packed->file_ = MappedFile::Open(path);
    packed->on_huge_pages_ = MapHuge(packed->file_.bytes());
    packed->Parse(source, memory);
    return packed;
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kNotFound) return nullptr;
    LogWarning("packed weights are made anew: {}", error.what());
    return nullptr;
  }
}

void PackedFile::Parse(const Hash& source, const HashMemory& memory) {
  const std::filesystem::path& path = file_.path();
  const std::span<const uint8_t> bytes = file_.bytes();
  const std::string header = Header(source);
  if (bytes.size() < kHeaderBytes + kTrailerBytes ||
      std::memcmp(bytes.data(), header.data(), kHeaderBytes) != 0) {
    Throw(ErrorCode::kCorrupt,
          "{}: expected packed weights of layout {}.{} of this model, found something else",
          path.string(), kLayoutVersion, kPanelVersion);
  }
  const Hash hash = memory.HashOf(path, kHashBytes);
  if (std::memcmp(hash.data(), bytes.data() + bytes.size() - kHashBytes, kHashBytes) != 0) {
    Throw(
        ErrorCode::kCorrupt,
        "{}: expected contents with the hash at its end, found others: it was cut short or altered",
        path.string());
  }
  Reader trailer(path, bytes.last(kTrailerBytes));
  const auto offset = trailer.Take<uint64_t>(), size = trailer.Take<uint64_t>(),
             count = trailer.Take<uint64_t>();
  Reader whole(path, bytes);
  whole.Take(offset);
  Reader directory(path, whole.Take(size));
  for (uint64_t i = 0; i < count; ++i) {
    const auto name = directory.Take(directory.Take<uint32_t>());
    const auto type = directory.Take<uint8_t>();
    Entry entry{};
    entry.n = directory.Take<int64_t>();
    entry.k = directory.Take<int64_t>();
    const auto begin = directory.Take<uint64_t>();
    std::memcpy(entry.row_map.data(), directory.Take(kHashBytes).data(), kHashBytes);
    entry.type = static_cast<PanelType>(type);
    const uint64_t panel =
        type < kNumPanelTypes ? CheckedPanelBytes(entry.type, entry.n, entry.k) : 0;
    if (panel == 0 || begin % kPanelAlignment != 0 || begin > offset || panel > offset - begin) {
      Throw(ErrorCode::kCorrupt,
            "{}: entry {}: expected a panel within the file, found type {}, {} x {} at {}",
            path.string(), i, type, entry.n, entry.k, begin);
    }
    entry.data = bytes.data() + begin;
    entries_[std::string(reinterpret_cast<const char*>(name.data()), name.size())] = entry;
  }
}

const uint8_t* PackedFile::Find(const PackedKey& key) const {
  const auto found = entries_.find(std::string(key.name));
  if (found == entries_.end()) return nullptr;
  const Entry& entry = found->second;
  const bool same = entry.type == key.type && entry.n == key.n && entry.k == key.k &&
                    entry.row_map == HashOfRowMap(key.row_map);
  return same ? entry.data : nullptr;
}

void PackedFile::CopyOut(ThreadPool& pool, std::span<const uint8_t> panel, uint8_t* to) const {
  pool.ParallelFor(
      static_cast<int64_t>(panel.size()), int64_t{1} << 20, [&](int64_t begin, int64_t end, int) {
        std::memcpy(to + begin, panel.data() + begin, static_cast<size_t>(end - begin));
      });
  file_.Forget(panel);
}

PackedFileWriter::PackedFileWriter(const std::filesystem::path& path, const Hash& source)
    : path_(path), file_(path) {
  Write(BytesOf(Header(source)));
}

void PackedFileWriter::Write(std::span<const uint8_t> bytes) {
  hash_.Update(bytes);
  size_ += static_cast<int64_t>(bytes.size());
  while (!bytes.empty()) {
    const auto piece = bytes.first(std::min(kPiece - buffer_.size(), bytes.size()));
    buffer_.append(reinterpret_cast<const char*>(piece.data()), piece.size());
    bytes = bytes.subspan(piece.size());
    if (buffer_.size() == kPiece) Flush();
  }
}

void PackedFileWriter::Flush() {
  file_.Write(buffer_);
  buffer_.clear();
}

void PackedFileWriter::WritePadding() {
  constexpr uint8_t kZeros[kPanelAlignment] = {};
  const size_t over = static_cast<size_t>(size_) % kPanelAlignment;
  if (over != 0) Write(std::span(kZeros).first(kPanelAlignment - over));
}

void PackedFileWriter::Add(const PackedKey& key, const uint8_t* panel) {
  WritePadding();
  Put(directory_, static_cast<uint32_t>(key.name.size()));
  directory_ += key.name;
  Put(directory_, static_cast<uint8_t>(key.type));
  Put(directory_, key.n);
  Put(directory_, key.k);
  Put(directory_, static_cast<uint64_t>(size_));
  const Hash row_map = HashOfRowMap(key.row_map);
  directory_.append(reinterpret_cast<const char*>(row_map.data()), row_map.size());
  ++entries_;
  Write({panel, static_cast<size_t>(PanelBytes(key.type, key.n, key.k))});
}

void PackedFileWriter::Commit(const HashMemory& memory) {
  WritePadding();
  const auto offset = static_cast<uint64_t>(size_);
  Write(BytesOf(directory_));
  std::string trailer;
  Put(trailer, offset);
  Put(trailer, static_cast<uint64_t>(directory_.size()));
  Put(trailer, entries_);
  Write(BytesOf(trailer));
  Flush();
  const Hash hash = hash_.Finish();
  file_.Write(hash);
  file_.Commit();
  memory.Remember(path_, hash, kHashBytes);
}

}  // namespace bakestone
