// A model's settings, whichever format holds them: GGUF's metadata or config.json of a Hugging Face
// folder (as transformers 4 or 5 writes it). Every value is bounded; errors are kCorrupt or
// kUnsupported and name the file, the field as it is spelled there, expected and found. Immutable;
// any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "model/config.h"

namespace bakestone {

// Far above any model that exists, far below where a product of two could wrap.
inline constexpr int64_t kMaxLayers = 1024;
inline constexpr int64_t kMaxHeads = 4096;
inline constexpr int64_t kMaxHeadDim = 512;  // of the attention kernels
inline constexpr int64_t kMaxWidth = int64_t{1} << 20;
inline constexpr int64_t kMaxExperts = 4096;
inline constexpr int64_t kMaxContext = int64_t{1} << 30;

// The two spellings of a setting; null where a format does not have it. GGUF's is without the
// architecture ("attention.head_count").
struct Field {
  const char* gguf;
  const char* hf;
};

// This class itself has no field: what a family is when a file says nothing.
class ConfigReader {
 public:
  virtual ~ConfigReader() = default;

  virtual std::string file() const { return "defaults"; }  // for messages
  virtual std::string Spelled(const Field& field) const;   // the same
  virtual std::optional<double> Number(const Field&) const { return std::nullopt; }
  virtual std::optional<bool> Flag(const Field&) const { return std::nullopt; }
  virtual std::optional<std::string> Text(const Field&) const { return std::nullopt; }
  // Lists; empty where absent.
  virtual std::vector<double> Numbers(const Field&) const { return {}; }
  virtual std::vector<std::string> Texts(const Field&) const { return {}; }
  // What config.json says of one layer only ("per_layer_config"), by name.
  virtual std::vector<std::pair<std::string, double>> OfLayer(int64_t) const { return {}; }
  virtual bool HasLayerConfig() const { return false; }
  // The main table and, where the model has one, that of local layers.
  virtual void ReadRope(ModelConfig&) const {}
  // The text of another of a folder's files; empty where there is none.
  virtual std::string File(const char*) const { return {}; }
  // What sentence-transformers puts behind the model, in order: "Pooling", "Dense", and the folder
  // of each.
  struct Module {
    std::string type, path;
  };
  virtual std::vector<Module> Modules() const { return {}; }
  // The names of a classifier's labels; empty where they have none.
  virtual std::vector<std::string> Labels() const { return {}; }
  // Tensors.
  virtual int64_t VocabularyRows(const char*) const {
    return 1;
  }  // of a matrix by its name, that of the embedding
  virtual bool HasHead() const { return true; }
  virtual bool HasTensor(const std::string&) const {
    return false;
  }  // by its whole name in the format
  // True for config.json.
  virtual bool is_hf() const { return false; }

  // An integer from 1 to max; absent: the fallback, or an error where there is none.
  int64_t Size(const Field& field, int64_t max,
               std::optional<int64_t> fallback = std::nullopt) const;
  double Positive(const Field& field, double fallback) const;
  // A constant of the decoder: the field must be absent or near it.
  void Expect(const Field& field, double constant) const;
  // A mechanism that the decoder does not have: its field must be absent, 0 or false.
  void Refuse(const Field& field, const char* what) const;
};

// By layer, whether it has a window: config.json's layer_types or GGUF's list where they are, else
// all but every period-th layer (0: all); a period of the file's own goes before the family's.
std::vector<bool> LocalLayers(const ConfigReader& in, const ModelConfig& config, int64_t period);
// Gives those layers the window; those that have it, by what LocalLayers says.
void SetWindows(ModelConfig& config, int64_t window, const std::vector<bool>& local);

// Heads of attention over a latent (families/deepseek.cc).
void ReadLatent(const ConfigReader& in, ModelConfig& config);

// The experts of the layers, where the settings have any, and the width of one. What neither format
// says is as the config has it before.
void ReadRouter(const ConfigReader& in, ModelConfig& config);

// Everything that all families share; then the family's own. Throws as ReadConfig does.
struct Family;
ModelConfig ReadWith(const ConfigReader& in, const Family& family);

// ---- Rotary scaling: fills frequency_factors and magnitude from theta and dim ----

struct Llama3Scaling {
  double factor, low_frequency = 1, high_frequency = 4;
  double original_context = 8192;
};
void ScaleAsLlama3(const Llama3Scaling& scaling, RopeConfig& rope);

struct YarnScaling {
  double factor, original_context;
  double beta_fast = 32, beta_slow = 1;
  std::optional<double> magnitude;  // absent: 0.1 ln(factor) + 1
  bool truncate = true;
};
void ScaleAsYarn(const YarnScaling& scaling, RopeConfig& rope);

}  // namespace bakestone
