// gguf.cc opens with the grammar of the file.
#include "format/gguf_writer.h"

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

#include "base/checked.h"
#include "base/error.h"
#include "base/file.h"
#include "base/quote.h"

namespace bakestone {
namespace {

constexpr uint32_t kDefaultAlignment = 32;
constexpr const char* kAlignmentKey = "general.alignment";

template <class T>
void Append(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

void AppendString(std::string& out, std::string_view text) {
  Append<uint64_t>(out, text.size());
  out.append(text);
}

[[noreturn]] void RefuseSize(std::string_view name, uint64_t expected, uint64_t found) {
  Throw(ErrorCode::kInvalidArgument, "GGUF tensor {}: expected {} bytes (its shape), found {}",
        Quote(name), expected, found);
}

uint64_t AlignUp(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

}  // namespace

GgufWriter::GgufWriter(uint32_t alignment) : alignment_(alignment) {
  if (alignment < 8 || !std::has_single_bit(alignment)) {
    Throw(ErrorCode::kInvalidArgument,
          "GGUF alignment: expected a power of two, 8 or more, found {}", alignment);
  }
  if (alignment != kDefaultAlignment) AddU32(kAlignmentKey, alignment);
  aligned_ = true;
}

void GgufWriter::AddKey(std::string_view key, GgufType type) {
  if (key.empty() || key.size() > 65535) {
    Throw(ErrorCode::kInvalidArgument, "GGUF key {}: expected 1 to 65535 bytes, found {}",
          Quote(key), key.size());
  }
  if (key == kAlignmentKey && aligned_) {
    Throw(ErrorCode::kInvalidArgument,
          "GGUF key {}: expected in the constructor, found added later", Quote(key));
  }
  if (!keys_.emplace(key).second) {
    Throw(ErrorCode::kInvalidArgument, "GGUF key {}: expected once, found again", Quote(key));
  }
  AppendString(metadata_, key);
  Append(metadata_, type);
  ++num_entries_;
}

template <class T>
void GgufWriter::AddScalar(std::string_view key, GgufType type, T value) {
  AddKey(key, type);
  Append(metadata_, value);
}

template <class T>
void GgufWriter::AddArray(std::string_view key, GgufType element, std::span<const T> values) {
  AddKey(key, GgufType::kArray);
  Append(metadata_, element);
  Append<uint64_t>(metadata_, values.size());
  metadata_.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
}

template <class S>
void GgufWriter::AddStringArray(std::string_view key, std::span<const S> values) {
  AddKey(key, GgufType::kArray);
  Append(metadata_, GgufType::kString);
  Append<uint64_t>(metadata_, values.size());
  for (const S& value : values) AppendString(metadata_, value);
}

void GgufWriter::AddU8(std::string_view key, uint8_t value) {
  AddScalar(key, GgufType::kUint8, value);
}
void GgufWriter::AddI8(std::string_view key, int8_t value) {
  AddScalar(key, GgufType::kInt8, value);
}
void GgufWriter::AddU16(std::string_view key, uint16_t value) {
  AddScalar(key, GgufType::kUint16, value);
}
void GgufWriter::AddI16(std::string_view key, int16_t value) {
  AddScalar(key, GgufType::kInt16, value);
}
void GgufWriter::AddU32(std::string_view key, uint32_t value) {
  AddScalar(key, GgufType::kUint32, value);
}
void GgufWriter::AddI32(std::string_view key, int32_t value) {
  AddScalar(key, GgufType::kInt32, value);
}
void GgufWriter::AddU64(std::string_view key, uint64_t value) {
  AddScalar(key, GgufType::kUint64, value);
}
void GgufWriter::AddI64(std::string_view key, int64_t value) {
  AddScalar(key, GgufType::kInt64, value);
}
void GgufWriter::AddF32(std::string_view key, float value) {
  AddScalar(key, GgufType::kFloat32, value);
}
void GgufWriter::AddF64(std::string_view key, double value) {
  AddScalar(key, GgufType::kFloat64, value);
}
void GgufWriter::AddBool(std::string_view key, bool value) {
  AddScalar(key, GgufType::kBool, static_cast<uint8_t>(value ? 1 : 0));
}
void GgufWriter::AddString(std::string_view key, std::string_view value) {
  AddKey(key, GgufType::kString);
  AppendString(metadata_, value);
}
void GgufWriter::AddStrings(std::string_view key, std::span<const std::string> values) {
  AddStringArray(key, values);
}
void GgufWriter::AddStrings(std::string_view key, std::span<const std::string_view> values) {
  AddStringArray(key, values);
}
void GgufWriter::AddU32s(std::string_view key, std::span<const uint32_t> values) {
  AddArray(key, GgufType::kUint32, values);
}
void GgufWriter::AddI32s(std::string_view key, std::span<const int32_t> values) {
  AddArray(key, GgufType::kInt32, values);
}
void GgufWriter::AddF32s(std::string_view key, std::span<const float> values) {
  AddArray(key, GgufType::kFloat32, values);
}

void GgufWriter::AddBools(std::string_view key, const std::vector<bool>& values) {
  const std::vector<uint8_t> bytes(values.begin(), values.end());
  AddArray<uint8_t>(key, GgufType::kBool, bytes);
}

void GgufWriter::AddBytes(std::string_view key, std::span<const uint8_t> values) {
  AddArray(key, GgufType::kUint8, values);
}

void GgufWriter::AddValue(std::string_view key, const GgufValue& value) {
  AddKey(key, value.type);
  if (value.type == GgufType::kArray) {
    Append(metadata_, value.element);
    Append(metadata_, value.count);
  } else if (value.type == GgufType::kString) {
    Append<uint64_t>(metadata_, value.bytes.size());
  }
  metadata_.append(reinterpret_cast<const char*>(value.bytes.data()), value.bytes.size());
}

void GgufWriter::AddTensor(std::string_view name, DType type, std::span<const int64_t> ne,
                           Source source) {
  if (name.empty() || name.size() > 63) {
    Throw(ErrorCode::kInvalidArgument, "GGUF tensor {}: expected a name of 1 to 63 bytes, found {}",
          Quote(name), name.size());
  }
  if (ne.empty() || ne.size() > 4) {
    Throw(ErrorCode::kInvalidArgument, "GGUF tensor {}: expected 1 to 4 dimensions, found {}",
          Quote(name), ne.size());
  }
  std::optional<int64_t> size = RowBytes(type, ne[0]);
  for (size_t d = 0; d < ne.size(); ++d) {
    if (ne[d] <= 0) {
      Throw(ErrorCode::kInvalidArgument, "GGUF tensor {}: expected dimensions above 0, found {}",
            Quote(name), ne[d]);
    }
    if (d > 0 && size) size = CheckedMul(*size, ne[d]);
  }
  if (!size) {
    Throw(ErrorCode::kInvalidArgument, "GGUF tensor {}: expected fewer than 2^63 bytes",
          Quote(name));
  }
  if (!names_.emplace(name).second) {
    Throw(ErrorCode::kInvalidArgument, "GGUF tensor {}: expected once, found again", Quote(name));
  }
  AppendString(infos_, name);
  Append(infos_, static_cast<uint32_t>(ne.size()));
  for (const int64_t n : ne) Append(infos_, n);
  Append(infos_, type);
  Append(infos_, offset_);
  offset_ = AlignUp(offset_ + static_cast<uint64_t>(*size), alignment_);
  tensors_.push_back({std::string(name), std::move(source), *size});
}

void GgufWriter::AddTensor(std::string_view name, DType type, std::span<const int64_t> ne,
                           std::span<const uint8_t> data) {
  AddTensor(name, type, ne, Source([data] { return data; }));
  if (data.size() != static_cast<size_t>(tensors_.back().size)) {
    RefuseSize(tensors_.back().name, static_cast<uint64_t>(tensors_.back().size), data.size());
  }
}

void GgufWriter::WriteTo(const Sink& sink) const {
  std::string header = "GGUF";
  Append<uint32_t>(header, 3);
  Append<uint64_t>(header, tensors_.size());
  Append<uint64_t>(header, num_entries_);
  header += metadata_;
  header += infos_;
  header.resize(AlignUp(header.size(), alignment_));
  sink(std::span(reinterpret_cast<const uint8_t*>(header.data()), header.size()));
  for (const Tensor& tensor : tensors_) {
    const auto size = static_cast<uint64_t>(tensor.size);
    for (uint64_t left = size; left > 0;) {
      const std::span<const uint8_t> piece = tensor.source();
      if (piece.empty() || piece.size() > left) RefuseSize(tensor.name, left, piece.size());
      sink(piece);
      left -= piece.size();
    }
    const std::vector<uint8_t> padding(AlignUp(size, alignment_) - size);
    sink(padding);
  }
}

void GgufWriter::Write(const std::filesystem::path& path) const {
  AtomicFile file(path);
  WriteTo([&](std::span<const uint8_t> bytes) { file.Write(bytes); });
  file.Commit();
}

std::string GgufWriter::Serialize() const {
  std::string out;
  WriteTo([&](std::span<const uint8_t> bytes) {
    out.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  });
  return out;
}

}  // namespace bakestone
