#include "convert/gguf_keys.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include <fmt/format.h>

#include "base/error.h"
#include "base/quote.h"
#include "format/gguf.h"
#include "format/gguf_tokenizer.h"

namespace bakestone {
namespace {

bool Near(double a, double b) {
  return std::fabs(a - b) <= 1e-6 * std::max(std::fabs(a), std::fabs(b));
}

bool SameRope(const RopeConfig& a, const RopeConfig& b) {
  return Near(a.theta, b.theta) && a.dim == b.dim && Near(a.linear_scale, b.linear_scale) &&
         Near(a.magnitude, b.magnitude) && a.near_context == b.near_context &&
         a.far_factors == b.far_factors &&
         std::equal(a.frequency_factors.begin(), a.frequency_factors.end(),
                    b.frequency_factors.begin(), b.frequency_factors.end(),
                    [](float x, float y) { return Near(x, y); });
}

bool SameLayers(const ModelConfig& a, const ModelConfig& b) {
  for (int64_t layer = 0; layer < a.num_layers; ++layer) {
    if (a.layer_rope(layer) != b.layer_rope(layer) || a.window(layer) != b.window(layer)) {
      return false;
    }
    if (a.layer_head_dim(layer) != b.layer_head_dim(layer) ||
        a.layer_kv_heads(layer) != b.layer_kv_heads(layer) ||
        a.ffn_width(layer) != b.ffn_width(layer) || a.kv_layer(layer) != b.kv_layer(layer) ||
        a.has_keys_as_values(layer) != b.has_keys_as_values(layer)) {
      return false;
    }
  }
  return true;
}

bool SameRouter(const RouterConfig& a, const RouterConfig& b) {
  return a.experts == b.experts && a.used == b.used && a.score == b.score && a.bias == b.bias &&
         a.groups == b.groups && a.used_groups == b.used_groups &&
         a.groups_by_two == b.groups_by_two && a.renormalize == b.renormalize &&
         a.scale == b.scale && a.expert_biases == b.expert_biases && a.shared_dim == b.shared_dim &&
         a.shared_gate == b.shared_gate && a.dense_layers == b.dense_layers &&
         a.dense_dim == b.dense_dim && a.beside_mlp == b.beside_mlp;
}

bool HasLocalRope(const ModelConfig& config) {
  return std::find(config.layer_ropes.begin(), config.layer_ropes.end(), LayerRope::kLocal) !=
         config.layer_ropes.end();
}

class KeyWriter {
 public:
  KeyWriter(const ModelConfig& config, GgufWriter& writer) : config_(config), writer_(writer) {}

  void Add() const {
    U32("block_count", config_.num_layers);
    U32("context_length", config_.context_length);
    U32("embedding_length", config_.hidden_dim);
    U32OrList("feed_forward_length",
              config_.router.experts > 0 ? config_.router.dense_dim : config_.ffn_dim,
              config_.ffn_dims);
    U32("vocab_size", config_.vocab_size);
    U32("attention.head_count", config_.num_heads);
    U32OrList("attention.head_count_kv", config_.num_kv_heads, config_.kv_head_counts);
    U32("attention.key_length", config_.head_dim);
    U32("attention.value_length", config_.head_dim);
    F32(config_.norm_kind == NormKind::kRms ? "attention.layer_norm_rms_epsilon"
                                            : "attention.layer_norm_epsilon",
        static_cast<double>(config_.norm_eps));
    F32("rope.freq_base", config_.rope.theta);
    U32("rope.dimension_count", config_.rope.dim);
    if (config_.rope.linear_scale != 1) {
      writer_.AddString(Key("rope.scaling.type"), "linear");
      F32("rope.scaling.factor", config_.rope.linear_scale);
    }
    if (HasLocalRope(config_)) F32("rope.freq_base_swa", config_.local_rope.theta);
    const auto window = std::max_element(config_.windows.begin(), config_.windows.end());
    if (window != config_.windows.end() && *window > 0) U32("attention.sliding_window", *window);
    Optional("attn_logit_softcapping", config_.attention_soft_cap, 0);
    Optional("final_logit_softcapping", config_.final_soft_cap, 0);
    if (config_.router.experts > 0) AddRouter();
    if (config_.architecture == "gemma4") AddLayers();
    if (config_.architecture == "granite") {
      F32("embedding_scale", static_cast<double>(config_.embedding_scale));
      F32("residual_scale", static_cast<double>(config_.residual_scale));
      F32("attention.scale", static_cast<double>(config_.attention_scale));
      F32("logit_scale", 1 / static_cast<double>(config_.logit_scale));
    }
  }

