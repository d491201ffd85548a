// Typed access to metadata: what the file holds against what the caller asked for.
#include <fmt/format.h>

#include <cstring>
#include <limits>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/quote.h"
#include "format/gguf.h"

namespace bakestone {
namespace {

template <class T>
constexpr const char* kWanted = nullptr;
template <>
constexpr const char* kWanted<uint32_t> = "UINT32";
template <>
constexpr const char* kWanted<int32_t> = "INT32";
template <>
constexpr const char* kWanted<uint64_t> = "UINT64";
template <>
constexpr const char* kWanted<int64_t> = "INT64";
template <>
constexpr const char* kWanted<float> = "FLOAT32";
template <>
constexpr const char* kWanted<double> = "FLOAT64";
template <>
constexpr const char* kWanted<bool> = "BOOL";
template <>
constexpr const char* kWanted<std::string_view> = "STRING";

std::string Describe(const GgufValue& value) {
  if (value.type != GgufType::kArray) return GgufTypeName(value.type);
  return fmt::format("ARRAY of {} {}", value.count, GgufTypeName(value.element));
}

// What a look-up needs for its message.
struct Context {
  const GgufFile& file;
  std::string_view key;
  bool array;

  [[noreturn]] void Fail(const char* wanted, const std::string& found) const {
    Throw(ErrorCode::kCorrupt, "{}: key {}: expected {}{}, found {}", file.name(), Quote(key),
          array ? "ARRAY of " : "", wanted, found);
  }
};

template <class T>
T Load(const uint8_t* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(T));
  return value;
}

template <class T, class Stored>
T Integer(const Context& context, Stored stored) {
  if (!std::in_range<T>(stored)) {
    context.Fail(kWanted<T>,
                 fmt::format("{}, outside {} to {}", stored, std::numeric_limits<T>::min(),
                             std::numeric_limits<T>::max()));
  }
  return static_cast<T>(stored);
}

// One element of type `type` at `bytes`, as a T. The bytes are there: the parser has seen to it.
template <class T>
T Convert(const Context& context, GgufType type, const uint8_t* bytes) {
  if constexpr (std::is_same_v<T, bool>) {
    if (type == GgufType::kBool) return *bytes != 0;
  } else if constexpr (std::is_floating_point_v<T>) {
    if (type == GgufType::kFloat32) return static_cast<T>(Load<float>(bytes));
    if (type == GgufType::kFloat64) return static_cast<T>(Load<double>(bytes));
  } else {
    switch (type) {
      case GgufType::kUint8:
        return Integer<T>(context, static_cast<uint32_t>(*bytes));
      case GgufType::kInt8:
        return Integer<T>(context, static_cast<int32_t>(Load<int8_t>(bytes)));
      case GgufType::kUint16:
        return Integer<T>(context, Load<uint16_t>(bytes));
      case GgufType::kInt16:
        return Integer<T>(context, Load<int16_t>(bytes));
      case GgufType::kUint32:
        return Integer<T>(context, Load<uint32_t>(bytes));
      case GgufType::kInt32:
        return Integer<T>(context, Load<int32_t>(bytes));
      case GgufType::kUint64:
        return Integer<T>(context, Load<uint64_t>(bytes));
      case GgufType::kInt64:
        return Integer<T>(context, Load<int64_t>(bytes));
      default:
        break;
    }
  }
  context.Fail(kWanted<T>, GgufTypeName(type));
}

const GgufValue& FindOrFail(const Context& context, const char* wanted) {
  const GgufValue* value = context.file.Find(context.key);
  if (value == nullptr) context.Fail(wanted, "no such key");
  return *value;
}

template <class T>
T Get(const GgufFile& file, std::string_view key) {
  const Context context{file, key, false};
  const GgufValue& value = FindOrFail(context, kWanted<T>);
  if constexpr (std::is_same_v<T, std::string_view>) {
    if (value.type != GgufType::kString) context.Fail(kWanted<T>, Describe(value));
    return {reinterpret_cast<const char*>(value.bytes.data()), value.bytes.size()};
  } else {
    if (value.type == GgufType::kArray || value.type == GgufType::kString) {
      context.Fail(kWanted<T>, Describe(value));
    }
    return Convert<T>(context, value.type, value.bytes.data());
  }
}

template <class T>
T GetOr(const GgufFile& file, std::string_view key, T fallback) {
  return file.Has(key) ? Get<T>(file, key) : fallback;
}

template <class T>
std::vector<T> GetArray(const GgufFile& file, std::string_view key) {
  const Context context{file, key, true};
  const GgufValue& value = FindOrFail(context, kWanted<T>);
  if (value.type != GgufType::kArray || value.element == GgufType::kString ||
      value.element == GgufType::kArray) {
    context.Fail(kWanted<T>, Describe(value));
  }
  std::vector<T> result;
  result.reserve(value.count);
  const size_t size = value.count == 0 ? 0 : value.bytes.size() / value.count;
  for (size_t i = 0; i < value.count; ++i) {
    result.push_back(Convert<T>(context, value.element, value.bytes.data() + i * size));
  }
  return result;
}

}  // namespace

