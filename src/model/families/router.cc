// What a mixture of experts says of its router, in either format.
#include "base/error.h"
#include "base/quote.h"
#include "model/families/config_reader.h"

namespace bakestone {
namespace {

// The number of a field; 0 where it is absent or null.
int64_t Count(const ConfigReader& in, const Field& field, int64_t max) {
  return in.Number(field).value_or(0) == 0 ? 0 : in.Size(field, max);
}

void ReadScore(const ConfigReader& in, RouterConfig& router) {
  const Field function = {"expert_gating_func", nullptr};
  const int64_t number = Count(in, function, 1000);
  const std::string name = in.Text({nullptr, "scoring_func"}).value_or("");
  if (number > 2 || (!name.empty() && name != "softmax" && name != "sigmoid")) {
    Throw(ErrorCode::kUnsupported, "{}: {}: expected 1 (softmax) or 2 (sigmoid), found {}",
          in.file(), in.is_hf() ? "scoring_func" : in.Spelled(function),
          in.is_hf() ? Quote(name) : std::to_string(number));
  }
  if (number == 1 || name == "softmax") router.score = RouterScore::kSoftmax;
  if (number == 2 || name == "sigmoid") router.score = RouterScore::kSigmoid;
}

void ReadGroups(const ConfigReader& in, RouterConfig& router) {
  const Field groups = {"expert_group_count", "n_group"},
              used = {"expert_group_used_count", "topk_group"};
  if (in.Text({nullptr, "topk_method"}).value_or("") == "greedy" ||
      Count(in, groups, router.experts) < 2) {
    return;
  }
  router.groups = in.Size(groups, router.experts);
  router.used_groups = in.Size(used, router.groups);
  const int64_t size = router.experts / router.groups;
  if (router.experts % router.groups != 0 || (router.groups_by_two && size < 2) ||
      router.used > router.used_groups * size) {
    Throw(ErrorCode::kCorrupt,
          "{}: {}: expected equal groups of which {} hold the {} chosen of {} experts, found {}",
          in.file(), in.Spelled(groups), router.used_groups, router.used, router.experts,
          router.groups);
  }
}

// The first layers, by their number or by a list.
void ReadDenseLayers(const ConfigReader& in, const ModelConfig& config, RouterConfig& router) {
  const Field first = {"leading_dense_block_count", "first_k_dense_replace"},
              list = {nullptr, "mlp_layer_types"};
  router.dense_layers = Count(in, first, config.num_layers);
  const std::vector<std::string> types = in.Texts(list);
  if (types.empty()) return;
  router.dense_layers = 0;
  for (size_t i = 0; i < types.size(); ++i) {
    const bool dense = types[i] == "dense";
    if ((!dense && types[i] != "sparse") ||
        (dense && router.dense_layers < static_cast<int64_t>(i)) ||
        types.size() != static_cast<size_t>(config.num_layers)) {
      Throw(ErrorCode::kUnsupported,
            "{}: mlp_layer_types: expected dense layers, then sparse ones, {} in all, found {} at "
            "{} of {}",
            in.file(), config.num_layers, Quote(types[i]), i, types.size());
    }
    if (dense) ++router.dense_layers;
  }
}

}  // namespace

void ReadRouter(const ConfigReader& in, ModelConfig& config) {
  Field count = {"expert_count", "num_local_experts"};
  if (!in.Number(count)) count.hf = "num_experts";
  if (!in.Number(count)) count.hf = "n_routed_experts";
  if (Count(in, count, kMaxExperts) == 0) return;
  RouterConfig& router = config.router;
  router.experts = in.Size(count, kMaxExperts);
  router.used = in.Size({"expert_used_count", "num_experts_per_tok"}, router.experts);
  router.renormalize =
      in.Flag({"expert_weights_norm", "norm_topk_prob"}).value_or(router.renormalize);
  const Field scale = {"expert_weights_scale", "routed_scaling_factor"};
  if (in.Number(scale).value_or(0) != 0) router.scale = static_cast<float>(in.Positive(scale, 1));
  ReadScore(in, router);
  ReadGroups(in, router);
  ReadDenseLayers(in, config, router);
  router.dense_dim = config.ffn_dim;
  config.ffn_dim =
      in.Size({"expert_feed_forward_length", "moe_intermediate_size"}, kMaxWidth, config.ffn_dim);
  const Field shared = {"expert_shared_count", "n_shared_experts"};
  const Field width = {"expert_shared_feed_forward_length", "shared_expert_intermediate_size"};
  router.shared_dim = in.Number(width) ? Count(in, width, kMaxWidth)
                                       : Count(in, shared, kMaxExperts) * config.ffn_dim;
}

}  // namespace bakestone
