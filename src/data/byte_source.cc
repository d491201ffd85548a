#include "data/byte_source.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <vector>

#include <zlib.h>
#include <zstd.h>

#include "base/error.h"
#include "text/utf8.h"

namespace bakestone {
namespace {

constexpr size_t kHeadBytes = size_t{64} << 10;
constexpr size_t kBufferBytes = size_t{256} << 10;

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, CloseFile>;

File OpenFile(const std::filesystem::path& path) {
  std::error_code code;
  if (std::filesystem::is_directory(path, code)) {
    Throw(ErrorCode::kInvalidArgument, "{}: expected a data file, found a folder", path.string());
  }
  File file(std::fopen(path.c_str(), "rb"));
  if (!file) {
    const int error = errno;
    Throw(error == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, "{}: cannot open: {}",
          path.string(), std::strerror(error));
  }
  return file;
}

[[noreturn]] void CutShort(const std::filesystem::path& path, const char* kind) {
  Throw(ErrorCode::kCorrupt,
        "{}: expected whole {} data, found an end in the middle of it; the file is cut short: "
        "fetch or "
        "compress it again",
        path.string(), kind);
}

class PlainSource : public ByteSource {
 public:
  PlainSource(std::filesystem::path path, File file)
      : ByteSource(std::move(path)), file_(std::move(file)) {}
  std::string_view compression() const override { return ""; }

 protected:
  size_t ReadBytes(char* to, size_t size) override { return ReadFile(file_.get(), to, size); }

 private:
  File file_;
};

class GzipSource : public ByteSource {
 public:
  GzipSource(std::filesystem::path path, File file)
      : ByteSource(std::move(path)), file_(std::move(file)), input_(kBufferBytes) {
    if (inflateInit2(&stream_, 16 + MAX_WBITS) != Z_OK) {
      Throw(ErrorCode::kOutOfMemory, "zlib: cannot start");
    }
  }
  ~GzipSource() override { inflateEnd(&stream_); }
  std::string_view compression() const override { return "gzip"; }

 protected:
  size_t ReadBytes(char* to, size_t size) override {
    stream_.next_out = reinterpret_cast<Bytef*>(to);
    stream_.avail_out = static_cast<uInt>(size);
    while (stream_.avail_out == size) {
      if (stream_.avail_in == 0) {
        stream_.next_in = reinterpret_cast<Bytef*>(input_.data());
        stream_.avail_in = static_cast<uInt>(ReadFile(file_.get(), input_.data(), input_.size()));
        if (stream_.avail_in == 0) {
          if (!ended_) CutShort(path(), "gzip");
          return 0;
        }
      }
      if (ended_) {  // a gzip file may hold several streams, one after another
        inflateReset(&stream_);
        ended_ = false;
      }
      const int status = inflate(&stream_, Z_NO_FLUSH);
      if (status == Z_STREAM_END) {
        ended_ = true;
      } else if (status != Z_OK && status != Z_BUF_ERROR) {
        Throw(ErrorCode::kCorrupt, "{}: expected gzip data, found damage: {}", path().string(),
              stream_.msg != nullptr ? stream_.msg : "unknown");
      }
    }
    return size - stream_.avail_out;
  }

 private:
  File file_;
  std::vector<char> input_;
  z_stream stream_{};
  bool ended_ = false;
};

class ZstdSource : public ByteSource {
 public:
  ZstdSource(std::filesystem::path path, File file)
      : ByteSource(std::move(path)),
        file_(std::move(file)),
        bytes_(kBufferBytes),
        stream_(ZSTD_createDStream(), ZSTD_freeDStream) {
    if (stream_ == nullptr) Throw(ErrorCode::kOutOfMemory, "zstd: cannot start");
  }
  std::string_view compression() const override { return "zstd"; }

 protected:
  size_t ReadBytes(char* to, size_t size) override {
    ZSTD_outBuffer output{to, size, 0};
    while (output.pos == 0) {
      if (input_.pos == input_.size && !more_output_) {
        input_ = {bytes_.data(), ReadFile(file_.get(), bytes_.data(), bytes_.size()), 0};
        if (input_.size == 0) {
          if (!ended_) CutShort(path(), "zstd");
          return 0;
        }
      }
      const size_t status = ZSTD_decompressStream(stream_.get(), &output, &input_);
      if (ZSTD_isError(status) != 0) {
        Throw(ErrorCode::kCorrupt, "{}: expected zstd data, found damage: {}", path().string(),
              ZSTD_getErrorName(status));
      }
      ended_ = status == 0;
      more_output_ = !ended_ && output.pos == output.size;
    }
    return output.pos;
  }

