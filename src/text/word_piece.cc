// BERT's tokenizer. Text is cleaned (control characters go, white space becomes a space, a Han
// character stands by itself), its accents are taken off and it is put in lower case, as the spec
// says; then it is cut at spaces and around each punctuation mark. A word is cut into pieces, each
// the longest that the vocabulary has; one that cannot be, or of more than 100 characters, is the
// unknown token.
#include <memory>
#include <string>

#include <utf8proc.h>

#include "text/text_model.h"
#include "text/utf8.h"

namespace bakestone {
namespace {

constexpr int kMaxWord = 100;  // characters, as `tokenizers` has it

bool IsHan(uint32_t c) {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
         (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
         (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B820 && c <= 0x2CEAF) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

utf8proc_category_t CategoryOf(uint32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

bool IsPunctuation(uint32_t c) {
  if (c < 128) {
    return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) ||
           (c >= 123 && c <= 126);
  }
  const utf8proc_category_t category = CategoryOf(c);
  return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

bool IsGap(uint32_t c) {
  if (c == ' ' || (c >= 9 && c <= 13) || c == 0x85) return true;
  const utf8proc_category_t category = CategoryOf(c);
  return category >= UTF8PROC_CATEGORY_ZS && category <= UTF8PROC_CATEGORY_ZP;
}

bool IsDropped(uint32_t c) {
  const utf8proc_category_t category = CategoryOf(c);
  return c == 0 || c == kReplacementCodepoint ||
         (category >= UTF8PROC_CATEGORY_CC && category <= UTF8PROC_CATEGORY_CO) ||
         category == UTF8PROC_CATEGORY_CN;
}

class WordPiece : public TextModel {
 public:
  WordPiece(const TokenizerSpec& spec, const Vocabulary& vocabulary)
      : vocabulary_(vocabulary),
        unknown_(spec.unk),
        lowercase_(spec.lowercase),
        strip_accents_(spec.strip_accents),
        space_around_han_(spec.space_around_han) {}

  void Encode(std::string_view fragment, FragmentPlace, std::vector<int32_t>* ids) const override {
    std::u32string word;
    const auto end_word = [&] {
      if (!word.empty()) Pieces(word, ids);
      word.clear();
    };
    const char *p = fragment.data(), *end = p + fragment.size();
    while (p < end) {
      uint32_t c = 0;
      const int length = DecodeUtf8(p, end, &c);
      p += length > 0 ? length : MeasureInvalid(p, end).length;
      if (length == 0) continue;
      if (IsGap(c)) {
        end_word();
      } else if (IsDropped(c)) {
        continue;
      } else if (IsPunctuation(c) || (space_around_han_ && IsHan(c))) {
        end_word();
        word.push_back(static_cast<char32_t>(c));
        end_word();
      } else {
        Append(c, &word);
      }
    }
    end_word();
  }

 private:
  // The character without accents, in lower case.
  void Append(uint32_t c, std::u32string* word) const {
    utf8proc_int32_t parts[32] = {static_cast<utf8proc_int32_t>(c)};
    utf8proc_ssize_t count = 1;
    if (strip_accents_ && c >= 128) {
      int boundary = 0;
      count = utf8proc_decompose_char(parts[0], parts, 32, UTF8PROC_DECOMPOSE, &boundary);
      if (count < 0 || count > 32) count = 1;
    }
    for (utf8proc_ssize_t i = 0; i < count; ++i) {
      if (strip_accents_ && utf8proc_category(parts[i]) == UTF8PROC_CATEGORY_MN) continue;
      word->push_back(static_cast<char32_t>(lowercase_ ? utf8proc_tolower(parts[i]) : parts[i]));
    }
  }

  void Pieces(const std::u32string& word, std::vector<int32_t>* ids) const {
    const size_t before = ids->size();
    if (word.size() > kMaxWord) return ids->push_back(unknown_);
    for (size_t begin = 0; begin < word.size();) {
      size_t end = word.size();
      int32_t found = -1;
      for (; end > begin && found < 0; --end) {
        std::string piece = begin > 0 ? "##" : "";
        for (size_t i = begin; i < end; ++i) AppendUtf8(static_cast<uint32_t>(word[i]), &piece);
        found = vocabulary_.by_text.Find(piece);
      }
      if (found < 0) {
        ids->resize(before);
        return ids->push_back(unknown_);
      }
      ids->push_back(found);
      begin = end + 1;
    }
  }

  const Vocabulary& vocabulary_;
  const int32_t unknown_;
  const bool lowercase_, strip_accents_, space_around_han_;
};

}  // namespace

std::unique_ptr<const TextModel> MakeWordPiece(const TokenizerSpec& spec,
                                               const Vocabulary& vocabulary) {
  return std::make_unique<const WordPiece>(spec, vocabulary);
}

}  // namespace bakestone
