// Every family against the logits that transformers (or, where it lacks the family, a plain
// reference) computes for a tiny random model of it (tools/make_family_goldens.py): as a Hugging
// Face folder and as GGUF, whole and token by token, and with every axis that the family declares
// turned off.
#include "model/families/families.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <functional>
#include <optional>

#include <fmt/format.h>

#include "base/error.h"
#include "format/gguf.h"
#include "format/hf_folder.h"
#include "format/safetensors.h"
#include "kernels/isa.h"
#include "model/decoder.h"
#include "model/model_file.h"
#include "model/pooled_heads.h"
#include "model/test_golden.h"
#include "model/train_engine.h"

namespace bakestone {
namespace {

constexpr double kTolerance = 1e-4;

std::filesystem::path FolderOf(std::string_view type) {
  return std::filesystem::path(BAKESTONE_TEST_DATA) / "families" / type;
}

struct Golden {
  std::vector<int32_t> tokens;
  std::vector<float> logits;  // [tokens, vocabulary]
};

Golden ReadGolden(std::string_view type, const char* name = "golden.safetensors") {
  const SafetensorsFile file = SafetensorsFile::Open(FolderOf(type) / name);
  return {testing::ValuesOf<int32_t>(file, "tokens"), testing::ValuesOf<float>(file, "logits")};
}

ThreadPool& Pool() {
  static ThreadPool pool{2};
  return pool;
}

struct RunOptions {
  const KernelTable* kernels = &ChooseKernels(nullptr);
  Precision precision = Precision::kExact;
  int64_t chunk = 1000;     // tokens of a step
  bool last_only = false;   // the logits of the last token, of one step
  bool keeps_state = true;  // else one run without a state
};

// The logits of all tokens, in steps over one sequence state.
std::vector<float> LogitsOf(const ModelConfig& config, const Weights& weights,
                            std::span<const int32_t> tokens, const RunOptions& options = {}) {
  const Decoder decoder(config, weights);
  Exec exec(*options.kernels, Pool(), options.precision);
  const KvType type = options.precision == Precision::kExact ? KvType::kF32 : KvType::kBf16;
  const auto allocator = MakeHeapAllocator(config, type, int64_t{1} << 30);
  SequenceState state(config, type, *allocator);
  state.Expect(static_cast<int64_t>(tokens.size()));
  const size_t outputs = options.last_only ? 1 : tokens.size();
  std::vector<float> logits(outputs * static_cast<size_t>(config.vocab_size));
  const auto length = static_cast<int64_t>(tokens.size());
  for (int64_t begin = 0; begin < length; begin += options.chunk) {
    const int64_t count = std::min(options.chunk, length - begin);
    std::vector<int32_t> positions, rows;
    for (int64_t i = 0; i < count; ++i) {
      positions.push_back(static_cast<int32_t>(begin + i));
      if (!options.last_only || begin + i + 1 == length) rows.push_back(static_cast<int32_t>(i));
    }
    const SequenceRun run = {0, static_cast<int32_t>(count),
                             options.keeps_state ? &state : nullptr};
    const auto asked = static_cast<int64_t>(rows.size());
    std::vector<float> hidden(rows.size() * static_cast<size_t>(config.hidden_dim));
    const auto h = DenseView(hidden.data(), asked, config.hidden_dim);
    state.Reserve(count);
    decoder.Forward(
        exec,
        {.tokens = tokens.subspan(static_cast<size_t>(begin), static_cast<size_t>(count)),
         .positions = positions,
         .sequences = {&run, 1},
         .output_rows = rows},
        h);
    state.Commit(count);
    decoder.Logits(exec, h,
                   DenseView(logits.data() + begin * config.vocab_size, asked, config.vocab_size));
  }
  return logits;
}

double MaxDifference(std::span<const float> a, std::span<const float> b) {
  if (a.size() != b.size()) return INFINITY;
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    most = std::isfinite(difference) ? std::max(most, difference) : INFINITY;
  }
  return most;
}

std::unique_ptr<Weights> LoadFrom(const ModelFile& file, const ModelConfig& config) {
  return Weights::Load(file.Tensors(), config, ChooseKernels(nullptr), Pool());
}

// One axis: whether a model declares it, and how to take it away. Weights are this run's own.
struct Axis {
  const char* name;
  std::function<bool(const ModelConfig&)> declared;
  std::function<void(ModelConfig&, Weights&)> flip;
};

// Biases of norms, where decoders have layer norms.
bool HasNormBiases(const ModelConfig& config) {
  return config.norm_kind == NormKind::kLayer && !config.encoder.both_ways;
}

void ForNorms(Weights& weights, const std::function<void(std::vector<float>&)>& change) {
  change(weights.final_norm);
  for (LayerWeights& layer : weights.layers) {
    for (auto* norm : {&layer.attention_norm, &layer.mlp_norm, &layer.attention_post_norm,
                       &layer.mlp_post_norm, &layer.q_norm, &layer.k_norm}) {
      change(*norm);
    }
  }
}

void Fill(std::vector<float>& values, float value) {
  std::fill(values.begin(), values.end(), value);
}

Axis ForRwkv(const char* name, const std::function<void(RwkvWeights&)>& change) {
  return {name, [](const ModelConfig& config) { return config.rwkv.heads > 0; },
          [change](ModelConfig&, Weights& weights) {
            for (LayerWeights& layer : weights.layers) change(*layer.rwkv);
          }};
}

const std::vector<Axis>& Axes() {
  using C = const ModelConfig&;
  static const std::vector<Axis> axes = {
      {"window", [](C c) { return !c.windows.empty(); },
       [](ModelConfig& c, Weights&) { c.windows.clear(); }},
      {"window by layer",
       [](C c) {
         return std::adjacent_find(c.windows.begin(), c.windows.end(), std::not_equal_to<>()) !=
                c.windows.end();
       },
       [](ModelConfig& c, Weights&) {
         std::rotate(c.windows.begin(), c.windows.begin() + 1, c.windows.end());
       }},
      {"rope by layer", [](C c) { return !c.layer_ropes.empty() && c.head_dims.empty(); },
       [](ModelConfig& c, Weights&) { c.layer_ropes.clear(); }},
      {"rope base", [](C c) { return c.rope.theta != 10000; },
       [](ModelConfig& c, Weights&) { c.rope.theta = 10000; }},
      {"local rope base", [](C c) { return c.local_rope.theta != 10000; },
       [](ModelConfig& c, Weights&) { c.local_rope.theta = 10000; }},
      {"part of a head", [](C c) { return c.rope.dim != c.rotated_dim(); },
       [](ModelConfig& c, Weights&) {
         c.rope.dim = c.head_dim;
         c.rope.frequency_factors.resize(static_cast<size_t>(c.head_dim / 2), 1.0f);
         c.rope.far_factors.clear();
       }},
      {"same rope in all layers",
       [](C c) { return !c.layer_ropes.empty() && c.local_rope.theta == c.rope.theta; },
       [](ModelConfig& c, Weights&) { c.local_rope = c.rope; }},
      {"experts of a row", [](C c) { return c.router.experts > 0; },
       [](ModelConfig& c, Weights&) { c.router.used = 1; }},
      {"shares of the chosen", [](C c) { return c.router.experts > 0; },
       [](ModelConfig& c, Weights&) { c.router.renormalize = !c.router.renormalize; }},
      {"bias of the choice", [](C c) { return c.router.bias; },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) layer.router_bias.clear();
       }},
      {"score of experts", [](C c) { return c.router.score == RouterScore::kSigmoid; },
       [](ModelConfig& c, Weights&) { c.router.score = RouterScore::kSoftmax; }},
      {"groups of experts", [](C c) { return c.router.groups > 1; },
       [](ModelConfig& c, Weights&) { c.router.groups = 1; }},
      {"what groups count by", [](C c) { return c.router.groups > 1; },
       [](ModelConfig& c, Weights&) { c.router.groups_by_two = !c.router.groups_by_two; }},
      {"scale of shares", [](C c) { return c.router.scale != 1; },
       [](ModelConfig& c, Weights&) { c.router.scale = 1; }},
      {"shared expert", [](C c) { return c.router.shared_dim > 0; },
       [](ModelConfig& c, Weights&) { c.router.shared_dim = 0; }},
      {"gate of the shared expert", [](C c) { return c.router.shared_gate; },
       [](ModelConfig& c, Weights&) { c.router.shared_gate = false; }},
      {"norm of the latent", [](C c) { return c.latent.kv_rank > 0; },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) {
           layer.latent->kv_a_norm.assign(layer.latent->kv_a_norm.size(), 1.0f);
         }
       }},
      {"norm of the queries' latent", [](C c) { return c.latent.q_rank > 0; },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) {
           layer.latent->q_a_norm.assign(layer.latent->q_a_norm.size(), 1.0f);
         }
       }},
      {"norm epsilon of latents", [](C c) { return c.latent.kv_rank > 0; },
       [](ModelConfig& c, Weights&) { c.latent.norm_eps = 1; }},
      {"output gate", [](C c) { return c.output_gate; },
       [](ModelConfig& c, Weights&) { c.output_gate = false; }},
      {"taps", [](C c) { return c.taps > 0; },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) {
           for (auto* taps : {layer.convolution ? &layer.convolution->taps : nullptr,
                              layer.delta ? &layer.delta->taps : nullptr}) {
             if (taps != nullptr) std::fill_n(taps->begin(), taps->size() / 4, 0.0f);
           }
         }
       }},
      {"heads of the delta rule", [](C c) { return c.delta.value_heads > c.delta.key_heads; },
       [](ModelConfig& c, Weights&) { c.delta.tiled = !c.delta.tiled; }},
      {"decay", [](C c) { return c.delta.key_heads > 0; },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) {
           if (layer.delta) layer.delta->dt.assign(layer.delta->dt.size(), 0.0f);
         }
       }},
      {"sinks", [](C c) { return c.sinks; }, [](ModelConfig& c, Weights&) { c.sinks = false; }},
      {"clamped SwiGLU", [](C c) { return c.mlp == MlpKind::kClampedSwiGlu; },
       [](ModelConfig& c, Weights&) { c.mlp = MlpKind::kSwiGlu; }},
      {"biases of experts", [](C c) { return c.router.expert_biases; },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) {
           for (ExpertWeights& expert : layer.experts) expert.up.ClearBias();
         }
       }},
      {"bias of the router", [](C c) { return c.router.expert_biases; },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) layer.router.ClearBias();
       }},
      {"linear scale", [](C c) { return c.rope.linear_scale != 1; },
       [](ModelConfig& c, Weights&) { c.rope.linear_scale = 1; }},
      {"frequency factors", [](C c) { return !c.rope.frequency_factors.empty(); },
       [](ModelConfig& c, Weights&) { c.rope.frequency_factors.clear(); }},
      {"rope magnitude", [](C c) { return c.rope.magnitude != 1; },
       [](ModelConfig& c, Weights&) { c.rope.magnitude = 1; }},
      {"norm kind", [](C c) { return c.norm_kind == NormKind::kLayer; },
       [](ModelConfig& c, Weights&) { c.norm_kind = NormKind::kRms; }},
      {"norm bias", HasNormBiases,
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) layer.attention_norm_bias.clear();
       }},
      {"MLP norm bias", HasNormBiases,
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) layer.mlp_norm_bias.clear();
       }},
      {"final norm bias", HasNormBiases,
       [](ModelConfig&, Weights& w) { w.final_norm_bias.clear(); }},
      {"norms after attention", [](C c) { return c.has_post_norms(); },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) layer.attention_post_norm.clear();
       }},
      {"norms after the MLP", [](C c) { return c.has_post_norms(); },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) layer.mlp_post_norm.clear();
       }},
      {"no norms before", [](C c) { return !c.has_pre_norms(); },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) {
           layer.attention_norm = layer.attention_post_norm;
           layer.mlp_norm = layer.mlp_post_norm;
         }
       }},
      {"norm of queries", [](C c) { return c.qk_norm != QkNorm::kNone; },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) layer.q_norm.clear();
       }},
      {"norm of keys", [](C c) { return c.qk_norm != QkNorm::kNone; },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) layer.k_norm.clear();
       }},
      {"norm of queries over all heads", [](C c) { return c.qk_norm == QkNorm::kWhole; },
       [](ModelConfig& c, Weights& w) {
         for (LayerWeights& layer : w.layers) layer.q_norm.resize(static_cast<size_t>(c.head_dim));
       }},
      {"norm of values", [](C c) { return c.value_norm; },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) layer.v_norm.clear();
       }},
      {"keys and values of the last layer of the kind", [](C c) { return !c.kv_layers.empty(); },
       [](ModelConfig& c, Weights&) {  // those of the first
         for (int64_t layer = 0; layer < c.num_layers; ++layer) {
           if (c.owns_kv(layer)) continue;
           const auto first = std::find_if(c.windows.begin(), c.windows.end(), [&](int64_t window) {
             return window == c.window(layer);
           });
           c.kv_layers[static_cast<size_t>(layer)] = first - c.windows.begin();
         }
       }},
      {"keys as values", [](C c) { return !c.keys_as_values.empty(); },
       [](ModelConfig& c, Weights& w) {  // those of layers that have some: of the same shape in all
         for (int64_t layer = 0; layer < c.num_layers; ++layer) {
           if (c.has_keys_as_values(layer)) w.layers[static_cast<size_t>(layer)].v = w.layers[0].v;
         }
         c.keys_as_values.clear();
       }},
      {"embeddings by layer", [](C c) { return c.per_layer_dim > 0; },
       [](ModelConfig& c, Weights&) { c.per_layer_dim = 0; }},
      {"norm of the embedding by layer", [](C c) { return c.per_layer_dim > 0; },
       [](ModelConfig&, Weights& w) { w.per_layer_norm.assign(w.per_layer_norm.size(), 1.0f); }},
      {"norm of what a layer is told", [](C c) { return c.per_layer_dim > 0; },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) {
           layer.per_layer->norm.assign(layer.per_layer->norm.size(), 1.0f);
         }
       }},
      {"scale of layers", [](C c) { return c.layer_scales; },
       [](ModelConfig& c, Weights&) { c.layer_scales = false; }},
      {"experts beside the MLP", [](C c) { return c.router.beside_mlp; },
       [](ModelConfig& c, Weights&) { c.router.beside_mlp = false; }},
      {"norm of the router", [](C c) { return c.router.beside_mlp; },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) {
           layer.beside->router_norm = layer.beside->experts_norm;
         }
       }},
      {"norm of experts", [](C c) { return c.router.beside_mlp; },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) layer.beside->experts_norm = layer.mlp_norm;
       }},
      {"norm after the MLP beside", [](C c) { return c.router.beside_mlp; },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) {
           layer.beside->mlp_norm.assign(layer.beside->mlp_norm.size(), 1.0f);
         }
       }},
      {"norm after experts", [](C c) { return c.router.beside_mlp; },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) {
           layer.beside->experts_post_norm.assign(layer.mlp_norm.size(), 1.0f);
         }
       }},
      {"scale by expert", [](C c) { return c.router.beside_mlp; },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) {
           layer.beside->expert_scales.assign(layer.experts.size(), 1.0f);
         }
       }},
      ForRwkv("shares of the first branch's receptance",
              [](RwkvWeights& r) { Fill(r.shares[0], 0); }),
      ForRwkv("shares of its decay", [](RwkvWeights& r) { r.shares[1] = r.shares[2]; }),
      ForRwkv("shares of its keys", [](RwkvWeights& r) { r.shares[2] = r.shares[3]; }),
      ForRwkv("shares of its values", [](RwkvWeights& r) { Fill(r.shares[3], 0); }),
      ForRwkv("shares of its rate", [](RwkvWeights& r) { r.shares[4] = r.shares[5]; }),
      ForRwkv("shares of its gate", [](RwkvWeights& r) { Fill(r.shares[5], 0); }),
      ForRwkv("shares of the second branch", [](RwkvWeights& r) { Fill(r.mlp_share, 0); }),
      ForRwkv("bias of the decay", [](RwkvWeights& r) { r.decay_out.ClearBias(); }),
      ForRwkv("bias of the rate", [](RwkvWeights& r) { r.rate_out.ClearBias(); }),
      ForRwkv("values of the first layer", [](RwkvWeights& r) { r.value_out.ClearBias(); }),
      ForRwkv("scale of keys", [](RwkvWeights& r) { Fill(r.key_scale, 1); }),
      ForRwkv("rate of keys", [](RwkvWeights& r) { Fill(r.key_rate, 0); }),
      ForRwkv("bonus", [](RwkvWeights& r) { Fill(r.bonus, 0); }),
      ForRwkv("norm of heads", [](RwkvWeights& r) { Fill(r.norm, 1); }),
      ForRwkv("bias of the norm of heads", [](RwkvWeights& r) { Fill(r.norm_bias, 0); }),
      {"norm of the embedding", [](C c) { return c.embedding_norm; },
       [](ModelConfig& c, Weights&) { c.embedding_norm = false; }},
      {"size of heads", [](C c) { return c.rwkv.heads > 0; },
       [](ModelConfig& c, Weights&) {
         c.rwkv = {.heads = 2 * c.rwkv.heads, .head_dim = c.rwkv.head_dim / 2};
       }},
      {"norms less one", [](C c) { return c.norms_less_one; },
       [](ModelConfig&, Weights& w) {
         ForNorms(w, [](std::vector<float>& norm) {
           for (float& value : norm) value -= 1;
         });
       }},
      {"MLP kind", [](C c) { return c.mlp == MlpKind::kGeGlu; },
       [](ModelConfig& c, Weights&) { c.mlp = MlpKind::kSwiGlu; }},
      {"no gate", [](C c) { return !c.gated() && c.rwkv.heads == 0; },
       [](ModelConfig& c, Weights& w) {
         c.mlp = MlpKind::kGeGlu;
         for (LayerWeights& layer : w.layers) layer.gate = layer.up;
       }},
      {"attention scale", [](C c) { return c.attention_scale > 0; },
       [](ModelConfig& c, Weights&) { c.attention_scale = 0; }},
      {"cap of scores", [](C c) { return c.attention_soft_cap > 0; },
       [](ModelConfig& c, Weights&) { c.attention_soft_cap = 0; }},
      {"cap of logits", [](C c) { return c.final_soft_cap > 0; },
       [](ModelConfig& c, Weights&) { c.final_soft_cap = 0; }},
      {"embedding scale", [](C c) { return c.embedding_scale != 1; },
       [](ModelConfig& c, Weights&) { c.embedding_scale = 1; }},
      {"residual scale", [](C c) { return c.residual_scale != 1; },
       [](ModelConfig& c, Weights&) { c.residual_scale = 1; }},
      {"logit scale", [](C c) { return c.logit_scale != 1; },
       [](ModelConfig& c, Weights&) { c.logit_scale = 1; }},
      {"norm epsilon", [](C c) { return c.norm_eps > 0.01f; },
       [](ModelConfig& c, Weights&) { c.norm_eps = 1e-6f; }},
      {"untied head", [](C c) { return !c.tied_embedding; },
       [](ModelConfig&, Weights& w) { w.untied_head.reset(); }},
      {"biases", [](C c) { return c.architecture == "qwen2" || c.architecture == "starcoder2"; },
       [](ModelConfig&, Weights& w) {
         for (LayerWeights& layer : w.layers) layer.q.ClearBias();
       }},
  };
  return axes;
}

