// The grammar of a GGUF file, versions 2 and 3, little-endian throughout:
//
//   file    := "GGUF" u32:version u64:tensor_count u64:entry_count entry* info* padding data
//   entry   := string:key u32:type value(type)
//   value   := u8 | i8 | u16 | i16 | u32 | i32 | f32 | bool (0 or 1, one byte) | string
//            | u32:element_type u64:count value(element_type)*  (an array; may nest)
//            | u64 | i64 | f64
//   string  := u64:length byte*
//   info    := string:name u32:num_dims u64:ne* u32:dtype u64:offset
//   padding := zero bytes up to a multiple of `general.alignment` (u32, default 32)
//   data    := tensors, each at its offset from the start of data, a multiple of the alignment
//
// Everything is read through GgufParser::Take, which never goes past the end. Nothing is allocated
// from a count: vectors grow with the entries that were really there.
#include "format/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>
#include <utility>

#include "base/checked.h"
#include "base/error.h"
#include "base/quote.h"

namespace bakestone {

static_assert(std::endian::native == std::endian::little, "GGUF files are read in place");

const char* GgufTypeName(GgufType type) {
  static constexpr const char* kNames[] = {"UINT8",  "INT8",    "UINT16", "INT16",  "UINT32",
                                           "INT32",  "FLOAT32", "BOOL",   "STRING", "ARRAY",
                                           "UINT64", "INT64",   "FLOAT64"};
  const auto index = static_cast<uint32_t>(type);
  return index < std::size(kNames) ? kNames[index] : "?";
}

namespace {

// Fewest bytes that a value of this type takes; 0 for a number that is no type.
uint64_t SmallestSize(uint32_t type) {
  static constexpr uint8_t kSizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8};
  return type < std::size(kSizes) ? kSizes[type] : 0;
}

constexpr int kMaxArrayDepth = 8;
constexpr uint64_t kMaxNameBytes = 65535;  // the format's own limit for keys

// Names of tensor types that exist but that this program does not decode.
const char* OtherTensorType(uint32_t type) {
  switch (type) {
    case 9:
      return " (Q8_1)";
    case 15:
      return " (Q8_K)";
    case 16:
      return " (IQ2_XXS)";
    case 17:
      return " (IQ2_XS)";
    case 18:
      return " (IQ3_XXS)";
    case 19:
      return " (IQ1_S)";
    case 21:
      return " (IQ3_S)";
    case 22:
      return " (IQ2_S)";
    case 29:
      return " (IQ1_M)";
    case 34:
      return " (TQ1_0)";
    case 35:
      return " (TQ2_0)";
    case 40:
      return " (NVFP4)";
    default:
      return "";
  }
}

}  // namespace

class GgufParser {
 public:
  explicit GgufParser(GgufFile& file) : file_(file), bytes_(file.bytes_) {}

  void ParseFile() {
    uint64_t num_tensors = 0, num_entries = 0;
    ParseHeader(&num_tensors, &num_entries);
    ParseMetadata(num_entries);
    IndexMetadata();
    ReadAlignment();
    ParseTensorInfos(num_tensors);
    IndexTensors();
    PlaceTensors();
  }

  // The elements of a nested array that ParseFile has already accepted.
  static std::vector<GgufValue> Elements(GgufFile& file, const GgufValue& outer) {
    GgufParser parser(file);
    parser.bytes_ = outer.bytes;
    std::vector<GgufValue> elements;
    for (uint64_t i = 0; i < outer.count; ++i) {
      elements.push_back(parser.ReadValue(outer.element, 0));
    }
    return elements;
  }

 private:
  // "model.gguf: metadata entry 4 of 30 ('llama.block_count'): value length" - only when it is
  // needed.
  std::string Where(const char* field) const {
    std::string where = file_.name_ + ": ";
    if (section_ != nullptr) {
      where += fmt::format("{} {} of {}", section_, index_ + 1, count_);
      if (!name_.empty()) where += fmt::format(" ({})", Quote(name_));
      where += ": ";
    }
    return where + field;
  }

  template <class... Args>
  [[noreturn]] void Fail(const char* field, fmt::format_string<Args...> format,
                         Args&&... args) const {
    throw Error(ErrorCode::kCorrupt,
                Where(field) + ": " + fmt::format(format, std::forward<Args>(args)...));
  }

  uint64_t Left() const { return bytes_.size() - position_; }

  std::span<const uint8_t> Take(uint64_t size, const char* field) {
    if (size > Left()) {
      Fail(
          field,
          "expected {} bytes at offset {}, found {} before the end of the file; it is cut short or "
          "damaged: fetch it again",
          size, position_, Left());
    }
    const auto taken = bytes_.subspan(position_, size);
    position_ += size;
    return taken;
  }

