// From a file to its rows as raw bytes, one after another, however long the file: JSON lines, one
// JSON array, CSV, Parquet, text, Markdown. What cannot be told apart as a row is handed out with
// the reason. One thread; ParseRaw is pure and may run on any.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "data/row.h"

namespace bakestone {

struct RawRow {
  int64_t number = 0;  // line (JSON lines, CSV, text), element (JSON), row (Parquet); from 1
  std::string bytes;   // JSON of one object, or the text itself
  bool is_text = false;
  bool continues = false;  // text: the next row is the same document
  std::string problem;     // not empty: it cannot be read, and why
};

// A document beyond this is handed out in pieces, each ending at a paragraph.
inline constexpr size_t kMaxTextRow = size_t{4} << 20;

class RowSource {
 public:
  // Chosen by the path's ending (.jsonl, .ndjson, .json, .csv, .tsv, .parquet, .txt, .md; .gz and
  // .zst behind them), else by the first bytes. text_row: longest piece of a text.
  // Throws kNotFound, kIo, kInvalidArgument, kUnsupported.
  static std::unique_ptr<RowSource> Open(const std::filesystem::path& path,
                                         size_t text_row = kMaxTextRow);
  virtual ~RowSource() = default;

  // False at the end. Throws for what makes the whole file useless.
  virtual bool Next(RawRow* row) = 0;
  // "JSON lines", "CSV (semicolons)", "Parquet", ...: for people.
  virtual std::string container() const = 0;
  // Of a place in the file: "line", "element", "row".
  virtual std::string_view unit() const { return "line"; }
  virtual bool is_text() const { return false; }
  // How far it is: bytes of the file that were taken, of all. 0 of 0 where that is not known.
  struct Progress {
    int64_t bytes = 0, file_bytes = 0;
  };
  virtual Progress progress() const { return {}; }
};

// A row beyond this is rejected.
inline constexpr size_t kMaxRowBytes = size_t{64} << 20;

struct ParsedRow {
  std::unique_ptr<Row> row;  // null: rejected
  std::string problem;
};
ParsedRow ParseRaw(const RawRow& raw, const RowOptions& options);

class ByteSource;
RowSource::Progress ProgressOf(const ByteSource& bytes);
std::unique_ptr<RowSource> OpenJson(std::unique_ptr<ByteSource> bytes);  // an array of objects
std::unique_ptr<RowSource> OpenCsv(std::unique_ptr<ByteSource> bytes,
                                   char separator);  // 0: told from the header
std::unique_ptr<RowSource> OpenParquet(const std::filesystem::path& path);

}  // namespace bakestone