class FamilyProof : public ::testing::TestWithParam<std::string> {
 protected:
  const std::string& type() const { return GetParam(); }
};

TEST_P(FamilyProof, FolderGivesTheLogitsOfTransformers) {
  const Golden golden = ReadGolden(type());
  const ModelFile file = ModelFile::Open(FolderOf(type()));
  const ModelConfig config = file.Config();
  const auto weights = LoadFrom(file, config);
  for (const KernelTable* table : AvailableKernels()) {
    EXPECT_LT(
        MaxDifference(LogitsOf(config, *weights, golden.tokens, {.kernels = table}), golden.logits),
        kTolerance)
        << IsaName(table->isa);
  }
  for (const int64_t window : config.windows) {
    EXPECT_LT(window, static_cast<int64_t>(golden.tokens.size()))
        << "the prompt is no longer than the window";
  }
}

TEST_P(FamilyProof, GgufGivesTheLogitsOfTransformers) {
  const std::filesystem::path path = FolderOf(type()) / "model.gguf";
  if (!std::filesystem::exists(path) && type() == "gemma3") {
    return;  // the same file as gemma3_text's
  }
  const Golden golden = ReadGolden(type());
  const ModelFile file = ModelFile::Open(path);
  const ModelConfig config = file.Config();
  EXPECT_LT(MaxDifference(LogitsOf(config, *LoadFrom(file, config), golden.tokens), golden.logits),
            kTolerance);
}

