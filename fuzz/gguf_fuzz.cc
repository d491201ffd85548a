// GGUF files, and what is read through them: metadata by every accessor, tensor data, tokenizer
// specs and adapters. A reader may refuse with bakestone::Error and nothing else. What it accepts
// must survive being written and read again.
//
// The mutator knows the grammar: it finds the counts, lengths, types and offsets of an input and
// puts numbers there that break arithmetic. libFuzzer's own mutations do the rest.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "format/gguf.h"
#include "format/gguf_adapter.h"
#include "format/gguf_tokenizer.h"
#include "format/gguf_writer.h"
#include "tensor/dequantize.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace {

using namespace bakestone;

template <class Action>
void Try(Action action) {
  try {
    action();
  } catch (const Error&) {
  }
}

void ReadArray(const GgufFile& file, std::string_view key, GgufType element) {
  switch (element) {
    case GgufType::kString:
      return Try([&] { (void)file.GetStrings(key); });
    case GgufType::kArray:
      return Try([&] { (void)file.GetArrays(key); });
    case GgufType::kBool:
      return Try([&] { (void)file.GetBools(key); });
    case GgufType::kFloat32:
    case GgufType::kFloat64:
      return Try([&] { (void)file.GetF32s(key); });
    default:
      Try([&] { (void)file.GetU32s(key); });
      Try([&] { (void)file.GetI64s(key); });
  }
}

// The accessors that fit the key, and by turns one that may not: each refusal is an exception, and
// asking them all of every key would leave no time for other inputs.
void ReadEveryKey(const GgufFile& file) {
  size_t turn = file.bytes().size();
  for (const auto& [key, value] : file.metadata()) {
    if (value.type == GgufType::kArray) {
      ReadArray(file, key, value.element);
    } else if (value.type == GgufType::kString) {
      (void)file.GetString(key);
    } else if (value.type == GgufType::kFloat32 || value.type == GgufType::kFloat64) {
      (void)file.GetF64(key);
    } else if (value.type == GgufType::kBool) {
      (void)file.GetBool(key);
    }
    switch (turn++ % 8) {
      case 0:
        Try([&] { (void)file.GetU32(key); });
        break;
      case 1:
        Try([&] { (void)file.GetI64(key, 0); });
        break;
      case 2:
        Try([&] { (void)file.GetF32(key); });
        break;
      case 3:
        Try([&] { (void)file.GetString(key); });
        break;
      case 4:
        Try([&] { (void)file.GetStrings(key); });
        break;
      case 5:
        Try([&] { (void)file.GetI32s(key); });
        break;
      case 6:
        Try([&] { (void)file.GetU32PerLayer(key, 3); });
        break;
      default:
        Try([&] { (void)file.GetArrays(key); });
    }
  }
}

void ReadEveryTensor(const GgufFile& file) {
  std::vector<float> row;
  for (const GgufTensor& tensor : file.tensors()) {
    const int64_t row_bytes = RowBytes(tensor.type, tensor.cols());
    BAKESTONE_CHECK(static_cast<int64_t>(tensor.data.size()) == row_bytes * tensor.rows());
    BAKESTONE_CHECK(file.FindTensor(tensor.name) == &tensor);
    row.resize(static_cast<size_t>(tensor.cols()));
    const uint8_t* last = tensor.data.data() + (tensor.rows() - 1) * row_bytes;
    DequantizeRow(tensor.type, last, row.data(), tensor.cols());
  }
}

