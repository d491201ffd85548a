// From a row of logits to the next token. A pure function of (logits, parameters, history,
// position):
// ids are ordered totally (logit descending, id ascending), sums run in one stated order in double
// precision, exp and log are our own (engine/portable_math.h), and the draw is Philox(seed, stream,
// position). So the same row gives the same token on every machine and beside any neighbours.
//
// Order of work: logit bias; repetition, presence and frequency penalties; what the rules forbid is
// out; temperature; then the candidates are cut by top_k, min_p and top_p, each over what the one
// before it left. A Sampler belongs to one request and one thread at a time.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

namespace bakestone {

struct SamplingParams {
  double temperature = 0;  // 0: greedy; else (0, 100]
  int32_t top_k = 0;       // 0: off
  double top_p = 1;        // (0, 1]; 1: off
  double min_p = 0;        // [0, 1]; keeps p >= min_p * p of the likeliest; 0: off
  double repetition_penalty =
      1;  // (0, 10]; over prompt and answer: divides positive, multiplies negative logits
  double presence_penalty = 0;   // [-10, 10]; subtracted once for a token that the answer has
  double frequency_penalty = 0;  // [-10, 10]; subtracted for each time the answer has it
  std::vector<std::pair<int32_t, float>> logit_bias =
      {};  // added; each id at most once, bias in [-100, 100]
  uint64_t seed = 0;
  uint64_t stream = 0;  // the choice's index: choices of one request differ by it
};

// Tokens that may not be drawn at a position, whatever their logits say.
struct TokenRules {
  std::span<const int32_t> banned = {};
  std::span<const int32_t> unused = {};  // the same: Tokenizer::Unused()
  std::span<const uint32_t> legal = {};  // a bit a token, the lowest first; empty: all are legal
};

// Throws kInvalidArgument naming the parameter, its range and what was found.
void CheckSamplingParams(const SamplingParams& params, int32_t vocab_size);

class Sampler {
 public:
  // Ids from vocab_size on (padding rows of the embedding) are never sampled. prompt counts for the
  // repetition penalty. Throws as CheckSamplingParams.
  Sampler(SamplingParams params, int32_t vocab_size, std::span<const int32_t> prompt);

  // logits [>= vocab_size] are changed in place (bias, penalties). position: the index that the
  // drawn token will have in its sequence. ahead: tokens of the answer after those accepted, which
  // the penalties count too. Throws kInternal if a logit is not finite, or no token is allowed.
  int32_t Sample(std::span<float> logits, int64_t position, std::span<const int32_t> ahead = {},
                 const TokenRules& rules = {}) const;

  // The same from logits as Sample left them, once more, under rules that forbid what it drew:
  // with a random number of its own, so that the others are drawn as if it had never been legal.
  // times: from 1.
  int32_t SampleAgain(std::span<float> logits, int64_t position, const TokenRules& rules,
                      int times) const;

  // Tells the penalties that the answer now has this token.
  void Accept(int32_t token);

 private:
  struct Seen {
    int32_t in_prompt = 0, in_answer = 0;
  };
  void Adjust(std::span<float> logits, std::span<const int32_t> ahead) const;
  int32_t Draw(std::span<float> row, int64_t position, const TokenRules& rules,
               uint64_t stream) const;
  void Penalize(std::span<float> logits, int32_t id, Seen seen) const;

  SamplingParams params_;
  int32_t vocab_size_;
  bool penalizes_;
  std::unordered_map<int32_t, Seen> seen_;
};

struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0;
};

// Natural-log probabilities of the unchanged row (before bias, penalties and temperature).
struct RowLogprobs {
  float logprob = 0;              // of the token asked for
  std::vector<TokenLogprob> top;  // the top_n likeliest in the total order; the same floats
};
RowLogprobs LogprobsOf(std::span<const float> logits, int32_t vocab_size, int32_t token,
                       int32_t top_n);

}  // namespace bakestone