TEST_P(FamilyProof, TokenByTokenIsTheWholeBitForBit) {
  const Golden golden = ReadGolden(type());
  const ModelFile file = ModelFile::Open(FolderOf(type()));
  const ModelConfig config = file.Config();
  const auto weights = LoadFrom(file, config);
  for (const Precision precision : {Precision::kExact, Precision::kServe}) {
    const auto whole = LogitsOf(config, *weights, golden.tokens, {.precision = precision});
    for (const int64_t chunk : {1, 7}) {
      EXPECT_EQ(MaxDifference(LogitsOf(config, *weights, golden.tokens,
                                       {.precision = precision, .chunk = chunk}),
                              whole),
                0);
    }
    for (const KernelTable* table : AvailableKernels()) {
      EXPECT_EQ(MaxDifference(LogitsOf(config, *weights, golden.tokens,
                                       {.kernels = table, .precision = precision}),
                              whole),
                0)
          << IsaName(table->isa);
    }
  }
}

TEST_P(FamilyProof, EveryDeclaredAxisMatters) {
  const Golden golden = ReadGolden(type());
  const ModelFile file = ModelFile::Open(FolderOf(type()));
  const ModelConfig config = file.Config();
  for (const Axis& axis : Axes()) {
    if (!axis.declared(config)) continue;
    SCOPED_TRACE(axis.name);
    ModelConfig flipped = config;
    const auto weights = LoadFrom(file, config);
    axis.flip(flipped, *weights);
    EXPECT_GT(MaxDifference(LogitsOf(flipped, *weights, golden.tokens), golden.logits),
              100 * kTolerance)
        << axis.name;
  }
  if (config.latent.kv_rank > 0) {
    ModelConfig flipped = config;
    flipped.latent.interleaved = !flipped.latent.interleaved;
    EXPECT_GT(
        MaxDifference(LogitsOf(flipped, *LoadFrom(file, flipped), golden.tokens), golden.logits),
        100 * kTolerance);
  } else if (config.gated()) {  // rows of q and k of GGUF files of some families are permuted
    const std::filesystem::path path = FolderOf(type()) / "model.gguf";
    if (!std::filesystem::exists(path)) return;
    const ModelFile gguf = ModelFile::Open(path);
    ModelConfig flipped = gguf.Config();
    flipped.permuted_qk = !flipped.permuted_qk;
    EXPECT_GT(
        MaxDifference(LogitsOf(flipped, *LoadFrom(gguf, flipped), golden.tokens), golden.logits),
        100 * kTolerance);
  }
}

