// The packed weights of one model in a file of their own, mapped instead of made: the next start
// packs nothing, and processes share the pages. A cache of ours, not a format for others; whoever
// finds it damaged makes it anew.
//
// Little-endian. Header, 64 bytes: "BKPANELS", u32 version of this layout, u32 kPanelVersion,
// SHA-256 of the source file, zeros. Panels, each aligned to 64. Directory, an entry a panel: u32
// length of the name, the name, u8 PanelType, i64 n, i64 k, u64 offset, SHA-256 of the row map
// (int32 each; zeros: none). Trailer, 56 bytes: u64 offset, bytes and entries of the directory,
// SHA-256 of everything before that hash.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/file.h"
#include "base/hash_memory.h"
#include "base/mapped_file.h"
#include "base/sha256.h"
#include "base/thread_pool.h"
#include "kernels/panel.h"

namespace bakestone {

// What a packed matrix must agree in before its bytes are used.
struct PackedKey {
  std::string_view name;
  PanelType type;
  int64_t n, k;
  std::span<const int32_t> row_map;  // empty: none
};

// A matrix that was packed in memory.
struct PackedPanel {
  std::string name;
  PanelType type{};
  int64_t n = 0, k = 0;
  std::vector<int32_t> row_map;
  const uint8_t* data = nullptr;  // PanelBytes of it

  PackedKey key() const { return {name, type, n, k, row_map}; }
  int64_t bytes() const { return PanelBytes(type, n, k); }
};

class PackedFile {
 public:
  // Null where there is no such file, it is damaged, or made from another source or layout; what
  // was wrong goes to the log. The whole file is held against its hash, unless `memory` knows that
  // it has been.
  static std::shared_ptr<const PackedFile> Open(const std::filesystem::path& path,
                                                const Hash& source, const HashMemory& memory);

  // The panel's bytes, PanelBytes of them; null if the file has no such matrix.
  const uint8_t* Find(const PackedKey& key) const;

  // Whether the system maps the file with huge pages (its file system and its kernel decide), or
  // the file is too small for any. Where it does not, weights are better copied out.
  bool on_huge_pages() const noexcept { return on_huge_pages_; }
  // Copies a panel to `to`, and lets its pages go.
  void CopyOut(ThreadPool& pool, std::span<const uint8_t> panel, uint8_t* to) const;

 private:
  struct Entry {
    PanelType type;
    int64_t n, k;
    Hash row_map;
    const uint8_t* data;
  };
  void Parse(const Hash& source, const HashMemory& memory);

  MappedFile file_;
  bool on_huge_pages_ = false;
  std::unordered_map<std::string, Entry> entries_;
};

// Writes one, whole or not at all, and remembers its hash, so that the next start need not compute
// it. Throws kIo naming the file.
class PackedFileWriter {
 public:
  PackedFileWriter(const std::filesystem::path& path, const Hash& source);
  void Add(const PackedKey& key, const uint8_t* panel);
  void Commit(const HashMemory& memory);

 private:
  void Write(std::span<const uint8_t> bytes);
  void Flush();
  void WritePadding();

  std::filesystem::path path_;
  AtomicFile file_;
  std::string buffer_;  // written in large pieces, which the page cache then holds in huge pages
  int64_t size_ = 0;
  Sha256 hash_;
  std::string directory_;
  uint64_t entries_ = 0;
};

}  // namespace bakestone
