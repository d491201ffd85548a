#include "data/row_source.h"

#include <algorithm>
#include <cctype>
#include <exception>
#include <utility>

#include <fmt/core.h>

#include "base/error.h"
#include "data/byte_source.h"

namespace bakestone {
namespace {

std::string Container(std::string_view name, const ByteSource& bytes) {
  return bytes.compression().empty() ? std::string(name)
                                     : fmt::format("{}, {}", name, bytes.compression());
}

class JsonLines : public RowSource {
 public:
  explicit JsonLines(std::unique_ptr<ByteSource> bytes)
      : bytes_(std::move(bytes)), lines_(*bytes_, kMaxRowBytes) {}
  std::string container() const override { return Container("JSON lines", *bytes_); }
  Progress progress() const override { return ProgressOf(*bytes_); }

  bool Next(RawRow* row) override {
    LineReader::Line line;
    while (lines_.Next(&line)) {
      if (line.text.find_first_not_of(" \t\r") == std::string::npos) continue;
      *row = {};
      row->number = lines_.number();
      if (line.too_long) {
        row->problem = fmt::format("expected a line of at most {} MiB, found a longer one",
                                   kMaxRowBytes >> 20);
      }
      const size_t last = line.text.find_last_not_of(" \t\r");
      if (!line.too_long && !line.complete && line.text[last] != '}') {
        row->problem = "the file ends in the middle of this line; it was cut short";
      }
      row->bytes = std::move(line.text);
      return true;
    }
    return false;
  }

 private:
  std::unique_ptr<ByteSource> bytes_;
  LineReader lines_;
};

// Text and Markdown. Markdown: a document begins at every heading of the second level.
class TextRows : public RowSource {
 public:
  TextRows(std::unique_ptr<ByteSource> bytes, bool markdown, size_t most)
      : bytes_(std::move(bytes)), lines_(*bytes_, kMaxRowBytes), markdown_(markdown), most_(most) {
    more_ = lines_.Next(&line_);
  }
  std::string container() const override {
    return Container(markdown_ ? "Markdown" : "text", *bytes_);
  }
  bool is_text() const override { return true; }
  Progress progress() const override { return ProgressOf(*bytes_); }

  bool Next(RawRow* row) override {
    if (!more_) return false;
    *row = {};
    row->is_text = true;
    row->number = lines_.number();
    while (more_) {
      if (markdown_ && !row->bytes.empty() && line_.text.starts_with("## ")) return true;
      CheckLine();
      const bool blank = line_.text.empty();
      row->bytes += line_.text;
      if (line_.carriage) row->bytes += '\r';
      if (line_.complete) row->bytes += '\n';
      more_ = lines_.Next(&line_);
      // At a paragraph's end if there is one before long.
      if (row->bytes.size() >= (blank ? most_ : 4 * most_)) {
        row->continues = more_ && !(markdown_ && line_.text.starts_with("## "));
        return true;
      }
    }
    return true;
  }

 private:
  void CheckLine() const {
    if (line_.too_long) {
      Throw(ErrorCode::kInvalidArgument,
            "{}, line {}: expected lines of at most {} MiB, found a longer one; is it a text?",
            bytes_->path().string(), lines_.number(), kMaxRowBytes >> 20);
    }
    const size_t bad = FindInvalidUtf8(line_.text);
    if (bad == std::string_view::npos) return;
    Throw(ErrorCode::kInvalidArgument,
          "{}, line {}: expected text in UTF-8, found byte 0x{:02X} at column {} (Latin-1 or "
          "Windows-1252? "
          "convert it: iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW-FILE)",
          bytes_->path().string(), lines_.number(), static_cast<unsigned char>(line_.text[bad]),
          bad + 1);
  }

  std::unique_ptr<ByteSource> bytes_;
  LineReader lines_;
  const bool markdown_;
  const size_t most_;
  LineReader::Line line_;
  bool more_ = false;
};

// The name without .gz and .zst, its ending in lower case.
std::string EndingOf(const std::filesystem::path& path) {
  std::filesystem::path name = path.filename();
  const auto lower = [](std::string text) {
    for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return text;
  };
  std::string ending = lower(name.extension().string());
  if (ending == ".gz" || ending == ".zst") ending = lower(name.stem().extension().string());
  return ending;
}

char FirstSign(std::string_view head) {
  const size_t at = head.find_first_not_of(" \t\r\n");
  return at == std::string_view::npos ? '\0' : head[at];
}

}  // namespace

std::unique_ptr<RowSource> RowSource::Open(const std::filesystem::path& path, size_t text_row) {
  const std::string ending = EndingOf(path);
  if (ending == ".parquet") return OpenParquet(path);
  auto bytes = ByteSource::Open(path);
  const char first = FirstSign(bytes->head());
  const auto lines = [&]() -> std::unique_ptr<RowSource> {
    return std::make_unique<JsonLines>(std::move(bytes));
  };
  // People call both JSON: the first sign tells a list from lines.
  if (ending == ".json" || ending == ".jsonl" || ending == ".ndjson") {
    return first == '[' ? OpenJson(std::move(bytes)) : lines();
  }
  if (ending == ".csv") return OpenCsv(std::move(bytes), 0);
  if (ending == ".tsv") return OpenCsv(std::move(bytes), '\t');
  if (ending == ".md" || ending == ".markdown" || ending == ".txt" || ending == ".text") {
    const bool markdown = ending.starts_with(".m");
    return std::make_unique<TextRows>(std::move(bytes), markdown,
                                      markdown ? kMaxTextRow : text_row);
  }
  if (bytes->head().starts_with("PAR1")) return OpenParquet(path);
  if (first == '{') return lines();
  if (first == '[') return OpenJson(std::move(bytes));
  Throw(ErrorCode::kInvalidArgument,
        "{}: expected a file that ends in .txt, .md, .jsonl, .json, .csv, .tsv or .parquet (.gz or "
        ".zst "
        "behind it), found '{}'",
        path.string(), ending);
}

RowSource::Progress ProgressOf(const ByteSource& bytes) {
  return {bytes.file_bytes_read(), bytes.file_bytes()};
}

ParsedRow ParseRaw(const RawRow& raw, const RowOptions& options) {
  ParsedRow parsed;
  if (!raw.problem.empty()) {
    parsed.problem = raw.problem;
    return parsed;
  }
  try {
    if (raw.is_text) {
      parsed.row = std::make_unique<Row>();
      parsed.row->text = raw.bytes;
      parsed.row->continues = raw.continues;
    } else {
      parsed.row = std::make_unique<Row>(ParseRow(raw.bytes, options));
    }
    parsed.row->number = raw.number;
  } catch (const std::exception& error) {  // runs on workers, which must not throw
    parsed.row.reset();
    parsed.problem = error.what();
  }
  return parsed;
}

}  // namespace bakestone
