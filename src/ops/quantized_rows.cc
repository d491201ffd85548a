#include "ops/quantized_rows.h"

#include <algorithm>

#include "base/error.h"

namespace bakestone::ops {
namespace {

void CheckTypes(std::span<const ActType> types, int64_t k) {
  for (const ActType type : types) {
    const int64_t multiple = type == ActType::kInt8x32 ? 32 : type == ActType::kInt8x128 ? 256 : 1;
    BAKESTONE_CHECK(k > 0 && k % multiple == 0);
  }
}

}  // namespace

void QuantizedRows::Reset(std::span<const ActType> types, int64_t rows, int64_t k) {
  CheckTypes(types, k);
  rows_ = rows;
  k_ = k;
  std::fill(std::begin(present_), std::end(present_), false);
  for (const ActType type : types) {
    const int index = static_cast<int>(type);
    present_[index] = true;
    const int64_t stride = (k + 63) / 64 * 64;
    const bool integer = type == ActType::kInt8x32 || type == ActType::kInt8x128;
    const int64_t values = rows * stride * (integer ? 1 : 4);
    const int64_t groups = rows * (k / (type == ActType::kInt8x32 ? 32 : 128));
    const int64_t sums = rows * (k / (type == ActType::kInt8x32 ? 32 : 16));
    const int64_t bytes = values + (integer ? 2 * groups * 4 + sums * 2 : 0);
    if (storage_[index].size() < bytes) storage_[index] = Buffer<uint8_t>(bytes);
    uint8_t* data = storage_[index].data();
    Activations& form = forms_[index];
    form = {type, rows, k, stride, nullptr, nullptr, nullptr, nullptr, nullptr};
    if (!integer) {
      form.f = reinterpret_cast<float*>(data);
      continue;
    }
    form.q = reinterpret_cast<int8_t*>(data);
    form.scale = reinterpret_cast<float*>(data + values);
    form.scaled_sum = form.scale + groups;
    form.sum = reinterpret_cast<int16_t*>(form.scaled_sum + groups);
  }
}

const Activations& QuantizedRows::form(ActType type) const {
  BAKESTONE_CHECK(has(type));
  return forms_[static_cast<int>(type)];
}

Activations QuantizedRows::form(ActType type, int64_t begin, int64_t count) const {
  return RowsOf(form(type), begin, count);
}

Activations RowsOf(const Activations& x, int64_t begin, int64_t count) {
  BAKESTONE_CHECK(begin >= 0 && count >= 0 && begin + count <= x.rows);
  Activations out = x;
  out.rows = count;
  if (out.f != nullptr) {
    out.f += begin * out.stride;
    return out;
  }
  const bool by_32 = x.type == ActType::kInt8x32;
  out.q += begin * out.stride;
  out.scale += begin * (x.k / (by_32 ? 32 : 128));
  out.scaled_sum += begin * (x.k / (by_32 ? 32 : 128));
  out.sum += begin * (x.k / (by_32 ? 32 : 16));
  return out;
}

}  // namespace bakestone::ops
