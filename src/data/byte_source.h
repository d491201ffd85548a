// The bytes of a data file, decompressed as they are read: plain, gzip or Zstandard, told by the
// first bytes. What a person would have to repair is an error at once: an empty file, UTF-16, a
// binary file, a compressed file that ends too early. A UTF-8 byte order mark is dropped. One
// thread.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

namespace bakestone {

class ByteSource {
 public:
  // Throws kNotFound, kIo; kInvalidArgument for what is no text in UTF-8.
  static std::unique_ptr<ByteSource> Open(const std::filesystem::path& path);
  virtual ~ByteSource() = default;

  // Up to `size` bytes to `to`; 0 only at the end. Throws kCorrupt for damaged compressed data.
  size_t Read(char* to, size_t size);
  // What comes first, without taking it: up to 64 KiB.
  std::string_view head() const { return head_; }
  const std::filesystem::path& path() const { return path_; }
  // Bytes of the file (compressed, where it is) that were taken so far, and all of them.
  int64_t file_bytes_read() const { return file_bytes_read_; }
  int64_t file_bytes() const { return file_bytes_; }
  // "", "gzip" or "zstd".
  virtual std::string_view compression() const = 0;

 protected:
  explicit ByteSource(std::filesystem::path path) : path_(std::move(path)) {}
  virtual size_t ReadBytes(char* to, size_t size) = 0;
  // From the file as it is.
  size_t ReadFile(std::FILE* file, char* to, size_t size);

 private:
  void Start();

  std::filesystem::path path_;
  int64_t file_bytes_ = 0, file_bytes_read_ = 0;
  std::string first_;  // read to judge the file, not yet given
  std::string_view head_;
};

// Lines of a source, without their "\n" or "\r\n".
class LineReader {
 public:
  // A line longer than max_bytes is cut there and said to be too long.
  LineReader(ByteSource& source, size_t max_bytes) : source_(source), max_bytes_(max_bytes) {}

  struct Line {
    std::string text;
    bool complete = true;  // ended by a line break; the last one may not be
    bool too_long = false;
    bool carriage = false;  // the break was "\r\n"
  };
  bool Next(Line* line);
  int64_t number() const { return number_; }  // of the last line, from 1

 private:
  bool Fill();

  ByteSource& source_;
  const size_t max_bytes_;
  std::string buffer_;
  size_t begin_ = 0;
  int64_t number_ = 0;
};

// A whole text, as a person wrote it. Throws what Open and Read throw, and kInvalidArgument for
// more than max_bytes and where it stops being UTF-8.
std::string ReadText(const std::filesystem::path& path, size_t max_bytes = size_t{1} << 30);

// Where `text` stops being UTF-8: the offset, or npos.
size_t FindInvalidUtf8(std::string_view text) noexcept;

}  // namespace bakestone
