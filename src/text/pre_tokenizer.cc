#include "text/pre_tokenizer.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "text/tokenizer.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace bakestone {
namespace {

// A position in text that knows the class of the character there. Invalid bytes are characters of
// class 0 ("neither letter, number nor space"), one byte long.
class Reader {
 public:
  explicit Reader(std::string_view text)
      : begin_(text.data()), end_(begin_ + text.size()), classes_(CharClasses::Get()) {}

  struct Char {
    uint8_t cls = 0;
    uint8_t length = 0;  // 0: at the end of the text
  };
  Char At(size_t offset) const {
    const char* p = begin_ + offset;
    if (p == end_) return {};
    const auto byte = static_cast<uint8_t>(*p);
    if (byte < 0x80) return {classes_[byte], 1};
    uint32_t codepoint;
    const int length = DecodeUtf8(p, end_, &codepoint);
    if (length == 0) return {0, 1};
    return {classes_[codepoint], static_cast<uint8_t>(length)};
  }
  // The end of the run that starts at offset of characters for which (class & mask) == want.
  size_t RunEnd(size_t offset, uint8_t mask, uint8_t want) const {
    for (;;) {
      const Char c = At(offset);
      if (c.length == 0 || (c.cls & mask) != want) return offset;
      offset += c.length;
    }
  }
  bool Is(size_t offset, char c) const { return begin_ + offset < end_ && begin_[offset] == c; }
  size_t size() const { return static_cast<size_t>(end_ - begin_); }
  char byte(size_t offset) const { return begin_[offset]; }

 private:
  const char* begin_;
  const char* end_;
  const CharClasses& classes_;
};

constexpr uint8_t kWordMask = kLetter | kNumber | kSpace;

// 's 't 'm 'd 're 've 'll at offset, which holds an apostrophe: its length, or 0. Ignoring case
// also takes U+017F, which folds to s.
size_t ContractionLength(const Reader& in, size_t offset, bool ignore_case) {
  const auto at = [&](size_t i) -> char {
    if (offset + i >= in.size()) return 0;
    const char c = in.byte(offset + i);
    return ignore_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  };
  const char a = at(1);
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
  const char b = at(2);
  if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return 3;
  if (ignore_case && a == '\xC5' && b == '\xBF') return 3;
  return 0;
}

// The end of the piece that white space at offset makes: \s+(?!\S)|\s+ . A run of more than one
// character that something follows leaves its last character to what follows.
size_t SpaceEnd(const Reader& in, size_t offset, uint8_t boundary) {
  size_t last = offset, end = offset;
  for (;;) {
    const auto c = in.At(end);
    if (c.length == 0 || (c.cls & boundary)) return end;
    if (!(c.cls & kSpace)) return last > offset ? last : end;
    last = end;
    end += c.length;
  }
}

// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
// With single_digits every number is first split off as a piece of its own.
struct Gpt2Scanner {
  bool single_digits = false;

  size_t End(const Reader& in, size_t i) const {
    if (in.Is(i, '\'')) {
      if (const size_t length = ContractionLength(in, i, false)) return i + length;
    }
    auto c = in.At(i);
    if (single_digits && (c.cls & kNumber)) return i + c.length;
    size_t j = i;
    if (in.Is(i, ' ')) {
      const auto next = in.At(i + 1);
      const bool joins =
          next.length != 0 && !(next.cls & kSpace) && !(single_digits && (next.cls & kNumber));
      if (joins) {
        c = next;
        j = i + 1;
      }
    }
    if (c.cls & kSpace) return SpaceEnd(in, i, single_digits ? uint8_t{kNumber} : uint8_t{0});
    return in.RunEnd(j + c.length, kWordMask, c.cls & kWordMask);
  }
};

// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,max_digits}|
// ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
struct Llama3Scanner {
  int max_digits = 3;

  size_t End(const Reader& in, size_t i) const {
    if (in.Is(i, '\'')) {
      if (const size_t length = ContractionLength(in, i, true)) return i + length;
    }
    const auto c = in.At(i);
    if (c.cls & kLetter) return in.RunEnd(i + c.length, kLetter, kLetter);
    if (c.cls & kNumber) return DigitsEnd(in, i);
    const auto next = in.At(i + c.length);
    if (!(c.cls & kNewline) && (next.cls & kLetter)) {
      return in.RunEnd(i + c.length + next.length, kLetter, kLetter);
    }
    const bool spaced = in.Is(i, ' ') && next.length != 0 && !(next.cls & kWordMask);
    if (spaced || !(c.cls & kWordMask)) {
      const size_t end = in.RunEnd(i + c.length, kWordMask, 0);
      return in.RunEnd(end, kNewline, kNewline);
    }
    return LinesEnd(in, i);
  }