// Where a family can be trained: loss and gradients of random pairs on every matrix against
// autograd's, with the layers' matrices halved. The products are bf16's: some percent of the norm.
void ExpectTrainingStepOfAutograd(const ModelFile& model, const Golden& golden,
                                  const std::filesystem::path& path) {
  const ModelConfig config = model.Config();
  const SafetensorsFile file = SafetensorsFile::Open(path);
  const auto weights = LoadFrom(model, config);
  const TrainLayout layout = TrainLayout::Make(config, {.rank = 4});
  std::vector<float> pairs(static_cast<size_t>(layout.size)), expected(pairs.size()),
      found(pairs.size());
  for (const LoraSlot& slot : layout.slots) {
    const std::string_view site = SiteName(slot.id.site);
    const std::string expert = slot.id.expert < 0 ? "" : fmt::format("experts.{}.", slot.id.expert);
    const std::string key =
        fmt::format("{}.{}{}", slot.id.layer, expert, site.substr(site.find('.') + 1));
    const auto copy = [](const std::vector<float>& from, std::vector<float>& to, int64_t at) {
      std::copy(from.begin(), from.end(), to.begin() + at);
    };
    copy(testing::Widened(file, "a." + key), pairs, slot.a_offset);
    copy(testing::Widened(file, "b." + key), pairs, slot.b_offset);
    copy(testing::ValuesOf<float>(file, "d.a." + key), expected, slot.a_offset);
    copy(testing::ValuesOf<float>(file, "d.b." + key), expected, slot.b_offset);
  }
  const auto targets = testing::ValuesOf<int32_t>(file, "targets"),
             begins = testing::ValuesOf<int32_t>(file, "begins");
  std::vector<int32_t> positions, rows;
  for (size_t i = 0; i < golden.tokens.size(); ++i) {
    rows.push_back(static_cast<int32_t>(i));
    positions.push_back(rows.back() >= begins[1] ? rows.back() - begins[1] : rows.back());
  }
  const std::vector<float> ones(rows.size(), 1.0f);
  const KernelTable& kernels = ChooseKernels(nullptr);
  TrainSource source = SourceOf(*weights, kernels);
  source.linear = [whole = source.linear](LinearId id, Range range, MatrixView<float> out) {
    whole(id, range, out);
    for (int64_t row = 0; row < out.rows; ++row) {
      for (int64_t i = 0; i < out.cols; ++i) out.Row(row)[i] *= 0.5f;
    }
  };
  source.shared = [whole = source.shared](int64_t layer, Site site, Range range,
                                          MatrixView<float> out) {
    whole(layer, site, range, out);
    for (int64_t i = 0; i < out.rows * out.cols; ++i) out.data[i] *= 0.5f;
  };
  TrainEngine engine(config, source, layout, 0.5f, kernels.train, Pool(), {});
  engine.SetValues(pairs);
  const LossSums sums =
      engine.ForwardBackward({golden.tokens, positions, begins, rows, targets, ones}, {}, found);
  const double loss = testing::ValuesOf<double>(file, "loss").at(0);
  EXPECT_NEAR(sums.nll, loss, 0.01 * loss);
  EXPECT_LT(testing::RelativeError(found, expected), 0.05);
  ::testing::Test::RecordProperty("relative_error",
                                  std::to_string(testing::RelativeError(found, expected)));
}

