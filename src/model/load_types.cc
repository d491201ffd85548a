#include "model/load_types.h"

#include <fmt/format.h>

#include "kernels/kernel_table.h"
#include "model/tensor_source.h"

namespace bakestone {

DType LoadTypes::Of(const StoredTensor& tensor) const {
  const auto found = types.find(tensor.name);
  return found == types.end() ? tensor.type : found->second;
}

Hash LoadTypes::Identity(const Hash& source) const {
  if (empty()) return source;
  Sha256 all;
  all.Update(fmt::format("{} quantized by {}\n", ToHex(source), kFastEncodeVersion));
  for (const auto& [name, type] : types) {
    all.Update(fmt::format("{} {}\n", DTypeName(type), name));
  }
  return all.Finish();
}

}  // namespace bakestone
