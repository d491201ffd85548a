// The grammar of a safetensors file:
//
//   file   := u64:length header data              (length little-endian, counts the header's bytes)
//   header := JSON object { name: tensor, ... }, from '{', padded with spaces at the end
//   tensor := { "dtype": string, "shape": [n, ...], "data_offsets": [begin, end] }
//   data   := the tensors, little-endian, row-major, back to back: together exactly the rest
//
// plus one optional member "__metadata__": an object of strings. The header is read by events,
// never as a tree, so memory follows what was accepted and nesting cannot grow.
#include "format/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>

#include "base/checked.h"
#include "base/error.h"
#include "base/file.h"
#include "base/quote.h"

namespace bakestone {

static_assert(std::endian::native == std::endian::little, "safetensors files are read in place");

namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the reference implementation's own limit
constexpr size_t kMaxDims = 16;

struct TypeInfo {
  std::string_view name;
  uint64_t size;
  std::optional<DType> type;
};
constexpr TypeInfo kTypes[] = {
    {"F64", 8, DType::kF64},      {"F32", 4, DType::kF32},      {"F16", 2, DType::kF16},
    {"BF16", 2, DType::kBF16},    {"I64", 8, DType::kI64},      {"I32", 4, DType::kI32},
    {"I16", 2, DType::kI16},      {"I8", 1, DType::kI8},        {"U64", 8, std::nullopt},
    {"U32", 4, std::nullopt},     {"U16", 2, std::nullopt},     {"U8", 1, std::nullopt},
    {"BOOL", 1, std::nullopt},    {"F8_E4M3", 1, std::nullopt}, {"F8_E5M2", 1, std::nullopt},
    {"F8_E8M0", 1, std::nullopt},
};

const TypeInfo* FindType(std::string_view name) {
  const auto* found = std::find_if(std::begin(kTypes), std::end(kTypes),
                                   [&](const TypeInfo& info) { return info.name == name; });
  return found == std::end(kTypes) ? nullptr : found;
}

struct RawTensor {
  SafetensorsTensor tensor;
  uint64_t begin = 0, end = 0;
};

// Receives the header's JSON piece by piece and accepts only the grammar above.
class HeaderHandler : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderHandler(const std::string& file, std::vector<RawTensor>& tensors,
                std::vector<std::pair<std::string, std::string>>& metadata)
      : file_(file), tensors_(tensors), metadata_(metadata) {}

  bool null() override { return Unexpected("null"); }
  bool boolean(bool) override { return Unexpected("a boolean"); }
  bool number_integer(number_integer_t) override { return Unexpected("a negative number"); }
  bool number_float(number_float_t, const string_t&) override {
    return Unexpected("a number that is no integer below 2^64");
  }
  bool binary(binary_t&) override { return Unexpected("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (state_ == State::kShape) {
      if (value > static_cast<uint64_t>(INT64_MAX)) {
        Fail("shape: expected dimensions below 2^63, found {}", value);
      }
      auto& shape = Current().tensor.shape;
      if (shape.size() == kMaxDims) {
        Fail("shape: expected at most {} dimensions, found more", kMaxDims);
      }
      shape.push_back(static_cast<int64_t>(value));
      return true;
    }
    if (state_ == State::kOffsets) {
      if (num_offsets_ == 2) Fail("data_offsets: expected 2 numbers, found more");
      (num_offsets_++ == 0 ? Current().begin : Current().end) = value;
      return true;
    }
    return Unexpected("a number");
  }

  bool string(string_t& value) override {
    if (state_ == State::kMetadata) {
      metadata_.emplace_back(key_, value);
      return true;
    }
    if (state_ != State::kTensor || field_ != "dtype") return Unexpected("a string");
    const TypeInfo* info = FindType(value);
    if (info == nullptr) {
      Throw(
          ErrorCode::kUnsupported,
          "{}: tensor {}: dtype: expected F64, F32, F16, BF16, I8 to I64, U8 to U64, BOOL or F8_*, "
          "found {}",
          file_, Quote(key_), Quote(value));
    }
    Current().tensor.dtype = value;
    Current().tensor.type = info->type;
    return true;
  }

  bool key(string_t& name) override {
    if (state_ == State::kTensor) {
      field_ = name;
      const int bit = name == "dtype" ? 1 : name == "shape" ? 2 : name == "data_offsets" ? 4 : 0;
      if (bit == 0) Fail("expected dtype, shape and data_offsets, found {}", Quote(name));
      if ((seen_ & bit) != 0) Fail("{}: expected once, found again", name);
      seen_ |= bit;
    } else {
      key_ = name;
    }
    return true;
  }

