#include "grammar/bounded_mask.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"
#include "text/utf8.h"

namespace bakestone::grammar {
namespace {

// Tokens that one mask asks about one by one: some microseconds each.
constexpr int kMostAsked = 400;
constexpr int kFarProbe = 160;  // characters
// A character that every counted text may have, and that no literal of a syntax or a schema is
// likely to begin or go on with.
constexpr char kProbe = '\x7F';
constexpr std::string_view kCounted = "character{";

class BoundedMask : public TokenMask {
 public:
  BoundedMask(std::unique_ptr<AskedMask> exact, std::unique_ptr<AskedMask> relaxed,
              std::shared_ptr<const TokenLengths> lengths)
      : exact_(std::move(exact)), relaxed_(std::move(relaxed)), lengths_(std::move(lengths)) {}

  void Fill(std::span<uint32_t> bits) override {
    relaxed_->Fill(bits);
    if (room_ < TokenLengths::kMost) {
      room_ = Room(kFarProbe) ? kFarProbe : Room(TokenLengths::kMost) ? TokenLengths::kMost : 0;
    }
    if (room_ >= TokenLengths::kMost) {
      Remove(lengths_->LongerThan(TokenLengths::kMost), bits);
      if (Differ({'<', kProbe}) ||
          Differ({'\n',
                  kProbe})) {  // a text without quotes, which does without what its end begins with
        AskUnless(lengths_->plain(), bits);
        return;
      }
      Ask(lengths_->several(), bits);
      if (!exact_->Could("\"")) Ask(lengths_->quoted(), bits);  // a least length is not reached
      return;
    }
    if (relaxed_->Could({kProbe, kProbe})) {  // a text near its end
      int room = 0;
      for (int step = TokenLengths::kMost / 2; step > 0; step /= 2) {
        if (Room(room + step)) room += step;
      }
      if (room > 0) {
        for (size_t i = 0; i < bits.size(); ++i) {
          bits[i] &= ~(lengths_->plain()[i] & lengths_->LongerThan(room)[i]);
        }
        AskUnless(lengths_->plain(), bits);
        return;
      }
    }
    AskUnless({}, bits);
  }

  bool Accept(int32_t token) override {
    if (!exact_->Accept(token)) return false;
    if (!relaxed_->Accept(token)) {
      exact_->Rollback(1);
      return false;
    }
    room_ = HasBit(lengths_->plain(), token) ? room_ - lengths_->CharactersOf(token) : 0;
    return true;
  }

  void Rollback(int64_t count) override {
    exact_->Rollback(count);
    relaxed_->Rollback(count);
    room_ = 0;
  }

 private:
  bool Differ(const std::string& text) { return exact_->Could(text) != relaxed_->Could(text); }
  bool Room(int characters) {
    return exact_->Could(std::string(static_cast<size_t>(characters), kProbe));
  }

  static void Remove(const TokenLengths::Bits& these, std::span<uint32_t> bits) {
    for (size_t i = 0; i < bits.size(); ++i) bits[i] &= ~these[i];
  }

  bool Takes(int32_t id) {
    if (!exact_->Accept(id)) return false;
    exact_->Rollback(1);
    return true;
  }

  // Of these, which are few, only those stay that the exact grammar takes.
  void Ask(const TokenLengths::Bits& these, std::span<uint32_t> bits) {
    int asked = 0;
    for (size_t i = 0; i < bits.size(); ++i) {
      for (uint32_t left = bits[i] & these[i]; left != 0; left &= left - 1) {
        const uint32_t bit = left & (~left + 1);
        const auto id = static_cast<int32_t>(i * 32 + static_cast<size_t>(std::countr_zero(left)));
        if (asked++ >= kMostAsked || !Takes(id)) bits[i] &= ~bit;
      }
    }
  }

