// DeepSeek V2 and V3, and GLM-4.7-Flash: attention over a latent, leading dense layers, experts
// beside some that all rows share. V2's router is a softmax whose shares are not renormalized, V3's
// chooses by sigmoid and bias within groups. GGUF calls all of them deepseek2.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "model/families/families.h"

namespace bakestone {

void ReadLatent(const ConfigReader& in, ModelConfig& config) {
  LatentConfig& latent = config.latent;
  config.num_heads = config.num_kv_heads =
      in.Size({"attention.head_count", "num_attention_heads"}, kMaxHeads);
  latent.kv_rank = in.Size({"attention.kv_lora_rank", "kv_lora_rank"}, kMaxWidth);
  const Field q_rank = {"attention.q_lora_rank", "q_lora_rank"};
  if (in.Number(q_rank).value_or(0) != 0) latent.q_rank = in.Size(q_rank, kMaxWidth);
  latent.rope_dim = in.Size({"rope.dimension_count", "qk_rope_head_dim"}, kMaxHeadDim);
  if (in.is_hf()) {
    latent.nope_dim = in.Size({nullptr, "qk_nope_head_dim"}, kMaxHeadDim);
    latent.value_dim = in.Size({nullptr, "v_head_dim"}, kMaxHeadDim);
    latent.interleaved = in.Flag({nullptr, "rope_interleave"}).value_or(true);
  } else {  // newer files have the cached sizes in the usual keys, and the heads' in keys of their
            // own
    Field key = {"attention.key_length_mla", nullptr},
          value = {"attention.value_length_mla", nullptr};
    if (!in.Number(key)) {
      key = {"attention.key_length", nullptr}, value = {"attention.value_length", nullptr};
    }
    const int64_t length = in.Size(key, kMaxHeadDim);
    if (length <= latent.rope_dim) {
      Throw(ErrorCode::kCorrupt, "{}: {}: expected more than the {} rotated channels, found {}",
            in.file(), in.Spelled(key), latent.rope_dim, length);
    }
    latent.nope_dim = length - latent.rope_dim;
    latent.value_dim = in.Size(value, kMaxHeadDim);
  }
  config.head_dim = std::max(latent.key_dim(), latent.value_dim);
  config.head_dim += config.head_dim % 2;
  if (config.head_dim > kMaxHeadDim || latent.rope_dim % 2 != 0) {
    Throw(ErrorCode::kUnsupported,
          "{}: heads: expected at most {} channels and an even number of rotated ones, found {} "
          "and {}",
          in.file(), kMaxHeadDim, config.head_dim, latent.rope_dim);
  }
  config.attention_scale = 1.0f / std::sqrt(static_cast<float>(latent.key_dim()));
}

void DescribeDeepseek2(const ConfigReader& in, ModelConfig& config) {
  if (config.latent.kv_rank == 0) {
    Throw(ErrorCode::kUnsupported,
          "{}: {}: expected the rank of the latent, found none: DeepSeek's models without one are "
          "not supported",
          in.file(), in.is_hf() ? "kv_lora_rank" : "attention.kv_lora_rank");
  }
  config.router.renormalize = false;
  if (!in.is_hf()) {  // V3 is known by its bias
    const std::string first = std::to_string(config.num_layers - 1);
    config.router.bias = config.router.groups_by_two =
        in.HasTensor("blk." + first + ".exp_probs_b.bias");
  }
  ReadRouter(in, config);
  if (in.is_hf()) config.router.renormalize = false;  // V2 does not, whatever its settings say
}

void DescribeDeepseek3(const ConfigReader& in, ModelConfig& config) {
  config.router = {.score = RouterScore::kSigmoid, .bias = true, .groups_by_two = true};
  ReadRouter(in, config);
}

}  // namespace bakestone
