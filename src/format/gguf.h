// GGUF files, read in place: versions 2 and 3, little-endian, memory-mapped. Opening checks the
// whole structure (counts, lengths, types, alignment, tensor extents, duplicates, overlaps), so
// whoever holds a GgufFile may trust every span in it. The bytes are hostile: memory used is at
// most about ten times the header's own bytes, whatever its counts claim. gguf.cc opens with the
// byte grammar.
//
// Errors are kCorrupt or kUnsupported and name the file, the key or tensor, expected and found.
// Immutable once made: any number of threads may read. Views and spans live as long as the GgufFile
// (or, after Parse, as the caller's bytes); moving a GgufFile keeps them valid.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/mapped_file.h"
#include "tensor/dtype.h"

namespace bakestone {

enum class GgufType : uint32_t {  // on disk: do not renumber
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};
const char* GgufTypeName(GgufType type);  // "UINT32", ...

// One metadata value as it lies in the file. For an array, `element` and `count` describe it and
// `bytes` are its elements (strings and nested arrays with their own length prefixes).
struct GgufValue {
  GgufType type = GgufType::kUint8;
  GgufType element = GgufType::kUint8;
  uint64_t count = 1;
  std::span<const uint8_t> bytes;
};

struct GgufEntry {
  std::string_view key;
  GgufValue value;
};

// ne[0] is the fastest dimension (a row's length), as the file has it; unused dimensions are 1.
struct GgufTensor {
  std::string_view name;
  DType type = DType::kF32;
  int num_dims = 0;  // 0 to 4
  std::array<int64_t, 4> ne = {1, 1, 1, 1};
  std::span<const uint8_t> data;  // exactly rows() * RowBytes(type, cols())

  int64_t cols() const { return ne[0]; }
  int64_t rows() const { return ne[1] * ne[2] * ne[3]; }
  int64_t elements() const { return cols() * rows(); }
};

class GgufFile {
 public:
  // With the other parts of a split model, where the path is its first part.
  static GgufFile Open(const std::filesystem::path& path);
  // Reads bytes that the caller keeps alive; `name` stands for the path in errors.
  static GgufFile Parse(std::span<const uint8_t> bytes, std::string name);

  const std::string& name() const { return name_; }
  uint32_t version() const { return version_; }
  uint32_t alignment() const { return alignment_; }
  std::span<const uint8_t> bytes() const { return bytes_; }
  // All files; an empty path after Parse.
  std::vector<std::filesystem::path> paths() const;
  // These bytes, of a tensor, are not needed soon.
  void Forget(std::span<const uint8_t> range) const;

  // Both in the order of the file.
  std::span<const GgufEntry> metadata() const { return entries_; }
  std::span<const GgufTensor> tensors() const { return tensors_; }

  const GgufTensor* FindTensor(std::string_view tensor_name) const;  // null if absent
  const GgufTensor& Tensor(std::string_view tensor_name) const;      // throws if absent

  bool Has(std::string_view key) const { return Find(key) != nullptr; }
  const GgufValue* Find(std::string_view key) const;  // null if absent

  // Typed access. Any integer type is accepted where its value fits, FLOAT64 where FLOAT32 is asked
  // (rounded). Without a fallback an absent key is an error; a key of the wrong type always is.
  uint32_t GetU32(std::string_view key) const;
  uint32_t GetU32(std::string_view key, uint32_t fallback) const;
  int32_t GetI32(std::string_view key) const;
  int32_t GetI32(std::string_view key, int32_t fallback) const;
  uint64_t GetU64(std::string_view key) const;
  uint64_t GetU64(std::string_view key, uint64_t fallback) const;
  int64_t GetI64(std::string_view key) const;
  int64_t GetI64(std::string_view key, int64_t fallback) const;
  float GetF32(std::string_view key) const;
  float GetF32(std::string_view key, float fallback) const;
  double GetF64(std::string_view key) const;
  double GetF64(std::string_view key, double fallback) const;
  bool GetBool(std::string_view key) const;
  bool GetBool(std::string_view key, bool fallback) const;
  std::string_view GetString(std::string_view key) const;
  std::string_view GetString(std::string_view key, std::string_view fallback) const;

  // Arrays, with the same widening per element. An absent key is an error: ask Has first.
  std::vector<std::string_view> GetStrings(std::string_view key) const;
  std::vector<uint32_t> GetU32s(std::string_view key) const;
  std::vector<int32_t> GetI32s(std::string_view key) const;
  std::vector<uint64_t> GetU64s(std::string_view key) const;
  std::vector<int64_t> GetI64s(std::string_view key) const;
  std::vector<float> GetF32s(std::string_view key) const;
  std::vector<bool> GetBools(std::string_view key) const;
  // For keys that hold one number or one per layer: always `count` numbers, a scalar repeated.
  std::vector<uint32_t> GetU32PerLayer(std::string_view key, int64_t count) const;

  // The elements of a nested array (element type kArray), each a value of its own.
  std::vector<GgufValue> GetArrays(std::string_view key) const;

 private:
  friend class GgufParser;
  GgufFile() = default;
  void OpenParts(const std::filesystem::path& path);

  std::string name_;
  MappedFile mapping_;
  std::vector<MappedFile> parts_;  // after the first
  std::span<const uint8_t> bytes_;
  uint32_t version_ = 0, alignment_ = 32;
  std::vector<GgufEntry> entries_;
  std::vector<GgufTensor> tensors_;
  std::vector<uint32_t> entries_by_key_, tensors_by_name_;  // indices, sorted
};

}  // namespace bakestone