  // The same for all but `known`, the shortest first; empty: no token is known.
  void AskUnless(const TokenLengths::Bits& known, std::span<uint32_t> bits) {
    int asked = 0;
    for (const int32_t id : lengths_->shortest_first()) {
      uint32_t& word = bits[static_cast<size_t>(id) / 32];
      const uint32_t bit = uint32_t{1} << (id % 32);
      if ((word & bit) == 0 || (!known.empty() && HasBit(known, id))) continue;
      if (asked++ >= kMostAsked || !Takes(id)) word &= ~bit;
    }
  }

  int room_ = 0;  // so many characters have room at least: a question is not asked again for every
                  // token of a text
  const std::unique_ptr<AskedMask> exact_, relaxed_;
  const std::shared_ptr<const TokenLengths> lengths_;
};

}  // namespace

TokenLengths::TokenLengths(const Vocabulary& vocabulary) {
  const size_t words = (vocabulary.tokens.size() + 31) / 32;
  plain_.resize(words), quoted_.resize(words), several_.resize(words);
  longer_.assign(kMost + 1, Bits(words));
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const std::string& text = vocabulary.tokens[id];
    const uint32_t bit = uint32_t{1} << (id % 32);
    const auto quotes = std::count(text.begin(), text.end(), '"');
    const auto characters = std::count_if(
        text.begin(), text.end(), [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; });
    const bool special = quotes > 0 || std::any_of(text.begin(), text.end(), [](char c) {
                           return c == '\\' || c == '<' || static_cast<uint8_t>(c) < 0x20;
                         });
    const bool ends = std::find(vocabulary.endings.begin(), vocabulary.endings.end(),
                                static_cast<int32_t>(id)) != vocabulary.endings.end();
    if (!special && !ends && !text.empty() && ToValidUtf8(text) == text) plain_[id / 32] |= bit;
    if (quotes > 0) quoted_[id / 32] |= bit;
    if (quotes > 1) several_[id / 32] |= bit;
    characters_.push_back(static_cast<uint8_t>(std::min<int64_t>(characters, 255)));
    for (int64_t length = 0; length < std::min<int64_t>(characters, kMost + 1); ++length) {
      if (!ends) longer_[static_cast<size_t>(length)][id / 32] |= bit;
    }
  }
  shortest_first_.resize(vocabulary.tokens.size());
  std::iota(shortest_first_.begin(), shortest_first_.end(), 0);
  std::stable_sort(shortest_first_.begin(), shortest_first_.end(), [&](int32_t a, int32_t b) {
    return vocabulary.tokens[static_cast<size_t>(a)].size() <
           vocabulary.tokens[static_cast<size_t>(b)].size();
  });
}

std::unique_ptr<TokenMask> MakeBoundedMask(std::unique_ptr<AskedMask> exact,
                                           std::unique_ptr<AskedMask> relaxed,
                                           std::shared_ptr<const TokenLengths> lengths) {
  return std::make_unique<BoundedMask>(std::move(exact), std::move(relaxed), std::move(lengths));
}

std::string WithoutCounts(std::string_view ebnf) {
  constexpr std::string_view kQuote = "\"\\\"\"";
  const auto in_name = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
           (c >= 'A' && c <= 'Z');
  };
  std::string relaxed;
  for (size_t at = 0; at < ebnf.size();) {
    const size_t found = ebnf.find(kCounted, at);
    if (found == std::string_view::npos) return relaxed.append(ebnf.substr(at));
    size_t name = found;
    while (name > at && in_name(ebnf[name - 1])) --name;
    relaxed.append(ebnf.substr(at, name - at));
    at = ebnf.find('}', found) + 1;
    BAKESTONE_CHECK(at > 0);
    if (name < found) {  // of a text that is written as it is
      relaxed.append("text");
      continue;
    }
    const std::string before = fmt::format("{} ", kQuote), after = fmt::format(" {}", kQuote);
    BAKESTONE_CHECK(relaxed.ends_with(before) && ebnf.substr(at).starts_with(after));
    relaxed.resize(relaxed.size() - before.size());
    relaxed.append("string");
    at += after.size();
  }
  return relaxed;
}

}  // namespace bakestone::grammar
