// Text <-> token ids. Built from a TokenizerSpec (throws Error(kCorrupt / kUnsupported) that names
// the file, the field and the value when the spec is damaged or unknown), immutable and safe to
// share between threads afterwards. Ids equal those of PyPI's `tokenizers` (byte-level BPE) and
// `sentencepiece` (BPE by score, unigram); tools/make_tokenizer_goldens.py has the comparison.
//
// Control tokens come from text only in segments that may hold them (the template's, never the
// user's). Time is O(n log n) in the worst case and the stack is bounded for any input.
//
// Text that is not UTF-8: byte-level BPE keeps the bytes (each is a symbol of its own for the
// pre-tokenizer); the SentencePiece kinds read each invalid byte as U+FFFD. A byte for which a
// byte-level vocabulary has no token is dropped, as `tokenizers` does; see EncodesAllBytes().
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer_spec.h"

namespace bakestone {

struct TextSegment {
  std::string_view text;
  bool parse_special = false;  // true: control tokens may be parsed here (template text)
};

struct EncodeOptions {
  bool add_special = true;  // BOS / EOS as the model wants them (never a second BOS)
  bool parse_special = false;
};

struct DecodeOptions {
  bool render_special = false;     // control tokens as their text; else they vanish
  bool strip_space_prefix = true;  // SentencePiece kinds: drop the space that Encode put first
};

class Tokenizer {
 public:
  explicit Tokenizer(TokenizerSpec spec);
  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // Text longer than kMaxTextBytes in all is Error(kInvalidArgument).
  static constexpr int64_t kMaxTextBytes = int64_t{1} << 30;
  std::vector<int32_t> Encode(std::string_view text, const EncodeOptions& options = {}) const;

  // The segments are one text: words run across their borders, but a control token only matches
  // inside a stretch of segments that allow it. So with no special spelling in the other segments
  // the ids equal those of the joined text with parse_special.
  std::vector<int32_t> Encode(std::span<const TextSegment> segments, bool add_special) const;

  // Two texts as the model takes them together (a question and what may answer it), with what
  // stands around and between them; neither can hold control tokens. kUnsupported where the
  // vocabulary's file has no form for it.
  struct Pair {
    std::vector<int32_t> ids;
    std::vector<uint8_t> types;  // [ids]: 0 or 1
  };
  Pair EncodePair(std::string_view first, std::string_view second) const;
  bool has_pairs() const { return !spec_.pair.empty(); }

  // Decode gives valid UTF-8 (U+FFFD for each maximal invalid part, as `tokenizers` does);
  // DecodeBytes gives the very bytes. Both throw kInvalidArgument for an id outside the vocabulary.
  std::string Decode(std::span<const int32_t> ids, const DecodeOptions& options = {}) const;
  std::string DecodeBytes(std::span<const int32_t> ids, const DecodeOptions& options = {}) const;

  int32_t vocab_size() const { return static_cast<int32_t>(spec_.types.size()); }
  TokenizerKind kind() const { return spec_.kind; }
  const std::string& pre_tokenizer() const { return spec_.pre_tokenizer; }
  int32_t bos() const { return spec_.bos; }  // -1: none
  int32_t eos() const { return spec_.eos; }  // -1: none
  int32_t eot() const { return spec_.eot; }
  int32_t unk() const { return spec_.unk; }
  int32_t pad() const { return spec_.pad; }
  bool add_bos() const { return spec_.add_bos; }
  bool add_eos() const { return spec_.add_eos; }

  // The token in the vocabulary's spelling, and the bytes that it stands for (a control token's:
  // its text). The id must be in range (kInvalidArgument).
  std::string_view TokenText(int32_t id) const;
  std::string_view TokenBytes(int32_t id) const;
  TokenType Type(int32_t id) const;
  // kControl as the file says it or by promotion: bos, eos, eot, eom, those that end a generation,
  // and user-defined tokens shaped <|...|> are control tokens whatever the file calls them.
  bool IsControl(int32_t id) const { return Type(id) == TokenType::kControl; }
  // eos, eot, eom and the tokens that models are known to end a turn with (<|im_end|>,
  // <|eot_id|>...).
  bool IsEndOfGeneration(int32_t id) const;
  std::span<const int32_t> EndOfGeneration() const { return eog_; }
  // Ids that stand for nothing, ascending: kUnused ones, and fillers of the embedding called [PADn]
  // by their own id n.
  std::span<const int32_t> Unused() const { return unused_; }
  std::optional<int32_t> Find(std::string_view token_text) const;  // vocabulary's spelling

  // False when a byte-level vocabulary lacks some of the 256 bytes, or a SentencePiece one has
  // neither byte tokens nor every character: then Decode(Encode(text)) can lose text.
  bool EncodesAllBytes() const;

 private:
  friend class StreamDetokenizer;
  struct Impl;
  void CheckId(int32_t id) const;
  // Appends a token's bytes; *at_start says whether no text came yet, and is kept up to date.
  void AppendBytes(int32_t id, const DecodeOptions& options, bool* at_start,
                   std::string* out) const;

  TokenizerSpec spec_;  // without tokens, scores and merges; types as promoted
  std::vector<int32_t> eog_, unused_;
  std::unique_ptr<const Impl> impl_;
};

// Turns a stream of ids into text that is complete UTF-8 at every call. What it returned so far
// plus Flush() equals Tokenizer::Decode of the same ids with the same options. Not thread-safe; the
// tokenizer must outlive it. Streams that continue a prompt set strip_space_prefix = false.
class StreamDetokenizer {
 public:
  explicit StreamDetokenizer(const Tokenizer& tokenizer, const DecodeOptions& options = {})
      : tokenizer_(&tokenizer), options_(options) {}

  std::string Append(int32_t id);
  std::string Flush();  // the end: an unfinished character becomes U+FFFD

 private:
  const Tokenizer* tokenizer_;
  DecodeOptions options_;
  std::string pending_;  // at most 3 bytes of an unfinished character
  bool at_start_ = true;
};

// Names that TokenizerSpec::pre_tokenizer may have, sorted.
std::vector<std::string_view> KnownPreTokenizers();

}  // namespace bakestone
