// Files made to break a reader: every one must be a clear Error, and none may make it allocate more
// than the file's own size justifies.
#include <gmock/gmock.h>

#include "base/file.h"
#include "base/rng.h"
#include "format/allocation_counter_test.h"
#include "format/gguf.h"
#include "format/safetensors.h"
#include "format/test_bytes_test.h"

namespace bakestone {
namespace {

using testing::HasSubstr;

constexpr uint32_t kU32 = 4, kBool = 7, kString = 8, kArray = 9;

std::string ParseGguf(const std::string& bytes) {
  ResetAllocations();
  const std::string message = MessageOf([&] { GgufFile::Parse(AsBytes(bytes), "bad.gguf"); });
  // Messages and vectors that grow by doubling; never a count's worth.
  EXPECT_LE(LargestAllocation(), 4096 + 12 * bytes.size());
  EXPECT_LE(TotalAllocated(), 16384 + 32 * bytes.size());
  return message;
}

// A file with one tensor whose fields the caller changes.
struct TensorFile {
  std::string name = "t";
  std::vector<uint64_t> ne = {32};
  uint32_t type = 0;
  uint64_t offset = 0;
  size_t data = 128;

  Bytes& Info(Bytes& bytes) const {
    bytes.Str(name).U32(static_cast<uint32_t>(ne.size()));
    for (const uint64_t n : ne) bytes.U64(n);
    return bytes.U32(type).U64(offset);
  }
  std::string str() const {
    Bytes bytes = GgufHeader(1, 0);
    return Info(bytes).PadTo(32).Raw(std::string(data, 'x')).str();
  }
};

#ifndef BAKESTONE_SANITIZED
TEST(Allocations, AreCounted) {
  ResetAllocations();
  const std::string text(5000, 'x');
  EXPECT_GE(TotalAllocated(), text.size());
  EXPECT_GE(LargestAllocation(), text.size());
}
#endif

TEST(HostileGguf, TheUnchangedFileIsFine) { EXPECT_EQ(ParseGguf(TensorFile().str()), "no error"); }

TEST(HostileGguf, MagicAndVersion) {
  EXPECT_THAT(ParseGguf(""), HasSubstr("bad.gguf: magic: expected 4 bytes at offset 0, found 0"));
  EXPECT_THAT(ParseGguf("GGML1234"), HasSubstr("magic: expected 'GGUF', found 'GGML'"));
  EXPECT_THAT(ParseGguf(GgufHeader(0, 0, 1).str()), HasSubstr("version: expected 2 or 3, found 1"));
  EXPECT_THAT(ParseGguf(GgufHeader(0, 0, 4).str()), HasSubstr("version: expected 2 or 3, found 4"));
  EXPECT_THAT(ParseGguf(GgufHeader(0, 0, 0x03000000).str()), HasSubstr("is big-endian"));
}

TEST(HostileGguf, CountsNearTheLimits) {
  for (const uint64_t count : {UINT64_MAX, UINT64_MAX - 1, uint64_t{1} << 63,
                               (uint64_t{1} << 63) - 1, uint64_t{1} << 60, uint64_t{1} << 32}) {
    EXPECT_THAT(ParseGguf(GgufHeader(0, count).str()),
                HasSubstr("metadata count: expected at most 0 in the 0 bytes that follow, found " +
                          std::to_string(count)));
    EXPECT_THAT(ParseGguf(GgufHeader(count, 0).str()),
                HasSubstr("tensor count: expected at most 0"));
    // A key, a string, an array, an array of strings, a tensor's name of that length.
    Bytes key = GgufHeader(0, 1), text = key, array = key, nested = key, name = GgufHeader(1, 0);
    key.U64(count).Raw("0123456789");
    EXPECT_THAT(ParseGguf(key.str()), HasSubstr("metadata entry 1 of 1: key: expected " +
                                                std::to_string(count) + " bytes"));
    text.Str("k").U32(kString).U64(count).Raw("abc");
    EXPECT_THAT(ParseGguf(text.str()), HasSubstr("metadata entry 1 of 1 ('k'): string: expected "));
    array.Str("k").U32(kArray).U32(kU32).U64(count).Raw("abcd");
    EXPECT_THAT(
        ParseGguf(array.str()),
        HasSubstr("('k'): array length: expected at most 1 elements of UINT32 in the 4 bytes"));
    nested.Str("k").U32(kArray).U32(kString).U64(1).U64(count);
    EXPECT_THAT(ParseGguf(nested.str()), HasSubstr("('k'): string: expected"));
    name.U64(count).Raw(std::string(40, 'x'));
    EXPECT_THAT(ParseGguf(name.str()), HasSubstr("tensor 1 of 1: name: expected"));
  }
}

TEST(HostileGguf, TypesOfMetadata) {
  Bytes type = GgufHeader(0, 1), element = type, flag = type, flags = type, deep = type;
  type.Str("k").U32(13).U64(0);
  EXPECT_THAT(ParseGguf(type.str()), HasSubstr("('k'): value type: expected 0 to 12, found 13"));
  element.Str("k").U32(kArray).U32(99).U64(0);
  EXPECT_THAT(ParseGguf(element.str()),
              HasSubstr("array element type: expected 0 to 12, found 99"));
  flag.Str("k").U32(kBool).Put<uint8_t>(2);
  EXPECT_THAT(ParseGguf(flag.str()), HasSubstr("BOOL value: expected 0 or 1, found 2"));
  flags.Str("k").U32(kArray).U32(kBool).U64(3).Raw(std::string("\0\1\3", 3));
  EXPECT_THAT(ParseGguf(flags.str()), HasSubstr("BOOL value: expected 0 or 1, found 3"));
  deep.Str("k").U32(kArray);
  for (int i = 0; i < 100000; ++i) deep.U32(kArray).U64(1);
  EXPECT_THAT(ParseGguf(deep.str()), HasSubstr("expected at most 8 nested arrays, found more"));
}

TEST(HostileGguf, KeysAreNamedOnceAndNotEmpty) {
  Bytes twice = GgufHeader(0, 2), empty = GgufHeader(0, 1), forged = GgufHeader(0, 1);
  twice.Str("k").U32(kU32).U32(1).Str("k").U32(kU32).U32(2);
  EXPECT_THAT(ParseGguf(twice.str()),
              HasSubstr("metadata key 'k': expected once, found again as number 2 (first 1)"));
  empty.Str("").U32(kU32).U32(1).U32(0);
  EXPECT_THAT(ParseGguf(empty.str()), HasSubstr("key length: expected 1 to 65535 bytes, found 0"));
  forged.Str("a'\n\x1b[31m" + std::string(100, 'z')).U32(77).U64(0);
  EXPECT_THAT(ParseGguf(forged.str()), HasSubstr("('a\\x27\\x0a\\x1b[31mzzz"));
  EXPECT_THAT(ParseGguf(forged.str()), HasSubstr("... (108 bytes)"));
}

TEST(HostileGguf, Alignment) {
  const auto with = [](uint32_t alignment) {
    Bytes bytes = GgufHeader(0, 1);
    return bytes.Str("general.alignment").U32(kU32).U32(alignment).str();
  };
  for (const uint32_t bad : {0u, 1u, 4u, 24u, 33u, 0xFFFFFFFFu}) {
    EXPECT_THAT(ParseGguf(with(bad)),
                HasSubstr("key 'general.alignment': expected a power of two, 8 or more, found " +
                          std::to_string(bad)));
  }
  EXPECT_EQ(ParseGguf(with(8)), "no error");
  EXPECT_EQ(ParseGguf(with(0x80000000u)), "no error");
  Bytes text = GgufHeader(0, 1), wide = GgufHeader(0, 1), tensor = GgufHeader(1, 1);
  text.Str("general.alignment").U32(kString).Str("32");
  EXPECT_THAT(ParseGguf(text.str()),
              HasSubstr("'general.alignment': expected UINT32, found STRING"));
  wide.Str("general.alignment").U32(10).U64(32);
  EXPECT_THAT(ParseGguf(wide.str()), HasSubstr("expected UINT32, found UINT64"));
  tensor.Str("general.alignment").U32(kU32).U32(0x80000000u);
  TensorFile().Info(tensor).Raw(std::string(256, 'x'));
  EXPECT_THAT(ParseGguf(tensor.str()),
              HasSubstr("(from byte 2147483648), found the end of the file"));
}

TEST(HostileGguf, ShapesThatWrap) {
  const auto shape = [](std::vector<uint64_t> ne, uint32_t type = 0) {
    return ParseGguf(TensorFile{.ne = std::move(ne), .type = type}.str());
  };
  EXPECT_THAT(shape({0}),
              HasSubstr("tensor 1 of 1 ('t'): dimension: 0: expected 1 to 2^63 - 1, found 0"));
  EXPECT_THAT(shape({32, 0}), HasSubstr("dimension: 1: expected 1 to 2^63 - 1, found 0"));
  EXPECT_THAT(shape({UINT64_MAX}), HasSubstr("found 18446744073709551615"));
  EXPECT_THAT(shape({uint64_t{1} << 32, uint64_t{1} << 32}),
              HasSubstr("shape: expected fewer than 2^63"));
  EXPECT_THAT(shape({uint64_t{1} << 31, uint64_t{1} << 31, 2, 1}),
              HasSubstr("fewer than 2^63 elements"));
  EXPECT_THAT(shape({uint64_t{1} << 62}), HasSubstr("expected fewer than 2^63 bytes"));
  EXPECT_THAT(shape({uint64_t{1} << 60}),
              HasSubstr("expected 4611686018427387904 bytes at offset 0"));
  EXPECT_THAT(shape({1, 1, 1, 1, 1}), HasSubstr("number of dimensions: expected 0 to 4, found 5"));
  EXPECT_THAT(shape({100}, 12),
              HasSubstr("dimension: 0: expected a multiple of 256 (Q4_K), found 100"));
  EXPECT_EQ(shape({}), "no error");
}

TEST(HostileGguf, TensorTypesAreKnownOrNamed) {
  const auto type = [](uint32_t number) { return ParseGguf(TensorFile{.type = number}.str()); };
  EXPECT_THAT(type(16),
              HasSubstr("tensor 1 of 1 ('t'): type: expected a type that this program decodes"));
  EXPECT_THAT(type(16), HasSubstr("found number 16 (IQ2_XXS)"));
  EXPECT_THAT(type(4), HasSubstr("found number 4;"));
  EXPECT_THAT(type(UINT32_MAX), HasSubstr("found number 4294967295;"));
}

TEST(HostileGguf, TensorsLieInTheFileAlignedAndApart) {
  const auto at = [](uint64_t offset) { return ParseGguf(TensorFile{.offset = offset}.str()); };
  EXPECT_THAT(at(16), HasSubstr("offset: expected a multiple of the alignment 32, found 16"));
  EXPECT_THAT(at(32),
              HasSubstr("tensor 't': expected 128 bytes at offset 32 of the data (from byte 64), "
                        "found the end of the file at byte 192; it is cut short or damaged"));
  EXPECT_THAT(at(UINT64_MAX - 31), HasSubstr("expected 128 bytes at offset 18446744073709551584"));
  EXPECT_THAT(ParseGguf(TensorFile{.name = ""}.str()),
              HasSubstr("name length: expected 1 to 65535"));

  const auto two = [](const TensorFile& a, const TensorFile& b) {
    Bytes bytes = GgufHeader(2, 0);
    a.Info(bytes);
    b.Info(bytes);
    return ParseGguf(bytes.PadTo(32).Raw(std::string(512, 'x')).str());
  };
  EXPECT_EQ(two({.name = "a", .offset = 128}, {.name = "b"}), "no error");
  EXPECT_THAT(two({.name = "a"}, {.name = "a", .offset = 128}),
              HasSubstr("tensor name 'a': expected once, found again as number 2 (first 1)"));
  EXPECT_THAT(
      two({.name = "a", .offset = 96}, {.name = "b"}),
      HasSubstr("tensor 'a': expected an offset of 128 or more (the end of 'b'), found 96"));
  EXPECT_THAT(two({.name = "a"}, {.name = "b"}), HasSubstr("they overlap"));
}

TEST(HostileGguf, TruncatedAtEveryByteIsAnErrorOrTheWholeFile) {
  for (const char* name : {"gguf/metadata_v3.gguf", "gguf/metadata_v2.gguf"}) {
    const std::string whole = ReadFile(TestData(name));
    // The last tensor's padding is not needed.
    const GgufFile file = GgufFile::Parse(AsBytes(whole), name);
    const auto last = file.Tensor("second").data;
    const auto needed = static_cast<size_t>(last.data() + last.size() - AsBytes(whole).data());
    for (size_t size = 0; size < whole.size(); ++size) {
      const std::string message = ParseGguf(whole.substr(0, size));
      if (size >= needed) {
        EXPECT_EQ(message, "no error") << size;
      } else {
        EXPECT_THAT(message, HasSubstr("cut short")) << size;
        EXPECT_THAT(message, HasSubstr("expected")) << size;
        EXPECT_THAT(message, HasSubstr("found")) << size;
      }
    }
  }
}

// Whatever is done to a file, it is read or refused, and what was read can be looked at.
TEST(HostileGguf, EveryByteMayChangeWithoutHarm) {
  const std::string whole = ReadFile(TestData("gguf/metadata_v3.gguf"));
  Rng rng(20240917, 0);
  int refused = 0;
  for (size_t at = 0; at < whole.size(); ++at) {
    for (int round = 0; round < 4; ++round) {
      std::string bytes = whole;
      bytes[at] = static_cast<char>(round == 0 ? 0xFF : rng.Below(256));
      const std::string message = ParseGguf(bytes);
      if (message != "no error") ++refused;
      const auto look = [&] {
        const GgufFile file = GgufFile::Parse(AsBytes(bytes), "x");
        for (const GgufEntry& entry : file.metadata()) {
          MessageOf([&] { (void)file.GetStrings(entry.key); });
          MessageOf([&] { (void)file.GetF32s(entry.key); });
          MessageOf([&] { (void)file.GetArrays(entry.key); });
          MessageOf([&] { (void)file.GetString(entry.key); });
          MessageOf([&] { (void)file.GetU32(entry.key); });
        }
      };
      MessageOf(look);
    }
  }
  EXPECT_GT(refused, 500);
}

std::string ParseSafetensors(const std::string& bytes) {
  ResetAllocations();
  const std::string message =
      MessageOf([&] { SafetensorsFile::Parse(AsBytes(bytes), "bad.safetensors"); });
  EXPECT_LE(LargestAllocation(), 4096 + 12 * bytes.size());
  EXPECT_LE(TotalAllocated(), 32768 + 64 * bytes.size());
  return message;
}

std::string WithHeader(std::string_view header, size_t data = 0) {
  return Bytes().U64(header.size()).Raw(header).Raw(std::string(data, '\0')).str();
}

std::string Parse(std::string_view header, size_t data = 0) {
  return ParseSafetensors(WithHeader(header, data));
}

TEST(HostileSafetensors, HeaderLength) {
  EXPECT_THAT(ParseSafetensors("1234567"),
              HasSubstr("bad.safetensors: header length: expected 8 bytes, found 7"));
  for (const uint64_t length :
       {UINT64_MAX, uint64_t{1} << 63, uint64_t{3}, uint64_t{1}, uint64_t{0}}) {
    EXPECT_THAT(ParseSafetensors(Bytes().U64(length).Raw("{}").str()),
                HasSubstr("header length: expected 2 to 2 bytes, found " + std::to_string(length)));
  }
  EXPECT_EQ(Parse("{}"), "no error");
  EXPECT_EQ(Parse("{}   "), "no error");
  EXPECT_THAT(Parse(" {}"), HasSubstr("expected '{' as its first byte, found 0x20"));
}

TEST(HostileSafetensors, JsonThatIsNoHeader) {
  EXPECT_THAT(Parse("{,}"), HasSubstr("header: expected JSON, found a syntax error at byte 2"));
  EXPECT_THAT(Parse("{}x"), HasSubstr("syntax error"));
  EXPECT_THAT(Parse("{\"a\":1}"), HasSubstr("tensor 'a': expected an object, found a number"));
  EXPECT_THAT(Parse("{\"__metadata__\":{\"a\":1}}"),
              HasSubstr("expected strings only, found a number"));
  EXPECT_THAT(Parse("{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}"),
              HasSubstr("__metadata__ key 'a': expected once, found again"));
  EXPECT_THAT(Parse("{\"a\":{\"shape\":[]}}"), HasSubstr("tensor 'a': expected dtype, shape and "
                                                         "data_offsets, found dtype missing"));
  EXPECT_THAT(Parse("{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\"}}"),
              HasSubstr("tensor 'a': dtype: expected once, found again"));
  EXPECT_THAT(Parse("{\"a\":{\"other\":1}}"), HasSubstr("found 'other'"));
  EXPECT_THAT(Parse("{\"a\":{\"dtype\":\"F4\"}}"), HasSubstr("dtype: expected F64, F32"));
  EXPECT_THAT(Parse("{\"a\":{\"shape\":[-1]}}"),
              HasSubstr("shape: expected integers of 0 or more, found a negative number"));
  EXPECT_THAT(Parse("{\"a\":{\"shape\":[1.5]}}"), HasSubstr("found a number that is no integer"));
  EXPECT_THAT(Parse("{\"a\":{\"shape\":[99999999999999999999]}}"),
              HasSubstr("no integer below 2^64"));
  EXPECT_THAT(Parse("{\"a\":{\"shape\":[9223372036854775808]}}"),
              HasSubstr("dimensions below 2^63"));
  EXPECT_THAT(Parse("{\"a\":{\"data_offsets\":[0]}}"), HasSubstr("expected 2 numbers, found 1"));
  EXPECT_THAT(Parse("{\"a\":{\"data_offsets\":[0,1,2]}}"),
              HasSubstr("expected 2 numbers, found more"));
  EXPECT_THAT(Parse("{\"a\":{\"shape\":[[1]]}}"), HasSubstr("found an array"));
  EXPECT_THAT(Parse("{\"a\":{\"shape\":" + std::string(100000, '[')), HasSubstr("found an array"));
  std::string objects;
  for (int i = 0; i < 50000; ++i) objects += "{\"a\":";
  EXPECT_THAT(Parse(objects), HasSubstr("tensor 'a'"));
}

std::string Tensor(const char* name, const char* shape, const char* offsets,
                   const char* type = "F32") {
  return std::string("\"") + name + "\":{\"dtype\":\"" + type + "\",\"shape\":" + shape +
         ",\"data_offsets\":" + offsets + "}";
}

TEST(HostileSafetensors, SizesAndPlaces) {
  EXPECT_EQ(Parse("{" + Tensor("a", "[2]", "[0,8]") + "}", 8), "no error");
  EXPECT_EQ(Parse("{" + Tensor("a", "[0,5]", "[0,0]") + "}", 0), "no error");
  EXPECT_THAT(
      Parse("{" + Tensor("a", "[2]", "[0,7]") + "}", 7),
      HasSubstr("tensor 'a': data_offsets: expected 8 bytes (F32, its shape), found [0, 7]"));
  EXPECT_THAT(Parse("{" + Tensor("a", "[2]", "[8,0]") + "}", 8), HasSubstr("found [8, 0]"));
  EXPECT_THAT(Parse("{" + Tensor("a", "[4294967296,4294967296]", "[0,0]") + "}"),
              HasSubstr("shape: expected fewer than 2^63 elements"));
  EXPECT_THAT(Parse("{" + Tensor("a", "[0,4294967296,4294967296]", "[0,0]") + "}"),
              HasSubstr("shape: expected fewer than 2^63 elements"));
  EXPECT_THAT(Parse("{" + Tensor("a", "[4611686018427387904]", "[0,0]") + "}"),
              HasSubstr("expected 2^64 or more bytes"));
  EXPECT_THAT(
      Parse("{" + Tensor("a", "[2]", "[0,8]") + "}", 4),
      HasSubstr("expected an end of at most 4 (the data's size), found 8; the file is cut"));
  EXPECT_THAT(Parse("{" + Tensor("a", "[2]", "[0,8]") + "}", 9),
              HasSubstr("data: expected 8 bytes (the end of the last tensor), found 9"));
  EXPECT_THAT(Parse("{" + Tensor("a", "[1]", "[4,8]") + "}", 8), HasSubstr("found 4: a gap"));
  EXPECT_THAT(
      Parse("{" + Tensor("a", "[2]", "[0,8]") + "," + Tensor("b", "[2]", "[4,12]") + "}", 12),
      HasSubstr("tensor 'b': data_offsets: expected to begin at 8, found 4: an overlap"));
  EXPECT_THAT(Parse("{" + Tensor("a", "[1]", "[0,4]") + "," + Tensor("a", "[1]", "[4,8]") + "}", 8),
              HasSubstr("tensor 'a': expected once, found again"));
}

TEST(HostileSafetensors, TruncatedOrChangedAtEveryByte) {
  const std::string whole = ReadFile(TestData("peft/dora/adapter_model.safetensors"));
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_THAT(ParseSafetensors(whole.substr(0, size)), HasSubstr("expected")) << size;
  }
  EXPECT_EQ(ParseSafetensors(whole), "no error");
  Rng rng(20240917, 1);
  for (size_t at = 0; at < whole.size(); ++at) {
    std::string bytes = whole;
    bytes[at] = static_cast<char>(rng.Below(256));
    ParseSafetensors(bytes);
  }
}

}  // namespace
}  // namespace bakestone