TEST_P(FamilyProof, TrainingStepIsThatOfAutograd) {
  const std::filesystem::path path = FolderOf(type()) / "train.safetensors";
  const ModelFile model = ModelFile::Open(FolderOf(type()));
  if (!TrainingLacks(model.Config()).empty()) {
    EXPECT_FALSE(std::filesystem::exists(path));
    return;
  }
  if (type() == "gemma3") return;  // the same model as gemma3_text's
  ASSERT_TRUE(std::filesystem::exists(path))
      << "this family can be trained, but has no proof of it";
  ExpectTrainingStepOfAutograd(model, ReadGolden(type()), path);
}

// Beyond its original context Phi-3 has other factors, for all of a sequence; a document that is
// shorter keeps its own.
TEST(Families, Phi3ChoosesItsFactorsByTheSequence) {
  const Golden far = ReadGolden("phi3", "golden_far.safetensors"), near = ReadGolden("phi3");
  for (const char* name : {".", "model.gguf"}) {
    const ModelFile file = ModelFile::Open(FolderOf("phi3") / name);
    const ModelConfig config = file.Config();
    EXPECT_EQ(config.rope.near_context, 64);
    ASSERT_GT(far.tokens.size(), 64u);
    const auto weights = LoadFrom(file, config);
    const auto whole = LogitsOf(config, *weights, far.tokens);
    EXPECT_LT(MaxDifference(whole, far.logits), kTolerance) << name;
    for (const int64_t chunk : {1, 7}) {
      EXPECT_EQ(MaxDifference(LogitsOf(config, *weights, far.tokens, {.chunk = chunk}), whole), 0);
    }
    ModelConfig flipped = config;
    flipped.rope.far_factors = flipped.rope.frequency_factors;
    EXPECT_GT(MaxDifference(LogitsOf(flipped, *weights, far.tokens), far.logits), 100 * kTolerance);
    // Both kinds in one step, without states.
    const Decoder decoder(config, *weights);
    Exec exec(ChooseKernels(nullptr), Pool(), Precision::kExact);
    std::vector<int32_t> tokens = near.tokens, positions, rows;
    tokens.insert(tokens.end(), far.tokens.begin(), far.tokens.end());
    const auto border = static_cast<int32_t>(near.tokens.size()),
               end = static_cast<int32_t>(tokens.size());
    for (int32_t i = 0; i < end; ++i) positions.push_back(i < border ? i : i - border);
    rows = {border - 1, end - 1};
    const std::array<SequenceRun, 2> runs = {{{0, border, nullptr}, {border, end, nullptr}}};
    std::vector<float> hidden(static_cast<size_t>(2 * config.hidden_dim)),
        logits(static_cast<size_t>(2 * config.vocab_size));
    const auto h = DenseView(hidden.data(), 2, config.hidden_dim);
    decoder.Forward(exec, {tokens, positions, runs, {}, rows}, h);
    decoder.Logits(exec, h, DenseView(logits.data(), 2, config.vocab_size));
    const auto last = [&](const Golden& golden) {
      return std::span(golden.logits).last(static_cast<size_t>(config.vocab_size));
    };
    EXPECT_LT(MaxDifference(std::span(logits).first(last(near).size()), last(near)), kTolerance);
    EXPECT_LT(MaxDifference(std::span(logits).last(last(far).size()), last(far)), kTolerance);
  }
  ExpectTrainingStepOfAutograd(ModelFile::Open(FolderOf("phi3")), far,
                               FolderOf("phi3") / "train_far.safetensors");
}

