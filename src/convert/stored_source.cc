#include "convert/stored_source.h"

#include "base/error.h"
#include "base/quote.h"
#include "kernels/pack.h"

namespace bakestone {

SourceTensor SourceOf(const TensorSource& tensors, const StoredTensor& stored) {
  if (!stored.has_type || !PanelTypeOf(stored.type) || stored.shape.empty() ||
      stored.shape.size() > 4) {
    Throw(ErrorCode::kUnsupported,
          "{}: tensor {}: expected 1 to 4 dimensions of F32, F16 or BF16, found {} {}",
          tensors.name(), Quote(stored.name), stored.type_name, stored.ShapeText());
  }
  SourceTensor tensor;
  tensor.name = std::string(stored.name);
  tensor.stored = {tensor.name};
  tensor.type = stored.type;
  tensor.ne.assign(stored.shape.rbegin(), stored.shape.rend());
  tensor.rows = ops::RowsOf(stored.type, stored.data.data(), stored.cols());
  tensor.bytes = stored.data;
  tensor.forget = [&tensors, data = stored.data] { tensors.Forget(data); };
  return tensor;
}

DecodedMatrices::DecodedMatrices(ops::RowSource rows, int64_t n, int64_t k)
    : rows_(std::move(rows)), n_(n), k_(k) {}

std::shared_ptr<const std::vector<float>> DecodedMatrices::Matrix(int64_t index) {
  const std::lock_guard lock(mutex_);
  Entry& entry = kept_[static_cast<size_t>(index % 2)];
  if (entry.index != index) {
    auto matrix = std::make_shared<std::vector<float>>(static_cast<size_t>(n_ * k_));
    rows_(index * n_, n_, matrix->data());
    entry = {index, std::move(matrix)};
  }
  return entry.matrix;
}

ops::RowSource Turned(ops::RowSource rows, int64_t n, int64_t k) {
  return [matrices = std::make_shared<DecodedMatrices>(std::move(rows), n, k), n, k](
             int64_t row, int64_t count, float* x) {
    for (int64_t i = 0; i < count; ++i, x += n) {
      const auto matrix = matrices->Matrix((row + i) / k);
      const float* column = matrix->data() + (row + i) % k;
      for (int64_t c = 0; c < n; ++c) x[c] = column[c * k];
    }
  };
}

}  // namespace bakestone
