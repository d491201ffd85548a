// What turns a fragment (text between control tokens) into ids. One class a TokenizerKind;
// immutable and thread-safe. For Tokenizer only.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "text/string_table.h"
#include "text/tokenizer_spec.h"

namespace bakestone {

// What Tokenizer has checked and built before the model is made; outlives the model.
struct Vocabulary {
  StringTable texts;      // [vocab_size] as the file spells them
  StringTable bytes;      // [vocab_size] what they stand for
  StringIndex by_text;    // non-empty texts
  int32_t byte_ids[256];  // of byte tokens (SentencePiece) or of the 256 byte letters; -1: absent
  bool has_byte_tokens = false;  // SentencePiece: at least one
};

// What stands before a fragment.
enum class FragmentPlace : uint8_t {
  kFirst /* nothing */,
  kAfterSpecial /* a control token */,
  kElsewhere
};

class TextModel {
 public:
  virtual ~TextModel() = default;
  virtual void Encode(std::string_view fragment, FragmentPlace place,
                      std::vector<int32_t>* ids) const = 0;
};

std::unique_ptr<const TextModel> MakeByteBpe(const TokenizerSpec& spec,
                                             const Vocabulary& vocabulary);
std::unique_ptr<const TextModel> MakeSentencePieceBpe(const TokenizerSpec& spec,
                                                      const Vocabulary& vocabulary);
std::unique_ptr<const TextModel> MakeUnigram(const TokenizerSpec& spec,
                                             const Vocabulary& vocabulary);
std::unique_ptr<const TextModel> MakeGreedy(const TokenizerSpec& spec,
                                            const Vocabulary& vocabulary);
std::unique_ptr<const TextModel> MakeWordPiece(const TokenizerSpec& spec,
                                               const Vocabulary& vocabulary);

// The bytes that a byte-level spelling stands for; false where it is not one ("Ġthe" is " the").
bool ByteLevelToBytes(std::string_view spelling, std::string* bytes);

}  // namespace bakestone
