// CSV as RFC 4180 has it, and as spreadsheets write it: fields apart by a comma, semicolon or tab;
// a field in double quotes may hold separators, line breaks and doubled quotes; lines end in "\n"
// or "\r\n". The first line names the fields. Each row is handed out as a JSON object of texts.
#include <algorithm>
#include <utility>
#include <vector>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/byte_source.h"
#include "data/row_source.h"

namespace bakestone {
namespace {

using Json = nlohmann::ordered_json;

class CsvRows : public RowSource {
 public:
  CsvRows(std::unique_ptr<ByteSource> bytes, char separator)
      : bytes_(std::move(bytes)), lines_(*bytes_, kMaxRowBytes), separator_(separator) {
    if (separator_ == 0) separator_ = Guess(bytes_->head());
    RawRow problem;
    if (!Record(&names_, &problem) || !problem.problem.empty()) {
      Throw(ErrorCode::kInvalidArgument,
            "{}: expected a first line with the names of the fields, found {}",
            bytes_->path().string(), problem.problem.empty() ? "nothing" : problem.problem);
    }
    std::vector<std::string> sorted = names_;
    std::sort(sorted.begin(), sorted.end());
    const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
    if (twice != sorted.end()) {
      Throw(ErrorCode::kInvalidArgument,
            "{}, line 1: expected distinct names of fields, found '{}' twice",
            bytes_->path().string(), *twice);
    }
  }

  std::string container() const override {
    const char* separator = separator_ == ','   ? ""
                            : separator_ == ';' ? " (semicolons)"
                                                : " (tabs)";
    const std::string compression(bytes_->compression());
    return fmt::format("CSV{}{}{}", separator, compression.empty() ? "" : ", ", compression);
  }
  Progress progress() const override { return ProgressOf(*bytes_); }

  bool Next(RawRow* row) override {
    *row = {};
    std::vector<std::string> fields;
    if (!Record(&fields, row)) return false;
    if (row->problem.empty() && fields.size() != names_.size()) {
      row->problem = fmt::format("expected {} fields, as the first line has, found {}",
                                 names_.size(), fields.size());
    }
    if (!row->problem.empty()) return true;
    Json object = Json::object();
    for (size_t i = 0; i < fields.size(); ++i) {
      const size_t bad = FindInvalidUtf8(fields[i]);
      if (bad != std::string_view::npos) {
        row->problem = fmt::format(
            "field '{}': expected UTF-8, found byte 0x{:02X} (Latin-1 or Windows-1252? convert it: "
            "iconv -f "
            "WINDOWS-1252 -t UTF-8 FILE > NEW-FILE)",
            names_[i], static_cast<unsigned char>(fields[i][bad]));
        return true;
      }
      object[names_[i]] = std::move(fields[i]);
    }
    row->bytes = object.dump(-1, ' ', false, Json::error_handler_t::replace);
    return true;
  }

 private:
  static char Guess(std::string_view head) {
    const std::string_view line = head.substr(0, head.find('\n'));
    const auto count = [&](char c) { return std::count(line.begin(), line.end(), c); };
    char best = ',';
    for (const char c : {';', '\t'}) {
      if (count(c) > count(best)) best = c;
    }
    return best;
  }

  // One record, over as many lines as its quotes ask for. False at the end.
  bool Record(std::vector<std::string>* fields, RawRow* row) {
    LineReader::Line line;
    do {
      if (!lines_.Next(&line)) return false;
    } while (line.text.empty());
    row->number = lines_.number();
    fields->clear();
    std::string field;
    bool quoted = false;
    size_t total = 0;
    while (true) {
      if (line.too_long || total > kMaxRowBytes) {
        row->problem = fmt::format(
            "expected a row of at most {} MiB, found a longer one; is a quote not "
            "closed?",
            kMaxRowBytes >> 20);
        return true;
      }
      quoted = Scan(line.text, quoted, &field, fields);
      if (!quoted) break;
      field += '\n';
      total += line.text.size() + 1;
      if (!lines_.Next(&line)) {
        row->problem = "a quote opens here and is not closed before the end of the file";
        return true;
      }
    }
    fields->push_back(std::move(field));
    return true;
  }

  // One line; true if it ends within quotes.
  bool Scan(const std::string& line, bool quoted, std::string* field,
            std::vector<std::string>* fields) const {
    for (size_t i = 0; i < line.size(); ++i) {
      const char c = line[i];
      if (quoted) {
        if (c != '"') {
          *field += c;
        } else if (i + 1 < line.size() && line[i + 1] == '"') {
          *field += '"';
          ++i;
        } else {
          quoted = false;
        }
      } else if (c == '"' && field->empty()) {
        quoted = true;
      } else if (c == separator_) {
        fields->push_back(std::exchange(*field, {}));
      } else {
        *field += c;
      }
    }
    return quoted;
  }

  std::unique_ptr<ByteSource> bytes_;
  LineReader lines_;
  char separator_;
  std::vector<std::string> names_;
};

}  // namespace

std::unique_ptr<RowSource> OpenCsv(std::unique_ptr<ByteSource> bytes, char separator) {
  return std::make_unique<CsvRows>(std::move(bytes), separator);
}

}  // namespace bakestone
