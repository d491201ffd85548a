// LFM2: short convolutions in most layers, attention with norms of queries and keys in the others.
// config.json may give a width of the MLP that is still to be adjusted.
#include <algorithm>

#include "base/error.h"
#include "base/quote.h"
#include "model/families/families.h"

namespace bakestone {

constexpr TensorNames kLfm2Gguf = [] {
  TensorNames names = kGgufNames;
  names.final_norm = "token_embd_norm";
  return names;
}();

constexpr TensorNames kLfm2Hf = [] {
  TensorNames names = kHfNames;
  names.final_norm = "model.embedding_norm";
  names.attention_norm = "operator_norm";
  names.mlp_norm = "ffn_norm";
  names.q_norm = "self_attn.q_layernorm";
  names.k_norm = "self_attn.k_layernorm";
  names.sites = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj",
                 "feed_forward.w1",  "feed_forward.w3",  "feed_forward.w2"};
  return names;
}();

void RequireAttention(const ConfigReader& in, const ModelConfig& config) {
  if (std::find(config.mixers.begin(), config.mixers.end(), Mixer::kAttention) !=
      config.mixers.end()) {
    return;
  }
  Throw(ErrorCode::kUnsupported, "{}: layers: expected at least one with attention, found none",
        in.file());
}

void DescribeLfm2(const ConfigReader& in, ModelConfig& config) {
  config.qk_norm = QkNorm::kPerHead;
  config.taps = in.Size({"shortconv.l_cache", "conv_L_cache"}, 64, 3);
  const std::vector<std::string> types = in.Texts({nullptr, "layer_types"});
  const std::vector<double> attention = in.Numbers({nullptr, "full_attn_idxs"});
  const std::vector<double> heads =
      in.Numbers({"attention.head_count_kv", nullptr});  // 0 where there is no attention
  const auto layers = static_cast<size_t>(config.num_layers);
  if ((!types.empty() && types.size() != layers) || (!heads.empty() && heads.size() != layers)) {
    Throw(ErrorCode::kCorrupt, "{}: {}: expected one entry for each of {} layers, found {}",
          in.file(), in.is_hf() ? "layer_types" : "attention.head_count_kv", layers,
          std::max(types.size(), heads.size()));
  }
  for (size_t layer = 0; layer < layers; ++layer) {
    bool attends = std::find(attention.begin(), attention.end(), static_cast<double>(layer)) !=
                   attention.end();
    if (!types.empty()) attends = types[layer] != "conv";
    if (!heads.empty()) attends = heads[layer] > 0;
    if (!types.empty() && attends && types[layer] != "full_attention") {
      Throw(ErrorCode::kUnsupported,
            "{}: layer_types[{}]: expected conv or full_attention, found {}", in.file(), layer,
            Quote(types[layer]));
    }
    config.mixers.push_back(attends ? Mixer::kAttention : Mixer::kConvolution);
  }
  RequireAttention(in, config);
  if (in.Flag({nullptr, "block_auto_adjust_ff_dim"})
          .value_or(in.is_hf() && in.file() != "defaults")) {
    const double factor = in.Positive({nullptr, "block_ffn_dim_multiplier"}, 1);
    const int64_t multiple = in.Size({nullptr, "block_multiple_of"}, kMaxWidth, 256);
    config.ffn_dim = static_cast<int64_t>(factor * static_cast<double>(2 * config.ffn_dim / 3));
    config.ffn_dim = (config.ffn_dim + multiple - 1) / multiple * multiple;
  }
}

}  // namespace bakestone
