// The families of models that the decoder can be configured for, as data: how each is called, how
// it differs from a plain Llama, and how its tensors are named. To add one, write its file in this
// folder and give it a row in families.cc (ARCHITECTURE.md shows how). Stateless; any thread.
#pragma once

#include <array>
#include <span>
#include <string>
#include <string_view>

#include "model/config.h"
#include "model/families/config_reader.h"
#include "model/families/tensor_names.h"

namespace bakestone {

struct Family {
  std::string_view architecture;  // general.architecture in GGUF
  // model_type in config.json; behind a plus, a flag that must be set beside it.
  std::array<std::string_view, 3> hf_types;
  std::string_view models;  // for people
  // Says what is not Llama's; sizes, heads, rope and norm_eps are read already. Throws as
  // ReadConfig does.
  void (*describe)(const ConfigReader& in, ModelConfig& config);
  const TensorNames* gguf = &kGgufNames;
  const TensorNames* hf = &kHfNames;
  bool experts = false;   // its models are mixtures of them
  bool encoder = false;   // its models read and do not write: embeddings
  bool attention = true;  // its settings say heads and the width of an MLP as usual
};

std::span<const Family> Families();

// A small config of the family with its usual traits, made without a file.
ModelConfig TypicalConfig(const Family& family);

// One file each.
void DescribeLlama(const ConfigReader& in, ModelConfig& config);
void DescribeQwen2(const ConfigReader& in, ModelConfig& config);
void DescribeWindow(const ConfigReader& in,
                    ModelConfig& config);  // one window for all layers, if any
void DescribeMixtral(const ConfigReader& in, ModelConfig& config);
void DescribeQwen3Moe(const ConfigReader& in, ModelConfig& config);
void DescribeQwen2Moe(const ConfigReader& in, ModelConfig& config);
void DescribeGlm4Moe(const ConfigReader& in, ModelConfig& config);
void DescribeDeepseek2(const ConfigReader& in, ModelConfig& config);
void DescribeDeepseek3(const ConfigReader& in, ModelConfig& config);
void DescribeGptOss(const ConfigReader& in, ModelConfig& config);
void DescribeLfm2(const ConfigReader& in, ModelConfig& config);
void DescribeRwkv7(const ConfigReader& in, ModelConfig& config);
void DescribeQwen35(const ConfigReader& in, ModelConfig& config);
void DescribeQwen35Moe(const ConfigReader& in, ModelConfig& config);
void RequireAttention(const ConfigReader& in, const ModelConfig& config);  // in one layer at least
void DescribeBert(const ConfigReader& in, ModelConfig& config);
void DescribeXlmRoberta(const ConfigReader& in, ModelConfig& config);
void DescribeNomicBert(const ConfigReader& in, ModelConfig& config);
void DescribeModernBert(const ConfigReader& in, ModelConfig& config);
void DescribeGemmaEmbedding(const ConfigReader& in, ModelConfig& config);
// What follows an encoder, as its file says, or sentence-transformers beside it: how rows are
// pooled, and dense layers.
void ReadPooling(const ConfigReader& in, ModelConfig& config);
// The head that scores, where there is one.
void ReadClassifier(const ConfigReader& in, ModelConfig& config);
void RequireExpertsEverywhere(const ConfigReader& in);  // and no layer without them
void DescribeQwen3(const ConfigReader& in, ModelConfig& config);
void DescribeGemma(const ConfigReader& in, int64_t layers_of_27b,
                   ModelConfig& config);  // what all share
void DescribeGemma1(const ConfigReader& in, ModelConfig& config);
void DescribeGemma2(const ConfigReader& in, ModelConfig& config);
void DescribeGemma3(const ConfigReader& in, ModelConfig& config);
void DescribeGemma4(const ConfigReader& in, ModelConfig& config);
void DescribePhi3(const ConfigReader& in, ModelConfig& config);
void DescribeOlmo2(const ConfigReader& in, ModelConfig& config);
void DescribeSmolLm3(const ConfigReader& in, ModelConfig& config);
void DescribeGranite(const ConfigReader& in, ModelConfig& config);
void DescribeStarCoder2(const ConfigReader& in, ModelConfig& config);
extern const TensorNames kPhi3Gguf, kPhi3Hf, kStarCoder2Hf, kMixtralHf, kQwen2MoeHf, kGlm4MoeGguf,
    kGptOssGguf, kGptOssHf, kLfm2Gguf, kLfm2Hf, kQwen35Gguf, kQwen35Hf, kGemma4Gguf, kGemma4Hf,
    kRwkv7Gguf, kRwkv7Hf, kBertGguf, kBertHf, kNomicBertGguf, kNomicBertHf, kModernBertGguf,
    kModernBertHf;

}  // namespace bakestone