TEST(Families, ASequenceThatWasBegunNearDoesNotGoFar) {
  const ModelConfig config = ModelFile::Open(FolderOf("phi3")).Config();
  const auto allocator = MakeHeapAllocator(config, KvType::kBf16, 1 << 20);
  SequenceState near(config, KvType::kBf16, *allocator), far(config, KvType::kBf16, *allocator);
  far.Expect(65);
  EXPECT_TRUE(far.far());
  far.Reserve(65);
  near.Expect(64);
  near.Reserve(64);
  near.Commit(64);
  EXPECT_THROW(near.Reserve(1), Error);
}

// What a row computes does not depend on which rows are asked for.
TEST_P(FamilyProof, TheLastRowAloneIsTheSameBits) {
  const Golden golden = ReadGolden(type());
  const ModelFile file = ModelFile::Open(FolderOf(type()));
  const ModelConfig config = file.Config();
  const auto weights = LoadFrom(file, config);
  const auto whole = LogitsOf(config, *weights, golden.tokens);
  const auto last = LogitsOf(config, *weights, golden.tokens, {.last_only = true});
  EXPECT_EQ(MaxDifference(last, std::span(whole).last(last.size())), 0);
}

// Nor on whether a state keeps what the row sees.
TEST_P(FamilyProof, WithoutAStateItIsTheSameBits) {
  const Golden golden = ReadGolden(type());
  const ModelFile file = ModelFile::Open(FolderOf(type()));
  const ModelConfig config = file.Config();
  const auto weights = LoadFrom(file, config);
  const auto whole = LogitsOf(config, *weights, golden.tokens);
  EXPECT_EQ(MaxDifference(LogitsOf(config, *weights, golden.tokens, {.keeps_state = false}), whole),
            0);
  const auto last =
      LogitsOf(config, *weights, golden.tokens, {.last_only = true, .keeps_state = false});
  EXPECT_EQ(MaxDifference(last, std::span(whole).last(last.size())), 0);
}

// Pages hold the keys and values of layers that have some of their own, each at its own size.
TEST(Families, KeysAndValuesThatLayersShareAreKeptOnce) {
  const ModelConfig config = ModelFile::Open(FolderOf("gemma4_text")).Config();
  EXPECT_THAT(config.kv_layers, ::testing::ElementsAre(0, 1, 2, 3, 2, 3));
  EXPECT_THAT(config.head_dims, ::testing::ElementsAre(8, 16, 8, 16, 8, 16));
  const int64_t small = KvHeadBytes(KvElement::kF32, 8), large = KvHeadBytes(KvElement::kF32, 16);
  EXPECT_EQ(KvPageBytes(config, KvType::kF32), 2 * (2 * small + 2 * large) * 2);
  const auto allocator = MakeHeapAllocator(config, KvType::kF32, int64_t{1} << 20);
  SequenceState state(config, KvType::kF32, *allocator);
  state.Reserve(1);
  EXPECT_EQ(state.Keys(4, 0), state.Keys(2, 0));
  EXPECT_EQ(state.Values(5, 0), state.Values(3, 0));
  EXPECT_NE(state.Keys(3, 0), state.Keys(1, 0));
  const ModelConfig moe = ModelFile::Open(FolderOf("gemma4") / "model.gguf").Config();
  EXPECT_THAT(moe.kv_head_counts, ::testing::ElementsAre(2, 1, 2, 1));
  EXPECT_THAT(moe.keys_as_values, ::testing::ElementsAre(false, true, false, true));
}

// gpt-oss as it is saved after training: experts transposed, in halves.
TEST(Families, GptOssRunsUnquantizedToo) {
  const auto folder =
      std::filesystem::path(::testing::TempDir()) / fmt::format("gpt_oss_{}", ::getpid());
  std::filesystem::create_directories(folder);
  std::filesystem::copy_file(FolderOf("gpt_oss") / "plain.safetensors",
                             folder / "model.safetensors");
  std::filesystem::copy_file(FolderOf("gpt_oss") / "config.json", folder / "config.json");
  const ModelFile file = ModelFile::Open(folder);
  const ModelConfig config = file.Config();
  const auto weights = LoadFrom(file, config);
  std::filesystem::remove_all(folder);
  const Golden golden = ReadGolden("gpt_oss");
  EXPECT_LT(MaxDifference(LogitsOf(config, *weights, golden.tokens), golden.logits), kTolerance);
}

std::vector<std::string> AllTypes(bool encoders = false) {
  std::vector<std::string> types;
  for (const Family& family : Families()) {
    for (const std::string_view type : family.hf_types) {
      if (!type.empty() && family.encoder == encoders) types.emplace_back(type);
    }
  }
  return types;
}

std::string TestName(std::string type) {
  for (char& c : type) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return type;
}

INSTANTIATE_TEST_SUITE_P(Types, FamilyProof, ::testing::ValuesIn(AllTypes()),
                         [](const auto& info) { return TestName(info.param); });

class EncoderProof : public FamilyProof {};