uint32_t GgufFile::GetU32(std::string_view key) const { return Get<uint32_t>(*this, key); }
int32_t GgufFile::GetI32(std::string_view key) const { return Get<int32_t>(*this, key); }
uint64_t GgufFile::GetU64(std::string_view key) const { return Get<uint64_t>(*this, key); }
int64_t GgufFile::GetI64(std::string_view key) const { return Get<int64_t>(*this, key); }
float GgufFile::GetF32(std::string_view key) const { return Get<float>(*this, key); }
double GgufFile::GetF64(std::string_view key) const { return Get<double>(*this, key); }
bool GgufFile::GetBool(std::string_view key) const { return Get<bool>(*this, key); }
std::string_view GgufFile::GetString(std::string_view key) const {
  return Get<std::string_view>(*this, key);
}

uint32_t GgufFile::GetU32(std::string_view key, uint32_t fallback) const {
  return GetOr(*this, key, fallback);
}
int32_t GgufFile::GetI32(std::string_view key, int32_t fallback) const {
  return GetOr(*this, key, fallback);
}
uint64_t GgufFile::GetU64(std::string_view key, uint64_t fallback) const {
  return GetOr(*this, key, fallback);
}
int64_t GgufFile::GetI64(std::string_view key, int64_t fallback) const {
  return GetOr(*this, key, fallback);
}
float GgufFile::GetF32(std::string_view key, float fallback) const {
  return GetOr(*this, key, fallback);
}
double GgufFile::GetF64(std::string_view key, double fallback) const {
  return GetOr(*this, key, fallback);
}
bool GgufFile::GetBool(std::string_view key, bool fallback) const {
  return GetOr(*this, key, fallback);
}
std::string_view GgufFile::GetString(std::string_view key, std::string_view fallback) const {
  return GetOr(*this, key, fallback);
}

std::vector<uint32_t> GgufFile::GetU32s(std::string_view key) const {
  return GetArray<uint32_t>(*this, key);
}
std::vector<int32_t> GgufFile::GetI32s(std::string_view key) const {
  return GetArray<int32_t>(*this, key);
}
std::vector<uint64_t> GgufFile::GetU64s(std::string_view key) const {
  return GetArray<uint64_t>(*this, key);
}
std::vector<int64_t> GgufFile::GetI64s(std::string_view key) const {
  return GetArray<int64_t>(*this, key);
}
std::vector<float> GgufFile::GetF32s(std::string_view key) const {
  return GetArray<float>(*this, key);
}
std::vector<bool> GgufFile::GetBools(std::string_view key) const {
  return GetArray<bool>(*this, key);
}

std::vector<std::string_view> GgufFile::GetStrings(std::string_view key) const {
  const Context context{*this, key, true};
  const GgufValue& value = FindOrFail(context, kWanted<std::string_view>);
  if (value.type != GgufType::kArray || value.element != GgufType::kString) {
    context.Fail(kWanted<std::string_view>, Describe(value));
  }
  std::vector<std::string_view> strings;
  strings.reserve(value.count);
  const uint8_t* bytes = value.bytes.data();
  for (uint64_t i = 0; i < value.count; ++i) {
    const auto length = Load<uint64_t>(bytes);
    strings.emplace_back(reinterpret_cast<const char*>(bytes + 8), length);
    bytes += 8 + length;
  }
  return strings;
}

std::vector<uint32_t> GgufFile::GetU32PerLayer(std::string_view key, int64_t count) const {
  const GgufValue& value = FindOrFail({*this, key, false}, "UINT32, or an ARRAY of them");
  if (value.type != GgufType::kArray) {
    return std::vector<uint32_t>(static_cast<size_t>(count), GetU32(key));
  }
  if (value.count != static_cast<uint64_t>(count)) {
    Context{*this, key, true}.Fail(fmt::format("{} UINT32 (one per layer)", count).c_str(),
                                   fmt::format("{} elements", value.count));
  }
  return GetU32s(key);
}

}  // namespace bakestone
