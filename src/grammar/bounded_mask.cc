#include "grammar/bounded_mask.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"
#include "grammar/calls.h"
#include "text/utf8.h"

namespace bakestone::grammar {
namespace {

// Tokens that one mask asks about one by one: some microseconds each.
constexpr int kMostAsked = 400;
// Where the grammar is so ambiguous that they take longer the answer ends.
constexpr std::chrono::seconds kMaxNarrowTime{2};
// A character that every counted text may have, by which the room in it is found out. Where
// something else has it too, or a pattern does without it, more tokens have to be asked about: no
// more.
constexpr char kProbe = '\x7F';
constexpr std::string_view kCounted = "character{";
// Fewer of a class are counted by the library without much ado.
constexpr int64_t kManyOfAClass = 64;

class BoundedMask : public TokenMask {
 public:
  BoundedMask(std::unique_ptr<TextFollower> exact, std::unique_ptr<TokenMask> relaxed,
              const std::vector<int32_t>& markers, std::shared_ptr<const TokenTexts> texts)
      : exact_(std::move(exact)),
        relaxed_(std::move(relaxed)),
        markers_(markers),
        texts_(std::move(texts)) {}

  void Fill(std::span<uint32_t> bits) override { relaxed_->Fill(bits); }
  bool over_approximates() const override { return true; }
  bool Confirm(int32_t token) override {
    if (texts_->Ends(token)) return exact_->Complete();
    return Could(TextOf(token));
  }

  void Narrow(std::span<uint32_t> bits, int times) override {
    const int room = times == 0 ? Room() : 0;
    if (room == 0) return AskUnless({}, bits);
    for (size_t i = 0; i < bits.size(); ++i) {
      bits[i] &= ~(texts_->plain()[i] & texts_->LongerThan(room)[i]);
    }
    AskUnless(texts_->plain(), bits);
  }

  bool Accept(int32_t token) override {
    if (!exact_->Accept(TextOf(token))) return false;
    if (relaxed_->Accept(token)) return true;
    exact_->Rollback(1);
    return false;
  }

  void Rollback(int64_t count) override {
    exact_->Rollback(count);
    relaxed_->Rollback(count);
  }

 private:
  std::string TextOf(int32_t token) const {
    const auto marker = std::find(markers_.begin(), markers_.end(), token);
    return marker == markers_.end()
               ? texts_->TextOf(token)
               : MarkerSpelling(static_cast<size_t>(marker - markers_.begin()));
  }
  bool Could(const std::string& text) {
    if (!exact_->Accept(text)) return false;
    exact_->Rollback(1);
    return true;
  }
  // How many more characters a counted text may have, at most kMost.
  int Room() {
    const auto has = [&](int characters) {
      return Could(std::string(static_cast<size_t>(characters), kProbe));
    };
    if (has(TokenTexts::kMost)) return TokenTexts::kMost;
    int room = 0;
    for (int step = TokenTexts::kMost / 2; step > 0; step /= 2) {
      if (has(room + step)) room += step;
    }
    return room;
  }

  // Of all but `known` only those stay that the exact grammar takes, the shortest first; empty: no
  // token is known.
  void AskUnless(const TokenTexts::Bits& known, std::span<uint32_t> bits) {
    int asked = 0;
    const auto start = std::chrono::steady_clock::now();
    for (const int32_t id : texts_->shortest_first()) {
      uint32_t& word = bits[static_cast<size_t>(id) / 32];
      const uint32_t bit = uint32_t{1} << (id % 32);
      if ((word & bit) == 0 || (!known.empty() && HasBit(known, id))) continue;
      if (asked++ >= kMostAsked || !Confirm(id)) word &= ~bit;
      if (std::chrono::steady_clock::now() - start > kMaxNarrowTime) {
        Throw(ErrorCode::kUnsupported,
              "the answer's form takes too long to be followed: what it counts is too ambiguous");
      }
    }
  }

