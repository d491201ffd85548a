// SentencePiece BPE: of all neighbouring pairs whose text is a piece, the one of best score is
// merged first, the leftmost of equals. That is merging by rank with every way to cut a piece in
// two as a merge, so BpeMerges does it. Symbols are ids of pieces, and from vocab_size on the
// characters that occur in pieces without being one. A tokenizer.json gives the merges themselves:
// the same by their ranks.
//
// Text is cut into words where no merge can reach across: before a space that follows a character
// which no piece has before a space. Exact, and it keeps words short.
#include <algorithm>
#include <numeric>
#include <optional>
#include <unordered_map>

#include "base/error.h"
#include "text/bpe_merges.h"
#include "text/sentencepiece_text.h"
#include "text/utf8.h"

namespace bakestone {
namespace {

constexpr uint32_t kSpaceCodepoint = 0x2581;

// Calls f(offset of the character, its length, its code point); false where text is not UTF-8.
template <class F>
bool ForEachChar(std::string_view text, F f) {
  const char* const end = text.data() + text.size();
  for (const char* p = text.data(); p < end;) {
    uint32_t codepoint;
    const int length = DecodeUtf8(p, end, &codepoint);
    if (length == 0) return false;
    f(static_cast<size_t>(p - text.data()), static_cast<size_t>(length), codepoint);
    p += length;
  }
  return true;
}

class SentencePieceBpe : public TextModel {
 public:
  SentencePieceBpe(const TokenizerSpec& spec, const Vocabulary& vocabulary)
      : vocabulary_(vocabulary), text_(spec, vocabulary), merges_(0) {
    pieces_ = StringIndex(&vocabulary.texts, static_cast<size_t>(vocabulary.texts.size()));
    words_ = pieces_;
    for (int32_t id = 0; id < vocabulary.texts.size(); ++id) {
      if (IsPiece(spec, id)) pieces_.Insert(id);
    }
    AddCharacters(spec);
    spec.merges.empty() ? AddMerges(spec) : AddGivenMerges(spec);
    IndexWords(spec);
  }

  void Encode(std::string_view fragment, FragmentPlace place,
              std::vector<int32_t>* ids) const override {
    const std::string text = text_.Normalize(fragment, place);
    bool unknown = false;
    size_t begin = 0;
    const auto flush = [&](size_t end) {
      if (end > begin) EncodeWord(std::string_view(text).substr(begin, end - begin), &unknown, ids);
      begin = end;
    };
    uint32_t previous = 0;
    const bool has_user_defined = !text_.user_defined().empty();
    for (size_t at = 0; at < text.size();) {
      const std::string_view rest = std::string_view(text).substr(at);
      if (has_user_defined) {
        if (const auto match = text_.user_defined().MatchPrefix(rest); match.length) {
          flush(at);
          ids->push_back(match.id);
          unknown = false;
          begin = at += match.length;
          previous = 0;
          continue;
        }
      }
      uint32_t codepoint = 0;
      const int length = DecodeUtf8(rest.data(), rest.data() + rest.size(), &codepoint);
      if (codepoint == kSpaceCodepoint && at > begin && !MayPrecedeSpace(previous)) flush(at);
      previous = codepoint;
      at += static_cast<size_t>(std::max(length, 1));  // Normalize gives valid text
    }
    flush(text.size());
  }

 private:
  // Byte, control and unknown tokens never come from a spelling in the text.
  static bool IsPiece(const TokenizerSpec& spec, int32_t id) {
    const TokenType type = spec.types[static_cast<size_t>(id)];
    return !spec.tokens[static_cast<size_t>(id)].empty() &&
           (type == TokenType::kNormal || type == TokenType::kUserDefined ||
            type == TokenType::kUnused);
  }
  bool MayPrecedeSpace(uint32_t codepoint) const {
    return std::binary_search(before_space_.begin(), before_space_.end(), codepoint);
  }

