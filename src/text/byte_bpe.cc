// Byte-level BPE. The vocabulary spells each byte as a printable character: the printable ones of
// Latin-1 as themselves, the others in order as U+0100, U+0101... (space is U+0120, "Ġ").
//
// Most words of ordinary text are tokens: for those that are what their own merges produce, one
// lookup answers. Which tokens are that is found out when a token is first met, since asking all of
// them would be most of a model's start; the answer is the same whoever finds it, so a relaxed
// atomic holds it.
#include <atomic>

#include "base/error.h"
#include "text/added_tokens.h"
#include "text/bpe_merges.h"
#include "text/pre_tokenizer.h"
#include "text/text_model.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace bakestone {
namespace {

bool IsPrintableLatin1(uint32_t byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

// The byte that a code point of the byte alphabet spells, or -1.
int ByteOf(uint32_t codepoint) {
  struct Table {
    int16_t bytes[256 + 68];
    Table() {
      std::fill(std::begin(bytes), std::end(bytes), int16_t{-1});
      size_t next = 256;
      for (uint32_t byte = 0; byte < 256; ++byte) {
        bytes[IsPrintableLatin1(byte) ? byte : next++] = static_cast<int16_t>(byte);
      }
    }
  };
  static const Table table;
  return codepoint < std::size(table.bytes) ? table.bytes[codepoint] : -1;
}

class ByteBpe : public TextModel {
 public:
  ByteBpe(const TokenizerSpec& spec, const Vocabulary& vocabulary)
      : vocabulary_(vocabulary),
        pre_tokenizer_(MakePreTokenizer(spec)),
        merges_(spec.merges.size()),
        nfc_(spec.nfc),
        add_prefix_space_(spec.add_prefix_space) {
    AddMerges(spec);
    IndexWords(spec);
    for (const AddedTokenFlags& flags : spec.added) {
      const auto id = static_cast<size_t>(flags.id);
      if (flags.normalized && spec.types[id] == TokenType::kUserDefined) {
        const std::string text(vocabulary_.texts[flags.id]);
        normalized_.Add(nfc_ ? ToNfc(text) : text, flags.id, false, flags);
      }
    }
  }

  void Encode(std::string_view fragment, FragmentPlace place,
              std::vector<int32_t>* ids) const override {
    const bool after_special = place != FragmentPlace::kElsewhere;
    std::string changed;
    if (nfc_ && !IsTriviallyNfc(fragment)) fragment = changed = ToNfc(fragment);
    if (normalized_.empty()) return EncodePlain(fragment, after_special, ids);
    const Stretch all{fragment.size(), false};
    for (size_t at = 0; at < fragment.size();) {
      const auto match = normalized_.Next(fragment, at, {&all, 1});
      const size_t end = match ? match->begin : fragment.size();
      EncodePlain(fragment.substr(at, end - at), after_special || at > 0, ids);
      if (!match) break;
      ids->push_back(match->id);
      at = match->end;
    }
  }

 private:
  void AddMerges(const TokenizerSpec& spec) {
    const auto find = [&](size_t i, const std::string& text, const char* what) {
      const int32_t id = vocabulary_.by_text.Find(text);
      if (id < 0) {
        Throw(ErrorCode::kCorrupt, "{}: merges[{}] '{}' + '{}': {} '{}' is not in the vocabulary",
              spec.source, i, ToValidUtf8(spec.merges[i].first), ToValidUtf8(spec.merges[i].second),
              what, ToValidUtf8(text));
      }
      return id;
    };
    for (size_t i = 0; i < spec.merges.size(); ++i) {
      const auto& [left, right] = spec.merges[i];
      if (left.empty() || right.empty()) {
        Throw(ErrorCode::kCorrupt, "{}: merges[{}]: expected two parts, found '{}' and '{}'",
              spec.source, i, ToValidUtf8(left), ToValidUtf8(right));
      }
      const int32_t result = find(i, left + right, "the result");
      if (spec.types[static_cast<size_t>(result)] == TokenType::kControl) {
        Throw(ErrorCode::kCorrupt, "{}: merges[{}] makes the control token {} '{}' from plain text",
              spec.source, i, result, ToValidUtf8(left + right));
      }
      if (!merges_.Add(find(i, left, "the left part"), find(i, right, "the right part"),
                       {static_cast<uint32_t>(i), result})) {
        Throw(ErrorCode::kCorrupt, "{}: merges[{}] repeats an earlier merge: '{}' + '{}'",
              spec.source, i, ToValidUtf8(left), ToValidUtf8(right));
      }
    }
  }

  // The tokens that may be found by one lookup: all that plain text can spell.
  void IndexWords(const TokenizerSpec& spec) {
    words_ = StringIndex(&vocabulary_.bytes, static_cast<size_t>(vocabulary_.texts.size()));
    whole_ = std::vector<std::atomic<Whole>>(static_cast<size_t>(vocabulary_.texts.size()));
    std::string bytes;
    for (int32_t id = 0; id < vocabulary_.texts.size(); ++id) {
      const TokenType type = spec.types[static_cast<size_t>(id)];
      if (type != TokenType::kNormal && type != TokenType::kUserDefined) continue;
      bytes.clear();
      if (!ByteLevelToBytes(vocabulary_.texts[id], &bytes) || bytes != vocabulary_.bytes[id]) {
        continue;
      }
      if (!bytes.empty()) words_.Insert(id);
      if (spec.ignore_merges) whole_[static_cast<size_t>(id)] = Whole::kYes;
    }
  }

  void AppendWord(std::string_view word, std::vector<int32_t>* ids) const {
    const int32_t id = words_.Find(word);
    if (id < 0) return MergeWord(word, ids);
    std::atomic<Whole>& whole = whole_[static_cast<size_t>(id)];
    const Whole known = whole.load(std::memory_order_relaxed);
    if (known == Whole::kYes) {
      ids->push_back(id);
      return;
    }
    const size_t begin = ids->size();
    MergeWord(word, ids);
    if (known == Whole::kUnknown) {
      const bool same = ids->size() == begin + 1 && ids->back() == id;
      whole.store(same ? Whole::kYes : Whole::kNo, std::memory_order_relaxed);
    }
  }

  void EncodePlain(std::string_view text, bool after_special, std::vector<int32_t>* ids) const {
    if (text.empty()) return;
    std::string spaced;
    if (add_prefix_space_ && after_special && text[0] != ' ') {
      spaced.append(" ").append(text);
      text = spaced;
    }
    std::vector<uint32_t> ends;
    ends.reserve(text.size() / 4);
    pre_tokenizer_->Split(text, &ends);
    uint32_t begin = 0;
    for (const uint32_t end : ends) {
      AppendWord(text.substr(begin, end - begin), ids);
      begin = end;
    }
  }

  void MergeWord(std::string_view word, std::vector<int32_t>* ids) const {
    const size_t begin = ids->size();
    ids->resize(begin + word.size());
    size_t size = 0;
    for (const char c : word) {
      const int32_t id = vocabulary_.byte_ids[static_cast<uint8_t>(c)];
      if (id >= 0) (*ids)[begin + size++] = id;
    }
    ids->resize(begin + merges_.Apply(ids->data() + begin, size));
  }

  const Vocabulary& vocabulary_;
  std::unique_ptr<const PreTokenizer> pre_tokenizer_;
  BpeMerges merges_;
  StringIndex words_;
  enum class Whole : uint8_t { kUnknown, kYes, kNo };
  mutable std::vector<std::atomic<Whole>>
      whole_;               // [vocab_size]: is a token what its bytes encode to?
  AddedTokens normalized_;  // user-defined tokens that are matched after normalization
  bool nfc_, add_prefix_space_;
};

}  // namespace

bool ByteLevelToBytes(std::string_view spelling, std::string* bytes) {
  const char* const end = spelling.data() + spelling.size();
  for (const char* p = spelling.data(); p < end;) {
    uint32_t codepoint;
    const int length = DecodeUtf8(p, end, &codepoint);
    const int byte = length ? ByteOf(codepoint) : -1;
    if (byte < 0) return false;
    bytes->push_back(static_cast<char>(byte));
    p += length;
  }
  return true;
}

std::unique_ptr<const TextModel> MakeByteBpe(const TokenizerSpec& spec,
                                             const Vocabulary& vocabulary) {
  return std::make_unique<ByteBpe>(spec, vocabulary);
}

}  // namespace bakestone
