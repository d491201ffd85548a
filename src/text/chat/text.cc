#include "text/chat/text.h"

#include <algorithm>
#include <utility>

#include "text/chat/unicode.h"

namespace bakestone::chat {

Text::Text(std::string bytes, bool trusted) : bytes_(std::move(bytes)) {
  if (!bytes_.empty()) runs_.push_back({bytes_.size(), trusted});
}

std::size_t Text::length() const { return CountCodePoints(bytes_); }

void Text::Append(std::string_view bytes, bool trusted) {
  if (bytes.empty()) return;
  bytes_.append(bytes);
  if (!runs_.empty() && runs_.back().trusted == trusted) {
    runs_.back().end = bytes_.size();
  } else {
    runs_.push_back({bytes_.size(), trusted});
  }
}

void Text::Append(const Text& text) { Append(text, 0, text.size()); }

void Text::Append(const Text& text, std::size_t begin, std::size_t end) {
  auto run = std::upper_bound(text.runs_.begin(), text.runs_.end(), begin,
                              [](std::size_t offset, const Run& r) { return offset < r.end; });
  while (begin < end) {
    const std::size_t stop = std::min(end, run->end);
    Append(std::string_view(text.bytes_).substr(begin, stop - begin), run->trusted);
    begin = stop;
    ++run;
  }
}

Text Text::Slice(std::size_t begin, std::size_t end) const {
  Text out;
  out.markup_ = markup_;
  out.Append(*this, begin, end);
  return out;
}

bool Text::TrustedAt(std::size_t offset) const {
  return std::upper_bound(runs_.begin(), runs_.end(), offset,
                          [](std::size_t o, const Run& r) { return o < r.end; })
      ->trusted;
}

}  // namespace bakestone::chat
