#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "data/parquet_plugin.h"
#include "data/row.h"
#include "data/row_source.h"
#include "data/test_files.h"

namespace bakestone {
namespace {

using ::bakestone::testing::MessageOf;
using ::bakestone::testing::WriteTestFile;
using ::testing::HasSubstr;

const std::filesystem::path kFolder = std::filesystem::path(BAKESTONE_TEST_DATA) / "parquet";

// The library that reads such files is built where Arrow's is (tests/long/test_parquet.sh).
bool HasLibrary() {
  for (auto folder = std::filesystem::read_symlink("/proc/self/exe").parent_path();
       folder != folder.parent_path(); folder = folder.parent_path()) {
    if (std::filesystem::exists(folder / kParquetLibrary)) return true;
  }
  return false;
}

std::vector<std::string> RowsAsJson(const std::filesystem::path& path) {
  const auto source = RowSource::Open(path);
  std::vector<std::string> rows;
  RawRow row;
  while (source->Next(&row)) {
    EXPECT_EQ(row.number, static_cast<int64_t>(rows.size()) + 1);
    rows.push_back(nlohmann::ordered_json::parse(row.bytes).dump());
  }
  return rows;
}

TEST(Parquet, RowsAreThoseOfJsonLines) {
  if (!HasLibrary()) GTEST_SKIP() << "tools/setup.sh parquet has not run";
  const auto rows = RowsAsJson(kFolder / "rows.parquet");
  EXPECT_EQ(rows, RowsAsJson(kFolder / "rows.jsonl"));
  ASSERT_EQ(rows.size(), 5u);
  const Row row = ParseRow(rows[3], {});
  EXPECT_EQ(row.kind, RowKind::kConversation);
  EXPECT_EQ(row.chat.train.front(), TrainFlag::kNo);
}

TEST(Parquet, DamageIsAnErrorAtEveryByte) {
  if (!HasLibrary()) GTEST_SKIP() << "tools/setup.sh parquet has not run";
  const std::string whole = ReadFile(kFolder / "rows.parquet");
  for (size_t size = 0; size < whole.size(); size += 37) {
    const auto path = WriteTestFile("cut.parquet", whole.substr(0, size));
    EXPECT_THAT(MessageOf([&] { RowsAsJson(path); }), HasSubstr("cut.parquet")) << size;
  }
  // A byte that is wrong may hit what nobody reads, or a text; anything else is an error.
  for (size_t at = 0; at < whole.size(); at += 29) {
    std::string wrong = whole;
    wrong[at] = static_cast<char>(wrong[at] ^ 0x55);
    const auto path = WriteTestFile("wrong.parquet", wrong);
    const std::string message = MessageOf([&] { RowsAsJson(path); });
    EXPECT_TRUE(message == "no error" || message.find("wrong.parquet") != message.npos) << message;
  }
}

TEST(Parquet, WhatIsNotThereIsSaidBeforeALibraryIsAskedFor) {
  EXPECT_THAT(MessageOf([] { RowSource::Open("/nowhere/x.parquet"); }),
              HasSubstr("/nowhere/x.parquet: expected a Parquet file, found none"));
}

TEST(Parquet, WithoutTheLibraryTheWayOutIsNamed) {
  if (HasLibrary()) GTEST_SKIP() << "the library is there";
  const std::string message = MessageOf([] { RowSource::Open(kFolder / "rows.parquet"); });
  EXPECT_THAT(message, HasSubstr("tools/setup.sh parquet"));
  EXPECT_THAT(message, HasSubstr("to_json"));
}

}  // namespace
}  // namespace bakestone
