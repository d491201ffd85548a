// One JSON array of objects, cut into its elements as the bytes come by: only brackets and quotes
// are looked at here, each element is parsed by itself later.
#include <array>
#include <utility>

#include <fmt/core.h>

#include "base/error.h"
#include "data/byte_source.h"
#include "data/row_source.h"

namespace bakestone {
namespace {

class JsonElements : public RowSource {
 public:
  explicit JsonElements(std::unique_ptr<ByteSource> bytes) : bytes_(std::move(bytes)) {
    while (Peek() >= 0 && IsSpace(Peek())) ++at_;
    ++at_;  // the '[' that RowSource::Open saw
  }
  std::string container() const override {
    return bytes_->compression().empty() ? "JSON" : fmt::format("JSON, {}", bytes_->compression());
  }
  std::string_view unit() const override { return "element"; }
  Progress progress() const override { return ProgressOf(*bytes_); }

  bool Next(RawRow* row) override {
    *row = {};
    if (ended_) return false;
    while (Peek() >= 0 && (IsSpace(Peek()) || Peek() == ',')) ++at_;
    if (Peek() == ']') {
      ended_ = true;
      return false;
    }
    row->number = ++number_;
    if (Peek() < 0) {
      ended_ = true;
      row->problem = "the file ends before the list does; it was cut short";
      return true;
    }
    ReadElement(row);
    return true;
  }

 private:
  static bool IsSpace(int c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

  int Peek() {
    if (at_ == size_) {
      size_ = bytes_->Read(buffer_.data(), buffer_.size());
      at_ = 0;
      if (size_ == 0) return -1;
    }
    return static_cast<unsigned char>(buffer_[at_]);
  }

  // Up to the comma or bracket that ends it on the list's own level.
  void ReadElement(RawRow* row) {
    int64_t depth = 0;
    bool in_text = false, escaped = false;
    while (true) {
      const int c = Peek();
      if (c < 0) {
        ended_ = true;
        row->problem = "the file ends in the middle of this element; it was cut short";
        return;
      }
      if (in_text) {
        if (c == '"' && !escaped) in_text = false;
        escaped = c == '\\' && !escaped;
      } else if (c == '"') {
        in_text = true;
      } else if (c == '{' || c == '[') {
        ++depth;
      } else if (depth <= 0 && (c == ',' || c == ']')) {
        return;
      } else if (c == '}' || c == ']') {
        --depth;
      }
      if (row->bytes.size() < kMaxRowBytes) {
        row->bytes += static_cast<char>(c);
      } else if (row->problem.empty()) {
        row->problem = fmt::format("expected an element of at most {} MiB, found a longer one",
                                   kMaxRowBytes >> 20);
      }
      ++at_;
    }
  }

  std::unique_ptr<ByteSource> bytes_;
  std::array<char, 1 << 16> buffer_;
  size_t at_ = 0, size_ = 0;
  int64_t number_ = 0;
  bool ended_ = false;
};

}  // namespace

std::unique_ptr<RowSource> OpenJson(std::unique_ptr<ByteSource> bytes) {
  return std::make_unique<JsonElements>(std::move(bytes));
}

}  // namespace bakestone
