// BERT and what is built like it (MiniLM, BGE, E5, GTE), RoBERTa and XLM-R, and NomicBERT:
// encoders, whose rows see the whole text. BERT has learned positions, biases everywhere and GELU
// by erf; so have RoBERTa and XLM-R, whose folders' positions begin behind the padding's (their
// GGUF files are BERT's); NomicBERT rotates queries and keys and has SwiGLU.
#include <cmath>

#include "base/error.h"
#include "model/families/families.h"

namespace bakestone {

constexpr TensorNames kBertGguf = [] {
  TensorNames names = kGgufNames;
  names.attention_post_norm = "attn_output_norm";
  names.mlp_post_norm = "layer_output_norm";
  return names;
}();

constexpr TensorNames kNomicBertGguf = [] {
  TensorNames names = kBertGguf;
  names.q_k_v = "attn_qkv";
  return names;
}();

constexpr TensorNames kBertHf = [] {
  TensorNames names = kHfNames;
  names.embedding = "model.embeddings.word_embeddings";
  names.positions = "model.embeddings.position_embeddings";
  names.token_types = "model.embeddings.token_type_embeddings";
  names.embedding_norm = "model.embeddings.LayerNorm";
  names.layers = "model.encoder.layer.";
  names.attention_post_norm = "attention.output.LayerNorm";
  names.mlp_post_norm = "output.LayerNorm";
  names.sites = {"attention.self.query",
                 "attention.self.key",
                 "attention.self.value",
                 "attention.output.dense",
                 "",
                 "intermediate.dense",
                 "output.dense"};
  return names;
}();

constexpr TensorNames kNomicBertHf = [] {
  TensorNames names = kHfNames;
  names.embedding = kBertHf.embedding;
  names.token_types = kBertHf.token_types;
  names.embedding_norm = "model.emb_ln";
  names.layers = "model.encoder.layers.";
  names.attention_post_norm = "norm1";
  names.mlp_post_norm = "norm2";
  names.sites = {"attn.Wq",  "attn.Wk",  "attn.Wv", "attn.out_proj",
                 "mlp.fc12", "mlp.fc11", "mlp.fc2"};
  names.q_k_v = "attn.Wqkv";
  return names;
}();

namespace {

void DescribeEncoder(const ConfigReader& in, ModelConfig& config) {
  config.norm_kind = NormKind::kLayer;
  config.norm_placement = NormPlacement::kSum;
  config.encoder = {.both_ways = true, .token_types = true, .embedding_norm = true};
  ReadPooling(in, config);
  ReadClassifier(in, config);
  for (const char* name : {"is_decoder", "add_cross_attention"}) {
    in.Refuse({nullptr, name}, "a decoder of this kind");
  }
}

}  // namespace

void DescribeBert(const ConfigReader& in, ModelConfig& config) {
  DescribeEncoder(in, config);
  config.mlp = MlpKind::kErfGelu;
  config.encoder.positions = config.context_length;
  config.layer_ropes.assign(static_cast<size_t>(config.num_layers), LayerRope::kNone);
  const std::string type = in.Text({nullptr, "position_embedding_type"}).value_or("absolute");
  if (type != "absolute") {
    Throw(ErrorCode::kUnsupported, "{}: position_embedding_type: expected absolute, found {}",
          in.file(), type);
  }
}

void DescribeXlmRoberta(const ConfigReader& in, ModelConfig& config) {
  const Field field = {nullptr, "pad_token_id"};
  const double padding = in.Number(field).value_or(1);
  if (!(padding >= 0 && padding + 1 < static_cast<double>(config.context_length)) ||
      padding != std::floor(padding)) {
    Throw(ErrorCode::kCorrupt,
          "{}: {}: expected a token id below the {} positions less 1, found {}", in.file(),
          in.Spelled(field), config.context_length, padding);
  }
  const int64_t first = static_cast<int64_t>(padding) + 1;
  config.context_length -= first;
  DescribeBert(in, config);
  config.encoder.first_position = first;
}

void DescribeNomicBert(const ConfigReader& in, ModelConfig& config) {
  DescribeEncoder(in, config);
  config.rope.theta = 1000;
}

}  // namespace bakestone