 private:
  File file_;
  std::vector<char> bytes_;
  std::unique_ptr<ZSTD_DStream, size_t (*)(ZSTD_DStream*)> stream_;
  ZSTD_inBuffer input_{nullptr, 0, 0};
  bool ended_ = false, more_output_ = false;
};

[[noreturn]] void NotUtf8(const std::filesystem::path& path, const char* found, const char* name) {
  Throw(ErrorCode::kInvalidArgument,
        "{}: expected text in UTF-8, found {}; convert it: iconv -f {} -t UTF-8 FILE > NEW-FILE",
        path.string(), found, name);
}

// Text that a person wrote has no zero bytes, but UTF-16 has them at every other place.
void CheckText(const std::filesystem::path& path, std::string_view head) {
  if (head.starts_with("\xFF\xFE") || head.starts_with("\xFE\xFF")) {
    NotUtf8(path, "UTF-16", "UTF-16");
  }
  std::array<size_t, 2> zeros = {0, 0};
  size_t controls = 0;
  for (size_t i = 0; i < head.size(); ++i) {
    const auto byte = static_cast<unsigned char>(head[i]);
    zeros[i % 2] += byte == 0;
    controls += byte < 32 && byte != '\n' && byte != '\r' && byte != '\t' && byte != '\f';
  }
  const size_t half = head.size() / 2;
  if (zeros[1] * 2 > half && zeros[0] * 10 < half) {
    NotUtf8(path, "UTF-16 without a mark", "UTF-16LE");
  }
  if (zeros[0] * 2 > half && zeros[1] * 10 < half) {
    NotUtf8(path, "UTF-16 without a mark", "UTF-16BE");
  }
  if (zeros[0] + zeros[1] > 0 || controls * 20 > head.size()) {
    Throw(ErrorCode::kInvalidArgument,
          "{}: expected text, found binary data ({} of the first {} bytes are control characters); "
          "known are text, Markdown, JSON, JSON lines, CSV and Parquet, plain or as gzip or zstd",
          path.string(), controls, head.size());
  }
}

}  // namespace

std::unique_ptr<ByteSource> ByteSource::Open(const std::filesystem::path& path) {
  File file = OpenFile(path);
  std::array<unsigned char, 4> magic{};
  const size_t size = std::fread(magic.data(), 1, magic.size(), file.get());
  std::rewind(file.get());
  if (size == 0) {
    Throw(ErrorCode::kInvalidArgument, "{}: expected data, found an empty file", path.string());
  }
  std::unique_ptr<ByteSource> source;
  if (magic[0] == 0x1F && magic[1] == 0x8B) {
    source = std::make_unique<GzipSource>(path, std::move(file));
  } else if (magic == std::array<unsigned char, 4>{0x28, 0xB5, 0x2F, 0xFD}) {
    source = std::make_unique<ZstdSource>(path, std::move(file));
  } else {
    source = std::make_unique<PlainSource>(path, std::move(file));
  }
  std::error_code code;
  const auto bytes = std::filesystem::file_size(path, code);
  source->file_bytes_ = code ? 0 : static_cast<int64_t>(bytes);
  source->Start();
  return source;
}

void ByteSource::Start() {
  first_.resize(kHeadBytes);
  size_t size = 0;
  while (size < first_.size()) {
    const size_t read = ReadBytes(first_.data() + size, first_.size() - size);
    if (read == 0) break;
    size += read;
  }
  first_.resize(size);
  if (size == 0) {
    Throw(ErrorCode::kInvalidArgument, "{}: expected data, found an empty file", path_.string());
  }
  CheckText(path_, first_);
  if (first_.starts_with("\xEF\xBB\xBF")) first_.erase(0, 3);
  head_ = first_;
}

size_t ByteSource::ReadFile(std::FILE* file, char* to, size_t size) {
  const size_t read = std::fread(to, 1, size, file);
  if (read == 0 && std::ferror(file) != 0) {
    Throw(ErrorCode::kIo, "{}: cannot read: {}", path_.string(), std::strerror(errno));
  }
  file_bytes_read_ += static_cast<int64_t>(read);
  return read;
}

size_t ByteSource::Read(char* to, size_t size) {
  if (first_.empty()) return ReadBytes(to, size);
  const size_t count = std::min(size, first_.size());
  std::copy_n(first_.data(), count, to);
  first_.erase(0, count);
  head_ = first_;
  return count;
}

bool LineReader::Fill() {
  buffer_.erase(0, begin_);
  begin_ = 0;
  const size_t size = buffer_.size();
  buffer_.resize(size + kBufferBytes);
  const size_t read = source_.Read(buffer_.data() + size, kBufferBytes);
  buffer_.resize(size + read);
  return read > 0;
}

bool LineReader::Next(Line* line) {
  *line = {};
  bool any = false;
  size_t searched = begin_;
  while (true) {
    const size_t end = buffer_.find('\n', searched);
    const size_t stop = end == std::string::npos ? buffer_.size() : end;
    any = any || stop > begin_ || end != std::string::npos;
    const size_t room = max_bytes_ - std::min(max_bytes_, line->text.size());
    if (stop - begin_ > room) line->too_long = true;
    line->text.append(buffer_, begin_, std::min(room, stop - begin_));
    if (end != std::string::npos) {
      begin_ = end + 1;
      break;
    }
    begin_ = stop;
    if (!Fill()) {
      line->complete = false;
      break;
    }
    searched = begin_;
  }
  if (!any) return false;
  ++number_;
  if (line->complete && line->text.ends_with('\r')) {
    line->text.pop_back();
    line->carriage = true;
  }
  return true;
}

std::string ReadText(const std::filesystem::path& path, size_t max_bytes) {
  const auto source = ByteSource::Open(path);
  std::string text;
  std::array<char, 1 << 16> block;
  while (const size_t size = source->Read(block.data(), block.size())) {
    if (text.size() + size > max_bytes) {
      Throw(ErrorCode::kInvalidArgument, "{}: expected a text of at most {} bytes, found more",
            path.string(), max_bytes);
    }
    text.append(block.data(), size);
  }
  const size_t bad = FindInvalidUtf8(text);
  if (bad == std::string::npos) return text;
  Throw(ErrorCode::kInvalidArgument,
        "{}: expected text in UTF-8, found byte 0x{:02X} at offset {} (Latin-1 or Windows-1252? "
        "convert it: iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW-FILE)",
        path.string(), static_cast<unsigned char>(text[bad]), bad);
}

size_t FindInvalidUtf8(std::string_view text) noexcept {
  const char* const begin = text.data();
  const char* const end = begin + text.size();
  for (const char* p = begin; p < end;) {
    uint32_t codepoint;
    const int length = DecodeUtf8(p, end, &codepoint);
    if (length == 0) return static_cast<size_t>(p - begin);
    p += length;
  }
  return std::string_view::npos;
}

}  // namespace bakestone
