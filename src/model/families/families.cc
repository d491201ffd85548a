#include "model/families/families.h"

#include <array>

namespace bakestone {

std::span<const Family> Families() {
  static constexpr std::array<Family, 28> kFamilies = {{
      {"llama",
       {"llama", "mistral"},
       "Llama 2 to 3.3, Mistral, SmolLM2, TinyLlama, Yi, Falcon 3",
       DescribeLlama},
      {"llama", {"mixtral"}, "Mixtral", DescribeMixtral, &kGgufNames, &kMixtralHf, true},
      {"qwen2", {"qwen2"}, "Qwen2, Qwen2.5", DescribeQwen2},
      {"qwen3", {"qwen3"}, "Qwen3", DescribeQwen3},
      {"qwen3moe",
       {"qwen3_moe"},
       "Qwen3 mixtures of experts",
       DescribeQwen3Moe,
       &kGgufNames,
       &kHfNames,
       true},
      {"qwen2moe",
       {"qwen2_moe"},
       "Qwen1.5-MoE, Qwen2-57B-A14B",
       DescribeQwen2Moe,
       &kGgufNames,
       &kQwen2MoeHf,
       true},
      {"glm4moe", {"glm4_moe"}, "GLM-4.5 to 4.7", DescribeGlm4Moe, &kGlm4MoeGguf, &kHfNames, true},
      {"deepseek2",
       {"deepseek_v2"},
       "DeepSeek V2",
       DescribeDeepseek2,
       &kGgufNames,
       &kHfNames,
       true},
      {"deepseek2",
       {"deepseek_v3", "glm4_moe_lite"},
       "DeepSeek V3, R1, GLM-4.7-Flash",
       DescribeDeepseek3,
       &kGgufNames,
       &kHfNames,
       true},
      {"gpt-oss", {"gpt_oss"}, "gpt-oss 20B, 120B", DescribeGptOss, &kGptOssGguf, &kGptOssHf, true},
      {"lfm2", {"lfm2"}, "LFM2", DescribeLfm2, &kLfm2Gguf, &kLfm2Hf},
      {"qwen35", {"qwen3_5_text"}, "Qwen3.5, 3.6 (text)", DescribeQwen35, &kQwen35Gguf, &kQwen35Hf},
      {"qwen35moe",
       {"qwen3_5_moe_text"},
       "Qwen3.5, 3.6 with experts (text)",
       DescribeQwen35Moe,
       &kQwen35Gguf,
       &kQwen35Hf,
       true},
      {"rwkv7", {"rwkv7"}, "RWKV-7", DescribeRwkv7, &kRwkv7Gguf, &kRwkv7Hf, false, false, false},
      {"gemma", {"gemma"}, "Gemma 1", DescribeGemma1},
      {"gemma2", {"gemma2"}, "Gemma 2", DescribeGemma2, &kGgufNames, &kHfSandwichNames},
      {"gemma3",
       {"gemma3_text", "gemma3"},
       "Gemma 3 (text)",
       DescribeGemma3,
       &kGgufNames,
       &kHfSandwichNames},
      {"gemma4",
       {"gemma4_text", "gemma4"},
       "Gemma 4, its mixtures of experts too (text)",
       DescribeGemma4,
       &kGemma4Gguf,
       &kGemma4Hf},
      {"gemma-embedding",
       {"gemma3_text+use_bidirectional_attention"},
       "EmbeddingGemma (embeddings)",
       DescribeGemmaEmbedding,
       &kGgufNames,
       &kHfSandwichNames,
       false,
       true},
      {"phi3", {"phi3"}, "Phi-3, Phi-4, Phi-4-mini", DescribePhi3, &kPhi3Gguf, &kPhi3Hf},
      {"olmo2", {"olmo2", "olmo3"}, "OLMo 2, OLMo 3", DescribeOlmo2},
      {"smollm3", {"smollm3"}, "SmolLM3", DescribeSmolLm3},
      {"granite", {"granite"}, "Granite 3", DescribeGranite},
      {"starcoder2", {"starcoder2"}, "StarCoder2", DescribeStarCoder2, &kGgufNames, &kStarCoder2Hf},
      {"bert",
       {"bert"},
       "BERT, MiniLM, BGE, E5, GTE (embeddings, scores)",
       DescribeBert,
       &kBertGguf,
       &kBertHf,
       false,
       true},
      {"bert",
       {"xlm-roberta", "roberta"},
       "XLM-R, RoBERTa: BGE-M3, multilingual E5 (embeddings, scores)",
       DescribeXlmRoberta,
       &kBertGguf,
       &kBertHf,
       false,
       true},
      {"modern-bert",
       {"modernbert"},
       "ModernBERT (embeddings, scores)",
       DescribeModernBert,
       &kModernBertGguf,
       &kModernBertHf,
       false,
       true},
      {"nomic-bert",
       {"nomic_bert"},
       "NomicBERT (embeddings)",
       DescribeNomicBert,
       &kNomicBertGguf,
       &kNomicBertHf,
       false,
       true},
  }};
  return kFamilies;
}

namespace {

// The sizes of a small model, and nothing else.
class TypicalReader : public ConfigReader {
 public:
  explicit TypicalReader(const Family& family)
      : experts_(family.experts),
        shared_(family.architecture == "qwen2moe"),
        latent_(family.architecture == "deepseek2") {}
  bool is_hf() const override { return true; }
  std::optional<double> Number(const Field& field) const override {
    const std::string_view name = field.hf != nullptr ? field.hf : "";
    if (name == "num_hidden_layers") return 12;
    if (name == "hidden_size" || name == "intermediate_size") return 1024;
    if (name == "num_attention_heads") return 16;
    if (name == "max_position_embeddings") return 8192;
    if (experts_ && name == "num_local_experts") return 8;
    if (experts_ && name == "num_experts_per_tok") return 2;
    if (shared_ && name == "shared_expert_intermediate_size") return 1024;
    if (latent_ && (name == "kv_lora_rank" || name == "qk_nope_head_dim" || name == "v_head_dim")) {
      return 64;
    }
    if (latent_ && name == "qk_rope_head_dim") return 32;
    return std::nullopt;
  }

  std::vector<double> Numbers(const Field& field) const override {
    if (field.hf != nullptr && std::string_view(field.hf) == "full_attn_idxs") return {2, 5, 8, 11};
    return {};
  }

 private:
  bool experts_, shared_, latent_;
};

}  // namespace

ModelConfig TypicalConfig(const Family& family) { return ReadWith(TypicalReader(family), family); }

}  // namespace bakestone
