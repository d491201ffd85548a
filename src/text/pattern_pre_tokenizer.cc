// Pre-tokenizer patterns on PCRE2: UTF and Unicode properties, JIT where there is one. Text is made
// of runs of valid UTF-8 (each invalid byte is a word of its own). PCRE2's match limit bounds the
// work of one match; the whole of it is an error that says so, never a hang. PCRE2 keeps its
// backtracking on the heap or on a JIT stack of a stated size, not on the thread's stack.
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/error.h"
#include "text/pre_tokenizer.h"
#include "text/utf8.h"

namespace bakestone {
namespace {

constexpr uint32_t kMatchLimit = 10'000'000;   // steps of one match; ordinary words need under 100
constexpr uint32_t kHeapLimitKib = 64 * 1024;  // of the interpreter
constexpr size_t kMaxPatternBytes = 64 * 1024;
constexpr size_t kJitStackBytes = 1024 * 1024;

struct Deleter {
  void operator()(pcre2_code* p) const { pcre2_code_free(p); }
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
  void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
  void operator()(pcre2_compile_context* p) const { pcre2_compile_context_free(p); }
  void operator()(pcre2_jit_stack* p) const { pcre2_jit_stack_free(p); }
};
template <class T>
using Owned = std::unique_ptr<T, Deleter>;

std::string Describe(int code) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

// What PCRE2 needs for one call of Split.
struct Scratch {
  Owned<pcre2_match_context> context{pcre2_match_context_create(nullptr)};
  Owned<pcre2_match_data> match{pcre2_match_data_create(1, nullptr)};
  Owned<pcre2_jit_stack> stack{pcre2_jit_stack_create(32 * 1024, kJitStackBytes, nullptr)};

  Scratch() {
    if (!context || !match || !stack) {
      Throw(ErrorCode::kOutOfMemory, "pre-tokenizer: out of memory");
    }
    pcre2_set_match_limit(context.get(), kMatchLimit);
    pcre2_set_heap_limit(context.get(), kHeapLimitKib);
    pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
  }
};

class PatternPreTokenizer : public PreTokenizer {
 public:
  PatternPreTokenizer(std::string_view source, std::span<const std::string> patterns)
      : source_(source) {
    for (const std::string& pattern : patterns) codes_.push_back(Compile(pattern));
  }

  void Split(std::string_view text, std::vector<uint32_t>* ends) const override {
    const Scratch scratch;
    const char* const begin = text.data();
    const char* const end = begin + text.size();
    const char* valid = begin;
    const auto flush = [&](const char* p) {
      if (p == valid) return;
      SplitValid(text.substr(0, static_cast<size_t>(p - begin)), static_cast<size_t>(valid - begin),
                 scratch, ends);
    };
    for (const char* p = begin; p < end;) {
      uint32_t codepoint;
      if (const int length = DecodeUtf8(p, end, &codepoint)) {
        p += length;
        continue;
      }
      flush(p);
      valid = ++p;
      ends->push_back(static_cast<uint32_t>(p - begin));
    }
    flush(end);
  }

 private:
  Owned<pcre2_code> Compile(const std::string& pattern) const {
    if (pattern.empty() || pattern.size() > kMaxPatternBytes) {
      Throw(ErrorCode::kCorrupt, "{}: pre-tokenizer pattern: expected 1 to {} bytes, found {}",
            source_, kMaxPatternBytes, pattern.size());
    }
    Owned<pcre2_compile_context> context(pcre2_compile_context_create(nullptr));
    if (context) pcre2_set_parens_nest_limit(context.get(), 64);
    int error = 0;
    PCRE2_SIZE offset = 0;
    Owned<pcre2_code> code(pcre2_compile(
        reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
        PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, context.get()));
    if (!code) {
      Throw(ErrorCode::kCorrupt, "{}: pre-tokenizer pattern '{}': {} at byte {}", source_,
            ToValidUtf8(pattern), Describe(error), offset);
    }
    pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);  // no JIT here: the interpreter runs it
    return code;
  }

  // Splits text[from, size) by each pattern in turn.
  void SplitValid(std::string_view text, size_t from, const Scratch& scratch,
                  std::vector<uint32_t>* ends) const {
    std::vector<uint32_t> pieces = {static_cast<uint32_t>(text.size())};
    for (const auto& code : codes_) {
      std::vector<uint32_t> finer;
      size_t begin = from;
      for (const uint32_t end : pieces) {
        SplitPiece(*code, text.substr(0, end), begin, scratch, &finer);
        begin = end;
      }
      pieces = std::move(finer);
    }
    ends->insert(ends->end(), pieces.begin(), pieces.end());
  }

  void SplitPiece(const pcre2_code& code, std::string_view text, size_t from,
                  const Scratch& scratch, std::vector<uint32_t>* ends) const {
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data()) + from;  // a piece stands alone
    const size_t size = text.size() - from;
    size_t done = 0;
    for (size_t start = 0; start < size;) {
      const int rc = pcre2_match(&code, subject, size, start, PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY,
                                 scratch.match.get(), scratch.context.get());
      if (rc == PCRE2_ERROR_NOMATCH) break;
      if (rc < 0) {
        Throw(ErrorCode::kInvalidArgument,
              "{}: pre-tokenizer pattern: {} at byte {} of the text; the text is too hard for this "
              "pattern: split it",
              source_, Describe(rc), start);
      }
      const PCRE2_SIZE* span = pcre2_get_ovector_pointer(scratch.match.get());
      if (span[1] <= span[0] || span[0] < start) break;  // \K: not a split
      if (span[0] > done) ends->push_back(static_cast<uint32_t>(from + span[0]));
      ends->push_back(static_cast<uint32_t>(from + span[1]));
      done = start = span[1];
    }
    if (done < size) ends->push_back(static_cast<uint32_t>(text.size()));
  }

  std::string source_;
  std::vector<Owned<pcre2_code>> codes_;
};

}  // namespace

std::unique_ptr<const PreTokenizer> MakePatternPreTokenizer(std::string_view source,
                                                            std::span<const std::string> patterns) {
  return std::make_unique<PatternPreTokenizer>(source, patterns);
}

}  // namespace bakestone
