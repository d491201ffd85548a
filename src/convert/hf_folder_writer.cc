#include "convert/hf_folder_writer.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/new_folder.h"
#include "base/quote.h"
#include "convert/hf_config_writer.h"
#include "convert/gguf_keys.h"
#include "convert/interleaved_experts.h"
#include "convert/latent_stacks.h"
#include "convert/rwkv_parts.h"
#include "convert/tensor_pairs.h"
#include "format/gguf_tokenizer.h"
#include "format/q_k_permute.h"
#include "format/rwkv_vocabulary.h"
#include "format/safetensors.h"
#include "format/tokenizer_json.h"
#include "model/families/families.h"

namespace bakestone {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kTensorsFile = "model.safetensors";
constexpr std::string_view kModule = "module:";

// Of a dense layer behind an encoder: the model and the pooling are the first two modules.
std::string DenseFolder(size_t index) { return std::to_string(index + 2) + "_Dense"; }
// As a folder's reader calls it.
std::string DenseTensor(size_t index) {
  return std::string(kModule) + DenseFolder(index) + ".linear.weight";
}

// The file of a folder's tensor, from the folder on, and its name there.
std::pair<std::filesystem::path, std::string> FileOf(std::string_view tensor) {
  if (!tensor.starts_with(kModule)) return {kTensorsFile, std::string(tensor)};
  tensor.remove_prefix(kModule.size());
  const size_t dot = tensor.find('.');
  return {std::filesystem::path(tensor.substr(0, dot)) / kTensorsFile,
          std::string(tensor.substr(dot + 1))};
}

// Where a tensor of the GGUF file goes: the folder's name for it, or, of experts' stacks, one for
// each expert.
struct Target {
  std::string name;  // with its suffix, but for a stack's; empty: made together with others
  bool norm = false;
  int64_t layer = -1, which = -1;  // of a stack: gate, up or down
  std::optional<TensorPair> pair;
};

class Targets {
 public:
  explicit Targets(const ModelConfig& config)
      : config_(config), gguf_(*FamilyOf(config).gguf), hf_(*FamilyOf(config).hf) {
    const auto own = [](const char* name) { return std::string(name); };
    Add(own(gguf_.embedding), own(hf_.embedding));
    Add(own(gguf_.final_norm), own(hf_.final_norm), true);
    Add(own(gguf_.head), own(hf_.head));
    for (size_t i = 0; i < config.encoder.dense.size(); ++i) {
      targets_[GgufDense(i) + ".weight"] = {.name = DenseTensor(i)};
    }
    AddPairs(-1);
    for (int64_t layer = 0; layer < config.num_layers; ++layer) AddLayer(layer);
  }

  const Target& Of(const std::string& tensor, const std::string& source) const {
    const auto found = targets_.find(tensor);
    if (found != targets_.end()) return found->second;
    Throw(ErrorCode::kUnsupported,
          "{}: tensor {}: expected only tensors of a plain {} model, found one that would be "
          "lost",
          source, Quote(tensor), config_.architecture);
  }
  // Of a layer behind the last, which predicts further tokens, and of what the config says.
  bool MayDrop(const std::string& tensor) const {
    for (int64_t i = 0; i < config_.ignored_layers; ++i) {
      if (tensor.starts_with(gguf_.Layer(config_.num_layers + i, ""))) return true;
    }
    return tensor.starts_with("rope_f");
  }
  // What a layer's tensors become together.
  std::vector<SourceTensor> Joined(const ModelSource& source, int64_t layer) const {
    std::vector<SourceTensor> made;
    if (hf_.interleaved_gate_up != nullptr && config_.has_experts(layer)) {
      made = InterleavedToFolder(config_, gguf_, hf_, layer, source);
    }
    if (config_.mixer(layer) == Mixer::kRwkv) {
      made = RwkvPartsToFolder({config_, gguf_, hf_, layer}, source);
    }
    if (config_.latent.kv_rank == 0) return made;
    const SourceTensor* keys = source.Find(gguf_.Layer(layer, gguf_.k_b) + ".weight");
    const SourceTensor* values = source.Find(gguf_.Layer(layer, gguf_.v_b) + ".weight");
    if (keys == nullptr || values == nullptr) return made;  // an older file has them in one
    made.push_back(JoinKeysAndValues(config_.latent, config_.num_heads, *keys, *values));
    made.back().name = hf_.Layer(layer, hf_.kv_b) + ".weight";
    return made;
  }
  std::string OfExpert(const Target& stack, int64_t expert) const {
    return hf_.Layer(stack.layer, hf_.experts) + std::to_string(expert) + "." +
           hf_.of_expert[static_cast<size_t>(stack.which)] + ".weight";
  }

