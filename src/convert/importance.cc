#include "convert/importance.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/quote.h"
#include "format/gguf.h"
#include "format/gguf_writer.h"
#include "tensor/dequantize.h"

namespace bakestone {
namespace {

constexpr std::string_view kSums = ".in_sum2", kCounts = ".counts";

std::vector<double> Values(const GgufFile& file, const GgufTensor& tensor) {
  if (tensor.type != DType::kF32) {
    Throw(ErrorCode::kUnsupported, "{}: tensor {}: expected F32, found {}", file.name(),
          Quote(tensor.name), DTypeName(tensor.type));
  }
  std::vector<float> values(static_cast<size_t>(tensor.elements()));
  DequantizeRow(tensor.type, tensor.data.data(), values.data(), tensor.elements());
  for (const float value : values) {
    if (std::isfinite(value) && value >= 0) continue;
    Throw(ErrorCode::kCorrupt, "{}: tensor {}: expected numbers of 0 or more, found {}",
          file.name(), Quote(tensor.name), value);
  }
  return {values.begin(), values.end()};
}

ImportanceEntry ReadEntry(const GgufFile& file, const GgufTensor& sums, std::string_view name) {
  const GgufTensor& counts = file.Tensor(std::string(name) + std::string(kCounts));
  if (counts.elements() != sums.rows()) {
    Throw(ErrorCode::kCorrupt,
          "{}: tensor {}: expected {} numbers, one for each row of {}, found {}", file.name(),
          Quote(counts.name), sums.rows(), Quote(sums.name), counts.elements());
  }
  return {Values(file, sums), Values(file, counts)};
}

// Columns that no input ever reached still count a little: their weights must not become arbitrary.
constexpr float kLeast = 1e-4f;

}  // namespace

ImportanceMatrix ImportanceMatrix::Read(const std::filesystem::path& path) {
  const GgufFile file = GgufFile::Open(path);
  const std::string_view type = file.GetString("general.type", "model");
  if (type != "imatrix") {
    Throw(ErrorCode::kUnsupported, "{}: general.type: expected 'imatrix', found {}", file.name(),
          Quote(type));
  }
  ImportanceMatrix matrix;
  if (file.Has("imatrix.datasets")) {
    for (const std::string_view name : file.GetStrings("imatrix.datasets")) {
      matrix.datasets.emplace_back(name);
    }
  }
  matrix.num_chunks = file.GetU32("imatrix.chunk_count", 0);
  matrix.chunk_size = file.GetU32("imatrix.chunk_size", 0);
  for (const GgufTensor& tensor : file.tensors()) {
    if (!tensor.name.ends_with(kSums)) continue;
    const std::string_view name = tensor.name.substr(0, tensor.name.size() - kSums.size());
    matrix.entries.emplace(name, ReadEntry(file, tensor, name));
  }
  if (matrix.entries.empty()) {
    Throw(ErrorCode::kCorrupt, "{}: expected tensors that end in {}, found none", file.name(),
          kSums);
  }
  return matrix;
}

void ImportanceMatrix::Write(const std::filesystem::path& path) const {
  GgufWriter writer;
  writer.AddString("general.type", "imatrix");
  writer.AddStrings("imatrix.datasets", std::span<const std::string>(datasets));
  writer.AddU32("imatrix.chunk_count", num_chunks);
  writer.AddU32("imatrix.chunk_size", chunk_size);
  std::vector<float> current;
  const auto source = [&current](const std::vector<double>& values) {
    return [&current, &values] {
      current.assign(values.begin(), values.end());
      return std::span(reinterpret_cast<const uint8_t*>(current.data()),
                       current.size() * sizeof(float));
    };
  };
  for (const auto& [name, entry] : entries) {
    const auto matrices = static_cast<int64_t>(entry.counts.size());
    const int64_t sums[] = {static_cast<int64_t>(entry.sums.size()) / matrices, matrices},
                  counts[] = {1, matrices};
    writer.AddTensor(name + std::string(kSums), DType::kF32, sums, source(entry.sums));
    writer.AddTensor(name + std::string(kCounts), DType::kF32, counts, source(entry.counts));
  }
  writer.Write(path);
}

ImportanceWeights::ImportanceWeights(const ImportanceMatrix& matrix, const ModelSource& source) {
  for (const SourceTensor& tensor : source.tensors) {
    const auto found = matrix.entries.find(tensor.name);
    if (found == matrix.entries.end() || !IsQuantizable(tensor)) continue;
    const ImportanceEntry& entry = found->second;
    const size_t matrices = entry.counts.size(), cols = static_cast<size_t>(tensor.cols());
    const int64_t stacked = tensor.ne.size() > 2 ? tensor.ne[2] : 1;
    if (entry.sums.size() != matrices * cols || static_cast<int64_t>(matrices) != stacked) {
      Throw(ErrorCode::kInvalidArgument,
            "importance matrix: {}: expected {} columns of {} matrices, as {} has, found {} "
            "numbers of {}: it is of "
            "another model",
            Quote(tensor.name), cols, stacked, source.name, entry.sums.size(), matrices);
    }
    std::vector<float>& weights = weights_[tensor.name];
    weights.assign(matrices * cols, 1.0f);
    std::vector<float>& scales = scales_[tensor.name];
    scales.assign(matrices, 0.0f);
    const double tokens = *std::max_element(entry.counts.begin(), entry.counts.end());
    for (size_t m = 0; m < matrices; ++m) {
      ++num_matrices_;
      double total = 0;
      for (size_t c = 0; c < cols; ++c) total += entry.sums[m * cols + c];
      if (entry.counts[m] <= 0 || total <= 0) {
        ++num_unreached_;
        continue;
      }
      scales[m] = static_cast<float>(total / tokens / static_cast<double>(cols));
      for (size_t c = 0; c < cols; ++c) {
        const double share = entry.sums[m * cols + c] / total * static_cast<double>(cols);
        weights[m * cols + c] = std::max(kLeast, static_cast<float>(share));
      }
    }
  }
  if (weights_.empty()) {
    Throw(ErrorCode::kInvalidArgument,
          "importance matrix: expected matrices of {}, found none: it is of another model",
          source.name);
  }
}

std::span<const float> ImportanceWeights::Of(const SourceTensor& tensor) const {
  const auto found = weights_.find(tensor.name);
  return found == weights_.end() ? std::span<const float>() : std::span<const float>(found->second);
}

std::span<const float> ImportanceWeights::ScalesOf(const SourceTensor& tensor) const {
  const auto found = scales_.find(tensor.name);
  return found == scales_.end() ? std::span<const float>() : std::span<const float>(found->second);
}

std::vector<MetadataNote> ImportanceWeights::Notes(const ImportanceMatrix& matrix,
                                                   const std::string& file) const {
  std::string datasets;
  for (const std::string& name : matrix.datasets) datasets += (datasets.empty() ? "" : ", ") + name;
  return {{"quantize.imatrix.file", file},
          {"quantize.imatrix.dataset", datasets},
          {"quantize.imatrix.entries_count", static_cast<int32_t>(weights_.size())},
          {"quantize.imatrix.chunks_count", static_cast<int32_t>(matrix.num_chunks)}};
}

ImportanceSource ImportanceWeights::AsSource() const {
  return [this](const SourceTensor& tensor) { return Of(tensor); };
}

}  // namespace bakestone
