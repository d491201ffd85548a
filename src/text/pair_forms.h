// The two forms in which encoders take a pair of texts, for files that do not spell theirs. Pure.
#pragma once

#include <cstdint>
#include <vector>

#include "text/tokenizer_spec.h"

namespace bakestone {

// [CLS] first [SEP] second [SEP], the second text and what closes it of type 1.
inline std::vector<PairPart> PairOfBert(int32_t bos, int32_t eos) {
  using Kind = PairPart::Kind;
  return {{Kind::kToken, bos, 0},
          {Kind::kFirst, -1, 0},
          {Kind::kToken, eos, 0},
          {Kind::kSecond, -1, 1},
          {Kind::kToken, eos, 1}};
}

// <s> first </s></s> second </s>, all of type 0.
inline std::vector<PairPart> PairOfRoberta(int32_t bos, int32_t eos) {
  using Kind = PairPart::Kind;
  return {{Kind::kToken, bos, 0}, {Kind::kFirst, -1, 0},  {Kind::kToken, eos, 0},
          {Kind::kToken, eos, 0}, {Kind::kSecond, -1, 0}, {Kind::kToken, eos, 0}};
}

}  // namespace bakestone
