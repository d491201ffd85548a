#include "convert/interleaved_experts.h"

#include <algorithm>
#include <memory>

#include "base/error.h"
#include "base/quote.h"
#include "convert/stored_source.h"
#include "model/mxfp4_pairs.h"
#include "tensor/dequantize.h"

namespace bakestone {
namespace {

constexpr size_t kParts = 3;  // gate, up and down

// Rows first, first + step, ... of each matrix.
struct Every {
  int64_t first, step;
};
Every RowsOfPart(size_t which) { return {which == 1 ? 1 : 0, which == 2 ? 1 : 2}; }

std::string BiasOf(const std::string& weight) {
  return weight.substr(0, weight.rfind('.')) + ".bias";
}

// Every `every` column.
ops::RowSource Columns(ops::RowSource rows, int64_t cols, Every every) {
  return [rows = std::move(rows), cols, every](int64_t row, int64_t n, float* x) {
    std::vector<float> whole(static_cast<size_t>(cols));
    for (int64_t i = 0; i < n; ++i) {
      rows(row + i, 1, whole.data());
      for (int64_t c = every.first; c < cols; c += every.step) *x++ = whole[static_cast<size_t>(c)];
    }
  };
}

class Reader {
 public:
  Reader(const ModelConfig& config, const TensorNames& gguf, const TensorNames& folder,
         const TensorSource& tensors, std::vector<std::string>& taken)
      : config_(config), gguf_(gguf), folder_(folder), tensors_(tensors), taken_(taken) {}

  SourceTensor Stack(int64_t layer, size_t which) {
    const bool down = which == 2;
    const int64_t experts = config_.router.experts, n = down ? config_.hidden_dim : config_.ffn_dim,
                  k = down ? config_.ffn_dim : config_.hidden_dim;
    const Every every = RowsOfPart(which);
    const int64_t all = every.step * n;
    const std::string name = Name(layer, which);
    SourceTensor tensor;
    if (tensors_.Find(name + "_blocks") != nullptr) {
      const StoredTensor &blocks = Take(name + "_blocks", {experts, all, k / 32, 16}, true),
                         &scales = Take(name + "_scales", {experts, all, k / 32}, true);
      tensor.type = DType::kMXFP4;
      tensor.rows = [blocks = blocks.data, scales = scales.data, n, k, all, every](
                        int64_t row, int64_t count, float* x) {
        for (int64_t i = 0; i < count; ++i) {
          const int64_t from = (row + i) / n * all + every.first + (row + i) % n * every.step;
          for (int64_t group = 0; group < k / 32; ++group, x += 32) {
            const auto at = static_cast<size_t>(from * (k / 32) + group);
            const BlockMXFP4 block = BlockOfPairs(blocks.data() + at * 16, scales[at]);
            DequantizeRow(DType::kMXFP4, &block, x, 32);
          }
        }
      };
      tensor.forget = [tensors = &tensors_, blocks = blocks.data] { tensors->Forget(blocks); };
    } else {
      tensor = SourceOf(tensors_, Take(name, {experts, k, all}, false));
      tensor.bytes = {};
      const auto turned = Turned(tensor.rows, k, all);
      tensor.rows = [turned, n, k, all, every](int64_t row, int64_t count, float* x) {
        for (int64_t i = 0; i < count; ++i) {
          turned((row + i) / n * all + every.first + (row + i) % n * every.step, 1, x + i * k);
        }
      };
    }
    tensor.ne = {k, n, experts};
    tensor.name = gguf_.Layer(layer, gguf_.stacked[which]);
    tensor.stored = {name};
    return tensor;
  }

  SourceTensor Bias(int64_t layer, size_t which) {
    const int64_t n = which == 2 ? config_.hidden_dim : config_.ffn_dim;
    const Every every = RowsOfPart(which);
    SourceTensor tensor = SourceOf(tensors_, Take(Name(layer, which) + "_bias",
                                                  {config_.router.experts, every.step * n}, false));
    tensor.rows = Columns(tensor.rows, every.step * n, every);
    tensor.bytes = {};
    tensor.type = DType::kF32;
    tensor.ne = {n, config_.router.experts};
    tensor.name = BiasOf(gguf_.Layer(layer, gguf_.stacked[which]));
    return tensor;
  }

