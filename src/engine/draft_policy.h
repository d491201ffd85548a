// Decides how many proposed tokens are worth computing. Three estimates, all of them made while
// serving: what a step of so many rows costs on this machine, how often tokens of each kind of
// proposal come true, and how much time proposals have lost so far. Decisions may depend on the
// clock because answers do not depend on the decisions.
//
// Where proposals do not pay, the time they can lose is bounded: each speculative step is charged
// with what plain decoding would have taken for its tokens, and no step is tried whose failure
// would cost more than a 50th of the time spent decoding since the account was empty.
// One thread at a time.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace bakestone {

// Where a proposal comes from: what it is worth is learnt for each kind apart.
enum class DraftKind : uint8_t {
  kMatch2,
  kMatch3,
  kMatch4,
  kMatch6,
  kMatch10,
  kMatch20,
  kExpected,
  kModel
};
inline constexpr size_t kNumDraftKinds = 8;
DraftKind KindOfMatch(int64_t match_length);

// How often a token of a proposal was right, where those before it were. Recent ones count more.
class Acceptance {
 public:
  void Learn(DraftKind kind, int64_t accepted, int64_t proposed);
  // In (0, 1). prior: what to believe where nothing was seen here; null: what is usual.
  double Chance(DraftKind kind, const Acceptance* prior) const;

 private:
  struct Count {
    double tried = 0, right = 0;
  };
  std::array<Count, kNumDraftKinds> counts_{};
};

// Seconds of a step by its rows.
class StepCosts {
 public:
  static constexpr int64_t kMaxRows = 256;
  // rows: of a step without prompt tokens, in [1, kMaxRows]; others are ignored.
  void Learn(int64_t rows, double seconds);
  // What one more row costs at most, as prompts tell: believed until more is known.
  void LearnSlope(double seconds_per_row) { slope_ = seconds_per_row; }
  bool Known(int64_t rows) const;
  double Seconds(int64_t rows) const;  // rows >= some known number; interpolates

 private:
  struct Cost {
    double seconds = 0;
    int64_t learnt_at = 0;
  };
  std::array<Cost, kMaxRows + 1> costs_{};
  int64_t steps_ = 0;
  double slope_ = 0;
};

class DraftPolicy {
 public:
  struct Candidate {
    double chance = 0;      // of each token, where those before it were right
    int64_t available = 0;  // tokens
    int64_t keep = 0;       // set by Choose
  };
  // A step of base_rows rows, one for each sequence, could verify the candidates' tokens too, up to
  // max_extra in all. extra_seconds: of making one more token of each candidate (a draft model's
  // step). Sets keep to what makes tokens come fastest; to 0 where nothing is known yet or nothing
  // pays.
  void Choose(std::span<Candidate> candidates, int64_t base_rows, int64_t max_extra,
              double extra_seconds = 0) const;

  // A step without prompt tokens: rows computed for so many sequences, tokens that came of it.
  // draft_seconds: spent on making proposals.
  void LearnStep(int64_t sequences, int64_t rows, int64_t tokens, double seconds,
                 double draft_seconds);
  void LearnPrompt(int64_t rows, double seconds);

  double balance_seconds() const { return balance_; }
  const StepCosts& costs() const { return costs_; }

 private:
  StepCosts costs_;
  bool started_ = false;
  double balance_ = 0;  // what may be lost
};

}  // namespace bakestone
