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
  AddTensor(name, type, shape, [data] { return data; });
  if (data.size() != static_cast<size_t>(tensors_.back().size)) {
    Throw(ErrorCode::kInvalidArgument,
          "safetensors tensor {}: expected {} bytes ({}, its shape), found {}", Quote(name),
          tensors_.back().size, DTypeName(type), data.size());
  }
}

void SafetensorsWriter::AddTensor(std::string_view name, DType type, std::span<const int64_t> shape,
                                  Source source) {
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
  if (!size) {
    Throw(ErrorCode::kInvalidArgument,
          "safetensors tensor {}: expected a shape of fewer than 2^63 bytes", Quote(name));
  }
  tensors_.push_back(
      {std::string(name), type, {shape.begin(), shape.end()}, *size, std::move(source)});
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
                        fmt::join(tensor->shape, ","), offset, offset + tensor->size);
    offset += tensor->size;
  }
  json += '}';
  json.resize((json.size() + 7) / 8 * 8, ' ');
  const uint64_t length = json.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + json;
}

void SafetensorsWriter::WriteTo(const std::function<void(std::span<const uint8_t>)>& sink) const {
  const auto order = Order();
  const std::string header = Header(order);
  sink({reinterpret_cast<const uint8_t*>(header.data()), header.size()});
  for (const Tensor* tensor : order) {
    for (auto left = static_cast<size_t>(tensor->size); left > 0;) {
      const std::span<const uint8_t> piece = tensor->source();
      if (piece.empty() || piece.size() > left) {
        Throw(ErrorCode::kInvalidArgument,
              "safetensors tensor {}: expected {} bytes more while writing, found {}",
              Quote(tensor->name), left, piece.size());
      }
      sink(piece);
      left -= piece.size();
    }
  }
}

void SafetensorsWriter::Write(const std::filesystem::path& path) const {
  AtomicFile file(path);
  WriteTo([&](std::span<const uint8_t> bytes) { file.Write(bytes); });
  file.Commit();
}

std::string SafetensorsWriter::Serialize() const {
  std::string out;
  WriteTo([&](std::span<const uint8_t> bytes) {
    out.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  });
  return out;
}

}  // namespace bakestone