 private:
  // What a family's own files say of experts; what is the same in all of its models, they do not.
  void AddRouter() const {
    const RouterConfig& router = config_.router;
    U32("expert_count", router.experts);
    U32("expert_used_count", router.used);
    if (config_.ffn_dim != router.dense_dim) U32("expert_feed_forward_length", config_.ffn_dim);
    if (router.shared_gate) U32("expert_shared_feed_forward_length", router.shared_dim);
    if (config_.architecture != "glm4moe") return;
    U32("expert_shared_count", router.shared_dim / config_.ffn_dim);
    U32("leading_dense_block_count", router.dense_layers);
    U32("expert_group_count", router.groups);
    U32("expert_group_used_count", router.used_groups);
    U32("expert_gating_func", router.score == RouterScore::kSigmoid ? 2 : 1);
    F32("expert_weights_scale", static_cast<double>(router.scale));
    writer_.AddBool(Key("expert_weights_norm"), router.renormalize);
  }

  // What Gemma 4's layers have of their own.
  void AddLayers() const {
    std::vector<bool> local;
    int64_t shared = 0;
    for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
      local.push_back(config_.window(layer) > 0);
      shared += config_.kv_layer(layer) != layer;
    }
    writer_.AddBools(Key("attention.sliding_window_pattern"), local);
    U32("attention.shared_kv_layers", shared);
    U32("attention.key_length_swa", config_.local_head_dim());
    U32("attention.value_length_swa", config_.local_head_dim());
    U32("rope.dimension_count_swa", config_.local_rope.dim);
    U32("embedding_length_per_layer_input", config_.per_layer_dim);
    if (config_.final_soft_cap == 0) {
      F32("final_logit_softcapping", 0);  // where it is not said, it is 30
    }
  }

  void U32OrList(const char* key, int64_t value, const std::vector<int64_t>& by_layer) const {
    if (by_layer.empty()) return U32(key, value);
    writer_.AddU32s(Key(key), std::vector<uint32_t>(by_layer.begin(), by_layer.end()));
  }

  std::string Key(const char* key) const { return config_.architecture + "." + key; }
  void U32(const char* key, int64_t value) const {
    writer_.AddU32(Key(key), static_cast<uint32_t>(value));
  }
  void F32(const char* key, double value) const {
    writer_.AddF32(Key(key), static_cast<float>(value));
  }
  void Optional(const char* key, float value, float absent) const {
    if (value != absent) F32(key, static_cast<double>(value));
  }

