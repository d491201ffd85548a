// safetensors.cc opens with the grammar of the file.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/checked.h"
#include "base/error.h"
#include "base/file.h"
#include "base/quote.h"
#include "format/safetensors.h"

namespace bakestone {
namespace {

std::string JsonString(std::string_view text) {
  try {
    return nlohmann::json(text).dump();
  } catch (const nlohmann::json::exception&) {
    Throw(ErrorCode::kInvalidArgument, "safetensors: expected UTF-8, found {}", Quote(text));
  }
}

}  // namespace

void SafetensorsWriter::AddMetadata(std::string_view key, std::string_view value) {
  for (const auto& item : metadata_) {
    if (item.first == key) {
      Throw(ErrorCode::kInvalidArgument, "safetensors metadata {}: expected once, found again",
            Quote(key));
    }
  }
  metadata_.emplace_back(key, value);
}

void SafetensorsWriter::AddTensor(std::string_view name, DType type, std::span<const int64_t> shape,
                                  std::span<const uint8_t> data) {
  if (BlockSize(type) != 1) {
    Throw(ErrorCode::kInvalidArgument, "safetensors tensor {}: expected a plain type, found {}",
          Quote(name), DTypeName(type));
  }
  if (name == "__metadata__") {
    Throw(ErrorCode::kInvalidArgument, "safetensors tensor {}: the name is reserved", Quote(name));
  }
  std::optional<int64_t> size = BlockBytes(type);
  for (const int64_t n : shape) {
    if (size) size = n < 0 ? std::nullopt : CheckedMul(*size, n);
  }
  if (!size || data.size() != static_cast<size_t>(*size)) {
    Throw(ErrorCode::kInvalidArgument,
          "safetensors tensor {}: expected {} bytes ({}, its shape), found {}", Quote(name),
          size ? std::to_string(*size) : "a valid number of", DTypeName(type), data.size());
  }
  tensors_.push_back({std::string(name), type, {shape.begin(), shape.end()}, data});
}

std::vector<const SafetensorsWriter::Tensor*> SafetensorsWriter::Order() const {
  std::vector<const Tensor*> order;
  for (const Tensor& tensor : tensors_) order.push_back(&tensor);
  std::sort(order.begin(), order.end(),
            [](const Tensor* a, const Tensor* b) { return a->name < b->name; });
  for (size_t i = 1; i < order.size(); ++i) {
    if (order[i]->name == order[i - 1]->name) {
      Throw(ErrorCode::kInvalidArgument, "safetensors tensor {}: expected once, found again",
            Quote(order[i]->name));
    }
  }
  std::stable_sort(order.begin(), order.end(), [](const Tensor* a, const Tensor* b) {
    return BlockBytes(a->type) > BlockBytes(b->type);
  });
  return order;
}

std::string SafetensorsWriter::Header(const std::vector<const Tensor*>& order) const {
  std::string json = "{";
  if (!metadata_.empty()) {
    json += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata_) {
      if (json.back() != '{') json += ',';
      json += JsonString(key) + ":" + JsonString(value);
    }
    json += '}';
  }
  size_t offset = 0;
  for (const Tensor* tensor : order) {
    if (json.size() > 1) json += ',';
    json += fmt::format("{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                        JsonString(tensor->name), DTypeName(tensor->type),
                        fmt::join(tensor->shape, ","), offset, offset + tensor->data.size());
    offset += tensor->data.size();
  }
  json += '}';
  json.resize((json.size() + 7) / 8 * 8, ' ');
  const uint64_t length = json.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + json;
}

void SafetensorsWriter::Write(const std::filesystem::path& path) const {
  const auto order = Order();
  AtomicFile file(path);
  file.Write(Header(order));
  for (const Tensor* tensor : order) file.Write(tensor->data);
  file.Commit();
}

std::string SafetensorsWriter::Serialize() const {
  const auto order = Order();
  std::string out = Header(order);
  for (const Tensor* tensor : order) {
    out.append(reinterpret_cast<const char*>(tensor->data.data()), tensor->data.size());
  }
  return out;
}

}  // namespace bakestone
