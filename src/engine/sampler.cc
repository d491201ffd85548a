#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <set>

#include "base/error.h"
#include "base/rng.h"
#include "engine/portable_math.h"

namespace bakestone {
namespace {

struct Candidate {
  float logit;
  int32_t id;
  double weight;  // e^((logit - largest) / temperature)
};

// The total order: the likelier first, of equals the lower id.
bool Before(float a_logit, int32_t a, float b_logit, int32_t b) {
  return a_logit != b_logit ? a_logit > b_logit : a < b;
}
bool Likelier(const Candidate& a, const Candidate& b) {
  return Before(a.logit, a.id, b.logit, b.id);
}
bool LessLikely(const Candidate& a, const Candidate& b) { return Likelier(b, a); }

// The first of the largest. Throws unless every logit is a number. In lanes, so that the compiler
// makes vectors of it: this runs on one thread after every step.
int32_t ArgMax(std::span<const float> logits) {
  constexpr size_t kLanes = 16;
  constexpr float kLargest = std::numeric_limits<float>::max();
  const float* x = logits.data();
  float largest[kLanes];
  uint32_t bad[kLanes] = {};
  std::fill(std::begin(largest), std::end(largest), -kLargest);
  const auto take = [&](size_t lane, float value) {
    largest[lane] = value > largest[lane] ? value : largest[lane];
    bad[lane] |= std::fabs(value) <= kLargest ? 0u : 1u;
  };
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) take(lane, x[i + lane]);
  }
  for (; i < logits.size(); ++i) take(0, x[i]);
  if (std::any_of(std::begin(bad), std::end(bad), [](uint32_t b) { return b != 0; })) {
    Throw(ErrorCode::kInternal,
          "a logit is not a finite number: the model or its adapter is damaged");
  }
  const float most = *std::max_element(std::begin(largest), std::end(largest));
  return static_cast<int32_t>(std::find(logits.begin(), logits.end(), most) - logits.begin());
}

// Less than any logit of a token that is allowed, and a number.
constexpr float kForbidden = -std::numeric_limits<float>::max();

void Forbid(std::span<float> logits, const TokenRules& rules) {
  for (const std::span<const int32_t> ids : {rules.banned, rules.unused}) {
    for (const int32_t id : ids) {
      if (id >= 0 && id < static_cast<int64_t>(logits.size())) logits[id] = kForbidden;
    }
  }
  if (rules.legal.empty()) return;
  BAKESTONE_CHECK(rules.legal.size() * 32 >= logits.size());
  for (size_t word = 0; word * 32 < logits.size(); ++word) {
    if (rules.legal[word] == ~uint32_t{0}) continue;
    const size_t end = std::min(logits.size(), word * 32 + 32);
    for (size_t i = word * 32; i < end; ++i) {
      if (((rules.legal[word] >> (i % 32)) & 1) == 0) logits[i] = kForbidden;
    }
  }
}

// Draws from candidates lazily sorted by a heap, so that only those up to the drawn one are sorted.
class OrderedDraw {
 public:
  explicit OrderedDraw(std::vector<Candidate> candidates) : heap_(std::move(candidates)) {
    std::make_heap(heap_.begin(), heap_.end(), LessLikely);
  }
  bool empty() const { return heap_.empty(); }
  Candidate Next() {
    std::pop_heap(heap_.begin(), heap_.end(), LessLikely);
    const Candidate next = heap_.back();
    heap_.pop_back();
    return next;
  }

 private:
  std::vector<Candidate> heap_;
};

void CheckRange(const char* name, double value, double low, double high) {
  if (!(value >= low && value <= high)) {
    Throw(ErrorCode::kInvalidArgument, "{}: expected a number in [{}, {}], found {}", name, low,
          high, value);
  }
}

