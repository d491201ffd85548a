// Experts as gpt-oss has them in Hugging Face folders: row 2 i of gate_up is gate's row i, row 2 i
// + 1 is up's.
//
//   gate_up_proj_blocks u8 [experts, 2 n, k / 32, 16], _scales u8 [experts, 2 n, k / 32]: MXFP4,
//     the codes of weights 2 j and 2 j + 1 in byte j, the lower first; down_proj_* alike
//   or gate_up_proj [experts, k, 2 n], down_proj [experts, n, k] of f32 or halves: transposed
//   gate_up_proj_bias [experts, 2 n], down_proj_bias [experts, k]
//
// GGUF has them apart and MXFP4 in blocks of its own (tensor/blocks.h), with biases [experts, n].
#include <cstring>

#include "base/error.h"
#include "base/quote.h"
#include "kernels/pack.h"
#include "model/mxfp4_pairs.h"
#include "model/weights_loader.h"
#include "tensor/dequantize.h"

namespace bakestone {
namespace {

// Of the rows of one expert, as the file has them.
struct Every {
  int64_t first, step;
};

Every StepOf(Site site) { return {site == Site::kUp ? 1 : 0, site == Site::kDown ? 1 : 2}; }

}  // namespace

Weight WeightsLoader::InterleavedExpert(int64_t layer, int64_t expert, Site site) {
  const bool down = site == Site::kDown;
  const int64_t n = down ? config_.hidden_dim : config_.ffn_dim,
                k = down ? config_.ffn_dim : config_.hidden_dim;
  const std::string name =
      names_.Layer(layer, down ? names_.interleaved_down : names_.interleaved_gate_up);
  const Every rows = StepOf(site);
  const int64_t experts = config_.router.experts, all = rows.step * n;
  const auto expect = [&](const StoredTensor& tensor, const std::vector<int64_t>& shape,
                          bool type) {
    if (tensor.shape == shape && type) return;
    Throw(ErrorCode::kCorrupt,
          "{}: tensor {}: expected {} of {} experts with {} rows of {}, found {} of {}",
          source_.name(), Quote(tensor.name), tensor.name.ends_with("s") ? "bytes" : "weights",
          experts, all, k, tensor.ShapeText(), tensor.type_name);
  };
  Weight weight;
  std::vector<uint8_t> bytes;
  const auto fill = [&](DType stored, DType to) {
    FillPanel(weight, {name, stored, bytes},
              {name + "#" + std::to_string(expert) + (site == Site::kUp ? "u" : ""),
               *PanelTypeOf(to),
               n,
               k,
               {}});
  };
  if (Has(name + "_blocks")) {
    const StoredTensor &blocks = Take(name + "_blocks"), &scales = Take(name + "_scales");
    const int64_t groups = k / 32;
    expect(blocks, {experts, all, groups, 16}, blocks.type_name == "U8" && k % 32 == 0);
    expect(scales, {experts, all, groups}, scales.type_name == "U8");
    bytes.resize(static_cast<size_t>(n * groups) * sizeof(BlockMXFP4));
    for (int64_t at = 0; at < n * groups; ++at) {
      const int64_t row = expert * all + rows.first + rows.step * (at / groups),
                    from = row * groups + at % groups;
      const BlockMXFP4 block =
          BlockOfPairs(blocks.data.data() + from * 16, scales.data[static_cast<size_t>(from)]);
      std::memcpy(bytes.data() + static_cast<size_t>(at) * sizeof(block), &block, sizeof(block));
    }
    fill(DType::kMXFP4, DType::kMXFP4);
    return weight;
  }
  const StoredTensor& tensor = Take(name);
  expect(tensor, {experts, k, all},
         tensor.has_type && BlockSize(tensor.type) == 1 && PanelTypeOf(tensor.type).has_value());
  const auto size = static_cast<size_t>(BlockBytes(tensor.type));
  bytes.resize(static_cast<size_t>(n * k) * size);
  for (int64_t row = 0; row < n; ++row) {
    for (int64_t i = 0; i < k; ++i) {
      const int64_t from = (expert * k + i) * all + rows.first + rows.step * row;
      std::memcpy(bytes.data() + static_cast<size_t>(row * k + i) * size,
                  tensor.data.data() + static_cast<size_t>(from) * size, size);
    }
  }
  fill(tensor.type, TypeOf(tensor, k));
  return weight;
}

void WeightsLoader::AddExpertBiases(int64_t layer, std::vector<ExpertWeights>& experts) {
  const bool interleaved = names_.interleaved_gate_up != nullptr;
  for (const Site site : {Site::kGate, Site::kUp, Site::kDown}) {
    const int64_t n = site == Site::kDown ? config_.hidden_dim : config_.ffn_dim;
    const char* stacked =
        names_.stacked[static_cast<size_t>(site) - static_cast<size_t>(Site::kGate)];
    std::string name =
        names_.Layer(layer, interleaved ? site == Site::kDown ? names_.interleaved_down
                                                              : names_.interleaved_gate_up
                                        : stacked);
    name = interleaved ? name + "_bias" : name.substr(0, name.rfind('.')) + ".bias";
    const Every rows = interleaved ? StepOf(site) : Every{0, 1};
    const StoredTensor& tensor = Take(name);
    const auto count = static_cast<int64_t>(experts.size());
    if (tensor.shape != std::vector<int64_t>{count, rows.step * n} || !tensor.has_type ||
        BlockSize(tensor.type) != 1) {
      Throw(ErrorCode::kCorrupt,
            "{}: tensor {}: expected {} numbers for each of {} experts, found {} of {}",
            source_.name(), Quote(name), rows.step * n, count, tensor.ShapeText(),
            tensor.type_name);
    }
    std::vector<float> all(static_cast<size_t>(count * rows.step * n));
    DequantizeRow(tensor.type, tensor.data.data(), all.data(), static_cast<int64_t>(all.size()));
    for (int64_t expert = 0; expert < count; ++expert) {
      ExpertWeights& own = experts[static_cast<size_t>(expert)];
      std::vector<float>& bias = (site == Site::kGate ? own.gate
                                  : site == Site::kUp ? own.up
                                                      : own.down)
                                     .bias_;
      for (int64_t i = 0; i < n; ++i) {
        bias.push_back(all[static_cast<size_t>((expert * n + i) * rows.step + rows.first)]);
      }
    }
  }
}

}  // namespace bakestone