  const std::unique_ptr<TextFollower> exact_;
  const std::unique_ptr<TokenMask> relaxed_;
  const std::vector<int32_t>& markers_;
  const std::shared_ptr<const TokenTexts> texts_;
};

bool InName(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
         (c >= 'A' && c <= 'Z');
}

// Of `{least,most}` at the text's beginning; most -1: no limit. False: it begins with no count.
struct CharacterCount {
  int64_t least = 0, most = -1;
  size_t size = 0;  // of its text
};
bool ReadCount(std::string_view text, CharacterCount* count) {
  size_t at = 1;
  const auto number = [&](int64_t otherwise) {
    if (at >= text.size() || text[at] < '0' || text[at] > '9') return otherwise;
    int64_t value = 0;
    for (; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at) {
      value = std::min<int64_t>(value * 10 + (text[at] - '0'), INT32_MAX);
    }
    return value;
  };
  count->least = number(-1);
  if (count->least < 0 || at >= text.size() || text[at] != ',') return false;
  ++at;
  count->most = number(-1);
  if (at >= text.size() || text[at] != '}') return false;
  count->size = at + 1;
  return true;
}

}  // namespace

TokenTexts::TokenTexts(const Vocabulary& vocabulary) : texts_(vocabulary.tokens) {
  const size_t words = (texts_.size() + 31) / 32;
  plain_.resize(words), endings_.resize(words);
  longer_.assign(kMost + 1, Bits(words));
  for (const int32_t id : vocabulary.endings) {
    if (static_cast<size_t>(id) < texts_.size()) {
      endings_[static_cast<size_t>(id) / 32] |= uint32_t{1} << (id % 32);
    }
  }
  for (size_t id = 0; id < texts_.size(); ++id) {
    const std::string& text = texts_[id];
    const uint32_t bit = uint32_t{1} << (id % 32);
    const auto characters = std::count_if(
        text.begin(), text.end(), [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; });
    const bool special = std::any_of(text.begin(), text.end(), [](char c) {
      return c == '"' || c == '\\' || c == '<' || static_cast<uint8_t>(c) < 0x20;
    });
    const bool ends = Ends(static_cast<int32_t>(id));
    if (!special && !ends && !text.empty() && ToValidUtf8(text) == text) plain_[id / 32] |= bit;
    for (int64_t length = 0; length < std::min<int64_t>(characters, kMost + 1); ++length) {
      if (!ends) longer_[static_cast<size_t>(length)][id / 32] |= bit;
    }
  }
  shortest_first_.resize(texts_.size());
  std::iota(shortest_first_.begin(), shortest_first_.end(), 0);
  std::stable_sort(shortest_first_.begin(), shortest_first_.end(), [&](int32_t a, int32_t b) {
    return texts_[static_cast<size_t>(a)].size() < texts_[static_cast<size_t>(b)].size();
  });
}

std::unique_ptr<TokenMask> MakeBoundedMask(std::unique_ptr<TextFollower> exact,
                                           std::unique_ptr<TokenMask> relaxed,
                                           const std::vector<int32_t>& markers,
                                           std::shared_ptr<const TokenTexts> texts) {
  return std::make_unique<BoundedMask>(std::move(exact), std::move(relaxed), markers,
                                       std::move(texts));
}

std::string WithoutCounts(std::string_view ebnf) {
  constexpr std::string_view kQuote = "\"\\\"\"";
  std::string relaxed;
  size_t at = 0;  // what is before it is in relaxed
  for (size_t brace = ebnf.find('{'); brace != std::string_view::npos;
       brace = ebnf.find('{', brace + 1)) {
    CharacterCount count;
    if (brace < at || brace == 0 || !ReadCount(ebnf.substr(brace), &count)) continue;
    const size_t end = brace + count.size;
    if (ebnf[brace - 1] == ']' || ebnf[brace - 1] == ')') {
      if (std::max(count.least, count.most) < kManyOfAClass) continue;
      relaxed.append(ebnf.substr(at, brace - at)).append(count.least > 0 ? "+" : "*");
      at = end;
      continue;
    }
    if (!ebnf.substr(0, brace + 1).ends_with(kCounted)) continue;
    size_t name = brace + 1 - kCounted.size();
    const bool named = name > at && InName(ebnf[name - 1]);
    while (name > at && InName(ebnf[name - 1])) --name;
    relaxed.append(ebnf.substr(at, name - at));
    at = end;
    if (named) {  // of a text that is written as it is
      relaxed.append("text");
      continue;
    }
    const std::string before = fmt::format("{} ", kQuote), after = fmt::format(" {}", kQuote);
    BAKESTONE_CHECK(relaxed.ends_with(before) && ebnf.substr(at).starts_with(after));
    relaxed.resize(relaxed.size() - before.size());
    relaxed.append("string");
    at += after.size();
  }
  return relaxed.append(ebnf.substr(at));
}

}  // namespace bakestone::grammar
