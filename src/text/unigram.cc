// SentencePiece unigram: the segmentation of best total score (Viterbi). Scores are summed and
// compared in float, in SentencePiece's order, so that near-ties fall the same way; for what
// tokenizer.json describes, word by word and in double, as `tokenizers` does. Linear in the text
// for a given longest piece; 16 bytes of heap for each byte of text.
#include <algorithm>
#include <optional>

#include "base/error.h"
#include "text/byte_trie.h"
#include "text/marked_words.h"
#include "text/sentencepiece_text.h"
#include "text/utf8.h"

namespace bakestone {
namespace {

constexpr float kUnknownPenalty = 10.0f;

class Unigram : public TextModel {
 public:
  Unigram(const TokenizerSpec& spec, const Vocabulary& vocabulary)
      : text_(spec, vocabulary), scores_(spec.scores) {
    if (spec.marked_words) words_.emplace(spec);
    float min_score = 0;
    bool any = false;
    for (int32_t id = 0; id < vocabulary.texts.size(); ++id) {
      const TokenType type = spec.types[static_cast<size_t>(id)];
      if (type == TokenType::kNormal) {
        const float score = spec.scores[static_cast<size_t>(id)];
        min_score = any ? std::min(min_score, score) : score;
        max_score_ = any ? std::max(max_score_, score) : score;
        any = true;
      }
      const bool matches = type == TokenType::kNormal || type == TokenType::kUserDefined;
      if (matches && !vocabulary.texts[id].empty()) trie_.Insert(vocabulary.texts[id], id);
      user_defined_.push_back(type == TokenType::kUserDefined);
    }
    unknown_score_ = Sum(static_cast<double>(min_score), static_cast<double>(-kUnknownPenalty));
  }

  void Encode(std::string_view fragment, FragmentPlace place,
              std::vector<int32_t>* ids) const override {
    std::vector<Best> best;
    if (!words_) return EncodeWord(text_.Normalize(fragment, place), best, ids);
    const MarkedWords::Words words = words_->Cut(fragment, place);
    size_t begin = 0;
    for (const size_t end : words.ends) {
      EncodeWord(std::string_view(words.text).substr(begin, end - begin), best, ids);
      begin = end;
    }
  }

 private:
  static constexpr int32_t kNone = -2, kUnknown = -1;
  struct Best {  // of the paths that end here
    double score = 0;
    int32_t begin = -1;
    int32_t id = kNone;
  };

  double Sum(double a, double b) const {
    return words_ ? a + b : static_cast<double>(static_cast<float>(a) + static_cast<float>(b));
  }

  // best: room that words share.
  void EncodeWord(std::string_view text, std::vector<Best>& best, std::vector<int32_t>* ids) const {
    Search(text, best);
    std::vector<std::pair<uint32_t, int32_t>> path;  // begin, id; last first
    for (size_t at = text.size(); at > 0; at = static_cast<size_t>(best[at].begin)) {
      path.emplace_back(best[at].begin, best[at].id);
    }
    bool unknown = false;
    for (size_t i = path.size(); i-- > 0;) {
      const auto [begin, id] = path[i];
      if (id >= 0) {
        ids->push_back(id);
        unknown = false;
      } else {
        const size_t end = i > 0 ? path[i - 1].first : text.size();
        text_.AppendUnknown(text.substr(begin, end - begin), &unknown, ids);
      }
    }
  }

  void Search(std::string_view text, std::vector<Best>& best) const {
    best.assign(text.size() + 1, {});
    const auto offer = [&](size_t begin, size_t end, double score, int32_t id) {
      const double total = Sum(score, best[begin].score);
      Best& target = best[end];
      if (target.id != kNone && !(total > target.score)) return;
      target = {total, static_cast<int32_t>(begin), id};
    };
    for (size_t at = 0; at < text.size();) {
      uint32_t codepoint;
      const char* p = text.data() + at;
      const auto length =
          static_cast<size_t>(std::max(1, DecodeUtf8(p, text.data() + text.size(), &codepoint)));
      bool single = false;
      int32_t node = ByteTrie::kRoot;
      for (size_t end = at; end < text.size();) {
        node = trie_.Child(node, static_cast<uint8_t>(text[end]));
        if (node < 0) break;
        ++end;
        const int32_t id = trie_.value(node);
        if (id < 0) continue;
        const auto i = static_cast<size_t>(id);
        // A user-defined piece outbids whatever else covers its text.
        const float score =
            user_defined_[i] ? static_cast<float>(static_cast<float>(end - at) * max_score_ - 0.1)
                             : scores_[i];
        offer(at, end, static_cast<double>(score), id);
        single = single || end - at == length;
      }
      if (!single) offer(at, at + length, unknown_score_, kUnknown);
      at += length;
    }
  }

  SentencePieceText text_;
  std::optional<MarkedWords> words_;
  ByteTrie trie_;
  std::vector<float> scores_;
  std::vector<bool> user_defined_;
  float max_score_ = 0;
  double unknown_score_ = 0;
};

}  // namespace

std::unique_ptr<const TextModel> MakeUnigram(const TokenizerSpec& spec,
                                             const Vocabulary& vocabulary) {
  return std::make_unique<Unigram>(spec, vocabulary);
}

}  // namespace bakestone