// The hidden states of the text and of its first seven tokens, in one step.
std::vector<std::vector<float>> StatesOf(const ModelConfig& config, const Weights& weights,
                                         const KernelTable& kernels,
                                         std::span<const int32_t> tokens, Precision precision) {
  const Decoder decoder(config, weights);
  Exec exec(kernels, Pool(), precision);
  std::vector<int32_t> both(tokens.begin(), tokens.end()), positions, rows;
  both.insert(both.end(), tokens.begin(), tokens.begin() + 7);
  const auto whole = static_cast<int32_t>(tokens.size());
  for (size_t i = 0; i < both.size(); ++i) {
    rows.push_back(static_cast<int32_t>(i));
    positions.push_back(rows.back() % whole);
  }
  const SequenceRun runs[] = {{0, whole, nullptr}, {whole, whole + 7, nullptr}};
  std::vector<float> hidden(both.size() * static_cast<size_t>(config.hidden_dim));
  decoder.Forward(exec,
                  {.tokens = both, .positions = positions, .sequences = runs, .output_rows = rows},
                  DenseView(hidden.data(), static_cast<int64_t>(both.size()), config.hidden_dim));
  const auto split = hidden.begin() + static_cast<int64_t>(whole) * config.hidden_dim;
  return {{hidden.begin(), split}, {split, hidden.end()}};
}

std::vector<std::vector<float>> StatesOf(
    const ModelFile& file, const KernelTable& kernels, std::span<const int32_t> tokens,
    Precision precision, const std::function<void(ModelConfig&, Weights&)>& change = {}) {
  ModelConfig config = file.Config();
  const auto weights = LoadFrom(file, config);
  if (change) change(config, *weights);
  return StatesOf(config, *weights, kernels, tokens, precision);
}

// Texts without a state have temporary pages of their own.
TEST_P(FamilyProof, TwoTextsOfAStepDoNotTouch) {
  const Golden golden = ReadGolden(type());
  const auto both = StatesOf(ModelFile::Open(FolderOf(type())), ChooseKernels(nullptr),
                             golden.tokens, Precision::kServe);
  EXPECT_EQ(MaxDifference(both[1], std::span(both[0]).first(both[1].size())), 0);
}

TEST_P(EncoderProof, HiddenStatesAreThoseOfTransformers) {
  const Golden golden = ReadGolden(type());
  for (const auto& path : {FolderOf(type()), FolderOf(type()) / "model.gguf"}) {
    const ModelFile file = ModelFile::Open(path);
    for (const KernelTable* table : AvailableKernels()) {
      EXPECT_LT(
          MaxDifference(StatesOf(file, *table, golden.tokens, Precision::kExact)[0], golden.logits),
          kTolerance)
          << path << " " << IsaName(table->isa);
    }
    for (const int64_t window : file.Config().windows) {
      EXPECT_LT(2 * window, static_cast<int64_t>(golden.tokens.size()))
          << "no row sees a whole window and no end of the text";
    }
  }
}

// Where the golden has it: mean, dense layers, length 1.
TEST_P(EncoderProof, VectorsAreThoseOfSentenceTransformers) {
  const SafetensorsFile golden_file =
      SafetensorsFile::Open(FolderOf(type()) / "golden.safetensors");
  EXPECT_EQ(golden_file.Find("embedding") != nullptr,
            !ModelFile::Open(FolderOf(type())).Config().encoder.dense.empty());
  if (golden_file.Find("embedding") == nullptr) return;
  const Golden golden = ReadGolden(type());
  const auto expected = testing::ValuesOf<float>(golden_file, "embedding");
  for (const auto& path : {FolderOf(type()), FolderOf(type()) / "model.gguf"}) {
    const ModelFile file = ModelFile::Open(path);
    const ModelConfig config = file.Config();
    EXPECT_EQ(config.encoder.pooling, Pooling::kMean);
    ASSERT_EQ(config.embedding_width(), std::ssize(expected));
    const auto weights = LoadFrom(file, config);
    const auto states =
        StatesOf(config, *weights, ChooseKernels(nullptr), golden.tokens, Precision::kExact)[0];
    const auto width = static_cast<size_t>(config.hidden_dim);
    std::vector<float> mean(width), vector(expected.size());
    for (size_t i = 0; i < states.size(); ++i) {
      mean[i % width] += states[i] / static_cast<float>(golden.tokens.size());
    }
    Exec exec(ChooseKernels(nullptr), Pool(), Precision::kExact);
    ApplyDense(exec, config, *weights, DenseView<const float>(mean.data(), 1, config.hidden_dim),
               DenseView(vector.data(), 1, std::ssize(vector)));
    double length = 0;
    for (const float value : vector) {
      length += static_cast<double>(value) * static_cast<double>(value);
    }
    for (float& value : vector) value /= static_cast<float>(std::sqrt(length));
    EXPECT_LT(MaxDifference(vector, expected), kTolerance) << path;
  }
}

TEST_P(EncoderProof, SomeRowsAloneAreTheSameBits) {
  const Golden golden = ReadGolden(type());
  const ModelFile file = ModelFile::Open(FolderOf(type()));
  const ModelConfig config = file.Config();
  const auto weights = LoadFrom(file, config);
  const auto whole =
      StatesOf(config, *weights, ChooseKernels(nullptr), golden.tokens, Precision::kServe)[0];
  Exec exec(ChooseKernels(nullptr), Pool(), Precision::kServe);
  const auto length = static_cast<int32_t>(golden.tokens.size());
  std::vector<int32_t> positions(golden.tokens.size());
  for (int32_t i = 0; i < length; ++i) positions[static_cast<size_t>(i)] = i;
  const SequenceRun run = {0, length, nullptr};
  const std::vector<int32_t> rows = {0, 1, 9, length - 2, length - 1};
  std::vector<float> some(rows.size() * static_cast<size_t>(config.hidden_dim));
  Decoder(config, *weights)
      .Forward(exec,
               {.tokens = golden.tokens,
                .positions = positions,
                .sequences = {&run, 1},
                .output_rows = rows},
               DenseView(some.data(), std::ssize(rows), config.hidden_dim));
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto width = static_cast<size_t>(config.hidden_dim);
    const auto row = static_cast<size_t>(rows[i]);
    EXPECT_EQ(MaxDifference(std::span(some).subspan(i * width, width),
                            std::span(whole).subspan(row * width, width)),
              0);
  }
}