  template <class T>
  T Read(const char* field) {
    T value;
    std::memcpy(&value, Take(sizeof(T), field).data(), sizeof(T));
    return value;
  }

  std::string_view ReadString(const char* length_field, const char* field) {
    const auto length = Read<uint64_t>(length_field);
    const auto bytes = Take(length, field);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  std::string_view ReadName(const char* length_field, const char* field) {
    const std::string_view name = ReadString(length_field, field);
    if (name.empty() || name.size() > kMaxNameBytes) {
      Fail(length_field, "expected 1 to {} bytes, found {}", kMaxNameBytes, name.size());
    }
    return name;
  }

  GgufType ReadType(const char* field) {
    const auto type = Read<uint32_t>(field);
    if (SmallestSize(type) == 0) Fail(field, "expected 0 to 12, found {}", type);
    return static_cast<GgufType>(type);
  }

  GgufValue ReadValue(GgufType type, int depth) {
    GgufValue value{.type = type, .element = type, .count = 1, .bytes = {}};
    if (type == GgufType::kString) {
      const std::string_view text = ReadString("string length", "string");
      value.bytes = {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
    } else if (type == GgufType::kArray) {
      ReadArray(value, depth);
    } else {
      value.bytes = Take(SmallestSize(static_cast<uint32_t>(type)), "value");
      if (type == GgufType::kBool) CheckBools(value.bytes);
    }
    return value;
  }

  void ReadArray(GgufValue& value, int depth) {
    if (depth >= kMaxArrayDepth) {
      Fail("array", "expected at most {} nested arrays, found more", kMaxArrayDepth);
    }
    value.element = ReadType("array element type");
    value.count = Read<uint64_t>("array length");
    const uint64_t smallest = SmallestSize(static_cast<uint32_t>(value.element));
    if (value.count > Left() / smallest) {
      Fail("array length",
           "expected at most {} elements of {} in the {} bytes that follow, found {}; the file is "
           "cut short or "
           "damaged",
           Left() / smallest, GgufTypeName(value.element), Left(), value.count);
    }
    const uint64_t begin = position_;
    if (value.element == GgufType::kString || value.element == GgufType::kArray) {
      for (uint64_t i = 0; i < value.count; ++i) ReadValue(value.element, depth + 1);
    } else {
      const auto elements = Take(value.count * smallest, "array");
      if (value.element == GgufType::kBool) CheckBools(elements);
    }
    value.bytes = bytes_.subspan(begin, position_ - begin);
  }

  void CheckBools(std::span<const uint8_t> bools) const {
    for (const uint8_t byte : bools) {
      if (byte > 1) Fail("BOOL value", "expected 0 or 1, found {}", byte);
    }
  }

  void ParseHeader(uint64_t* num_tensors, uint64_t* num_entries) {
    const auto magic = Take(4, "magic");
    if (std::memcmp(magic.data(), "GGUF", 4) != 0) {
      Fail("magic", "expected 'GGUF', found {}; this is not a GGUF file",
           Quote({reinterpret_cast<const char*>(magic.data()), 4}));
    }
    file_.version_ = Read<uint32_t>("version");
    if (file_.version_ != 0 && (file_.version_ & 0xFFFF) == 0) {
      Throw(ErrorCode::kUnsupported,
            "{}: version: expected 2 or 3 in little-endian order, found {:#010x}: the file is "
            "big-endian; convert it, or fetch the little-endian one",
            file_.name_, file_.version_);
    }
    if (file_.version_ < 2 || file_.version_ > 3) {
      Throw(ErrorCode::kUnsupported, "{}: version: expected 2 or 3, found {}", file_.name_,
            file_.version_);
    }
    *num_tensors = Read<uint64_t>("tensor count");
    *num_entries = Read<uint64_t>("metadata count");
    constexpr uint64_t kSmallestEntry = 8 + 1 + 4 + 1, kSmallestInfo = 8 + 1 + 4 + 4 + 8;
    if (*num_entries > Left() / kSmallestEntry) {
      Fail("metadata count",
           "expected at most {} in the {} bytes that follow, found {}; the file is cut short or "
           "damaged",
           Left() / kSmallestEntry, Left(), *num_entries);
    }
    if (*num_tensors > Left() / kSmallestInfo) {
      Fail("tensor count",
           "expected at most {} in the {} bytes that follow, found {}; the file is cut short or "
           "damaged",
           Left() / kSmallestInfo, Left(), *num_tensors);
    }
  }

  void Enter(const char* section, uint64_t count) {
    section_ = section;
    count_ = count;
    name_ = {};
  }

  void ParseMetadata(uint64_t count) {
    Enter("metadata entry", count);
    for (index_ = 0; index_ < count; ++index_, name_ = {}) {
      name_ = ReadName("key length", "key");
      const GgufType type = ReadType("value type");
      file_.entries_.push_back({name_, ReadValue(type, 0)});
    }
  }

  // Sorted positions, so that a look-up is a binary search and a duplicate is a neighbour.
  template <class T, class Name>
  std::vector<uint32_t> SortedIndex(const std::vector<T>& items, Name name,
                                    const char* what) const {
    std::vector<uint32_t> order(items.size());
    std::iota(order.begin(), order.end(), 0u);
    std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
      const int compared = name(items[a]).compare(name(items[b]));
      return compared != 0 ? compared < 0 : a < b;
    });
    for (size_t i = 1; i < order.size(); ++i) {
      const std::string_view current = name(items[order[i]]);
      if (current == name(items[order[i - 1]])) {
        Throw(ErrorCode::kCorrupt, "{}: {} {}: expected once, found again as number {} (first {})",
              file_.name_, what, Quote(current), order[i] + 1, order[i - 1] + 1);
      }
    }
    return order;
  }

