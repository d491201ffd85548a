// Writes GGUF version 3. Metadata and tensors come out in the order of the calls, tensors aligned
// as `general.alignment` says. Tensor bytes are asked for piece by piece while writing, so a model
// larger than memory can be written. One thread at a time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "format/gguf.h"

namespace bakestone {

class GgufWriter {
 public:
  // alignment: a power of two, 8 or more; written as a key only if it is not the default 32.
  explicit GgufWriter(uint32_t alignment = 32);

  // A key is 1 to 65,535 bytes and given once, else kInvalidArgument; general.alignment is set
  // above.
  void AddU8(std::string_view key, uint8_t value);
  void AddI8(std::string_view key, int8_t value);
  void AddU16(std::string_view key, uint16_t value);
  void AddI16(std::string_view key, int16_t value);
  void AddU32(std::string_view key, uint32_t value);
  void AddI32(std::string_view key, int32_t value);
  void AddU64(std::string_view key, uint64_t value);
  void AddI64(std::string_view key, int64_t value);
  void AddF32(std::string_view key, float value);
  void AddF64(std::string_view key, double value);
  void AddBool(std::string_view key, bool value);
  void AddString(std::string_view key, std::string_view value);
  void AddStrings(std::string_view key, std::span<const std::string> values);
  void AddStrings(std::string_view key, std::span<const std::string_view> values);
  void AddU32s(std::string_view key, std::span<const uint32_t> values);
  void AddI32s(std::string_view key, std::span<const int32_t> values);
  void AddF32s(std::string_view key, std::span<const float> values);
  void AddBools(std::string_view key, const std::vector<bool>& values);
  void AddBytes(std::string_view key, std::span<const uint8_t> values);
  // Copies a value of another file as it is, nested arrays included.
  void AddValue(std::string_view key, const GgufValue& value);

  // Called when the tensor's turn comes, again and again until all its bytes are there; a piece
  // stays valid until the next call.
  using Source = std::function<std::span<const uint8_t>()>;
  // ne as in GgufTensor: ne[0] is the row length. 1 to 4 dimensions, 1 to 63 bytes of name (what
  // other programs accept), each name once.
  void AddTensor(std::string_view name, DType type, std::span<const int64_t> ne, Source source);
  // Bytes that the caller keeps alive until Write returns; kInvalidArgument if they do not fit the
  // shape.
  void AddTensor(std::string_view name, DType type, std::span<const int64_t> ne,
                 std::span<const uint8_t> data);

  // Writes whole or not at all (base/file.h). Throws kInvalidArgument when a source ends early or
  // gives more bytes than the tensor's shape needs, kIo when the system refuses.
  void Write(const std::filesystem::path& path) const;
  std::string Serialize() const;  // the same bytes, in memory

 private:
  struct Tensor {
    std::string name;
    Source source;
    int64_t size;
  };
  using Sink = std::function<void(std::span<const uint8_t>)>;

  void AddKey(std::string_view key, GgufType type);
  template <class T>
  void AddScalar(std::string_view key, GgufType type, T value);
  template <class T>
  void AddArray(std::string_view key, GgufType element, std::span<const T> values);
  template <class S>
  void AddStringArray(std::string_view key, std::span<const S> values);
  void WriteTo(const Sink& sink) const;

  uint32_t alignment_;
  bool aligned_ = false;  // the constructor is done with the alignment
  uint64_t num_entries_ = 0;
  uint64_t offset_ = 0;  // of the next tensor, from the start of the data
  std::string metadata_, infos_;
  std::vector<Tensor> tensors_;
  std::unordered_set<std::string> keys_, names_;
};

}  // namespace bakestone