  const ModelConfig& config_;
  GgufWriter& writer_;
};

// What GGUF's reader makes of the keys, beside tensors that have nothing but the shapes it asks
// for.
ModelConfig ReadBack(const ModelConfig& config) {
  GgufWriter writer;
  writer.AddString("general.architecture", config.architecture);
  KeyWriter(config, writer).Add();
  const std::vector<float> zeros(static_cast<size_t>(config.vocab_size));
  const auto bytes = [](const std::vector<float>& values) {
    return std::span(reinterpret_cast<const uint8_t*>(values.data()),
                     values.size() * sizeof(float));
  };
  const int64_t table[] = {1, config.vocab_size}, one[] = {1};
  writer.AddTensor("token_embd.weight", DType::kF32, table, bytes(zeros));
  if (!config.tied_embedding) {
    writer.AddTensor("output.weight", DType::kF32, one, bytes(zeros).first(4));
  }
  if (config.architecture == "glm4moe" && config.qk_norm != QkNorm::kNone) {  // known by the tensor
    writer.AddTensor("blk.0.attn_q_norm.weight", DType::kF32, one, bytes(zeros).first(4));
  }
  if (config.architecture == "gemma4") {  // layers without values of their own are known by that
    for (int64_t layer = 0; layer < config.num_layers; ++layer) {
      if (HasSite(config, {static_cast<int32_t>(layer), Site::kV})) {
        writer.AddTensor(fmt::format("blk.{}.attn_v.weight", layer), DType::kF32, one,
                         bytes(zeros).first(4));
      }
    }
  }
  const std::vector<float>& factors = config.rope.frequency_factors;
  if (!factors.empty()) {
    const int64_t count[] = {static_cast<int64_t>(factors.size())};
    writer.AddTensor("rope_freqs.weight", DType::kF32, count, bytes(factors));
  }
  const std::string file = writer.Serialize();
  return ReadConfig(GgufFile::Parse({reinterpret_cast<const uint8_t*>(file.data()), file.size()},
                                    "the GGUF file"));
}

}  // namespace

std::optional<std::string> DifferenceOf(const ModelConfig& a, const ModelConfig& b) {
  const auto f = [](float value) { return static_cast<double>(value); };
  const std::array<std::pair<const char*, bool>, 22> same = {{
      {"the architecture", a.architecture == b.architecture},
      {"the number of layers", a.num_layers == b.num_layers},
      {"the width", a.hidden_dim == b.hidden_dim && a.ffn_dim == b.ffn_dim},
      {"the heads",
       a.num_heads == b.num_heads && a.num_kv_heads == b.num_kv_heads && a.head_dim == b.head_dim},
      {"the vocabulary", a.vocab_size == b.vocab_size},
      {"the context length", a.context_length == b.context_length},
      {"the norm", a.norm_kind == b.norm_kind && Near(f(a.norm_eps), f(b.norm_eps))},
      {"where norms stand", a.norm_placement == b.norm_placement},
      {"norms of queries, keys and values", a.qk_norm == b.qk_norm && a.value_norm == b.value_norm},
      {"what layers are told of a token",
       a.per_layer_dim == b.per_layer_dim && a.layer_scales == b.layer_scales},
      {"the tied embedding", a.tied_embedding == b.tied_embedding},
      {"windows, rotation or sizes by layer", a.num_layers == b.num_layers && SameLayers(a, b)},
      {"the rotary embedding", SameRope(a.rope, b.rope)},
      {"the local layers' rotary embedding",
       !HasLocalRope(a) || SameRope(a.local_rope, b.local_rope)},
      {"the MLP", a.mlp == b.mlp},
      {"the router", SameRouter(a.router, b.router)},
      {"the scale of scores", Near(f(a.attention_scale), f(b.attention_scale))},
      {"the cap of scores", Near(f(a.attention_soft_cap), f(b.attention_soft_cap))},
      {"the cap of logits", Near(f(a.final_soft_cap), f(b.final_soft_cap))},
      {"the embedding's scale", Near(f(a.embedding_scale), f(b.embedding_scale))},
      {"the residual's scale", Near(f(a.residual_scale), f(b.residual_scale))},
      {"the logits' scale", Near(f(a.logit_scale), f(b.logit_scale))},
  }};
  for (const auto& [what, equal] : same) {
    if (!equal) return what;
  }
  return std::nullopt;
}

std::optional<std::string> LostInGguf(const ModelConfig& config) {
  if (config.router.expert_biases) return "experts row by row";
  if (config.latent.kv_rank > 0) return "attention over a latent";
  if (config.encoder.both_ways) return "an encoder";
  if (config.has_state()) return "layers that keep a state";
  if (config.layers_own() != nullptr && config.architecture != "gemma4") return config.layers_own();
  return DifferenceOf(config, ReadBack(config));
}

void AddConfigKeys(const ModelConfig& config, const std::string& source, GgufWriter& writer) {
  if (const auto lost = LostInGguf(config)) {
    Throw(ErrorCode::kUnsupported,
          "{}: {} cannot be said in GGUF's keys of {} yet: the file would compute something "
          "else; use the folder as it is",
          source, *lost, Quote(config.architecture));
  }
  KeyWriter(config, writer).Add();
}