 private:
  void AddPairs(int64_t layer) {
    for (TensorPair& pair : PairsOf(config_, gguf_, hf_, layer)) {
      const std::string name = pair.gguf;
      targets_[name] = {.name = pair.folder, .pair = std::move(pair)};
    }
  }

  void Add(const std::string& gguf, const std::string& hf, bool norm = false) {
    for (const char* suffix : {".weight", ".bias"}) {
      targets_[gguf + suffix] = {.name = hf + suffix, .norm = norm};
    }
  }

  void AddLayer(int64_t layer) {
    const auto add = [&](const char* gguf, const char* hf, bool norm = false) {
      if (gguf != nullptr && hf != nullptr) {
        Add(gguf_.Layer(layer, gguf), hf_.Layer(layer, hf), norm);
      }
    };
    if (config_.has_pre_norms()) {
      add(gguf_.attention_norm, hf_.attention_norm, true);
      add(gguf_.mlp_norm, hf_.mlp_norm, true);
    }
    if (config_.has_post_norms()) {
      add(gguf_.attention_post_norm, hf_.attention_post_norm, true);
      add(gguf_.mlp_post_norm, hf_.mlp_post_norm, true);
    }
    add(gguf_.q_norm, hf_.q_norm, true);
    add(gguf_.k_norm, hf_.k_norm, true);
    for (size_t site = 0; site < kNumSites; ++site) add(gguf_.sites[site], hf_.sites[site]);
    add(gguf_.q_k_v, hf_.q_k_v);
    add(gguf_.gate_up, hf_.gate_up);
    AddPairs(layer);
    if (config_.mixer(layer) == Mixer::kRwkv) {
      for (const std::string& name : RwkvPartsOfGguf({config_, gguf_, hf_, layer})) {
        targets_[name] = {};
      }
    }
    if (config_.latent.kv_rank > 0) {
      add(gguf_.kv_b, hf_.kv_b);
      for (const char* name : {gguf_.k_b, gguf_.v_b}) {
        targets_[gguf_.Layer(layer, name) + ".weight"] = {};
      }
    }
    if (!config_.has_experts(layer)) return;
    add(gguf_.router, hf_.router);
    add(gguf_.shared_gate, hf_.shared_gate);
    for (size_t which = 0; which < 3; ++which) {
      add(gguf_.shared[which], hf_.shared[which]);
      AddStack(layer, which);
    }
    if (gguf_.stacked_gate_up != nullptr && hf_.stacked_gate_up != nullptr) {
      const TensorPair pair = {.gguf = gguf_.Layer(layer, gguf_.stacked_gate_up),
                               .folder = hf_.Layer(layer, hf_.stacked_gate_up)};
      targets_[pair.gguf] = {.name = pair.folder, .pair = pair};
    }
  }

  void AddStack(int64_t layer, size_t which) {
    const std::string name = gguf_.Layer(layer, gguf_.stacked[which]);
    if (hf_.interleaved_gate_up != nullptr) {
      targets_[name] = targets_[name.substr(0, name.rfind('.')) + ".bias"] = {};
    } else if (hf_.experts != nullptr) {
      targets_[name] = {.layer = layer, .which = static_cast<int64_t>(which)};
    } else if (hf_.stacked[which] != nullptr) {
      const TensorPair pair = {.gguf = name, .folder = hf_.Layer(layer, hf_.stacked[which])};
      targets_[name] = {.name = pair.folder, .pair = pair};
    }
  }

