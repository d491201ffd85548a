// The types that a model's matrices get while it is loaded, in place of those that they are stored
// in: chosen above (convert/load_plan.h, by the rules of `bakestone quantize`), applied by the
// loader, which encodes rows with the fast search straight into panels. Immutable; any thread.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "base/sha256.h"
#include "tensor/dtype.h"

namespace bakestone {

struct StoredTensor;

struct LoadTypes {
  // By the tensor's name in its file; the others stay as they are stored. A type's block divides
  // the tensor's rows.
  std::map<std::string, DType, std::less<>> types;

  bool empty() const { return types.empty(); }
  DType Of(const StoredTensor& tensor) const;
  // What names the weights that come of it: the source's own hash where nothing is encoded, else
  // one of that hash, the types and the encoders' version.
  Hash Identity(const Hash& source) const;
};

}  // namespace bakestone