void AddTokenizerKeys(const TokenizerSpec& spec, const ModelConfig& config,
                      const std::string& source, GgufWriter& writer) {
  const int64_t rows = config.vocab_size;
  const bool by_merges = config.architecture == "gemma4" && !spec.merges.empty() &&
                         spec.space_prefix == SpacePrefix::kNever;
  const bool bytes = spec.kind == TokenizerKind::kByteBpe;
  if (bytes && !spec.pre_patterns.empty()) {
    Throw(ErrorCode::kUnsupported,
          "{}: the tokenizer cuts text by patterns that GGUF has no name for: {}", source,
          Quote(spec.pre_patterns.front()));
  }
  if (spec.kind != TokenizerKind::kByteBpe && spec.kind != TokenizerKind::kSentencePieceBpe) {
    Throw(ErrorCode::kUnsupported, "{}: expected a BPE tokenizer to write, found another kind",
          source);
  }
  std::vector<std::string> tokens = spec.tokens;
  std::vector<int32_t> types(spec.tokens.size(), static_cast<int32_t>(TokenType::kNormal));
  for (size_t i = 0; i < spec.types.size(); ++i) types[i] = static_cast<int32_t>(spec.types[i]);
  std::vector<float> scores = spec.scores;
  while (static_cast<int64_t>(tokens.size()) < rows) {
    tokens.push_back(fmt::format("[PAD{}]", tokens.size()));
    types.push_back(static_cast<int32_t>(TokenType::kUnused));
    if (!scores.empty()) scores.push_back(-1e4f);
  }
  for (size_t i = 0; i < spec.tokens.size(); ++i) {
    if (tokens[i].empty()) tokens[i] = fmt::format("[PAD{}]", i);  // an id that nothing names
  }
  writer.AddString("tokenizer.ggml.model", bytes ? "gpt2" : by_merges ? "gemma4" : "llama");
  if (bytes) writer.AddString("tokenizer.ggml.pre", spec.pre_tokenizer);
  writer.AddStrings("tokenizer.ggml.tokens", std::span<const std::string>(tokens));
  writer.AddI32s("tokenizer.ggml.token_type", types);
  if (!scores.empty()) writer.AddF32s("tokenizer.ggml.scores", scores);
  if (bytes || by_merges) {
    std::vector<std::string> merges;
    for (const auto& [left, right] : spec.merges) merges.push_back(left + " " + right);
    writer.AddStrings("tokenizer.ggml.merges", std::span<const std::string>(merges));
  }
  if (bytes) {
    writer.AddBool("tokenizer.ggml.add_space_prefix", spec.add_prefix_space);
  } else {
    writer.AddBool("tokenizer.ggml.add_space_prefix", spec.space_prefix != SpacePrefix::kNever);
    if (!spec.precompiled_charsmap.empty() || spec.remove_extra_whitespaces) {
      writer.AddBool("tokenizer.ggml.remove_extra_whitespaces", spec.remove_extra_whitespaces);
    }
  }
  const auto id = [&](const char* key, int32_t value) {
    if (value >= 0) {
      writer.AddU32(std::string("tokenizer.ggml.") + key, static_cast<uint32_t>(value));
    }
  };
  id("bos_token_id", spec.bos);
  id("eos_token_id", spec.eos);
  id("unknown_token_id", spec.unk);
  id("padding_token_id", spec.pad);
  int32_t eot = spec.eot;
  for (const int32_t end :
       spec.extra_eog) {  // GGUF has one more name for a token that ends an answer
    if (eot < 0 && end != spec.eos) eot = end;
  }
  id("eot_token_id", eot);
  id("eom_token_id", spec.eom);
  writer.AddBool("tokenizer.ggml.add_bos_token", spec.add_bos);
  writer.AddBool("tokenizer.ggml.add_eos_token", spec.add_eos);
}

}  // namespace bakestone