  void IndexMetadata() {
    file_.entries_by_key_ = SortedIndex(
        file_.entries_, [](const GgufEntry& entry) { return entry.key; }, "metadata key");
  }

  void IndexTensors() {
    file_.tensors_by_name_ = SortedIndex(
        file_.tensors_, [](const GgufTensor& tensor) { return tensor.name; }, "tensor name");
  }

  void ReadAlignment() {
    const GgufValue* value = file_.Find("general.alignment");
    if (value == nullptr) return;
    if (value->type != GgufType::kUint32) {
      Throw(ErrorCode::kCorrupt, "{}: key 'general.alignment': expected UINT32, found {}",
            file_.name_, GgufTypeName(value->type));
    }
    std::memcpy(&file_.alignment_, value->bytes.data(), 4);
    if (file_.alignment_ < 8 || !std::has_single_bit(file_.alignment_)) {
      Throw(ErrorCode::kCorrupt,
            "{}: key 'general.alignment': expected a power of two, 8 or more, found {}",
            file_.name_, file_.alignment_);
    }
  }

  void ParseTensorInfos(uint64_t count) {
    Enter("tensor", count);
    for (index_ = 0; index_ < count; ++index_, name_ = {}) {
      GgufTensor tensor;
      name_ = tensor.name = ReadName("name length", "name");
      ReadShape(tensor);
      ReadTensorType(tensor);
      const auto offset = Read<uint64_t>("offset");
      if (offset % file_.alignment_ != 0) {
        Fail("offset", "expected a multiple of the alignment {}, found {}", file_.alignment_,
             offset);
      }
      extents_.push_back({offset, TensorBytes(tensor)});
      file_.tensors_.push_back(tensor);
    }
    section_ = nullptr;
  }

  void ReadShape(GgufTensor& tensor) {
    const auto dims = Read<uint32_t>("number of dimensions");
    if (dims > 4) Fail("number of dimensions", "expected 0 to 4, found {}", dims);
    tensor.num_dims = static_cast<int>(dims);
    int64_t elements = 1;
    for (uint32_t d = 0; d < dims; ++d) {
      const auto size = Read<uint64_t>("dimension");
      if (size == 0 || size > static_cast<uint64_t>(INT64_MAX)) {
        Fail("dimension", "{}: expected 1 to 2^63 - 1, found {}", d, size);
      }
      tensor.ne[d] = static_cast<int64_t>(size);
      const auto product = CheckedMul(elements, tensor.ne[d]);
      if (!product) {
        Fail("shape", "expected fewer than 2^63 elements, found {} x {} or more", elements, size);
      }
      elements = *product;
    }
  }

  void ReadTensorType(GgufTensor& tensor) {
    const auto type = Read<uint32_t>("type");
    if (!IsDType(type)) {
      Throw(
          ErrorCode::kUnsupported,
          "{}: expected a type that this program decodes (F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, "
          "Q8_0, Q2_K to Q6_K, IQ4_NL, IQ4_XS, MXFP4), found number {}{}; fetch the model in one "
          "of "
          "them",
          Where("type"), type, OtherTensorType(type));
    }
    tensor.type = static_cast<DType>(type);
    if (tensor.cols() % BlockSize(tensor.type) != 0) {
      Fail("dimension", "0: expected a multiple of {} ({}), found {}", BlockSize(tensor.type),
           DTypeName(tensor.type), tensor.cols());
    }
  }

