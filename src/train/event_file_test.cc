#include "train/event_file.h"

#include <cstring>

#include <gmock/gmock.h>

#include "base/file.h"
#include "train/test_trial.h"

namespace bakestone {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(EventFile, ChecksumIsCastagnolis) {
  EXPECT_EQ(Crc32c("123456789"),
            0xE3069283u);  // RFC 3720's polynomial, the catalogue's check value
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8A9136AAu);  // RFC 3720, B.4
}

// Castagnoli's checksum as its definition has it, a bit at a time, without a table.
uint32_t PlainCrc(std::string_view bytes) {
  uint32_t crc = ~0u;
  for (const char byte : bytes) {
    crc ^= static_cast<uint8_t>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F63B78u : 0u);
  }
  return ~crc;
}

// The records' data; fails where a checksum does not hold, or bytes are left.
std::vector<std::string> RecordsOf(const std::string& bytes) {
  std::vector<std::string> records;
  const auto masked = [](std::string_view part) {
    const uint32_t crc = PlainCrc(part);
    return ((crc >> 15) | (crc << 17)) + 0xA282EAD8u;
  };
  for (size_t at = 0; at < bytes.size();) {
    uint64_t length;
    uint32_t length_crc, data_crc;
    if (bytes.size() - at < 16) {
      ADD_FAILURE() << "bytes are left";
      break;
    }
    std::memcpy(&length, bytes.data() + at, 8);
    std::memcpy(&length_crc, bytes.data() + at + 8, 4);
    EXPECT_EQ(length_crc, masked(std::string_view(bytes).substr(at, 8)));
    if (bytes.size() - at - 16 < length) {
      ADD_FAILURE() << "a record goes beyond the end";
      break;
    }
    records.push_back(bytes.substr(at + 12, length));
    std::memcpy(&data_crc, bytes.data() + at + 12 + length, 4);
    EXPECT_EQ(data_crc, masked(records.back()));
    at += 16 + length;
  }
  return records;
}

TEST(EventFile, BeginsWithTheLogAndGoesOn) {
  const auto folder = ::bakestone::testing::TestFolder("events");
  WriteFileAtomically(folder / "log.jsonl", "{\"step\":1,\"loss\":2.5,\"seconds\":3.0}\n");
  {
    EventFile events(folder, 1000);
    events.Append(300, 8, {{"loss", 0.5}});
  }
  const auto records = RecordsOf(ReadFile(folder / "events.out.tfevents.0.bakestone"));
  ASSERT_EQ(records.size(), 3u);
  EXPECT_THAT(records[0], HasSubstr("brain.Event:2"));
  // Event{wall_time 1003, step 1, Summary{Value{"loss", 2.5}}}, by the grammar of protocol buffers.
  using namespace std::string_literals;
  EXPECT_EQ(records[1],
            "\x09\0\0\0\0\0\x58\x8F\x40\x10\x01\x2A\x0D\x0A\x0B\x0A\x04loss\x15\0\0\x20\x40"s);
  EXPECT_THAT(records[2], HasSubstr("\x10\xAC\x02"));  // step 300
}

}  // namespace
}  // namespace bakestone