  bool start_object(size_t) override {
    if (state_ == State::kStart) {
      state_ = State::kRoot;
    } else if (state_ == State::kRoot && key_ == "__metadata__") {
      if (had_metadata_) Fail("expected once, found again");
      had_metadata_ = true;
      state_ = State::kMetadata;
    } else if (state_ == State::kRoot) {
      state_ = State::kTensor;
      seen_ = 0;
      num_offsets_ = 0;
      tensors_.emplace_back().tensor.name = key_;
    } else {
      return Unexpected("an object");
    }
    return true;
  }

  bool end_object() override {
    if (state_ == State::kTensor && seen_ != 7) {
      Fail("expected dtype, shape and data_offsets, found {} missing", (seen_ & 1) == 0 ? "dtype"
                                                                       : (seen_ & 2) == 0
                                                                           ? "shape"
                                                                           : "data_offsets");
    }
    state_ = state_ == State::kRoot ? State::kEnd : State::kRoot;
    return true;
  }

  bool start_array(size_t) override {
    if (state_ == State::kTensor && field_ == "shape") {
      state_ = State::kShape;
    } else if (state_ == State::kTensor && field_ == "data_offsets") {
      state_ = State::kOffsets;
    } else {
      return Unexpected("an array");
    }
    return true;
  }

  bool end_array() override {
    if (state_ == State::kOffsets && num_offsets_ != 2) {
      Fail("data_offsets: expected 2 numbers, found {}", num_offsets_);
    }
    state_ = State::kTensor;
    return true;
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception&) override {
    Throw(ErrorCode::kCorrupt, "{}: header: expected JSON, found a syntax error at byte {} of it",
          file_, position);
  }

 private:
  enum class State { kStart, kRoot, kMetadata, kTensor, kShape, kOffsets, kEnd };

  RawTensor& Current() { return tensors_.back(); }

  template <class... Args>
  [[noreturn]] void Fail(fmt::format_string<Args...> format, Args&&... args) const {
    Throw(ErrorCode::kCorrupt, "{}: tensor {}: {}", file_, Quote(key_),
          fmt::format(format, std::forward<Args>(args)...));
  }

  [[noreturn]] bool Unexpected(const char* found) const {
    switch (state_) {
      case State::kStart:
        Throw(ErrorCode::kCorrupt, "{}: header: expected an object, found {}", file_, found);
      case State::kRoot:
        Fail("expected an object, found {}", found);
      case State::kMetadata:
        Fail("__metadata__: expected strings only, found {}", found);
      case State::kShape:
        Fail("shape: expected integers of 0 or more, found {}", found);
      case State::kOffsets:
        Fail("data_offsets: expected integers of 0 or more, found {}", found);
      default:
        Fail("{}: expected {}, found {}", field_, field_ == "dtype" ? "a string" : "an array",
             found);
    }
  }

  const std::string& file_;
  std::vector<RawTensor>& tensors_;
  std::vector<std::pair<std::string, std::string>>& metadata_;
  State state_ = State::kStart;
  std::string key_, field_;
  int seen_ = 0, num_offsets_ = 0;
  bool had_metadata_ = false;
};

uint64_t ReadHeaderLength(const std::string& file, std::span<const uint8_t> bytes) {
  if (bytes.size() < 8) {
    Throw(ErrorCode::kCorrupt,
          "{}: header length: expected 8 bytes, found {} in the whole file; it is cut short", file,
          bytes.size());
  }
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  const uint64_t most = std::min<uint64_t>(bytes.size() - 8, kMaxHeaderBytes);
  if (length < 2 || length > most) {
    Throw(
        ErrorCode::kCorrupt,
        "{}: header length: expected 2 to {} bytes, found {}; the file is cut short, damaged or no "
        "safetensors file",
        file, most, length);
  }
  if (bytes[8] != '{') {
    Throw(ErrorCode::kCorrupt, "{}: header: expected '{{' as its first byte, found {:#04x}", file,
          bytes[8]);
  }
  return length;
}

// Checks one tensor's size against its shape.
void CheckSize(const std::string& file, const RawTensor& raw) {
  std::optional<uint64_t> size = FindType(raw.tensor.dtype)->size;
  uint64_t product = 1;
  for (const int64_t n : raw.tensor.shape) {
    // Whatever the order of the dimensions, a wrapping product is refused (a zero hides nothing).
    const auto next = CheckedMul(product, std::max<uint64_t>(static_cast<uint64_t>(n), 1));
    if (!next || *next > static_cast<uint64_t>(INT64_MAX)) {
      Throw(ErrorCode::kCorrupt,
            "{}: tensor {}: shape: expected fewer than 2^63 elements, found more", file,
            Quote(raw.tensor.name));
    }
    product = *next;
    if (size) size = CheckedMul(*size, static_cast<uint64_t>(n));
  }
  if (raw.begin > raw.end || !size || raw.end - raw.begin != *size) {
    Throw(ErrorCode::kCorrupt,
          "{}: tensor {}: data_offsets: expected {} bytes ({}, its shape), found [{}, {}]", file,
          Quote(raw.tensor.name), size ? fmt::format("{}", *size) : "2^64 or more",
          raw.tensor.dtype, raw.begin, raw.end);
  }
}

