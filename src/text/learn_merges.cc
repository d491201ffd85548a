#include "text/learn_merges.h"

#include <algorithm>
#include <optional>
#include <unordered_set>
#include <utility>

#include "base/error.h"
#include "text/unicode.h"

namespace bakestone {
namespace {

uint64_t KeyOf(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

struct Word {
  std::vector<int32_t> symbols;  // ids of the tokenizer, then of the new tokens
  int64_t count = 0;
};

// The words as symbols, and how often each pair of neighbours is there.
class Pairs {
 public:
  explicit Pairs(std::vector<Word> words) : words_(std::move(words)) {
    for (size_t i = 0; i < words_.size(); ++i) Count(i, 1);
  }

  // The most frequent pair that is allowed; of equal ones that of the lowest ids.
  std::optional<std::pair<int32_t, int32_t>> Best(
      int64_t least, const std::unordered_set<uint64_t>& banned) const {
    uint64_t best = 0;
    int64_t most = 0;
    for (const auto& [key, count] : counts_) {
      if (count < least || count < most || (count == most && key > best) || banned.count(key) > 0) {
        continue;
      }
      best = key;
      most = count;
    }
    if (most == 0) return std::nullopt;
    return std::pair(static_cast<int32_t>(best >> 32), static_cast<int32_t>(best & 0xFFFFFFFF));
  }

  // Of all words, each as often as it is there.
  int64_t Symbols() const {
    int64_t symbols = 0;
    for (const Word& word : words_) {
      symbols += word.count * static_cast<int64_t>(word.symbols.size());
    }
    return symbols;
  }

  void Merge(int32_t left, int32_t right, int32_t result) {
    const auto found = where_.find(KeyOf(left, right));
    if (found == where_.end()) return;
    const std::vector<size_t> words = std::move(found->second);
    where_.erase(found);
    size_t last = words_.size();
    for (const size_t index : words) {
      if (index == last) continue;  // a word may be named several times, but not once it is merged
      last = index;
      std::vector<int32_t>& symbols = words_[index].symbols;
      Count(index, -1);
      size_t to = 0;
      for (size_t from = 0; from < symbols.size(); ++from) {
        const bool pair =
            from + 1 < symbols.size() && symbols[from] == left && symbols[from + 1] == right;
        symbols[to++] = pair ? result : symbols[from];
        from += pair;
      }
      symbols.resize(to);
      Count(index, 1);
    }
  }

 private:
  void Count(size_t index, int64_t sign) {
    const Word& word = words_[index];
    for (size_t i = 0; i + 1 < word.symbols.size(); ++i) {
      const uint64_t key = KeyOf(word.symbols[i], word.symbols[i + 1]);
      int64_t& count = counts_[key];
      count += sign * word.count;
      if (count == 0) counts_.erase(key);
      if (sign > 0) where_[key].push_back(index);
    }
  }

  std::vector<Word> words_;
  std::unordered_map<uint64_t, int64_t> counts_;
  std::unordered_map<uint64_t, std::vector<size_t>>
      where_;  // words that had the pair when they were counted
};

}  // namespace

MergeLearner::MergeLearner(const TokenizerSpec& spec)
    : nfc_(spec.nfc),
      pre_tokenizer_(spec.kind == TokenizerKind::kByteBpe ? MakePreTokenizer(spec) : nullptr),
      tokenizer_(spec) {
  if (pre_tokenizer_ == nullptr || spec.add_prefix_space) {
    Throw(ErrorCode::kUnsupported,
          "{}: expected a byte-level BPE tokenizer to learn tokens for, found another kind",
          spec.source);
  }
}

void MergeLearner::Add(std::string_view text) {
  std::string changed;
  if (nfc_ && !IsTriviallyNfc(text)) text = changed = ToNfc(text);
  std::vector<uint32_t> ends;
  pre_tokenizer_->Split(text, &ends);
  size_t begin = 0;
  for (const uint32_t end : ends) {
    ++words_[std::string(text.substr(begin, end - begin))];
    begin = end;
  }
}

LearnedMerges MergeLearner::Learn(int64_t count, int64_t least) const {
  std::vector<std::pair<std::string_view, int64_t>> sorted(words_.begin(), words_.end());
  std::sort(sorted.begin(), sorted.end());
  std::vector<Word> words;
  for (const auto& [text, times] : sorted) {
    words.push_back({tokenizer_.Encode(text, {.add_special = false}), times});
  }
  Pairs pairs(std::move(words));
  LearnedMerges learned;
  learned.tokens_before = pairs.Symbols();
  std::vector<LearnedMerge>& merges = learned.merges;
  std::unordered_set<uint64_t> banned;
  std::unordered_set<std::string> new_texts;
  const int32_t first = tokenizer_.vocab_size();
  const auto text_of = [&](int32_t id) {
    if (id < first) return std::string(tokenizer_.TokenText(id));
    const LearnedMerge& merge = merges[static_cast<size_t>(id - first)];
    return merge.left + merge.right;
  };
  const auto is_plain = [&](int32_t id) {
    return id >= first || tokenizer_.Type(id) == TokenType::kNormal;
  };
  const auto add_pieces = [&](int32_t id, std::vector<int32_t>* pieces) {
    if (id < first) return pieces->push_back(id);
    const auto& of = merges[static_cast<size_t>(id - first)].pieces;
    pieces->insert(pieces->end(), of.begin(), of.end());
  };
  while (static_cast<int64_t>(merges.size()) < count) {
    const auto best = pairs.Best(least, banned);
    if (!best) break;
    const auto [left, right] = *best;
    LearnedMerge merge{text_of(left), text_of(right), {}};
    const std::string text = merge.left + merge.right;
    // A token that is there already is made in the way that it is made.
    if (!is_plain(left) || !is_plain(right) || tokenizer_.Find(text) ||
        !new_texts.insert(text).second) {
      banned.insert(KeyOf(left, right));
      continue;
    }
    add_pieces(left, &merge.pieces);
    add_pieces(right, &merge.pieces);
    const auto result = first + static_cast<int32_t>(merges.size());
    merges.push_back(std::move(merge));
    pairs.Merge(left, right, result);
  }
  learned.tokens_after = pairs.Symbols();
  return learned;
}

}  // namespace bakestone
