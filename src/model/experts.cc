#include "model/experts.h"

#include <algorithm>
#include <numeric>

#include "kernels/math.h"

namespace bakestone {

std::vector<ExpertRows> ChooseExperts(const RouterConfig& router, MatrixView<const float> logits) {
  const auto experts = static_cast<size_t>(router.experts), used = static_cast<size_t>(router.used);
  std::vector<ExpertRows> chosen(experts);
  std::vector<int32_t> order(experts);
  std::vector<float> shares(experts);
  for (int64_t row = 0; row < logits.rows; ++row) {
    const std::span<const float> logit(logits.Row(row), experts);
    std::iota(order.begin(), order.end(), 0);
    std::partial_sort(order.begin(), order.begin() + static_cast<int64_t>(used), order.end(),
                      [&](int32_t a, int32_t b) {
                        const float x = logit[static_cast<size_t>(a)], y = logit[static_cast<size_t>(b)];
                        return x != y ? x > y : a < b;
                      });
    const float greatest = logit[static_cast<size_t>(order[0])];
    float sum = 0;
    for (size_t i = 0; i < experts; ++i) shares[i] = math::Exp(logit[i] - greatest);
    if (router.renormalize) {
      for (size_t i = 0; i < used; ++i) sum += shares[static_cast<size_t>(order[i])];
    } else {
      for (const float share : shares) sum += share;
    }
    for (size_t i = 0; i < used; ++i) {
      ExpertRows& expert = chosen[static_cast<size_t>(order[i])];
      expert.rows.push_back(static_cast<int32_t>(row));
      expert.shares.push_back(shares[static_cast<size_t>(order[i])] / sum);
    }
  }
  return chosen;
}

}  // namespace bakestone