TEST_P(EncoderProof, ATextDoesNotDependOnItsNeighboursNorOnTheTable) {
  const Golden golden = ReadGolden(type());
  const ModelFile file = ModelFile::Open(FolderOf(type()));
  const auto both = StatesOf(file, ChooseKernels(nullptr), golden.tokens, Precision::kServe);
  const auto alone =
      StatesOf(file, ChooseKernels(nullptr), std::span(golden.tokens).first(7), Precision::kServe);
  EXPECT_EQ(MaxDifference(both[1], alone[0]), 0);
  for (const KernelTable* table : AvailableKernels()) {
    EXPECT_EQ(MaxDifference(StatesOf(file, *table, golden.tokens, Precision::kServe)[0], both[0]),
              0)
        << IsaName(table->isa);
  }
}

TEST_P(EncoderProof, WhatAnEncoderHasMatters) {
  const Golden golden = ReadGolden(type());
  const ModelFile file = ModelFile::Open(FolderOf(type()));
  const auto moves = [&](const char* what,
                         const std::function<void(ModelConfig&, Weights&)>& change) {
    const auto states =
        StatesOf(file, ChooseKernels(nullptr), golden.tokens, Precision::kExact, change);
    EXPECT_GT(MaxDifference(states[0], golden.logits), 100 * kTolerance) << what;
  };
  const ModelConfig config = file.Config();
  const auto weights = LoadFrom(file, config);
  moves("both ways", [](ModelConfig& changed, Weights&) { changed.encoder.both_ways = false; });
  if (config.encoder.token_types) {
    moves("token types",
          [](ModelConfig& changed, Weights&) { changed.encoder.token_types = false; });
  }
  if (!weights->layers[0].mlp_norm_bias.empty()) {
    moves("bias of a norm", [](ModelConfig&, Weights& w) { w.layers[0].mlp_norm_bias.clear(); });
  }
  if (config.encoder.embedding_norm) {
    moves("norm of the embedding",
          [](ModelConfig& changed, Weights&) { changed.encoder.embedding_norm = false; });
  }
  if (!weights->embedding_norm_bias.empty()) {
    moves("bias of the embedding's norm",
          [](ModelConfig&, Weights& w) { w.embedding_norm_bias.clear(); });
  }
  if (config.encoder.bare_first) {
    moves("no norm before the first attention", [](ModelConfig&, Weights& w) {
      w.layers[0].attention_norm = w.layers[1].attention_norm;
    });
  }
  if (config.encoder.positions > 0) {
    moves("positions", [](ModelConfig& changed, Weights&) { changed.encoder.positions = 0; });
  } else {
    moves("rope", [](ModelConfig& changed, Weights&) { changed.rope.theta = 10; });
  }
  if (config.encoder.first_position > 0) {
    ModelConfig from_zero = config;
    from_zero.encoder.first_position = 0;
    from_zero.encoder.positions += config.encoder.first_position;
    const auto states = StatesOf(from_zero, *LoadFrom(file, from_zero), ChooseKernels(nullptr),
                                 golden.tokens, Precision::kExact);
    EXPECT_GT(MaxDifference(states[0], golden.logits), 100 * kTolerance) << "first position";
  }
  if (!config.windows.empty()) {
    moves("width of the window", [](ModelConfig& changed, Weights&) {
      for (int64_t& window : changed.windows) window = window > 0 ? window + 2 : 0;
    });
  }
  if (config.mlp == MlpKind::kErfGelu ||
      config.mlp == MlpKind::kErfGeGlu) {  // the tanh form is within 5e-4
    const auto tanh = [](ModelConfig& changed, Weights&) {
      changed.mlp = changed.mlp == MlpKind::kErfGelu ? MlpKind::kGelu : MlpKind::kGeGlu;
    };
    const auto states =
        StatesOf(file, ChooseKernels(nullptr), golden.tokens, Precision::kExact, tanh);
    EXPECT_GT(MaxDifference(states[0], golden.logits), kTolerance);
  }
  if (config.norm_placement == NormPlacement::kSum) return;
  for (const Axis& axis : Axes()) {
    if (axis.declared(config)) moves(axis.name, axis.flip);
  }
}

INSTANTIATE_TEST_SUITE_P(Types, EncoderProof, ::testing::ValuesIn(AllTypes(true)),
                         [](const auto& info) { return TestName(info.param); });

// A family without a folder of proofs fails here, and a folder without a family.
TEST(Families, HaveTheirProofs) {
  for (const Family& family : Families()) {
    EXPECT_FALSE(family.hf_types[0].empty()) << family.architecture;
    EXPECT_FALSE(family.models.empty()) << family.architecture;
    bool has_gguf = false;
    for (const std::string_view type : family.hf_types) {
      if (type.empty()) continue;
      for (const char* name : {"config.json", "model.safetensors", "golden.safetensors"}) {
        EXPECT_TRUE(std::filesystem::exists(FolderOf(type) / name)) << type << "/" << name;
      }
      has_gguf = has_gguf || std::filesystem::exists(FolderOf(type) / "model.gguf");
    }
    EXPECT_TRUE(has_gguf) << family.architecture;
  }
  std::vector<std::string> types = AllTypes();
  for (const std::string& type : AllTypes(true)) types.push_back(type);
  for (const auto& entry : std::filesystem::directory_iterator(FolderOf(""))) {
    if (!entry.is_directory()) continue;
    EXPECT_THAT(types, ::testing::Contains(entry.path().filename().string()));
  }
}

TEST(Families, SayWhatTrainingLacks) {
  for (const Family& family : Families()) {
    const ModelConfig config = TypicalConfig(family);
    const std::string lacks = TrainingLacks(config);
    const bool lacking = family.architecture == "gemma2" || family.architecture == "gemma4" ||
                         family.architecture == "starcoder2" ||
                         (family.experts && family.architecture != "qwen3moe" &&
                          family.architecture != "qwen2moe" && family.architecture != "llama") ||
                         family.encoder || config.has_state();
    EXPECT_EQ(!lacks.empty(), lacking) << family.architecture << ": " << lacks;
  }
}

}  // namespace
}  // namespace bakestone
