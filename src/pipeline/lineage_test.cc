#include "pipeline/lineage.h"

#include <filesystem>

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"

namespace bakestone {
namespace {

std::filesystem::path TestFolder() {
  const auto folder = std::filesystem::path(::testing::TempDir()) / "bakestone_lineage";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  return folder;
}

TEST(Lineage, StageIsDoneWithItsKeyAndUnchangedFilesOnly) {
  const auto folder = TestFolder();
  WriteFileAtomically(folder / "out.json", "1");
  {
    Lineage lineage(folder);
    EXPECT_FALSE(lineage.Done("a", "key"));
    lineage.Record("a", "key", {"out.json"}, {.seconds = 2, .peak_bytes = 5});
  }
  Lineage lineage(folder);
  EXPECT_TRUE(lineage.Done("a", "key"));
  EXPECT_EQ(lineage.Find("a")->seconds, 2);
  EXPECT_FALSE(lineage.Done("a", "another"));
  EXPECT_FALSE(lineage.Done("b", "key"));
  WriteFileAtomically(folder / "out.json", "2");
  EXPECT_FALSE(lineage.Done("a", "key"));
  std::filesystem::remove(folder / "out.json");
  EXPECT_FALSE(lineage.Done("a", "key"));
}

TEST(Lineage, ForgottenStageIsDoneAgainAndDamageIsNamed) {
  const auto folder = TestFolder();
  WriteFileAtomically(folder / "x", "1");
  Lineage lineage(folder);
  lineage.Record("a", "key", {"x"}, {});
  lineage.Forget("a");
  EXPECT_FALSE(Lineage(folder).Done("a", "key"));
  const std::string deep = "{\"a\": " + std::string(200'000, '[') + std::string(200'000, ']') + "}";
  for (const std::string& damage :
       {std::string("{\"stages\": {\"a\": 3}}"), std::string("{"), deep}) {
    WriteFileAtomically(folder / "lineage.json", damage);
    EXPECT_THROW(Lineage{folder}, Error) << damage.substr(0, 20);
  }
}

TEST(Lineage, WhatARunIsMadeFromStaysBesideItsStages) {
  const auto folder = TestFolder();
  WriteFileAtomically(folder / "x", "1");
  {
    Lineage lineage(folder);
    lineage.Describe("made_from", {{"seed", 1}});
    lineage.Record("a", "key", {"x"}, {});
    lineage.Describe("made_from", {{"seed", 2}});
  }
  Lineage again(folder);
  EXPECT_TRUE(again.Done("a", "key"));
  again.Forget("a");
  const auto json = nlohmann::json::parse(ReadFile(folder / "lineage.json"));
  EXPECT_EQ(json["made_from"]["seed"], 2);
  EXPECT_TRUE(json["stages"].empty());
}

}  // namespace
}  // namespace bakestone