// A copy holds the same, whatever the file was.
void CopyAndCompare(const GgufFile& file) {
  GgufWriter writer(file.alignment());
  bool fits = true;  // names longer than other programs accept are read but not written
  for (const GgufEntry& entry : file.metadata()) {
    if (entry.key != "general.alignment") writer.AddValue(entry.key, entry.value);
  }
  for (const GgufTensor& tensor : file.tensors()) {
    fits &= tensor.name.size() < 64;
    if (!fits) break;
    const auto dims = static_cast<size_t>(std::max(tensor.num_dims, 1));
    writer.AddTensor(tensor.name, tensor.type, std::span(tensor.ne).first(dims), tensor.data);
  }
  if (!fits || file.alignment() > 4096) return;
  const std::string bytes = writer.Serialize();
  const GgufFile copy =
      GgufFile::Parse({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, "copy");
  BAKESTONE_CHECK(copy.tensors().size() == file.tensors().size());
  for (const GgufTensor& tensor : file.tensors()) {
    const GgufTensor& other = copy.Tensor(tensor.name);
    BAKESTONE_CHECK(other.ne == tensor.ne && std::ranges::equal(other.data, tensor.data));
  }
  for (const GgufEntry& entry : file.metadata()) {
    if (entry.key == "general.alignment") continue;
    const GgufValue* value = copy.Find(entry.key);
    BAKESTONE_CHECK(value != nullptr && std::ranges::equal(value->bytes, entry.value.bytes));
  }
}

// Where the numbers that matter lie in an input: found by walking it as far as it makes sense.
class Walker {
 public:
  explicit Walker(std::span<const uint8_t> bytes) : bytes_(bytes) {}

  struct Field {
    size_t offset;
    int size;
  };

  std::vector<Field> Fields() {
    position_ = 4;
    Number(4);
    const uint64_t tensors = Number(8), entries = Number(8);
    for (uint64_t i = 0; i < entries && good_; ++i) {
      String();
      Value(Number(4), 0);
    }
    for (uint64_t i = 0; i < tensors && good_; ++i) {
      String();
      const uint64_t dims = Number(4);
      for (uint64_t d = 0; d < dims && good_; ++d) Number(8);
      Number(4);
      Number(8);
    }
    return fields_;
  }

 private:
  uint64_t Number(int size) {
    if (!good_ || bytes_.size() - position_ < static_cast<size_t>(size)) {
      good_ = false;
      return 0;
    }
    uint64_t value = 0;
    std::memcpy(&value, bytes_.data() + position_, static_cast<size_t>(size));
    if (fields_.size() < 4096) fields_.push_back({position_, size});
    position_ += static_cast<size_t>(size);
    return value;
  }
  void Skip(uint64_t size) {
    good_ = good_ && size <= bytes_.size() - position_;
    if (good_) position_ += size;
  }
  void String() { Skip(Number(8)); }
  void Value(uint64_t type, int depth) {
    static constexpr int kSizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    good_ = good_ && type < std::size(kSizes) && depth < 8;
    if (!good_) return;
    if (type == 8) {
      String();
    } else if (type != 9) {
      Number(kSizes[type]);
    } else {
      const uint64_t element = Number(4), count = Number(8);
      for (uint64_t i = 0; i < count && good_; ++i) Value(element, depth + 1);
    }
  }

  std::span<const uint8_t> bytes_;
  size_t position_ = 0;
  bool good_ = true;
  std::vector<Field> fields_;
};

uint64_t Awkward(std::minstd_rand& random, uint64_t old, size_t size) {
  switch (random() % 8) {
    case 0:
      return old + 1;
    case 1:
      return old - 1;
    case 2:
      return size;
    case 3:
      return ~uint64_t{0} >> (random() % 64);
    case 4:
      return uint64_t{1} << (random() % 64);
    case 5:
      return random() % 45;  // types, small counts
    case 6:
      return old * 2;
    default:
      return 0;
  }
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned int seed) {
  std::minstd_rand random(seed);
  if (size >= 24 && random() % 2 == 0) {
    const auto fields = Walker({data, size}).Fields();
    if (!fields.empty()) {
      const Walker::Field field = fields[random() % fields.size()];
      uint64_t value = 0;
      std::memcpy(&value, data + field.offset, static_cast<size_t>(field.size));
      value = Awkward(random, value, size);
      std::memcpy(data + field.offset, &value, static_cast<size_t>(field.size));
      return size;
    }
  }
  return LLVMFuzzerMutate(data, size, max_size);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Try([&] {
    const GgufFile file = GgufFile::Parse({data, size}, "input.gguf");
    ReadEveryKey(file);
    ReadEveryTensor(file);
    CopyAndCompare(file);
    Try([&] { FromGguf(file); });
    Try([&] { ReadGgufAdapter(file, {.num_heads = 4, .num_kv_heads = 2, .head_dim = 4}); });
  });
  return 0;
}
