// Makes Weights from the tensors of one file, each taken once: what is left over belongs to a
// mechanism that the decoder does not have. Internal to weights.cc and its parts:
// weights_encoder.cc, weights_experts.cc, weights_latent.cc, weights_beside.cc and others hold what
// belongs to one mechanism.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "model/families/tensor_names.h"
#include "model/load_types.h"
#include "model/packed_file.h"
#include "model/weights.h"

namespace bakestone {

class WeightsLoader {
 public:
  WeightsLoader(const TensorSource& source, const ModelConfig& config, const KernelTable& kernels,
                ThreadPool& pool, const WeightsOptions& options);
  std::unique_ptr<Weights> All();

 private:
  // Rows of a matrix: the whole, or what one site has of several that lie together.
  struct RowsOf {
    std::string tensor;  // whole, or without ".weight"
    std::string key;     // of the packed panel
    int64_t first = 0, all = 0;
  };

  // row_map: the matrix's row i is the tensor's row_map[i], from `first` on; empty: they follow
  // each other.
  Weight Matrix(const RowsOf& rows, LinearShape shape, const std::vector<int32_t>& row_map = {});
  std::vector<float> Vector(const std::string& name, int64_t n);
  std::vector<float> Norm(const std::string& name, int64_t n);  // the effective scale
  std::vector<float> NormBias(const std::string& name);
  std::vector<float> Bias(const RowsOf& rows, int64_t n, const std::vector<int32_t>& row_map);
  LayerWeights Layer(int64_t layer);
  RowsOf RowsAt(int64_t layer, Site site) const;  // where the rows of a site lie
  const StoredTensor& Take(const std::string& name);
  bool Has(const std::string& name) const { return source_.Find(name) != nullptr; }
  // Rows of a matrix as they are stored, or were made of what is stored.
  struct Rows {
    std::string_view tensor;  // for messages
    DType type;
    std::span<const uint8_t> data;
    bool mapped = false;  // lets go of their pages as they are packed
  };
  // In memory, of a tensor in rows of k.
  DType TypeOf(const StoredTensor& tensor, int64_t k) const {
    const DType type = types_ != nullptr ? types_->Of(tensor) : tensor.type;
    return k % BlockSize(type) == 0 ? type : tensor.type;
  }
  // From the packed file where it lies, or copied out of it where only small pages would map it
  // (they halve the bandwidth); else packed, and encoded where the key's type is another than that
  // of the rows.
  void FillPanel(Weight& weight, const Rows& rows, const PackedKey& key);
  void MakePanel(const Rows& rows, const PackedKey& key, uint8_t* panel);
  static std::vector<int32_t> FileRows(
      int64_t n, int64_t head_dim);  // the file row of each row in Hugging Face order
  // Last: a tensor that nothing took belongs to a mechanism that the decoder does not have.
  void CheckAllTaken();
  bool InIgnoredLayer(std::string_view name) const;

  // ---- weights_encoder.cc ----
  void AddEmbeddingParts();  // positions and the like, and their norm
  void AddPooledParts();     // what takes pooled rows

  // ---- weights_experts.cc ----
  void AddExperts(int64_t layer, LayerWeights& weights);
  // Where an expert's matrix lies: in a stack of all experts', or by itself.
  RowsOf RowsOfExpert(int64_t layer, int64_t expert, Site site) const;

  // ---- weights_interleaved.cc ----
  // One site of an expert whose gate and up lie row by row (TensorNames::interleaved_gate_up).
  Weight InterleavedExpert(int64_t layer, int64_t expert, Site site);
  void AddExpertBiases(int64_t layer, std::vector<ExpertWeights>& experts);

  // ---- weights_state.cc ----
  void AddConvolution(int64_t layer, LayerWeights& weights);
  void AddDelta(int64_t layer, LayerWeights& weights);
  void AddGatedQueries(int64_t layer,
                       LayerWeights& weights);  // a head's rows: its queries, then its gate
  std::vector<float> Taps(const std::string& name, int64_t channels);

  // ---- weights_rwkv.cc ----
  void AddRwkv(int64_t layer, LayerWeights& weights);
  std::vector<float> Flat(const std::string& name, int64_t n);  // n numbers of any shape
  static constexpr int64_t kMaxNarrow = 8192;

  // ---- weights_beside.cc ----
  void AddBeside(int64_t layer, LayerWeights& weights);
  void AddPerLayerTables();
  void AddPerLayer(int64_t layer, LayerWeights& weights);
  void IgnoreKeysAndValues(int64_t layer);  // that the file has for a layer which reads another's

  // ---- weights_latent.cc ----
  void AddLatent(int64_t layer, LayerWeights& weights);
  Weight TransposedKeys(const std::string& name);
  // File rows of `heads` heads, [nope | rotated] there, as memory has them.
  std::vector<int32_t> RotatedFirst(int64_t heads, int64_t nope) const;

  const TensorSource& source_;
  const ModelConfig& config_;
  const TensorNames& names_;
  const KernelTable& kernels_;
  ThreadPool& pool_;
  const std::shared_ptr<const PackedFile> packed_;
  const LoadTypes* types_;
  std::vector<PackedPanel>* made_;
  std::unique_ptr<Weights> weights_ = std::make_unique<Weights>();
  std::unordered_set<std::string_view> taken_;
};

}  // namespace bakestone