  void AddCharacters(const TokenizerSpec& spec) {
    for (int32_t id = 0; id < vocabulary_.texts.size(); ++id) {
      if (!IsPiece(spec, id)) continue;
      const std::string_view piece = vocabulary_.texts[id];
      uint32_t previous = 0;
      ForEachChar(piece, [&](size_t at, size_t length, uint32_t codepoint) {
        if (at > 0 && codepoint == kSpaceCodepoint) before_space_.push_back(previous);
        previous = codepoint;
        const std::string_view character = piece.substr(at, length);
        if (pieces_.Find(character) < 0) extra_.emplace_back(character);
      });
    }
    std::sort(before_space_.begin(), before_space_.end());
    before_space_.erase(std::unique(before_space_.begin(), before_space_.end()),
                        before_space_.end());
    std::sort(extra_.begin(), extra_.end());
    extra_.erase(std::unique(extra_.begin(), extra_.end()), extra_.end());
  }

  // The symbol of a character or, while merges are made, of any piece; -1: occurs in no piece.
  int32_t Symbol(std::string_view text) const {
    if (const int32_t id = pieces_.Find(text); id >= 0) return id;
    const auto it = std::lower_bound(extra_.begin(), extra_.end(), text);
    if (it == extra_.end() || *it != text) return -1;
    return vocabulary_.texts.size() + static_cast<int32_t>(it - extra_.begin());
  }

  // Equal scores get equal ranks, so that the leftmost of them goes first.
  static std::vector<uint32_t> RanksByScore(const TokenizerSpec& spec) {
    std::vector<int32_t> order(spec.tokens.size());
    std::iota(order.begin(), order.end(), 0);
    const auto score = [&](int32_t id) { return spec.scores[static_cast<size_t>(id)]; };
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return score(a) > score(b); });
    std::vector<uint32_t> ranks(order.size());
    uint32_t rank = 0;
    for (size_t i = 0; i < order.size(); ++i) {
      if (i > 0 && score(order[i]) != score(order[i - 1])) ++rank;
      ranks[static_cast<size_t>(order[i])] = rank;
    }
    return ranks;
  }

  // Those of a tokenizer.json, as they are.
  void AddGivenMerges(const TokenizerSpec& spec) {
    merges_ = BpeMerges(spec.merges.size());
    for (size_t i = 0; i < spec.merges.size(); ++i) {
      const auto& [left, right] = spec.merges[i];
      const int32_t a = pieces_.Find(left), b = pieces_.Find(right),
                    result = pieces_.Find(left + right);
      if (a < 0 || b < 0 || result < 0) {
        Throw(ErrorCode::kCorrupt, "{}: merges[{}] '{}' + '{}': expected pieces of the vocabulary",
              spec.source, i, ToValidUtf8(left), ToValidUtf8(right));
      }
      merges_.Add(a, b, {static_cast<uint32_t>(i), result});
    }
  }

  void AddMerges(const TokenizerSpec& spec) {
    struct Pair {
      int32_t left, right, result;
    };
    std::vector<Pair> pairs;
    for (int32_t id = 0; id < vocabulary_.texts.size(); ++id) {
      if (!IsPiece(spec, id)) continue;
      const std::string_view piece = vocabulary_.texts[id];
      const size_t before = pairs.size();
      const bool valid = ForEachChar(piece, [&](size_t at, size_t, uint32_t) {
        if (at == 0) return;
        const int32_t left = Symbol(piece.substr(0, at)), right = Symbol(piece.substr(at));
        if (left >= 0 && right >= 0) pairs.push_back({left, right, id});
      });
      if (!valid) pairs.resize(before);  // normalized text is valid: such a piece never occurs
    }
    const std::vector<uint32_t> ranks = RanksByScore(spec);
    merges_ = BpeMerges(pairs.size());
    for (const Pair& pair : pairs) {
      merges_.Add(pair.left, pair.right, {ranks[static_cast<size_t>(pair.result)], pair.result});
    }
  }

