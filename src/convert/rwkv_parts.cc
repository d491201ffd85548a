#include "convert/rwkv_parts.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/error.h"
#include "base/quote.h"
#include "convert/stored_source.h"

namespace bakestone {
namespace {

constexpr auto kNumShares = static_cast<int64_t>(std::tuple_size_v<decltype(RwkvNames::share)>);

void ExpectRows(const SourceTensor& tensor, int64_t rows, int64_t cols) {
  if (tensor.cols() == cols && tensor.num_rows() == rows) return;
  Throw(ErrorCode::kCorrupt, "tensor {}: expected {} rows of {} weights, found {} of {}",
        Quote(tensor.name), rows, cols, tensor.num_rows(), tensor.cols());
}

// All of a layer, F32 as vectors are in GGUF.
SourceTensor SharesToGguf(const RwkvLayer& at, const TensorSource& tensors,
                          std::vector<std::string>& taken) {
  const RwkvNames &gguf = *at.gguf.rwkv, &folder = *at.folder.rwkv;
  const int64_t hidden = at.config.hidden_dim;
  const auto find = [&](const char* name) {
    taken.push_back(at.folder.Layer(at.layer, name));
    return SourceOf(tensors, tensors.Tensor(taken.back()));
  };
  SourceTensor shares;
  if (tensors.Find(at.folder.Layer(at.layer, folder.shares)) != nullptr) {
    shares = find(folder.shares);
    ExpectRows(shares, kNumShares, hidden);
  } else {
    std::vector<ops::RowSource> parts;
    for (const char* name : folder.share) {
      const SourceTensor part = find(name);
      ExpectRows(part, 1, hidden);
      parts.push_back(part.rows);
    }
    shares.rows = [parts = std::move(parts), hidden](int64_t row, int64_t n, float* x) {
      for (int64_t i = 0; i < n; ++i) parts[static_cast<size_t>(row + i)](0, 1, x + i * hidden);
    };
  }
  shares.name = at.gguf.Layer(at.layer, gguf.shares);
  shares.ne = {hidden, 1, 1, kNumShares};
  shares.type = DType::kF32;
  shares.bytes = {};
  return shares;
}

using RwkvName = const char* RwkvNames::*;
constexpr std::pair<RwkvName, RwkvName> kUnread[] = {
    {&RwkvNames::rate_in, &RwkvNames::value_in},
    {&RwkvNames::rate_out, &RwkvNames::value_out},
    {&RwkvNames::rate_bias, &RwkvNames::value_bias}};

}  // namespace

std::vector<SourceTensor> RwkvPartsToGguf(const RwkvLayer& at, const TensorSource& tensors,
                                          std::vector<std::string>& taken) {
  const RwkvNames &gguf = *at.gguf.rwkv, &folder = *at.folder.rwkv;
  std::vector<SourceTensor> made = {SharesToGguf(at, tensors, taken)};
  if (at.layer > 0) return made;
  for (const auto& [rate, value] : kUnread) {  // those of the rate, which have a shape that fits
    const bool bias = folder.*rate == nullptr;
    const std::string stem = at.folder.Layer(0, bias ? folder.rate_out : folder.*rate),
                      suffix = bias ? ".bias" : ".weight";
    SourceTensor copy = SourceOf(tensors, tensors.Tensor(stem + suffix));
    copy.name = at.gguf.Layer(0, gguf.*value) + ".weight";
    if (bias && copy.type != DType::kF32) {
      copy.type = DType::kF32;
      copy.bytes = {};
    }
    made.push_back(std::move(copy));
    taken.push_back(at.folder.Layer(0, bias ? folder.value_out : folder.*value) + suffix);
  }
  return made;
}

std::vector<SourceTensor> RwkvPartsToFolder(const RwkvLayer& at, const ModelSource& source) {
  const int64_t hidden = at.config.hidden_dim;
  std::vector<SourceTensor> made;
  const SourceTensor* shares = source.Find(at.gguf.Layer(at.layer, at.gguf.rwkv->shares));
  if (shares == nullptr) return made;
  ExpectRows(*shares, kNumShares, hidden);
  for (int64_t i = 0; i < kNumShares; ++i) {
    SourceTensor part = *shares;
    part.name = at.folder.Layer(at.layer, at.folder.rwkv->share[static_cast<size_t>(i)]);
    part.ne = {hidden, 1, 1};
    part.bytes = {};
    part.rows = [rows = shares->rows, i](int64_t row, int64_t n, float* x) { rows(i + row, n, x); };
    made.push_back(std::move(part));
  }
  return made;
}

std::vector<std::string> RwkvPartsOfGguf(const RwkvLayer& at) {
  const RwkvNames& names = *at.gguf.rwkv;
  std::vector<std::string> parts = {at.gguf.Layer(at.layer, names.shares)};
  if (at.layer > 0) return parts;
  for (const auto& [rate, value] : kUnread) {
    parts.push_back(at.gguf.Layer(0, names.*value) + ".weight");
  }
  return parts;
}

std::vector<RwkvRank> RwkvRanks(const RwkvLayer& first, const ModelSource& source) {
  const RwkvNames& names = *first.gguf.rwkv;
  const auto rank = [&](int64_t layer, const char* name) {
    const SourceTensor* tensor = source.Find(first.gguf.Layer(layer, name) + ".weight");
    return tensor != nullptr ? tensor->num_rows() : 0;
  };
  const int64_t last = first.config.num_layers - 1;  // the first layer's is never read
  return {{"attention.decay_lora_rank", "decay_low_rank_dim", rank(0, names.decay_in)},
          {"attention.iclr_lora_rank", "a_low_rank_dim", rank(0, names.rate_in)},
          {"attention.value_residual_mix_lora_rank", "v_low_rank_dim", rank(last, names.value_in)},
          {"attention.gate_lora_rank", "gate_low_rank_dim", rank(0, names.gate_in)}};
}

}  // namespace bakestone
