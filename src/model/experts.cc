#include "model/experts.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/math.h"

namespace bakestone {
namespace {

// Indices of the `count` greatest, of equal ones the first.
void Best(std::span<const float> values, size_t count, std::vector<int32_t>& order) {
  order.resize(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::partial_sort(order.begin(), order.begin() + static_cast<int64_t>(count), order.end(),
                    [&](int32_t a, int32_t b) {
                      const float x = values[static_cast<size_t>(a)],
                                  y = values[static_cast<size_t>(b)];
                      return x != y ? x > y : a < b;
                    });
}

// Takes the experts of all but the best groups out of the choice.
void KeepBestGroups(const RouterConfig& router, std::span<float> choice) {
  const auto groups = static_cast<size_t>(router.groups), size = choice.size() / groups;
  std::vector<float> values(groups);
  std::vector<int32_t> order;
  for (size_t group = 0; group < groups; ++group) {
    const std::span<const float> own = choice.subspan(group * size, size);
    Best(own, router.groups_by_two ? 2 : 1, order);
    values[group] = own[static_cast<size_t>(order[0])];
    if (router.groups_by_two) values[group] += own[static_cast<size_t>(order[1])];
  }
  Best(values, static_cast<size_t>(router.used_groups), order);
  for (size_t i = static_cast<size_t>(router.used_groups); i < groups; ++i) {
    const std::span<float> out = choice.subspan(static_cast<size_t>(order[i]) * size, size);
    std::fill(out.begin(), out.end(), -INFINITY);
  }
}

}  // namespace

std::vector<ExpertRows> ChooseExperts(const RouterConfig& router, std::span<const float> bias,
                                      MatrixView<const float> logits) {
  const auto experts = static_cast<size_t>(router.experts), used = static_cast<size_t>(router.used);
  const bool sigmoid = router.score == RouterScore::kSigmoid;
  std::vector<ExpertRows> chosen(experts);
  std::vector<int32_t> order;
  std::vector<float> shares(experts), choice(experts);
  for (int64_t row = 0; row < logits.rows; ++row) {
    const std::span<const float> logit(logits.Row(row), experts);
    const float greatest = sigmoid ? 0 : *std::max_element(logit.begin(), logit.end());
    for (size_t i = 0; i < experts; ++i) {
      shares[i] = sigmoid ? math::Sigmoid(logit[i]) : math::Exp(logit[i] - greatest);
      choice[i] = sigmoid ? shares[i] : logit[i];  // a softmax does not change the order
      if (!bias.empty()) choice[i] += bias[i];
    }
    if (router.groups > 1) KeepBestGroups(router, choice);
    Best(choice, used, order);
    float sum = sigmoid && !router.renormalize ? 1 : 0;
    if (router.renormalize) {
      for (size_t i = 0; i < used; ++i) sum += shares[static_cast<size_t>(order[i])];
    } else if (!sigmoid) {
      for (const float share : shares) sum += share;
    }
    for (size_t i = 0; i < used; ++i) {
      ExpertRows& expert = chosen[static_cast<size_t>(order[i])];
      expert.rows.push_back(static_cast<int32_t>(row));
      expert.shares.push_back(shares[static_cast<size_t>(order[i])] / sum * router.scale);
    }
  }
  return chosen;
}

}  // namespace bakestone