  // The pieces that a word of just their text becomes; unused pieces become their halves instead.
  void IndexWords(const TokenizerSpec& spec) {
    for (int32_t id = 0; id < vocabulary_.texts.size(); ++id) {
      if (!IsPiece(spec, id)) continue;
      const TokenType type = spec.types[static_cast<size_t>(id)];
      if (type == TokenType::kUserDefined) continue;
      std::vector<int32_t> symbols;
      const bool valid =
          ForEachChar(vocabulary_.texts[id], [&](size_t at, size_t length, uint32_t) {
            symbols.push_back(Symbol(vocabulary_.texts[id].substr(at, length)));
          });
      if (!valid) continue;
      if (type == TokenType::kUnused) {
        if (const auto halves = LastMerge(symbols, id)) unused_.emplace(id, *halves);
        continue;
      }
      symbols.resize(merges_.Apply(symbols.data(), symbols.size()));
      if (symbols.size() == 1 && symbols[0] == id) words_.Insert(id);
    }
  }

  // The two symbols whose merge ends in the piece, when the word is just its text.
  std::optional<std::pair<int32_t, int32_t>> LastMerge(std::vector<int32_t> symbols,
                                                       int32_t piece) const {
    while (symbols.size() >= 2) {
      size_t best = 0;
      const auto merge = [&](size_t i) { return merges_.Find(symbols[i], symbols[i + 1]); };
      for (size_t i = 1; i + 1 < symbols.size(); ++i) {
        if (merge(i).rank < merge(best).rank) best = i;
      }
      const int32_t result = merge(best).result;
      if (result < 0) break;
      if (result == piece) return std::pair(symbols[best], symbols[best + 1]);
      symbols[best] = result;
      symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(best) + 1);
    }
    return std::nullopt;
  }

  void EncodeWord(std::string_view word, bool* unknown, std::vector<int32_t>* ids) const {
    if (const int32_t id = words_.Find(word); id >= 0) {
      ids->push_back(id);
      *unknown = false;
      return;
    }
    std::vector<int32_t> symbols;
    symbols.reserve(word.size());
    const auto flush = [&] {
      symbols.resize(merges_.Apply(symbols.data(), symbols.size()));
      for (const int32_t symbol : symbols) Append(symbol, unknown, ids);
      symbols.clear();
    };
    ForEachChar(word, [&](size_t at, size_t length, uint32_t) {
      const std::string_view character = word.substr(at, length);
      const int32_t symbol = Symbol(character);
      if (symbol >= 0) return symbols.push_back(symbol);
      flush();
      text_.AppendUnknown(character, unknown, ids);
    });
    flush();
  }

  void Append(int32_t symbol, bool* unknown, std::vector<int32_t>* ids) const {
    if (symbol >= vocabulary_.texts.size()) {
      text_.AppendUnknown(extra_[static_cast<size_t>(symbol - vocabulary_.texts.size())], unknown,
                          ids);
      return;
    }
    if (const auto unused = unused_.find(symbol); unused != unused_.end()) {
      Append(unused->second.first, unknown,
             ids);  // shorter each time: at most a piece's length deep
      Append(unused->second.second, unknown, ids);
      return;
    }
    ids->push_back(symbol);
    *unknown = false;
  }

  const Vocabulary& vocabulary_;
  SentencePieceText text_;
  StringIndex pieces_;                  // what text can be made of
  StringIndex words_;                   // those that a word of just their text becomes
  std::vector<std::string> extra_;      // characters of pieces that are no pieces, sorted
  std::vector<uint32_t> before_space_;  // code points that some piece has before U+2581, sorted
  std::unordered_map<int32_t, std::pair<int32_t, int32_t>> unused_;  // piece -> its two halves
  BpeMerges merges_;
};

}  // namespace

std::unique_ptr<const TextModel> MakeSentencePieceBpe(const TokenizerSpec& spec,
                                                      const Vocabulary& vocabulary) {
  return std::make_unique<SentencePieceBpe>(spec, vocabulary);
}

}  // namespace bakestone
