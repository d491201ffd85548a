#include "pipeline/result_files.h"

#include <gmock/gmock.h>

#include "base/file.h"

namespace bakestone {
namespace {

TEST(KeptValues, TheLastFewAndTheBestStay) {
  const auto kept = std::filesystem::path(::testing::TempDir()) / "bakestone_kept";
  std::filesystem::remove_all(kept);
  for (const char* name : {"read-10", "read-20", "read-30", "read-40", "read-50", "read-aloud-10",
                           "read-x", "learn-5"}) {
    WriteFileAtomically(kept / name / "adapter.gguf", "values");
  }
  DropOldKept(kept, "read", 40, 2, 10);
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(kept)) {
    names.push_back(entry.path().filename().string());
  }
  // What is after step 40 is a later one's, whoever wrote it.
  EXPECT_THAT(names, ::testing::UnorderedElementsAre("read-10", "read-30", "read-40", "read-50",
                                                     "read-aloud-10", "read-x", "learn-5"));
  EXPECT_EQ(KeptFolder(kept, "read", 30).filename(), "read-30");
}

}  // namespace
}  // namespace bakestone
