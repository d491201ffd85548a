// safetensors files, read in place and memory-mapped, and written. Opening checks everything:
// header length, JSON, duplicates, types, shape products, and that the tensors cover the data
// exactly, without gap or overlap. The bytes are hostile; memory used is at most about ten times
// the header's bytes.
//
// Errors are kCorrupt or kUnsupported and name the file, the tensor, expected and found. A
// SafetensorsFile is immutable: any number of threads may read; spans live as long as it does.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/mapped_file.h"
#include "tensor/dtype.h"

namespace bakestone {

struct SafetensorsTensor {
  std::string name;
  std::string dtype;              // as written: "F32", "BF16", "U8", ...
  std::optional<DType> type;      // absent for types that only pass through: BOOL, U8..U64, F8_*
  std::vector<int64_t> shape;     // slowest dimension first; empty is a scalar
  std::span<const uint8_t> data;  // little-endian, row-major, any alignment

  int64_t elements() const;
};

class SafetensorsFile {
 public:
  static SafetensorsFile Open(const std::filesystem::path& path);
  // Reads bytes that the caller keeps alive; `name` stands for the path in errors.
  static SafetensorsFile Parse(std::span<const uint8_t> bytes, std::string name);

  const std::string& name() const { return name_; }
  const MappedFile& mapping() const { return mapping_; }                   // empty after Parse
  std::span<const SafetensorsTensor> tensors() const { return tensors_; }  // sorted by name
  const SafetensorsTensor* Find(std::string_view tensor_name) const;       // null if absent
  // __metadata__, in the order of the file.
  std::span<const std::pair<std::string, std::string>> metadata() const { return metadata_; }
  std::string_view Metadata(std::string_view key) const;  // empty if absent

 private:
  SafetensorsFile() = default;

  std::string name_;
  MappedFile mapping_;
  std::vector<SafetensorsTensor> tensors_;
  std::vector<std::pair<std::string, std::string>> metadata_;
};

// Collects tensors and writes them, the widest types first and then by name (so that each is
// aligned to its own size). One thread at a time.
class SafetensorsWriter {
 public:
  void AddMetadata(std::string_view key, std::string_view value);
  // Plain types only (F64, F32, F16, BF16, I8..I64); the caller keeps the bytes alive until Write
  // returns. kInvalidArgument for a repeated name or bytes that do not fit the shape.
  void AddTensor(std::string_view name, DType type, std::span<const int64_t> shape,
                 std::span<const uint8_t> data);
  // The same with bytes that are asked for while writing, in the order of the file, piece by piece
  // until all are there; a piece stays valid until the next is asked for. So a model larger than
  // memory can be written.
  using Source = std::function<std::span<const uint8_t>()>;
  void AddTensor(std::string_view name, DType type, std::span<const int64_t> shape, Source source);
  // Writes whole or not at all (base/file.h).
  void Write(const std::filesystem::path& path) const;
  std::string Serialize() const;  // the same bytes, in memory

 private:
  struct Tensor {
    std::string name;
    DType type;
    std::vector<int64_t> shape;
    int64_t size;
    Source source;
  };
  void WriteTo(const std::function<void(std::span<const uint8_t>)>& sink) const;
  std::string Header(const std::vector<const Tensor*>& order) const;
  std::vector<const Tensor*> Order() const;

  std::vector<Tensor> tensors_;
  std::vector<std::pair<std::string, std::string>> metadata_;
};

}  // namespace bakestone
