// Byte-pair encoding gone on with: merges that a corpus asks for, behind those that a byte-level
// tokenizer has, for a language or a trade that it cuts into many pieces (P. Gage, "A new algorithm
// for data compression", 1994; R. Sennrich et al., 2016). Old merges keep their ranks, so every
// text is first cut as before, and then the new merges are applied.
//
// The result is a function of the tokenizer and of how often each word is there. One thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/pre_tokenizer.h"
#include "text/tokenizer.h"
#include "text/tokenizer_spec.h"

namespace bakestone {

struct LearnedMerge {
  std::string left, right;      // in the vocabulary's spelling; the new token is their sum
  std::vector<int32_t> pieces;  // ids that the tokenizer writes for it today
};

struct LearnedMerges {
  std::vector<LearnedMerge> merges;
  int64_t tokens_before = 0, tokens_after = 0;  // of what was added
};

class MergeLearner {
 public:
  // Throws kUnsupported for a tokenizer that is not byte-level BPE.
  explicit MergeLearner(const TokenizerSpec& spec);

  void Add(std::string_view text);
  // Up to `count` merges in order, each of the pair of neighbours that is there most often, `least`
  // times or more.
  LearnedMerges Learn(int64_t count, int64_t least) const;

 private:
  const bool nfc_;
  std::unique_ptr<const PreTokenizer> pre_tokenizer_;
  Tokenizer tokenizer_;
  std::unordered_map<std::string, int64_t> words_;  // how often each is there
};

}  // namespace bakestone