std::vector<Candidate> MakeCandidates(std::span<const float> logits, const SamplingParams& params,
                                      float largest) {
  std::vector<Candidate> candidates;
  const auto size = static_cast<int64_t>(logits.size());
  const auto weight = [&](float logit) {
    return PortableExp((static_cast<double>(logit) - static_cast<double>(largest)) /
                       params.temperature);
  };
  if (params.top_k > 0 && params.top_k < size) {
    candidates.reserve(logits.size());
    for (int32_t i = 0; i < size; ++i) candidates.push_back({logits[i], i, 0});
    std::nth_element(candidates.begin(), candidates.begin() + params.top_k - 1, candidates.end(),
                     Likelier);
    candidates.resize(params.top_k);
    std::sort(candidates.begin(), candidates.end(),
              [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
    for (Candidate& c : candidates) c.weight = weight(c.logit);
  } else {
    for (int32_t i = 0; i < size; ++i) candidates.push_back({logits[i], i, weight(logits[i])});
  }
  // The likeliest has weight 1. Weights that vanished could never be drawn.
  std::erase_if(candidates,
                [&](const Candidate& c) { return c.weight <= 0 || c.weight < params.min_p; });
  return candidates;
}

}  // namespace

void CheckSamplingParams(const SamplingParams& params, int32_t vocab_size) {
  CheckRange("temperature", params.temperature, 0, 100);
  CheckRange("top_k", params.top_k, 0, INT32_MAX);
  if (!(params.top_p > 0)) CheckRange("top_p (above 0)", params.top_p, 1e-9, 1);
  CheckRange("top_p", params.top_p, 0, 1);
  CheckRange("min_p", params.min_p, 0, 1);
  CheckRange("repetition_penalty", params.repetition_penalty, 1e-3, 10);
  CheckRange("presence_penalty", params.presence_penalty, -10, 10);
  CheckRange("frequency_penalty", params.frequency_penalty, -10, 10);
  std::set<int32_t> ids;
  for (const auto& [id, bias] : params.logit_bias) {
    if (id < 0 || id >= vocab_size) {
      Throw(ErrorCode::kInvalidArgument, "logit_bias: expected token ids in [0, {}), found {}",
            vocab_size, id);
    }
    if (!ids.insert(id).second) {
      Throw(ErrorCode::kInvalidArgument, "logit_bias: token id {} is given twice", id);
    }
    CheckRange("logit_bias", bias, -100, 100);
  }
}

Sampler::Sampler(SamplingParams params, int32_t vocab_size, std::span<const int32_t> prompt)
    : params_(std::move(params)), vocab_size_(vocab_size) {
  CheckSamplingParams(params_, vocab_size_);
  penalizes_ = params_.repetition_penalty != 1 || params_.presence_penalty != 0 ||
               params_.frequency_penalty != 0;
  if (penalizes_) {
    for (int32_t token : prompt) ++seen_[token].in_prompt;
  }
}

void Sampler::Accept(int32_t token) {
  if (penalizes_) ++seen_[token].in_answer;
}

void Sampler::Penalize(std::span<float> logits, int32_t id, Seen seen) const {
  if (id < 0 || id >= vocab_size_) return;
  double logit = logits[id];
  logit = logit > 0 ? logit / params_.repetition_penalty : logit * params_.repetition_penalty;
  if (seen.in_answer > 0) {
    logit -= params_.presence_penalty;
    logit -= params_.frequency_penalty * seen.in_answer;
  }
  logits[id] = static_cast<float>(logit);
}

void Sampler::Adjust(std::span<float> logits, std::span<const int32_t> ahead) const {
  for (const auto& [id, bias] : params_.logit_bias) logits[id] += bias;
  if (!penalizes_) return;
  std::unordered_map<int32_t, Seen> later;
  for (const int32_t id : ahead) ++later[id].in_answer;
  for (const auto& [id, seen] : seen_) {  // each id once: the map's order does not matter
    if (!later.empty() && later.contains(id)) continue;
    Penalize(logits, id, seen);
  }
  for (auto [id, seen] : later) {
    const auto before = seen_.find(id);
    if (before != seen_.end()) {
      seen.in_prompt += before->second.in_prompt;
      seen.in_answer += before->second.in_answer;
    }
    Penalize(logits, id, seen);
  }
}

int32_t Sampler::Sample(std::span<float> logits, int64_t position, std::span<const int32_t> ahead,
                        const TokenRules& rules) const {
  BAKESTONE_CHECK(static_cast<int64_t>(logits.size()) >= vocab_size_ && vocab_size_ > 0);
  const std::span<float> row = logits.first(vocab_size_);
  Adjust(row, ahead);
  return Draw(row, position, rules, params_.stream);
}

int32_t Sampler::SampleAgain(std::span<float> logits, int64_t position, const TokenRules& rules,
                             int times) const {
  constexpr uint64_t kAgain = uint64_t{1} << 56;  // no request has as many choices
  return Draw(logits.first(vocab_size_), position, rules,
              params_.stream + kAgain * static_cast<uint64_t>(times));
}

int32_t Sampler::Draw(std::span<float> row, int64_t position, const TokenRules& rules,
                      uint64_t stream) const {
  Forbid(row, rules);
  const int32_t best = ArgMax(row);
  if (row[best] == kForbidden) {
    Throw(ErrorCode::kInternal, "no token is allowed here: the grammar has no way on");
  }
  if (params_.temperature == 0) return best;

  std::vector<Candidate> candidates = MakeCandidates(row, params_, row[best]);
  double total = 0;
  for (const Candidate& c : candidates) total += c.weight;  // in order of id
  const double u = UniformDouble(params_.seed, stream, static_cast<uint64_t>(position));
  OrderedDraw draw(std::move(candidates));
  double cumulative = 0;
  int32_t token = best;
  if (params_.top_p >= 1) {
    while (!draw.empty() && cumulative <= u * total) {
      const Candidate next = draw.Next();
      cumulative += next.weight;
      token = next.id;
    }
    return token;
  }
  std::vector<std::pair<double, int32_t>> kept;  // cumulative weight, id
  while (!draw.empty() && (kept.empty() || cumulative < params_.top_p * total)) {
    const Candidate next = draw.Next();
    cumulative += next.weight;
    kept.emplace_back(cumulative, next.id);
  }
  for (const auto& [up_to, id] : kept) {
    token = id;
    if (up_to > u * cumulative) break;
  }
  return token;
}

RowLogprobs LogprobsOf(std::span<const float> logits, int32_t vocab_size, int32_t token,
                       int32_t top_n) {
  BAKESTONE_CHECK(static_cast<int64_t>(logits.size()) >= vocab_size && vocab_size > 0);
  const std::span<const float> row = logits.first(vocab_size);
  const double largest = row[ArgMax(row)];
  double sum = 0;
  for (float logit : row) sum += PortableExp(logit - largest);
  const double log_sum = PortableLog(sum);
  const auto logprob = [&](int32_t id) {
    return static_cast<float>((row[id] - largest) - log_sum);
  };

  RowLogprobs result;
  // A prompt's id can be a padding row that no answer can hold: as unlikely as it gets.
  result.logprob = token >= 0 && token < vocab_size ? logprob(token) : -9999.0f;
  if (top_n <= 0) return result;
  std::vector<int32_t> ids(row.size());
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
  const auto count = std::min<size_t>(ids.size(), top_n);
  std::partial_sort(ids.begin(), ids.begin() + count, ids.end(),
                    [&](int32_t a, int32_t b) { return Before(row[a], a, row[b], b); });
  for (size_t i = 0; i < count; ++i) result.top.push_back({ids[i], logprob(ids[i])});
  return result;
}

}  // namespace bakestone