 private:
  std::string Name(int64_t layer, size_t which) const {
    return folder_.Layer(layer,
                         which == 2 ? folder_.interleaved_down : folder_.interleaved_gate_up);
  }

  const StoredTensor& Take(const std::string& name, const std::vector<int64_t>& shape, bool bytes) {
    const StoredTensor& stored = tensors_.Tensor(name);
    const bool whole = !bytes || (config_.ffn_dim % 32 == 0 && config_.hidden_dim % 32 == 0);
    if (stored.shape != shape || !whole || bytes != (stored.type_name == "U8")) {
      Throw(ErrorCode::kCorrupt,
            "{}: tensor {}: expected {} in the shape that the config's experts have, found {} of "
            "{}",
            tensors_.name(), Quote(name), bytes ? "bytes" : "weights", stored.ShapeText(),
            stored.type_name);
    }
    taken_.push_back(name);
    return stored;
  }

  const ModelConfig& config_;
  const TensorNames &gguf_, &folder_;
  const TensorSource& tensors_;
  std::vector<std::string>& taken_;
};

const SourceTensor& Find(const ModelSource& source, const std::string& name,
                         const std::vector<int64_t>& ne) {
  const SourceTensor* tensor = source.Find(name);
  if (tensor != nullptr && tensor->ne == ne) return *tensor;
  Throw(ErrorCode::kCorrupt, "{}: tensor {}: expected it in the shape of the experts, found {}",
        source.name, Quote(name), tensor == nullptr ? "none" : "another");
}

// Rows of one and the other, element by element.
ops::RowSource Zipped(ops::RowSource first, ops::RowSource second, int64_t cols) {
  return [first = std::move(first), second = std::move(second), cols](int64_t row, int64_t n,
                                                                      float* x) {
    std::vector<float> a(static_cast<size_t>(cols)), b(a.size());
    for (int64_t i = 0; i < n; ++i) {
      first(row + i, 1, a.data());
      second(row + i, 1, b.data());
      for (size_t c = 0; c < a.size(); ++c) {
        *x++ = a[c];
        *x++ = b[c];
      }
    }
  };
}

}  // namespace

std::vector<SourceTensor> InterleavedToGguf(const ModelConfig& config, const TensorNames& gguf,
                                            const TensorNames& folder, int64_t layer,
                                            const TensorSource& tensors,
                                            std::vector<std::string>& taken) {
  Reader reader(config, gguf, folder, tensors, taken);
  std::vector<SourceTensor> made;
  for (size_t which = 0; which < kParts; ++which) {
    made.push_back(reader.Stack(layer, which));
    made.push_back(reader.Bias(layer, which));
  }
  return made;
}

std::vector<SourceTensor> InterleavedToFolder(const ModelConfig& config, const TensorNames& gguf,
                                              const TensorNames& folder, int64_t layer,
                                              const ModelSource& source) {
  const int64_t experts = config.router.experts, n = config.ffn_dim, k = config.hidden_dim;
  const auto stack = [&](size_t which) -> const SourceTensor& {
    const std::vector<int64_t> ne =
        which == 2 ? std::vector{n, k, experts} : std::vector{k, n, experts};
    return Find(source, gguf.Layer(layer, gguf.stacked[which]), ne);
  };
  const auto bias = [&](size_t which) -> const SourceTensor& {
    return Find(source, BiasOf(gguf.Layer(layer, gguf.stacked[which])),
                {which == 2 ? k : n, experts});
  };
  const auto made = [&](const char* name, const char* suffix, std::vector<int64_t> ne,
                        ops::RowSource rows) {
    return SourceTensor{.name = folder.Layer(layer, name) + suffix,
                        .type = DType::kF32,
                        .ne = std::move(ne),
                        .rows = std::move(rows)};
  };
  return {made(folder.interleaved_gate_up, "", {2 * n, k, experts},
               Zipped(Turned(stack(0).rows, n, k), Turned(stack(1).rows, n, k), n)),
          made(folder.interleaved_gate_up, "_bias", {2 * n, experts},
               Zipped(bias(0).rows, bias(1).rows, n)),
          made(folder.interleaved_down, "", {k, n, experts}, Turned(stack(2).rows, k, n)),
          made(folder.interleaved_down, "_bias", {k, experts}, bias(2).rows)};
}

}  // namespace bakestone
