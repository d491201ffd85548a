// GGUF files that other programs wrote, and our own round trip.
#include "format/gguf.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/sha256.h"
#include "format/gguf_writer.h"
#include "format/q_k_permute.h"
#include "format/test_bytes_test.h"
#include "tensor/dequantize.h"
#include "tensor/half.h"

namespace bakestone {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<float> Floats(const GgufTensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.elements()));
  DequantizeRow(tensor.type, tensor.data.data(), values.data(), tensor.elements());
  return values;
}

class DequantizeGolden : public testing::TestWithParam<DType> {};

TEST_P(DequantizeGolden, EqualsThePackageGgufBitForBit) {
  const GgufFile file = GgufFile::Open(TestData("gguf/goldens.gguf"));
  const std::string name = DTypeName(GetParam());
  const GgufTensor& blocks = file.Tensor(name);
  ASSERT_EQ(blocks.type, GetParam());
  const std::vector<float> found = Floats(blocks), expected = Floats(file.Tensor(name + ".f32"));
  ASSERT_EQ(found.size(), expected.size());
  ASSERT_GE(found.size(), 1536u);
  for (size_t i = 0; i < found.size(); ++i) {
    ASSERT_EQ(BitsOfFloat(found[i]), BitsOfFloat(expected[i]))
        << name << " weight " << i << ": " << found[i] << " for " << expected[i];
  }
}

INSTANTIATE_TEST_SUITE_P(AllTypes, DequantizeGolden,
                         testing::Values(DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                                         DType::kQ8_0, DType::kQ2_K, DType::kQ3_K, DType::kQ4_K,
                                         DType::kQ5_K, DType::kQ6_K, DType::kIQ4_NL, DType::kIQ4_XS,
                                         DType::kMXFP4),
                         [](const auto& test) { return std::string(DTypeName(test.param)); });

