#include "convert/hf_folder_writer.h"

#include <algorithm>
#include <map>
#include <memory>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/quote.h"
#include "convert/gguf_keys.h"
#include "format/gguf_tokenizer.h"
#include "format/hf_folder.h"
#include "format/q_k_permute.h"
#include "format/safetensors.h"
#include "format/tokenizer_json.h"
#include "model/families/families.h"

namespace bakestone {
namespace {

using Json = nlohmann::ordered_json;

const char* TorchType(DType type) {
  return type == DType::kF16 ? "float16" : type == DType::kBF16 ? "bfloat16" : "float32";
}

// model_type and class of the families that can be written, by GGUF's architecture.
struct Names {
  const char *type, *architecture;
};
const std::map<std::string, Names, std::less<>> kNames = {{"llama", {"llama", "LlamaForCausalLM"}},
                                                          {"qwen2", {"qwen2", "Qwen2ForCausalLM"}},
                                                          {"qwen3", {"qwen3", "Qwen3ForCausalLM"}}};

Json MakeConfig(const ModelConfig& config, const TokenizerSpec& tokenizer, DType type) {
  const auto found = kNames.find(config.architecture);
  const bool windowed = config.architecture == "llama" && !config.windows.empty();  // Mistral's first models
  Json json = {{"architectures", Json::array({windowed ? "MistralForCausalLM" : found->second.architecture})},
               {"model_type", windowed ? "mistral" : found->second.type},
               {"hidden_act", "silu"},
               {"hidden_size", config.hidden_dim},
               {"intermediate_size", config.ffn_dim},
               {"num_hidden_layers", config.num_layers},
               {"num_attention_heads", config.num_heads},
               {"num_key_value_heads", config.num_kv_heads},
               {"head_dim", config.head_dim},
               {"max_position_embeddings", config.context_length},
               {"rms_norm_eps", static_cast<double>(config.norm_eps)},
               {"rope_theta", config.rope.theta},
               {"tie_word_embeddings", config.tied_embedding},
               {"vocab_size", config.vocab_size},
               {"torch_dtype", TorchType(type)}};
  if (windowed) json["sliding_window"] = *std::max_element(config.windows.begin(), config.windows.end());
  if (config.rope.linear_scale != 1) {
    json["rope_scaling"] = {{"rope_type", "linear"}, {"factor", config.rope.linear_scale}};
  }
  if (tokenizer.bos >= 0) json["bos_token_id"] = tokenizer.bos;
  if (tokenizer.eos >= 0) json["eos_token_id"] = tokenizer.eos;
  if (tokenizer.pad >= 0) json["pad_token_id"] = tokenizer.pad;
  return json;
}

// What the folder's reader makes of the config, beside tensors that have nothing but the shapes it asks for.
ModelConfig ReadBack(const ModelConfig& config, const Json& json) {
  SafetensorsWriter writer;
  const std::vector<uint8_t> zeros(static_cast<size_t>(config.vocab_size) * 4);
  const int64_t table[] = {config.vocab_size, 1};
  writer.AddTensor("model.embed_tokens.weight", DType::kF32, table, std::span<const uint8_t>(zeros));
  if (!config.tied_embedding) writer.AddTensor("lm_head.weight", DType::kF32, table, std::span<const uint8_t>(zeros));
  const std::string file = writer.Serialize();
  return ReadConfig(HfFolder::Parse(json.dump(), {reinterpret_cast<const uint8_t*>(file.data()), file.size()},
                                    "the folder"));
}

// GGUF's name of each tensor, without its suffix, to the folder's.
std::map<std::string, std::string> NamesOf(const ModelConfig& config) {
  const TensorNames& from = kGgufNames;
  const TensorNames& to = kHfNames;
  std::map<std::string, std::string> names = {
      {from.embedding, to.embedding}, {from.final_norm, to.final_norm}, {from.head, to.head}};
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    const auto add = [&](const char* gguf, const char* hf) { names[from.Layer(layer, gguf)] = to.Layer(layer, hf); };
    add(from.attention_norm, to.attention_norm);
    add(from.mlp_norm, to.mlp_norm);
    add(from.q_norm, to.q_norm);
    add(from.k_norm, to.k_norm);
    for (size_t site = 0; site < kNumSites; ++site) add(from.sites[site], to.sites[site]);
  }
  return names;
}

int64_t GgufRowOfHfRow(int64_t row, int64_t head_dim) {
  const int64_t within = row % head_dim, half = head_dim / 2;
  return row - within + within % half * 2 + within / half;
}

// Rows of queries and keys in the folder's order.
void Unpermute(SourceTensor& tensor, int64_t head_dim) {
  const bool vector = tensor.ne.size() == 1;
  tensor.bytes = {};
  tensor.rows = [rows = tensor.rows, head_dim, vector, cols = tensor.cols()](int64_t row, int64_t n, float* x) {
    if (!vector) {
      for (int64_t i = 0; i < n; ++i) rows(GgufRowOfHfRow(row + i, head_dim), 1, x + i * cols);
      return;
    }
    std::vector<float> in_order(static_cast<size_t>(cols));
    rows(0, 1, in_order.data());
    for (int64_t i = 0; i < cols; ++i) x[i] = in_order[static_cast<size_t>(GgufRowOfHfRow(i, head_dim))];
  };
}

DType CommonType(const ModelSource& source) {
  std::optional<DType> common;
  for (const SourceTensor& tensor : source.tensors) {
    if (!IsQuantizable(tensor)) continue;
    if (IsQuantized(tensor.type) || (common && *common != tensor.type)) return DType::kF32;
    common = tensor.type;
  }
  return common.value_or(DType::kF32);
}

void WriteTensors(const ModelSource& source, const ModelConfig& config, DType type, const std::filesystem::path& out,
                  const KernelTable& kernels, ThreadPool& pool, const ConvertProgress& progress) {
  const auto names = NamesOf(config);
  std::vector<SourceTensor> tensors;
  for (const SourceTensor& tensor : source.tensors) {
    const size_t dot = tensor.name.rfind('.');
    const auto found = dot == std::string::npos ? names.end() : names.find(tensor.name.substr(0, dot));
    if (found == names.end()) {
      Throw(ErrorCode::kUnsupported, "{}: tensor {}: expected only tensors of a plain {} model, found one that would be "
            "lost", source.name, Quote(tensor.name), config.architecture);
    }
    tensors.push_back(tensor);
    const bool query_key = tensor.name.find(".attn_q.") != std::string::npos ||
                           tensor.name.find(".attn_k.") != std::string::npos;
    if (query_key && GgufPermutesQueryKey(config.architecture)) Unpermute(tensors.back(), config.head_dim);
    tensors.back().name = found->second + tensor.name.substr(dot);
  }
  SafetensorsWriter writer;
  writer.AddMetadata("format", "pt");
  int64_t done = 0, total = 0;
  const SourceTensor* current = nullptr;
  std::unique_ptr<TensorPieces> pieces;
  for (const SourceTensor& tensor : tensors) {
    total += tensor.elements() * BlockBytes(type);
    const std::vector<int64_t> shape(tensor.ne.rbegin(), tensor.ne.rend());
    writer.AddTensor(tensor.name, type, shape, [&, type]() -> std::span<const uint8_t> {
      if (current != &tensor) {
        if (current != nullptr && current->forget) current->forget();
        current = &tensor;
        pieces = std::make_unique<TensorPieces>(tensor, type, std::span<const float>(),
                                                source.name + ": tensor " + Quote(tensor.name), kernels, pool);
      }
      if (progress) progress(done, total, tensor.name);
      const auto piece = pieces->Next();
      done += static_cast<int64_t>(piece.size());
      return piece;
    });
  }
  writer.Write(out / "model.safetensors");
}

Json TokenizerConfig(const TokenizerSpec& spec, const GgufFile& header, const ModelConfig& config) {
  Json json = {{"tokenizer_class", "PreTrainedTokenizerFast"},
               {"model_max_length", config.context_length},
               {"clean_up_tokenization_spaces", false},
               {"add_bos_token", spec.add_bos}};
  const auto token = [&](const char* name, int32_t id) {
    if (id >= 0 && id < static_cast<int32_t>(spec.tokens.size())) json[name] = spec.tokens[static_cast<size_t>(id)];
  };
  token("bos_token", spec.bos);
  token("eos_token", spec.eos);
  token("unk_token", spec.unk);
  token("pad_token", spec.pad);
  if (header.Has("tokenizer.chat_template")) {
    json["chat_template"] = std::string(header.GetString("tokenizer.chat_template"));
  }
  return json;
}

}  // namespace

