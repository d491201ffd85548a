// Loading of a mixture of experts: router, experts, and what all rows share.
#include "model/weights_loader.h"

namespace bakestone {

void WeightsLoader::AddExperts(int64_t layer, LayerWeights& weights) {
  const RouterConfig& router = config_.router;
  const auto named = [&](const char* name) { return names_.Layer(layer, name); };
  const auto own = [&](const std::string& name, LinearShape shape) {
    return Matrix({name, name + ".weight", 0, shape.n}, shape);
  };
  const LinearShape in = {.n = config_.ffn_dim, .k = config_.hidden_dim},
                    out = {.n = in.k, .k = in.n};
  weights.router = own(named(names_.router), {.n = router.experts, .k = config_.hidden_dim});
  if (router.bias) weights.router_bias = Vector(named(names_.router_bias), router.experts);
  const bool interleaved = names_.interleaved_gate_up != nullptr;
  for (int64_t expert = 0; expert < router.experts; ++expert) {
    const auto matrix = [&](Site site) {
      if (interleaved) return InterleavedExpert(layer, expert, site);
      return Matrix(RowsOfExpert(layer, expert, site), site == Site::kDown ? out : in);
    };
    weights.experts.push_back(
        {.gate = matrix(Site::kGate), .up = matrix(Site::kUp), .down = matrix(Site::kDown)});
  }
  if (router.expert_biases) AddExpertBiases(layer, weights.experts);
  if (router.shared_dim == 0) return;
  const LinearShape wide = {.n = router.shared_dim, .k = config_.hidden_dim};
  weights.shared = {.gate = own(named(names_.shared[0]), wide),
                    .up = own(named(names_.shared[1]), wide),
                    .down = own(named(names_.shared[2]), {.n = wide.k, .k = wide.n})};
  if (router.shared_gate) {
    weights.shared_gate = own(named(names_.shared_gate), {.n = 1, .k = config_.hidden_dim});
  }
}

WeightsLoader::RowsOf WeightsLoader::RowsOfExpert(int64_t layer, int64_t expert, Site site) const {
  const size_t which = static_cast<size_t>(site) - static_cast<size_t>(Site::kGate);
  const int64_t n = site == Site::kDown ? config_.hidden_dim : config_.ffn_dim,
                count = config_.router.experts;
  const auto stacked = [&](const char* name, int64_t first, int64_t all) {
    const std::string tensor = names_.Layer(layer, name);
    return RowsOf{tensor, tensor + "#" + std::to_string(first), first, all};
  };
  const auto has = [&](const char* name) {
    return name != nullptr && source_.Find(names_.Layer(layer, name)) != nullptr;
  };
  if (site != Site::kDown && has(names_.stacked_gate_up)) {
    return stacked(names_.stacked_gate_up, (2 * expert + (site == Site::kUp ? 1 : 0)) * n,
                   2 * count * n);
  }
  if (has(names_.stacked[which]) || names_.experts == nullptr) {
    return stacked(names_.stacked[which], expert * n, count * n);
  }
  const std::string own =
      names_.Layer(layer, names_.experts) + std::to_string(expert) + "." + names_.of_expert[which];
  return {own, own + ".weight", 0, n};
}

}  // namespace bakestone