// Gives each tensor its bytes; together they must be the data exactly.
void PlaceTensors(const std::string& file, std::vector<RawTensor>& raw,
                  std::span<const uint8_t> data) {
  std::sort(raw.begin(), raw.end(), [](const RawTensor& a, const RawTensor& b) {
    return std::tie(a.begin, a.end, a.tensor.name) < std::tie(b.begin, b.end, b.tensor.name);
  });
  uint64_t expected = 0;
  for (RawTensor& item : raw) {
    CheckSize(file, item);
    if (item.begin != expected) {
      Throw(ErrorCode::kCorrupt,
            "{}: tensor {}: data_offsets: expected to begin at {}, found {}: {}", file,
            Quote(item.tensor.name), expected, item.begin,
            item.begin > expected ? "a gap" : "an overlap");
    }
    if (item.end > data.size()) {
      Throw(
          ErrorCode::kCorrupt,
          "{}: tensor {}: data_offsets: expected an end of at most {} (the data's size), found {}; "
          "the file is cut short or damaged: fetch it again",
          file, Quote(item.tensor.name), data.size(), item.end);
    }
    item.tensor.data = data.subspan(item.begin, item.end - item.begin);
    expected = item.end;
  }
  if (expected != data.size()) {
    Throw(ErrorCode::kCorrupt, "{}: data: expected {} bytes (the end of the last tensor), found {}",
          file, expected, data.size());
  }
}

template <class T, class Name>
void CheckUnique(const std::string& file, const std::vector<T>& sorted, Name name,
                 const char* what) {
  for (size_t i = 1; i < sorted.size(); ++i) {
    if (name(sorted[i]) == name(sorted[i - 1])) {
      Throw(ErrorCode::kCorrupt, "{}: {} {}: expected once, found again", file, what,
            Quote(name(sorted[i])));
    }
  }
}

}  // namespace

int64_t SafetensorsTensor::elements() const {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

SafetensorsFile SafetensorsFile::Open(const std::filesystem::path& path) {
  MappedFile mapping = MappedFile::Open(path);
  SafetensorsFile file = Parse(mapping.bytes(), path.string());
  file.mapping_ = std::move(mapping);
  return file;
}

SafetensorsFile SafetensorsFile::Parse(std::span<const uint8_t> bytes, std::string name) {
  SafetensorsFile file;
  file.name_ = std::move(name);
  const uint64_t length = ReadHeaderLength(file.name_, bytes);
  const auto header = bytes.subspan(8, length);
  std::vector<RawTensor> raw;
  HeaderHandler handler(file.name_, raw, file.metadata_);
  nlohmann::json::sax_parse(header.begin(), header.end(), &handler);
  PlaceTensors(file.name_, raw, bytes.subspan(8 + length));
  std::sort(raw.begin(), raw.end(),
            [](const RawTensor& a, const RawTensor& b) { return a.tensor.name < b.tensor.name; });
  const auto tensor_name = [](const RawTensor& item) { return std::string_view(item.tensor.name); };
  CheckUnique(file.name_, raw, tensor_name, "tensor");
  auto sorted = file.metadata_;
  std::sort(sorted.begin(), sorted.end());
  const auto metadata_key = [](const auto& item) { return std::string_view(item.first); };
  CheckUnique(file.name_, sorted, metadata_key, "__metadata__ key");
  file.tensors_.reserve(raw.size());
  for (RawTensor& item : raw) file.tensors_.push_back(std::move(item.tensor));
  return file;
}

const SafetensorsTensor* SafetensorsFile::Find(std::string_view tensor_name) const {
  const auto found = std::lower_bound(
      tensors_.begin(), tensors_.end(), tensor_name,
      [](const SafetensorsTensor& tensor, std::string_view n) { return tensor.name < n; });
  return found == tensors_.end() || found->name != tensor_name ? nullptr : &*found;
}

std::string_view SafetensorsFile::Metadata(std::string_view key) const {
  for (const auto& [name, value] : metadata_) {
    if (name == key) return value;
  }
  return {};
}

}  // namespace bakestone