  const ModelConfig& config_;
  const TensorNames &gguf_, &hf_;
  std::map<std::string, Target> targets_;
};

int64_t GgufRowOfHfRow(int64_t row, int64_t head_dim) {
  const int64_t within = row % head_dim, half = head_dim / 2;
  return row - within + within % half * 2 + within / half;
}

// Rows of queries and keys in the folder's order.
void Unpermute(SourceTensor& tensor, int64_t head_dim) {
  const bool vector = tensor.ne.size() == 1;
  tensor.bytes = {};
  tensor.rows = [rows = tensor.rows, head_dim, vector, cols = tensor.cols()](int64_t row, int64_t n,
                                                                             float* x) {
    if (!vector) {
      for (int64_t i = 0; i < n; ++i) rows(GgufRowOfHfRow(row + i, head_dim), 1, x + i * cols);
      return;
    }
    std::vector<float> in_order(static_cast<size_t>(cols));
    rows(0, 1, in_order.data());
    for (int64_t i = 0; i < cols; ++i) {
      x[i] = in_order[static_cast<size_t>(GgufRowOfHfRow(i, head_dim))];
    }
  };
}

// Norms as the folder has them: their effective scale less 1.
void LessOne(SourceTensor& tensor) {
  tensor.bytes = {};
  tensor.rows = [rows = tensor.rows, cols = tensor.cols()](int64_t row, int64_t n, float* x) {
    rows(row, n, x);
    for (int64_t i = 0; i < n * cols; ++i) x[i] -= 1;
  };
}

// One expert's matrix of a stack.
SourceTensor PartOf(const SourceTensor& stack, int64_t expert, std::string name) {
  SourceTensor part = stack;
  const int64_t n = stack.ne[1];
  part.name = std::move(name);
  part.ne = {stack.ne[0], n};
  part.bytes = {};
  part.forget = {};
  part.rows = [rows = stack.rows, first = expert * n](int64_t row, int64_t count, float* x) {
    rows(first + row, count, x);
  };
  return part;
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

// The folder's tensors of what the file has.
std::vector<SourceTensor> ToFolderTensors(const ModelSource& source, const ModelConfig& config) {
  const bool less_one = FoldersHaveNormsLessOne(config);
  const Targets targets(config);
  std::vector<SourceTensor> tensors;
  for (const SourceTensor& tensor : source.tensors) {
    if (targets.MayDrop(tensor.name)) continue;
    const Target& target = targets.Of(tensor.name, source.name);
    if (target.pair) {
      tensors.push_back(ToFolder(*target.pair, tensor));
      continue;
    }
    if (target.which >= 0) {
      if (tensor.ne.size() != 3 || tensor.ne[2] != config.router.experts) {
        Throw(ErrorCode::kCorrupt, "{}: tensor {}: expected a stack of {} experts, found another",
              source.name, Quote(tensor.name), config.router.experts);
      }
      for (int64_t expert = 0; expert < config.router.experts; ++expert) {
        tensors.push_back(PartOf(tensor, expert, targets.OfExpert(target, expert)));
      }
      continue;
    }
    if (target.name.empty()) continue;
    tensors.push_back(tensor);
    const bool query_key = tensor.name.find(".attn_q.") != std::string::npos ||
                           tensor.name.find(".attn_k.") != std::string::npos;
    if (query_key && GgufPermutesQueryKey(config.architecture)) {
      const int64_t rows = tensor.ne.size() == 1 ? tensor.cols() : tensor.num_rows();
      if (rows % config.head_dim != 0) {
        Throw(ErrorCode::kCorrupt, "{}: tensor {}: expected rows of whole heads of {}, found {}",
              source.name, Quote(tensor.name), config.head_dim, rows);
      }
      Unpermute(tensors.back(), config.head_dim);
    }
    if (target.norm && less_one) LessOne(tensors.back());
    if (target.name.ends_with("shared_expert_gate.weight")) tensors.back().ne = {tensor.cols(), 1};
    tensors.back().name = target.name;
  }
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    auto joined = targets.Joined(source, layer);
    std::move(joined.begin(), joined.end(), std::back_inserter(tensors));
  }
  if (config.encoder.both_ways) {  // saved without a head, and so without its prefix
    for (SourceTensor& tensor : tensors) {
      if (tensor.name.starts_with("model.")) tensor.name.erase(0, 6);
    }
  }
  return tensors;
}

}  // namespace

void WriteHfTensors(const ModelSource& source, const ModelConfig& config, DType type,
                    const std::filesystem::path& out, const KernelTable& kernels, ThreadPool& pool,
                    const ConvertProgress& progress) {
  const std::vector<SourceTensor> tensors = ToFolderTensors(source, config);
  std::map<std::filesystem::path, SafetensorsWriter> files;
  files[out / kTensorsFile].AddMetadata("format", "pt");
  int64_t done = 0, total = 0;
  const SourceTensor* current = nullptr;
  std::unique_ptr<TensorPieces> pieces;
  for (const SourceTensor& tensor : tensors) {
    total += tensor.elements() * BlockBytes(type);
    const std::vector<int64_t> shape(tensor.ne.rbegin(), tensor.ne.rend());
    const auto [file, name] = FileOf(tensor.name);
    files[out / file].AddTensor(name, type, shape, [&, type]() -> std::span<const uint8_t> {
      if (current != &tensor) {
        if (current != nullptr && current->forget) current->forget();
        current = &tensor;
        pieces = std::make_unique<TensorPieces>(tensor, type, TensorPieces::Search{},
                                                source.name + ": tensor " + Quote(tensor.name),
                                                kernels, pool);
      }
      if (progress) progress(done, total, tensor.name);
      const auto piece = pieces->Next();
      done += static_cast<int64_t>(piece.size());
      return piece;
    });
  }
  for (const auto& [file, writer] : files) {
    std::filesystem::create_directories(file.parent_path());
    writer.Write(file);
  }
}

