// Which experts a row goes through: the best of the router's shares. Pure; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/config.h"
#include "tensor/matrix_view.h"

namespace bakestone {

// The rows of one expert, ascending, and what each counts its output by.
struct ExpertRows {
  std::vector<int32_t> rows;
  std::vector<float> shares;
};

// For every expert the rows of logits [T, experts] that choose it. A row chooses the `used`
// greatest, of equal ones the first; its shares are their scores: a softmax over all experts, or
// over the chosen ones (renormalize), or sigmoids. bias [experts]: added to scores for choosing;
// empty where the router has none. Depends on the row alone.
std::vector<ExpertRows> ChooseExperts(const RouterConfig& router, std::span<const float> bias,
                                      MatrixView<const float> logits);

}  // namespace bakestone
