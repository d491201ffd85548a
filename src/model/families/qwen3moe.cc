// Qwen3's mixtures of experts: Qwen3 with experts in every layer.
#include "base/error.h"
#include "model/families/families.h"

namespace bakestone {

void RequireExpertsEverywhere(const ConfigReader& in) {
  const Field step = {nullptr, "decoder_sparse_step"}, dense = {nullptr, "mlp_only_layers"};
  if (in.Number(step).value_or(1) == 1 && in.Numbers(dense).empty()) return;
  Throw(ErrorCode::kUnsupported,
        "{}: {}, {}: expected 1 and an empty list: layers without experts among layers with "
        "them are not supported",
        in.file(), in.Spelled(step), in.Spelled(dense));
}

void DescribeQwen3Moe(const ConfigReader& in, ModelConfig& config) {
  DescribeQwen3(in, config);
  RequireExpertsEverywhere(in);
  ReadRouter(in, config);
}

}  // namespace bakestone
