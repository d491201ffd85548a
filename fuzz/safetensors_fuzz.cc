// safetensors files. A reader may refuse with bakestone::Error and nothing else; what it accepts
// covers the data exactly, and survives being written and read again.
#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/error.h"
#include "format/safetensors.h"

namespace {

using namespace bakestone;

void CheckAndCopy(const SafetensorsFile& file) {
  SafetensorsWriter writer;
  bool plain = true;  // the writer takes only types that we compute with
  for (const SafetensorsTensor& tensor : file.tensors()) {
    BAKESTONE_CHECK(file.Find(tensor.name) == &tensor);
    BAKESTONE_CHECK(tensor.elements() >= 0);
    plain &= tensor.type.has_value();
    if (plain) writer.AddTensor(tensor.name, *tensor.type, tensor.shape, tensor.data);
  }
  if (!plain) return;
  for (const auto& [key, value] : file.metadata()) writer.AddMetadata(key, value);
  const std::string bytes = writer.Serialize();
  const auto copy = SafetensorsFile::Parse(
      {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, "copy");
  BAKESTONE_CHECK(copy.tensors().size() == file.tensors().size());
  BAKESTONE_CHECK(std::ranges::equal(copy.metadata(), file.metadata()));
  for (const SafetensorsTensor& tensor : file.tensors()) {
    const SafetensorsTensor* other = copy.Find(tensor.name);
    BAKESTONE_CHECK(other != nullptr && other->shape == tensor.shape &&
                    std::ranges::equal(other->data, tensor.data));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::optional<SafetensorsFile> file;
  try {
    file = SafetensorsFile::Parse({data, size}, "input.safetensors");
  } catch (const Error&) {
    return 0;
  }
  CheckAndCopy(*file);
  return 0;
}