std::optional<std::string> LostInFolder(const ModelConfig& config) {
  if (!kNames.contains(config.architecture)) return "what is not Llama's or Qwen's";
  if (config.router.experts > 0) return "the mixture of experts";
  return DifferenceOf(config, ReadBack(config, MakeConfig(config, {}, DType::kF32)));
}

void WriteHfFolder(const std::filesystem::path& model, const std::filesystem::path& out, std::optional<DType> type,
                   const KernelTable& kernels, ThreadPool& pool, const ConvertProgress& progress) {
  const ModelSource source = OpenGgufSource(model);
  const ModelConfig config = ReadConfig(*source.header);
  const TokenizerSpec spec = FromGguf(*source.header);
  const DType written = type.value_or(CommonType(source));
  if (const auto lost = LostInFolder(config)) {
    Throw(ErrorCode::kUnsupported, "{}: {} cannot be said in a config.json yet: the folder of this {} model would compute "
          "something else", source.name, *lost, Quote(config.architecture));
  }
  const Json json = MakeConfig(config, spec, written);
  const std::string tokenizer = ToTokenizerJson(spec);
  if (std::filesystem::exists(out) && !std::filesystem::is_empty(out)) {
    Throw(ErrorCode::kInvalidArgument, "{}: expected a new or an empty folder to write", out.string());
  }
  WriteTensors(source, config, written, out, kernels, pool, progress);
  WriteFileAtomically(out / "tokenizer.json", tokenizer);
  WriteFileAtomically(out / "tokenizer_config.json", TokenizerConfig(spec, *source.header, config).dump(2));
  Json generation = Json::object(), ends = Json::array();
  for (const int32_t id : {spec.eos, spec.eot}) {
    if (id >= 0) ends.push_back(id);
  }
  if (spec.bos >= 0) generation["bos_token_id"] = spec.bos;
  if (!ends.empty()) generation["eos_token_id"] = ends;
  WriteFileAtomically(out / "generation_config.json", generation.dump(2));
  if (source.header->Has("general.license")) {
    WriteFileAtomically(out / "README.md",
                        "---\nlicense: " + std::string(source.header->GetString("general.license")) + "\n---\n");
  }
  WriteFileAtomically(out / "config.json", json.dump(2));
}

}  // namespace bakestone
