#include "engine/draft_policy.h"

#include <algorithm>
#include <cmath>

namespace bakestone {
namespace {

// What is usual, per kind: measured on chats, quotes and edits with a model of 135 million
// parameters, rounded down. Only the first few proposals rest on them.
constexpr std::array<double, kNumDraftKinds> kUsual = {0.30, 0.45, 0.60, 0.75,
                                                       0.85, 0.92, 0.70, 0.60};
constexpr double kPriorTrials = 4;    // how many own trials weigh as much as the belief before them
constexpr double kMemoryTrials = 48;  // older trials fade
constexpr double kMaxChance = 0.995;

constexpr double kStepCostWeight = 0.25;  // of the newest step in the average of its row count
constexpr double kOutlier = 2;     // a step that took longer was disturbed: counts as this much
constexpr int64_t kCostAge = 512;  // steps after which a cost is no longer believed

constexpr double kLossShare = 0.02;  // of decoding time may be lost on proposals that fail
constexpr double kMaxBalance = 30;   // steps' worth that a good phase saves up for a bad one
constexpr double kMinGain = 1.02;    // expected speed over plain decoding that is worth the trouble

}  // namespace

DraftKind KindOfMatch(int64_t match_length) {
  if (match_length >= 20) return DraftKind::kMatch20;
  if (match_length >= 10) return DraftKind::kMatch10;
  if (match_length >= 6) return DraftKind::kMatch6;
  if (match_length >= 4) return DraftKind::kMatch4;
  return match_length == 3 ? DraftKind::kMatch3 : DraftKind::kMatch2;
}

void Acceptance::Learn(DraftKind kind, int64_t accepted, int64_t proposed) {
  Count& count = counts_[static_cast<size_t>(kind)];
  // The tokens after the first wrong one were never judged.
  count.tried += static_cast<double>(std::min(accepted + 1, proposed));
  count.right += static_cast<double>(accepted);
  const double fade = std::min(1.0, kMemoryTrials / std::max(count.tried, 1.0));
  count.tried *= fade;
  count.right *= fade;
}

double Acceptance::Chance(DraftKind kind, const Acceptance* prior) const {
  const auto i = static_cast<size_t>(kind);
  const double belief = prior ? prior->Chance(kind, nullptr) : kUsual[i];
  const Count& count = counts_[i];
  return std::min(kMaxChance, (count.right + kPriorTrials * belief) / (count.tried + kPriorTrials));
}

void StepCosts::Learn(int64_t rows, double seconds) {
  if (rows < 1 || rows > kMaxRows) return;
  ++steps_;
  Cost& cost = costs_[static_cast<size_t>(rows)];
  if (!Known(rows)) {
    cost.seconds = seconds;
  } else {
    cost.seconds += kStepCostWeight * (std::min(seconds, kOutlier * cost.seconds) - cost.seconds);
  }
  cost.learnt_at = steps_;
}

bool StepCosts::Known(int64_t rows) const {
  if (rows < 1 || rows > kMaxRows) return false;
  const Cost& cost = costs_[static_cast<size_t>(rows)];
  return cost.learnt_at > 0 && steps_ - cost.learnt_at <= kCostAge;
}

double StepCosts::Seconds(int64_t rows) const {
  rows = std::min(rows, kMaxRows);
  int64_t below = rows, above = rows;
  while (below > 0 && !Known(below)) --below;
  while (above <= kMaxRows && !Known(above)) ++above;
  if (below == rows) return costs_[static_cast<size_t>(rows)].seconds;
  const double high = above <= kMaxRows ? costs_[static_cast<size_t>(above)].seconds : 0;
  if (below == 0) return high;
  const double low = costs_[static_cast<size_t>(below)].seconds;
  const auto more = static_cast<double>(rows - below);
  if (above <= kMaxRows) return low + (high - low) * more / static_cast<double>(above - below);
  const double slope = slope_ > 0 ? slope_ : low / static_cast<double>(2 * below);
  return low + slope * more;
}

void DraftPolicy::Choose(std::span<Candidate> candidates, int64_t base_rows, int64_t max_extra,
                         double extra_seconds) const {
  for (Candidate& candidate : candidates) candidate.keep = 0;
  if (!costs_.Known(base_rows)) return;
  struct Token {
    double chance;
    Candidate* candidate;
    int64_t depth;
  };
  std::vector<Token> tokens;
  for (Candidate& candidate : candidates) {
    double chance = 1;
    for (int64_t depth = 1; depth <= candidate.available; ++depth) {
      tokens.push_back({chance *= candidate.chance, &candidate, depth});
    }
  }
  std::stable_sort(tokens.begin(), tokens.end(),
                   [](const Token& a, const Token& b) { return a.chance > b.chance; });

  const auto base = static_cast<double>(base_rows);
  const double plain = costs_.Seconds(base_rows);
  double best_rate = kMinGain * base / plain, expected = base;
  size_t best = 0;
  int64_t deepest = 0;
  for (size_t i = 0; i < tokens.size() && static_cast<int64_t>(i) < max_extra; ++i) {
    expected += tokens[i].chance;
    deepest = std::max(deepest, tokens[i].depth);
    const double seconds = costs_.Seconds(base_rows + static_cast<int64_t>(i) + 1) +
                           extra_seconds * static_cast<double>(deepest);
    if (seconds - plain > balance_) continue;
    if (expected / seconds > best_rate) {
      best_rate = expected / seconds;
      best = i + 1;
    }
  }
  for (size_t i = 0; i < best; ++i) ++tokens[i].candidate->keep;
}

void DraftPolicy::LearnStep(int64_t sequences, int64_t rows, int64_t tokens, double seconds,
                            double draft_seconds) {
  costs_.Learn(rows, seconds);
  if (!costs_.Known(sequences)) return;
  const double plain = costs_.Seconds(sequences);
  if (!started_) balance_ = plain;  // the first attempt is on credit
  started_ = true;
  balance_ += kLossShare * seconds;
  if (rows > sequences) {
    const double worth = plain * static_cast<double>(tokens) / static_cast<double>(sequences);
    balance_ += worth - costs_.Seconds(rows) - draft_seconds;
  }
  balance_ = std::min(balance_, kMaxBalance * plain);
}

void DraftPolicy::LearnPrompt(int64_t rows, double seconds) {
  if (rows >= 16) costs_.LearnSlope(seconds / static_cast<double>(rows));
}

}  // namespace bakestone