  uint64_t TensorBytes(const GgufTensor& tensor) const {
    const int64_t blocks = tensor.elements() / BlockSize(tensor.type);
    const auto bytes = CheckedMul(blocks, BlockBytes(tensor.type));
    if (!bytes) {
      Fail("shape", "expected fewer than 2^63 bytes, found {} blocks of {} bytes", blocks,
           BlockBytes(tensor.type));
    }
    return static_cast<uint64_t>(*bytes);
  }

  // Gives each tensor its bytes, and checks that they lie in the file and are nobody else's.
  void PlaceTensors() {
    if (file_.tensors_.empty()) return;
    const uint64_t mask = file_.alignment_ - 1;
    const uint64_t data_begin = (position_ + mask) & ~mask;
    for (size_t i = 0; i < extents_.size(); ++i) {
      const auto [offset, size] = extents_[i];
      const auto begin = CheckedAdd(data_begin, offset);
      const auto end = begin ? CheckedAdd(*begin, size) : std::nullopt;
      if (!end || *end > bytes_.size()) {
        Throw(ErrorCode::kCorrupt,
              "{}: tensor {}: expected {} bytes at offset {} of the data (from byte {}), found the "
              "end of the file at byte {}; it is cut short or damaged: fetch it again",
              file_.name_, Quote(file_.tensors_[i].name), size, offset, data_begin, bytes_.size());
      }
      file_.tensors_[i].data = bytes_.subspan(*begin, size);
    }
    CheckOverlaps();
  }

  void CheckOverlaps() const {
    std::vector<uint32_t> order(extents_.size());
    std::iota(order.begin(), order.end(), 0u);
    std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
      return std::pair(extents_[a].offset, a) < std::pair(extents_[b].offset, b);
    });
    for (size_t i = 1; i < order.size(); ++i) {
      const Extent before = extents_[order[i - 1]], after = extents_[order[i]];
      if (before.offset + before.size > after.offset) {
        Throw(ErrorCode::kCorrupt,
              "{}: tensor {}: expected an offset of {} or more (the end of {}), found {}: they "
              "overlap",
              file_.name_, Quote(file_.tensors_[order[i]].name), before.offset + before.size,
              Quote(file_.tensors_[order[i - 1]].name), after.offset);
      }
    }
  }

  struct Extent {
    uint64_t offset, size;
  };

  GgufFile& file_;
  std::span<const uint8_t> bytes_;
  uint64_t position_ = 0;
  const char* section_ = nullptr;  // with index_ and name_: where we are, for messages
  uint64_t index_ = 0, count_ = 0;
  std::string_view name_;
  std::vector<Extent> extents_;  // by tensor
};

GgufFile GgufFile::Open(const std::filesystem::path& path) {
  MappedFile mapping = MappedFile::Open(path);
  GgufFile file = Parse(mapping.bytes(), path.string());
  file.mapping_ = std::move(mapping);
  file.OpenParts(path);
  return file;
}

GgufFile GgufFile::Parse(std::span<const uint8_t> bytes, std::string name) {
  GgufFile file;
  file.name_ = std::move(name);
  file.bytes_ = bytes;
  GgufParser(file).ParseFile();
  return file;
}

const GgufValue* GgufFile::Find(std::string_view key) const {
  const auto found =
      std::lower_bound(entries_by_key_.begin(), entries_by_key_.end(), key,
                       [&](uint32_t i, std::string_view k) { return entries_[i].key < k; });
  if (found == entries_by_key_.end() || entries_[*found].key != key) return nullptr;
  return &entries_[*found].value;
}

const GgufTensor* GgufFile::FindTensor(std::string_view tensor_name) const {
  const auto found =
      std::lower_bound(tensors_by_name_.begin(), tensors_by_name_.end(), tensor_name,
                       [&](uint32_t i, std::string_view n) { return tensors_[i].name < n; });
  if (found == tensors_by_name_.end() || tensors_[*found].name != tensor_name) return nullptr;
  return &tensors_[*found];
}

const GgufTensor& GgufFile::Tensor(std::string_view tensor_name) const {
  const GgufTensor* tensor = FindTensor(tensor_name);
  if (tensor == nullptr) {
    Throw(ErrorCode::kCorrupt, "{}: tensor {}: expected, found no such tensor among {}", name_,
          Quote(tensor_name), tensors_.size());
  }
  return *tensor;
}

std::vector<GgufValue> GgufFile::GetArrays(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr || value->type != GgufType::kArray || value->element != GgufType::kArray) {
    Throw(ErrorCode::kCorrupt, "{}: key {}: expected ARRAY of ARRAY, found {}", name_, Quote(key),
          value == nullptr ? "no such key" : GgufTypeName(value->type));
  }
  GgufFile scratch;
  scratch.name_ = name_;
  return GgufParser::Elements(scratch, *value);
}

}  // namespace bakestone