 private:
  size_t DigitsEnd(const Reader& in, size_t i) const {
    for (int n = 0; n < max_digits; ++n) {
      const auto c = in.At(i);
      if (!(c.cls & kNumber)) break;
      i += c.length;
    }
    return i;
  }
  // White space: through its last line break if it has one, else as SpaceEnd.
  static size_t LinesEnd(const Reader& in, size_t i) {
    size_t after_break = 0;
    for (size_t end = i;;) {
      const auto c = in.At(end);
      if (!(c.cls & kSpace)) break;
      end += c.length;
      if (c.cls & kNewline) after_break = end;
    }
    return after_break ? after_break : SpaceEnd(in, i, 0);
  }
};

template <class Scanner>
class ScannerPreTokenizer : public PreTokenizer {
 public:
  explicit ScannerPreTokenizer(Scanner scanner) : scanner_(scanner) {}
  void Split(std::string_view text, std::vector<uint32_t>* ends) const override {
    const Reader in(text);
    for (size_t i = 0; i < text.size();) {
      i = scanner_.End(in, i);
      ends->push_back(static_cast<uint32_t>(i));
    }
  }

 private:
  Scanner scanner_;
};

enum class Scanner : uint8_t { kGpt2, kGpt2SingleDigits, kLlama3, kQwen2, kPatterns };

struct KnownName {
  std::string_view name;
  Scanner scanner;
  std::array<const char*, 3> patterns = {};
};

constexpr const char* kGpt4oPattern =
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*"
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    "\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr const char* kTekkenPattern =
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|"
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|"
    "\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr const char* kDeepseekV3Words =
    "[!\"#$%&'()*+,\\-./"
    ":;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"
    " ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

// The names that GGUF files carry in tokenizer.ggml.pre, sorted.
constexpr KnownName kKnown[] = {
    {"codeshell", Scanner::kGpt2SingleDigits},
    {"command-r", Scanner::kGpt2SingleDigits},
    {"dbrx", Scanner::kLlama3},
    {"deepseek-r1-qwen", Scanner::kQwen2},
    {"deepseek-v3",
     Scanner::kPatterns,
     {"\\p{N}{1,3}", "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+",
      kDeepseekV3Words}},
    {"exaone", Scanner::kGpt2SingleDigits},
    {"gpt-2", Scanner::kGpt2},
    {"gpt-4o", Scanner::kPatterns, {kGpt4oPattern}},
    {"jina-v2-code", Scanner::kGpt2},
    {"jina-v2-de", Scanner::kGpt2},
    {"jina-v2-es", Scanner::kGpt2},
    {"llama-bpe", Scanner::kLlama3},
    {"llama3", Scanner::kLlama3},
    {"llama4", Scanner::kPatterns, {kGpt4oPattern}},
    {"modern-bert", Scanner::kGpt2},
    {"mpt", Scanner::kGpt2},
    {"olmo", Scanner::kGpt2},
    {"phi-2", Scanner::kGpt2},
    {"qwen2", Scanner::kQwen2},
    {"refact", Scanner::kGpt2SingleDigits},
    {"roberta-bpe", Scanner::kGpt2},
    {"smaug-bpe", Scanner::kLlama3},
    {"smollm", Scanner::kGpt2SingleDigits},
    {"stablelm2", Scanner::kQwen2},
    {"starcoder", Scanner::kGpt2SingleDigits},
    {"tekken", Scanner::kPatterns, {kTekkenPattern}},
};
static_assert(std::is_sorted(std::begin(kKnown), std::end(kKnown),
                             [](const KnownName& a, const KnownName& b) {
                               return a.name < b.name;
                             }));

}  // namespace

std::vector<std::string_view> KnownPreTokenizers() {
  std::vector<std::string_view> names;
  for (const KnownName& known : kKnown) names.push_back(known.name);
  return names;
}

std::unique_ptr<const PreTokenizer> MakePreTokenizer(const TokenizerSpec& spec) {
  if (!spec.pre_patterns.empty()) return MakePatternPreTokenizer(spec.source, spec.pre_patterns);
  const auto* known = std::find_if(std::begin(kKnown), std::end(kKnown), [&](const KnownName& k) {
    return k.name == spec.pre_tokenizer;
  });
  if (known == std::end(kKnown)) {
    std::string names;
    for (const std::string_view name : KnownPreTokenizers()) {
      names.append(names.empty() ? "" : ", ").append(name);
    }
    Throw(ErrorCode::kUnsupported,
          "{}: pre-tokenizer: expected one of {}; found '{}'; another pre-tokenizer would silently "
          "give "
          "other tokens than the model was trained on",
          spec.source, names, ToValidUtf8(spec.pre_tokenizer));
  }
  switch (known->scanner) {
    case Scanner::kGpt2:
      return std::make_unique<ScannerPreTokenizer<Gpt2Scanner>>(
          Gpt2Scanner{.single_digits = false});
    case Scanner::kGpt2SingleDigits:
      return std::make_unique<ScannerPreTokenizer<Gpt2Scanner>>(Gpt2Scanner{.single_digits = true});
    case Scanner::kLlama3:
      return std::make_unique<ScannerPreTokenizer<Llama3Scanner>>(Llama3Scanner{.max_digits = 3});
    case Scanner::kQwen2:
      return std::make_unique<ScannerPreTokenizer<Llama3Scanner>>(Llama3Scanner{.max_digits = 1});
    case Scanner::kPatterns:
      break;
  }
  std::vector<std::string> patterns;
  for (const char* pattern : known->patterns) {
    if (pattern) patterns.emplace_back(pattern);
  }
  return MakePatternPreTokenizer(spec.source, patterns);
}

}  // namespace bakestone