TEST(DequantizeGoldenHalf, EqualsNumpyOnAllBitPatterns) {
  const GgufFile file = GgufFile::Open(TestData("gguf/goldens.gguf"));
  std::vector<uint16_t> bits(65536);
  for (size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<uint16_t>(i);
  std::vector<float> floats(bits.size());
  const auto hash = [&] {
    return ToHex(HashOf({reinterpret_cast<const uint8_t*>(floats.data()), floats.size() * 4}));
  };
  DequantizeRow(DType::kBF16, bits.data(), floats.data(), 65536);
  EXPECT_EQ(hash(), file.GetString("bf16.sha256"));
  DequantizeRow(DType::kF16, bits.data(), floats.data(), 65536);
  for (size_t i = 0; i < bits.size(); ++i) {
    if ((bits[i] & 0x7FFF) > 0x7C00) floats[i] = 0;  // as the generator does
  }
  EXPECT_EQ(hash(), file.GetString("f16.sha256"));
}

TEST(QueryKeyPermutation, EqualsTheConvertersReshape) {
  const GgufFile file = GgufFile::Open(TestData("gguf/goldens.gguf"));
  const GgufTensor &hf = file.Tensor("qk.hf"), &gguf = file.Tensor("qk.gguf");
  const int64_t row_bytes = RowBytes(hf.type, hf.cols()), head_dim = hf.rows() / 3;
  std::vector<uint8_t> out(hf.data.size());
  QueryKeyRowsToGguf(hf.data.data(), out.data(), hf.rows(), row_bytes, head_dim);
  EXPECT_EQ(std::memcmp(out.data(), gguf.data.data(), out.size()), 0);
  EXPECT_NE(std::memcmp(out.data(), hf.data.data(), out.size()), 0);
  QueryKeyRowsFromGguf(gguf.data.data(), out.data(), hf.rows(), row_bytes, head_dim);
  EXPECT_EQ(std::memcmp(out.data(), hf.data.data(), out.size()), 0);
  EXPECT_THAT(MessageOf([&] { QueryKeyRowsToGguf(nullptr, nullptr, 24, 4, 5); }),
              HasSubstr("found 24 rows and a head size of 5"));
  EXPECT_TRUE(GgufPermutesQueryKey("llama"));
  EXPECT_FALSE(GgufPermutesQueryKey("qwen2"));
}

class Metadata : public testing::TestWithParam<int> {};

TEST_P(Metadata, EveryTypeIsReadAsWritten) {
  const GgufFile file =
      GgufFile::Open(TestData("gguf/metadata_v" + std::to_string(GetParam()) + ".gguf"));
  EXPECT_EQ(file.version(), static_cast<uint32_t>(GetParam()));
  EXPECT_EQ(file.alignment(), 64u);
  EXPECT_EQ(file.GetString("general.architecture"), "test");
  EXPECT_EQ(file.GetU32("t.u8"), 200u);
  EXPECT_EQ(file.GetI32("t.i8"), -100);
  EXPECT_EQ(file.GetU32("t.u16"), 60000u);
  EXPECT_EQ(file.GetI64("t.i16"), -30000);
  EXPECT_EQ(file.GetU32("t.u32"), 4000000000u);
  EXPECT_EQ(file.GetI32("t.i32"), -2000000000);
  EXPECT_EQ(file.GetU64("t.u64"), UINT64_MAX);
  EXPECT_EQ(file.GetI64("t.i64"), INT64_MIN);
  EXPECT_EQ(file.GetF32("t.f32"), 0.1f);
  EXPECT_EQ(file.GetF64("t.f64"), 0.1);
  EXPECT_EQ(file.GetF32("t.f64"), 0.1f);
  EXPECT_TRUE(file.GetBool("t.true"));
  EXPECT_FALSE(file.GetBool("t.false"));
  EXPECT_EQ(file.GetString("t.string"), "satu dua tiga \xe2\x98\x83");
  EXPECT_EQ(file.GetString("t.empty"), "");
  EXPECT_THAT(file.GetStrings("t.strings"), ElementsAre("a", "", "ccc"));
  EXPECT_THAT(file.GetI32s("t.i32s"), ElementsAre(-1, 0, 7));
  EXPECT_THAT(file.GetI64s("t.i32s"), ElementsAre(-1, 0, 7));
  EXPECT_THAT(file.GetF32s("t.f32s"), ElementsAre(0.5f, -0.25f));
  EXPECT_THAT(file.GetBools("t.bools"), ElementsAre(true, false, true));

  const std::vector<GgufValue> nested = file.GetArrays("t.nested");
  ASSERT_EQ(nested.size(), 3u);
  EXPECT_EQ(nested[0].type, GgufType::kArray);
  EXPECT_EQ(nested[0].element, GgufType::kInt32);
  EXPECT_EQ(nested[1].count, 2u);
  const int32_t expected[] = {4, 5};
  ASSERT_EQ(nested[1].bytes.size(), sizeof(expected));
  EXPECT_EQ(std::memcmp(nested[1].bytes.data(), expected, sizeof(expected)), 0);

  ASSERT_EQ(file.tensors().size(), 2u);
  EXPECT_EQ(file.tensors()[0].name, "first");
  EXPECT_EQ(file.tensors()[0].rows(), 3);
  EXPECT_EQ(file.tensors()[0].cols(), 5);
  EXPECT_EQ(file.Tensor("second").type, DType::kF16);
  EXPECT_EQ(file.Tensor("second").elements(), 7);
  EXPECT_EQ(file.FindTensor("third"), nullptr);
}

INSTANTIATE_TEST_SUITE_P(Versions, Metadata, testing::Values(2, 3));

TEST(Metadata, WrongTypesAndRangesNameKeyExpectedAndFound) {
  const GgufFile file = GgufFile::Open(TestData("gguf/metadata_v3.gguf"));
  const auto message = [&](auto get) { return MessageOf([&] { (void)get(file); }); };
  EXPECT_THAT(message([](const GgufFile& f) { return f.GetU32("t.string"); }),
              HasSubstr("metadata_v3.gguf: key 't.string': expected UINT32, found STRING"));
  EXPECT_THAT(message([](const GgufFile& f) { return f.GetU32("t.i8"); }),
              HasSubstr("key 't.i8': expected UINT32, found -100, outside 0 to 4294967295"));
  EXPECT_THAT(message([](const GgufFile& f) { return f.GetI64("t.u64"); }),
              HasSubstr("expected INT64, found 18446744073709551615, outside"));
  EXPECT_THAT(message([](const GgufFile& f) { return f.GetU32("t.f32"); }),
              HasSubstr("expected UINT32, found FLOAT32"));
  EXPECT_THAT(message([](const GgufFile& f) { return f.GetF32("t.u32"); }),
              HasSubstr("expected FLOAT32, found UINT32"));
  EXPECT_THAT(message([](const GgufFile& f) { return f.GetBool("t.u8"); }),
              HasSubstr("expected BOOL, found UINT8"));
  EXPECT_THAT(message([](const GgufFile& f) { return f.GetU32("t.i32s"); }),
              HasSubstr("expected UINT32, found ARRAY of 3 INT32"));
  EXPECT_THAT(message([](const GgufFile& f) { return f.GetU32s("t.i32s"); }),
              HasSubstr("expected ARRAY of UINT32, found -1, outside"));
  EXPECT_THAT(message([](const GgufFile& f) { return f.GetStrings("t.i32s"); }),
              HasSubstr("expected ARRAY of STRING, found ARRAY of 3 INT32"));
  EXPECT_THAT(message([](const GgufFile& f) { return f.GetI32s("t.strings"); }),
              HasSubstr("expected ARRAY of INT32, found ARRAY of 3 STRING"));
  EXPECT_THAT(message([](const GgufFile& f) { return f.GetArrays("t.i32s"); }),
              HasSubstr("expected ARRAY of ARRAY, found ARRAY"));
  EXPECT_THAT(message([](const GgufFile& f) { return f.GetString("llama.nothing"); }),
              HasSubstr("key 'llama.nothing': expected STRING, found no such key"));
  EXPECT_THAT(message([](const GgufFile& f) { return &f.Tensor("output.weight"); }),
              HasSubstr("tensor 'output.weight': expected, found no such tensor among 2"));
  EXPECT_EQ(file.GetU32("llama.nothing", 7), 7u);
  EXPECT_THAT(message([](const GgufFile& f) { return f.GetU32("t.string", 7); }),
              HasSubstr("found STRING"));
}

TEST(Metadata, PerLayerNumbersMayBeOneOrOnePerLayer) {
  GgufWriter writer;
  writer.AddU32("scalar", 3);
  writer.AddI32s("array", std::vector<int32_t>{3, 0});
  const std::string bytes = writer.Serialize();
  const GgufFile file = GgufFile::Parse(AsBytes(bytes), "x.gguf");
  EXPECT_THAT(file.GetU32PerLayer("scalar", 3), ElementsAre(3u, 3u, 3u));
  EXPECT_THAT(file.GetU32PerLayer("array", 2), ElementsAre(3u, 0u));
  EXPECT_THAT(
      MessageOf([&] { file.GetU32PerLayer("array", 3); }),
      HasSubstr("x.gguf: key 'array': expected ARRAY of 3 UINT32 (one per layer), found 2"));
}

TEST(GgufFile, StaysValidWhenMoved) {
  GgufFile file = GgufFile::Open(TestData("gguf/tiny_llama.gguf"));
  const GgufFile moved = std::move(file);
  EXPECT_EQ(moved.GetU32("llama.block_count"), 2u);
  EXPECT_EQ(moved.GetStrings("tokenizer.ggml.tokens").size(), 320u);
  EXPECT_EQ(moved.Tensor("token_embd.weight").data.size(), 320u * 68);
}

TEST(GgufWriter, CopiesAFileSoThatItReadsTheSame) {
  for (const char* name : {"gguf/metadata_v3.gguf", "gguf/tiny_llama.gguf", "gguf/goldens.gguf"}) {
    const GgufFile file = GgufFile::Open(TestData(name));
    GgufWriter writer(file.alignment());
    for (const GgufEntry& entry : file.metadata()) {
      if (entry.key != "general.alignment") writer.AddValue(entry.key, entry.value);
    }
    for (const GgufTensor& tensor : file.tensors()) {
      const auto dims = static_cast<size_t>(std::max(tensor.num_dims, 1));
      writer.AddTensor(tensor.name, tensor.type, std::span(tensor.ne).first(dims), tensor.data);
    }
    const auto path = std::filesystem::path(testing::TempDir()) /
                      ("bakestone_copy_" + std::to_string(::getpid()) + ".gguf");
    writer.Write(path);
    const GgufFile copy = GgufFile::Open(path);
    EXPECT_EQ(copy.version(), 3u);
    EXPECT_EQ(copy.alignment(), file.alignment());
    for (const GgufEntry& entry : file.metadata()) {
      const GgufValue* value = copy.Find(entry.key);
      ASSERT_NE(value, nullptr) << entry.key;
      EXPECT_EQ(value->type, entry.value.type);
      EXPECT_TRUE(std::ranges::equal(value->bytes, entry.value.bytes)) << entry.key;
    }
    ASSERT_EQ(copy.tensors().size(), file.tensors().size());
    for (size_t i = 0; i < file.tensors().size(); ++i) {
      EXPECT_EQ(copy.tensors()[i].name, file.tensors()[i].name);
      EXPECT_EQ(copy.tensors()[i].ne, file.tensors()[i].ne);
      EXPECT_TRUE(std::ranges::equal(copy.tensors()[i].data, file.tensors()[i].data));
    }
    std::filesystem::remove(path);
  }
}

TEST(GgufWriter, RefusesWhatOtherProgramsWouldNotRead) {
  GgufWriter writer;
  writer.AddU32("a", 1);
  EXPECT_THAT(MessageOf([&] { writer.AddU32("a", 1); }), HasSubstr("expected once, found again"));
  EXPECT_THAT(MessageOf([&] { writer.AddU32("", 1); }), HasSubstr("expected 1 to 65535 bytes"));
  EXPECT_THAT(MessageOf([&] { writer.AddU32("general.alignment", 8); }),
              HasSubstr("in the constructor"));
  EXPECT_THAT(MessageOf([] { GgufWriter(24); }), HasSubstr("power of two, 8 or more, found 24"));
  const std::vector<uint8_t> data(34);
  const int64_t row[] = {32}, zero[] = {0}, huge[] = {32, INT64_MAX};
  EXPECT_THAT(MessageOf([&] { writer.AddTensor(std::string(64, 'x'), DType::kQ8_0, row, data); }),
              HasSubstr("expected a name of 1 to 63 bytes, found 64"));
  EXPECT_THAT(MessageOf([&] { writer.AddTensor("t", DType::kQ8_0, zero, data); }),
              HasSubstr("expected dimensions above 0, found 0"));
  EXPECT_THAT(MessageOf([&] { writer.AddTensor("t", DType::kQ8_0, huge, data); }),
              HasSubstr("fewer than 2^63 bytes"));
  writer.AddTensor("t", DType::kQ8_0, row, data);
  EXPECT_THAT(MessageOf([&] { writer.AddTensor("t", DType::kQ8_0, row, data); }),
              HasSubstr("expected once, found again"));
  EXPECT_THAT(
      MessageOf([&] { writer.AddTensor("u", DType::kQ8_0, row, std::span(data).first(33)); }),
      HasSubstr("tensor 'u': expected 34 bytes (its shape), found 33"));
}

TEST(GgufWriter, AsksForATensorPieceByPiece) {
  std::vector<uint8_t> data(3 * 34);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<uint8_t>(i);
  const int64_t ne[] = {32, 3};
  size_t at = 0;
  const auto pieces = [&](size_t size) {
    at = 0;
    return [&data, &at, size] {
      const size_t count = std::min(size, data.size() - at);
      return std::span<const uint8_t>(data).subspan(std::exchange(at, at + count), count);
    };
  };
  GgufWriter whole, cut, short_of, too_long;
  whole.AddTensor("t", DType::kQ8_0, ne, data);
  cut.AddTensor("t", DType::kQ8_0, ne, pieces(40));
  EXPECT_EQ(cut.Serialize(), whole.Serialize());
  short_of.AddTensor("t", DType::kQ8_0, ne, [] { return std::span<const uint8_t>(); });
  EXPECT_THAT(MessageOf([&] { short_of.Serialize(); }),
              HasSubstr("expected 102 bytes (its shape), found 0"));
  too_long.AddTensor("t", DType::kQ8_0, ne,
                     [&] { return std::span<const uint8_t>(data).first(60); });
  EXPECT_THAT(MessageOf([&] { too_long.Serialize(); }),
              HasSubstr("expected 42 bytes (its shape), found 60"));
}

// Set BAKESTONE_TEST_MODEL to the path of SmolLM2-135M-Instruct.Q4_1.gguf (./test does).
TEST(RealModel, IsReadWhole) {
  const char* path = std::getenv("BAKESTONE_TEST_MODEL");
  if (path == nullptr) GTEST_SKIP() << "BAKESTONE_TEST_MODEL does not name a model file";
  const GgufFile file = GgufFile::Open(path);
  EXPECT_EQ(file.tensors().size(), 272u);
  EXPECT_EQ(file.GetString("general.architecture"), "llama");
  EXPECT_EQ(file.GetU32("llama.block_count"), 30u);
  EXPECT_EQ(file.GetStrings("tokenizer.ggml.tokens").size(), 49152u);
  EXPECT_EQ(file.Tensor("token_embd.weight").type, DType::kQ8_0);
  uint64_t total = 0;
  for (const GgufTensor& tensor : file.tensors()) {
    total += tensor.data.size();
    for (const float x : Floats(tensor)) {
      if (!std::isfinite(x)) FAIL() << tensor.name << " holds " << x;
    }
  }
  EXPECT_GT(total, file.bytes().size() * 95 / 100);
}

}  // namespace
}  // namespace bakestone