void WriteModules(const ModelConfig& config, const std::filesystem::path& out) {
  const Pooling pooling = config.encoder.pooling;
  const Json json = {{"word_embedding_dimension", config.hidden_dim},
                     {"pooling_mode_cls_token", pooling == Pooling::kFirst},
                     {"pooling_mode_mean_tokens", pooling == Pooling::kMean},
                     {"pooling_mode_lasttoken", pooling == Pooling::kLast}};
  std::filesystem::create_directories(out / "1_Pooling");
  WriteFileAtomically(out / "1_Pooling" / "config.json", json.dump(2));
  Json modules = Json::array();
  const auto add = [&](const std::string& path, const std::string& type) {
    modules.push_back({{"idx", modules.size()},
                       {"name", std::to_string(modules.size())},
                       {"path", path},
                       {"type", "sentence_transformers.models." + type}});
  };
  add("", "Transformer");
  add("1_Pooling", "Pooling");
  int64_t width = config.hidden_dim;
  for (size_t i = 0; i < config.encoder.dense.size(); ++i) {
    const DenseConfig& dense = config.encoder.dense[i];
    const std::string folder = DenseFolder(i);
    const Json sizes = {{"in_features", width},
                        {"out_features", dense.width},
                        {"bias", false},
                        {"activation_function", dense.tanh ? "torch.nn.modules.activation.Tanh"
                                                           : "torch.nn.modules.linear.Identity"}};
    std::filesystem::create_directories(out / folder);
    WriteFileAtomically(out / folder / "config.json", sizes.dump(2));
    add(folder, "Dense");
    width = dense.width;
  }
  if (!config.encoder.dense.empty()) {
    add(std::to_string(modules.size()) + "_Normalize", "Normalize");
  }
  WriteFileAtomically(out / "modules.json", modules.dump(2));
}

namespace {

Json TokenizerConfig(const TokenizerSpec& spec, const GgufFile& header, const ModelConfig& config) {
  Json json = {{"tokenizer_class", "PreTrainedTokenizerFast"},
               {"model_max_length", config.context_length},
               {"clean_up_tokenization_spaces", false}};
  if (spec.pair.empty()) {  // else tokenizer.json says it, of two texts too
    json["add_bos_token"] = spec.add_bos;
    json["add_eos_token"] = spec.add_eos;
  }
  const auto token = [&](const char* name, int32_t id) {
    if (id >= 0 && id < static_cast<int32_t>(spec.tokens.size())) {
      json[name] = spec.tokens[static_cast<size_t>(id)];
    }
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

void WriteHfFolder(const std::filesystem::path& model, const std::filesystem::path& out,
                   std::optional<DType> type, const KernelTable& kernels, ThreadPool& pool,
                   const ConvertProgress& progress) {
  const ModelSource source = OpenGgufSource(model);
  const ModelConfig config = ReadConfig(*source.header);
  const TokenizerSpec spec = FromGguf(*source.header);
  const DType written = type.value_or(CommonType(source));
  if (const auto lost = LostInFolder(config)) {
    Throw(ErrorCode::kUnsupported,
          "{}: {} cannot be said in a config.json yet: the folder of this {} model would compute "
          "something else",
          source.name, *lost, Quote(config.architecture));
  }
  Json json = MakeHfConfig(config, spec, written);
  if (const SourceTensor* types = source.Find("token_types.weight")) {
    json["type_vocab_size"] = types->num_rows();
  }
  if (config.rwkv.heads > 0) {
    const RwkvLayer first = {config, *FamilyOf(config).gguf, *FamilyOf(config).hf};
    for (const RwkvRank& one : RwkvRanks(first, source)) json[one.folder] = one.rank;
  }
  const bool rwkv = spec.kind == TokenizerKind::kGreedy;
  const std::string tokenizer = rwkv ? ToRwkvVocabulary(spec) : ToTokenizerJson(spec);
  NewFolder folder(out);
  const std::filesystem::path& to = folder.path();
  WriteHfTensors(source, config, written, to, kernels, pool, progress);
  if (config.encoder.both_ways) WriteModules(config, to);
  WriteFileAtomically(to / (rwkv ? kRwkvVocabularyFile : "tokenizer.json"), tokenizer);
  WriteFileAtomically(to / "tokenizer_config.json",
                      TokenizerConfig(spec, *source.header, config).dump(2));
  Json generation = Json::object(), ends = Json::array();
  for (const int32_t id : {spec.eos, spec.eot}) {
    if (id >= 0) ends.push_back(id);
  }
  if (spec.bos >= 0) generation["bos_token_id"] = spec.bos;
  if (!ends.empty()) generation["eos_token_id"] = ends;
  WriteFileAtomically(to / "generation_config.json", generation.dump(2));
  if (source.header->Has("general.license")) {
    WriteFileAtomically(
        to / "README.md",
        "---\nlicense: " + std::string(source.header->GetString("general.license")) + "\n---\n");
  }
  WriteFileAtomically(to / "config.json", json.dump(2));
  folder.Commit("config.json");
}

}  // namespace bakestone
