// What a tokenizer is made of, as plain data: filled by format/ from GGUF metadata or
// tokenizer.json, consumed by Tokenizer's constructor, which checks all of it (the values come from
// a file that nobody vouches for). Nothing here is checked and nothing here has behaviour.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace bakestone {

enum class TokenizerKind : uint8_t {
  kByteBpe,  // byte-level BPE, merges in rank order (GPT-2, Llama 3, Qwen, SmolLM); GGUF "gpt2"
  kSentencePieceBpe,  // BPE by piece score (Llama 2, Gemma); GGUF "llama"
  kUnigram,           // SentencePiece unigram, Viterbi (T5, XLM-R); GGUF "t5"
  kGreedy,            // the longest token first, tokens are any bytes (RWKV world); GGUF "rwkv"
  kWordPiece,  // the longest piece first, "##" before those within a word (BERT); GGUF "bert"
};

// GGUF's tokenizer.ggml.token_type and SentencePiece's Type: on disk, do not renumber.
enum class TokenType : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,      // never made from text unless the text may hold special tokens
  kUserDefined = 4,  // matched in any text before anything else
  kUnused = 5,
  kByte = 6,  // "<0x00>".."<0xFF>"
};

// How an added token (kControl or kUserDefined) is matched; the fields have tokenizer.json's
// meaning.
struct AddedTokenFlags {
  int32_t id = -1;
  bool lstrip = false;       // also takes the white space before it
  bool rstrip = false;       // also takes the white space after it
  bool single_word = false;  // only where no word character touches it
  bool normalized = false;   // kUserDefined only: matched after normalization instead of before
};

// Where a SentencePiece kind puts the space that stands before a text ("dummy prefix").
enum class SpacePrefix : uint8_t {
  kNever,
  kAfterSpecial,        // at the start and after a control token (SentencePiece's files, llama.cpp)
  kFirst,               // at the start, unless there is one (tokenizer.json's Metaspace, "first")
  kEveryPiece,          // before each stretch between added tokens (Prepend)
  kEveryUnspacedPiece,  // the same, unless it begins with one (Metaspace, "always")
};

// A step of tokenizer.json's normalizer, where the Unigram kind has them.
struct NormalizerStep {
  enum class Kind : uint8_t {
    kCharsmap,  // precompiled_charsmap
    kStripLeft,
    kStripRight,     // white space at that end of the text
    kReplace,        // `from` by `to`
    kReplaceSpaces,  // two spaces or more in a row by `to`
    kDropLeading,    // spaces at the start
    kDropTrailing,   // spaces and U+2581 at the end
    kNfc,
  };
  Kind kind = Kind::kCharsmap;
  std::string from, to;
};

// A part of how two texts are put together: one of them, or a token; its rows have the type.
struct PairPart {
  enum class Kind : uint8_t { kFirst, kSecond, kToken };
  Kind kind = Kind::kToken;
  int32_t token = -1;  // kToken's
  uint8_t type = 0;    // 0 or 1
};

struct TokenizerSpec {
  std::string source = "tokenizer";  // opens every error message: the file's name
  TokenizerKind kind = TokenizerKind::kByteBpe;

  // kByteBpe: a name that KnownPreTokenizers() lists. `pre_patterns`, where not empty, wins: PCRE2
  // patterns applied one after the other, each splitting what the one before left (a match is a
  // piece, and so is the text between matches).
  std::string pre_tokenizer;
  std::vector<std::string> pre_patterns;

  // [vocab_size], in the vocabulary's own spelling ("Ġthe", "▁the"); kGreedy: the bytes themselves.
  std::vector<std::string> tokens;
  std::vector<float> scores;     // [vocab_size] for SentencePiece kinds, else empty
  std::vector<TokenType> types;  // [vocab_size], or empty: all kNormal
  // Best first. kByteBpe always has them; kSentencePieceBpe, where not empty, merges by them
  // instead of scores.
  std::vector<std::pair<std::string, std::string>> merges;
  std::vector<AddedTokenFlags> added;  // only the tokens whose flags are not the defaults

  int32_t bos = -1, eos = -1, eot = -1, eom = -1, unk = -1, pad = -1;  // -1: the model has none
  std::vector<int32_t> extra_eog;  // further ids that end a generation
  bool add_bos = false;            // with add_special: BOS first, unless the text begins with it
  bool add_eos = false;
  std::vector<PairPart> pair;  // empty: no two texts are put together

  bool ignore_merges =
      false;         // kByteBpe: a word that is a token is that token, whatever the merges say
  bool nfc = false;  // kByteBpe: NFC before splitting (Qwen)
  bool add_prefix_space = false;  // kByteBpe: a space before text that has none (RoBERTa)

  // kWordPiece: what is done to text before it is cut into words.
  bool lowercase = true;
  bool strip_accents = true;
  bool space_around_han = true;

  // SentencePiece kinds.
  SpacePrefix space_prefix = SpacePrefix::kAfterSpecial;
  bool strips_space =
      true;  // decoding takes a leading space away, where the prefix may have put it
  bool split_user_defined =
      false;  // text is cut at user-defined tokens before it is normalized (tokenizer.json)
  bool remove_extra_whitespaces = false;
  bool byte_fallback = true;                  // where the vocabulary has byte tokens
  std::vector<uint8_t> precompiled_charsmap;  // SentencePiece's normalizer; empty: identity

  // kUnigram: as tokenizer.json has it, in place of SentencePiece's rules; the next three are for
  // it.
  bool marked_words = false;
  std::vector<NormalizerStep> normalizer;
  bool split_white_space = false;  // words are what white space leaves
  bool split_marks = false;        // a word begins at each U+2581
};

}  // namespace bakestone
