#include "data/source_plan.h"

#include <cstdio>
#include <map>
#include <set>

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "data/min_hash.h"
#include "data/test_files.h"

namespace bakestone {
namespace {

using ::bakestone::testing::MessageOf;
using ::bakestone::testing::WriteTestFile;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string Line(const std::string& text) { return nlohmann::json{{"text", text}}.dump() + "\n"; }

std::string Pair(const std::string& prompt, const std::string& completion) {
  return nlohmann::json{{"prompt", prompt}, {"completion", completion}}.dump() + "\n";
}

DataSource Source(const std::filesystem::path& path) {
  DataSource source;
  source.name = "test";
  source.path = path;
  return source;
}

TEST(MinHash, EstimatesTheSimilarityOfSets) {
  std::string a, b;
  for (int i = 0; i < 400; ++i) {
    a += "word" + std::to_string(i) + " ";
    b += "word" + std::to_string(i < 300 ? i : i + 1000) + " ";
  }
  const auto one = Shingles(a), two = Shingles(b);
  const double exact = Jaccard(one, two);
  EXPECT_NEAR(exact, 298.0 / (398 + 100), 1e-9);
  const Signature first = MinHash(one), second = MinHash(two);
  int equal = 0;
  for (int i = 0; i < kMinHashes; ++i) {
    equal += first[static_cast<size_t>(i)] == second[static_cast<size_t>(i)];
  }
  EXPECT_NEAR(equal / double(kMinHashes), exact, 0.13);  // three standard deviations
  EXPECT_EQ(Shingles("The MILL, opens at seven!"), Shingles("the mill opens  at Seven"));
  EXPECT_GT(
      Shingles(
          "\xE5\xB7\xA5\xE5\x8E\x82\xE5\x85\xAB\xE7\x82\xB9\xE5\xBC\x80\xE9\x97\xA8\xE4\xBA\x86")
          .size(),
      1u);
}

TEST(SourcePlan, DuplicatesAreMarkedWithTheirTwin) {
  const std::string long_text =
      "The mill opens at seven in the morning and closes at four in the afternoon, and on the days "
      "of the market it "
      "stays open until the last cart has left the yard and the gate is locked by the keeper.";
  std::string changed = long_text;
  changed.replace(changed.find("keeper"), 6, "miller");
  const auto path =
      WriteTestFile("dup.jsonl", Line(long_text) + Line("Something else altogether is here.") +
                                     Line(changed) + Line(long_text));
  DataSource source = Source(path);
  source.duplicates = DuplicatePolicy::kNear;
  ThreadPool pool(2);
  const SourcePlan plan = PlanSource(source, {.pool = &pool});
  EXPECT_THAT(plan.fates, ElementsAre(RowFate::kTrain, RowFate::kTrain, RowFate::kNearDuplicate,
                                      RowFate::kExactDuplicate));
  EXPECT_THAT(plan.twins, ElementsAre(-1, -1, 0, 0));
  source.duplicates = DuplicatePolicy::kExact;
  EXPECT_EQ(PlanSource(source, {}).fates[2], RowFate::kTrain);
}

// Three wordings of each question, with one answer: their order, and what else is there, must not
// matter.
TEST(SourcePlan, TheSplitIsByGroupAndByContent) {
  const auto question = [](int fact, int wording) {
    return Pair(
        "Wording " + std::to_string(wording) + " of question number " + std::to_string(fact),
        "The answer to number " + std::to_string(fact) + " is long enough.");
  };
  std::vector<std::string> lines;
  for (int fact = 0; fact < 60; ++fact) {
    for (int wording = 0; wording < 3; ++wording) lines.push_back(question(fact, wording));
  }
  const auto sides = [&](const std::vector<std::string>& rows) {
    std::string text;
    for (const std::string& row : rows) text += row;
    DataSource source = Source(WriteTestFile("split.jsonl", text));
    source.heldout = 0.25;
    const SourcePlan plan = PlanSource(source, {});
    std::map<std::string, RowFate> by_row;
    for (size_t i = 0; i < rows.size(); ++i) by_row[rows[i]] = plan.fates[i];
    return by_row;
  };
  const auto first = sides(lines);
  int held = 0;
  for (int fact = 0; fact < 60; ++fact) {
    const RowFate fate = first.at(question(fact, 0));
    EXPECT_EQ(first.at(question(fact, 1)), fate);
    EXPECT_EQ(first.at(question(fact, 2)), fate);
    held += fate == RowFate::kHeldOut;
  }
  EXPECT_GT(held, 5);
  EXPECT_LT(held, 27);
  std::vector<std::string> turned(lines.rbegin(),
                                  lines.rend() - 30);  // without the first ten facts
  for (const auto& [row, fate] : sides(turned)) EXPECT_EQ(fate, first.at(row)) << row;
}

TEST(SourcePlan, AGroupThatNoRowHasIsRefused) {
  std::string rows;
  for (int i = 0; i < 40; ++i) {
    rows += "{\"topic\": \"" + std::to_string(i % 10) + "\", \"text\": \"Row number " +
            std::to_string(i) + " says its own thing " + std::to_string(i * 37) + ".\"}\n";
  }
  DataSource source = Source(WriteTestFile("grouped.jsonl", rows));
  source.heldout = 0.5;
  source.group = "topic";
  EXPECT_LE(PlanSource(source, {}).groups, 10);
  source.group = "tpoic";
  EXPECT_THAT(MessageOf([&] { PlanSource(source, {}); }),
              HasSubstr("'group': expected rows with a field 'tpoic', found none"));
}

TEST(SourcePlan, ASplitThatLeavesOneSideEmptyIsRefused) {
  DataSource source = Source(WriteTestFile("one.jsonl", Line("a b c d e f") + Line("a b c d e f")));
  source.heldout = 0.5;
  EXPECT_THAT(MessageOf([&] { PlanSource(source, {}); }), HasSubstr("the 2 rows form 1 group"));
}

TEST(SourcePlan, OneLongTextIsSplitInBlocks) {
  std::string text;
  for (int64_t i = 0; i < 4000; ++i) {
    text += "Paragraph " + std::to_string(i * i * 7919) + " of many.\n\n";
  }
  DataSource source = Source(WriteTestFile("long_text.txt", text));
  source.heldout = 0.2;
  const SourcePlan plan = PlanSource(source, {});
  EXPECT_GT(plan.Count(RowFate::kHeldOut), 0);
  EXPECT_GT(plan.Count(RowFate::kTrain), plan.Count(RowFate::kHeldOut));
}

// Precision and recall of what is left out as near, on texts made by
// tools/make_duplicate_goldens.py.
TEST(SourcePlan, PrecisionAndRecallOnLabelledTexts) {
  const std::filesystem::path path = BAKESTONE_TEST_DATA "/duplicates/labelled.jsonl";
  DataSource source = Source(path);
  source.duplicates = DuplicatePolicy::kNear;
  const SourcePlan plan = PlanSource(source, {});
  int right = 0, found = 0, labelled = 0;
  const std::string lines = ReadFile(path);
  size_t begin = 0;
  for (size_t row = 0; begin < lines.size(); ++row) {
    const size_t end = lines.find('\n', begin);
    const bool near = nlohmann::json::parse(lines.substr(begin, end - begin))["near"] >= 0;
    begin = end + 1;
    const bool left_out = plan.fates[row] != RowFate::kTrain;
    labelled += near;
    found += left_out;
    right += near && left_out;
  }
  std::printf("near duplicates: precision %.3f, recall %.3f of %d\n", double(right) / found,
              double(right) / labelled, labelled);
  EXPECT_GE(right, 0.98 * found);
  EXPECT_GE(right, 0.95 * labelled);
}

}  // namespace
}  // namespace bakestone
