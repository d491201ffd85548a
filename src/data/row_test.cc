#include "data/row.h"

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "data/test_files.h"

namespace bakestone {
namespace {

using ::bakestone::testing::MessageOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string Said(const Conversation& chat) {
  std::string text;
  for (const auto& message : *chat.messages) {
    text +=
        message["role"].get<std::string>() + ": " + message["content"].get<std::string>() + "\n";
  }
  return text;
}

TEST(Row, FormatsAreToldFromTheirFields) {
  const auto format = [](const char* json) { return ParseRow(json, {}).format; };
  EXPECT_EQ(format(R"({"text": "a"})"), RowFormat::kText);
  EXPECT_EQ(format(R"({"messages": [{"role": "user", "content": "a"}]})"), RowFormat::kMessages);
  EXPECT_EQ(format(R"({"conversations": [{"from": "human", "value": "a"}]})"),
            RowFormat::kShareGpt);
  EXPECT_EQ(format(R"({"instruction": "a", "input": "", "output": "b"})"), RowFormat::kAlpaca);
  EXPECT_EQ(format(R"({"prompt": "a", "completion": "b"})"), RowFormat::kPromptCompletion);
  EXPECT_EQ(format(R"({"prompt": "a", "chosen": "b", "rejected": "c"})"), RowFormat::kPreference);
  EXPECT_THAT(
      MessageOf([&] { format(R"({"question": 1, "answer": 2})"); }),
      HasSubstr("found 'question', 'answer'; other names can be given in the source's 'columns'"));
}

TEST(Row, ShareGptAndAlpacaBecomeMessages) {
  const Row share = ParseRow(
      R"({"system": "Be brief.", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"},
          {"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {\"x\": 1}}"},
          {"from": "observation", "value": "2"}]})",
      {});
  EXPECT_EQ(Said(share.chat),
            "system: Be brief.\nuser: Hi\nassistant: Hello\nassistant: \ntool: 2\n");
  EXPECT_EQ((*share.chat.messages)[3]["tool_calls"][0]["function"]["arguments"]["x"], 1);
  const Row alpaca = ParseRow(R"({"instruction": "Add", "input": "1 2", "output": "3"})", {});
  EXPECT_EQ(Said(alpaca.chat), "user: Add\n\n1 2\nassistant: 3\n");
  EXPECT_THAT(
      MessageOf([] { ParseRow(R"({"conversations": [{"from": "who", "value": "x"}]})", {}); }),
      HasSubstr("found 'who'"));
}

TEST(Row, ColumnsGiveOtherNames) {
  RowOptions options;
  options.columns = {{"prompt", "frage"}, {"completion", "antwort"}};
  options.group = "thema";
  const Row row = ParseRow(R"({"frage": "Wann?", "antwort": "Um sieben.", "thema": 4})", options);
  EXPECT_EQ(Said(row.chat), "user: Wann?\nassistant: Um sieben.\n");
  EXPECT_EQ(row.group, "4");
}

TEST(Row, FlagsSayWhichMessagesAreLearnedAndAreNotRendered) {
  const Row row = ParseRow(
      R"({"messages": [{"role": "user", "content": "a", "train": true}, {"role": "assistant", "content": "b", "weight": 0},
          {"role": "assistant", "content": [{"type": "text", "text": "c"}, {"type": "text", "text": "d"}]}]})",
      {});
  EXPECT_THAT(row.chat.train, ElementsAre(TrainFlag::kYes, TrainFlag::kNo, TrainFlag::kByRole));
  EXPECT_FALSE((*row.chat.messages)[0].contains("train"));
  EXPECT_EQ((*row.chat.messages)[2]["content"], "cd");
  EXPECT_THAT(MessageOf([] {
                ParseRow(R"({"messages": [{"role": "assistant", "content": "a", "weight": 0.5}]})",
                         {});
              }),
              HasSubstr("'weight': expected 0 or 1, found 0.5"));
}

TEST(Row, ToolCallsHaveArgumentsAsObjects) {
  const Row row = ParseRow(
      R"({"tools": [{"type": "function", "function": {"name": "time"}}], "messages": [{"role": "user", "content": "?"},
          {"role": "assistant", "content": null, "tool_calls": [{"id": "1", "type": "function",
            "function": {"name": "time", "arguments": "{\"zone\": \"UTC\"}"}}]}]})",
      {});
  ASSERT_TRUE(row.tools);
  EXPECT_EQ(row.tools->size(), 1u);
  EXPECT_EQ((*row.chat.messages)[1]["tool_calls"][0]["function"]["arguments"]["zone"], "UTC");
  EXPECT_EQ((*row.chat.messages)[1]["content"], "");
}

TEST(Row, PreferencesLearnOnlyWhatDiffers) {
  const Row row = ParseRow(R"({"prompt": "Q", "chosen": "good", "rejected": "bad"})", {});
  EXPECT_EQ(Said(row.chat), "user: Q\nassistant: good\n");
  EXPECT_EQ(Said(row.rejected), "user: Q\nassistant: bad\n");
  const Row full = ParseRow(
      R"({"chosen": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "h"}, {"role": "user", "content": "R"},
           {"role": "assistant", "content": "good"}],
          "rejected": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "h"}, {"role": "user", "content": "R"},
           {"role": "assistant", "content": "bad"}]})",
      {});
  EXPECT_THAT(full.chat.train,
              ElementsAre(TrainFlag::kNo, TrainFlag::kNo, TrainFlag::kNo, TrainFlag::kByRole));
  EXPECT_THAT(MessageOf([] { ParseRow(R"({"prompt": "Q", "chosen": "x", "rejected": "x"})", {}); }),
              HasSubstr("found the same twice"));
}

TEST(Row, HostileRowsAreErrors) {
  const auto message = [](std::string json) { return MessageOf([&] { ParseRow(json, {}); }); };
  EXPECT_THAT(message(std::string(100'000, '[')), HasSubstr("at most 64 levels"));
  // Nor in strings that are read as JSON.
  const std::string deep = std::string(100'000, '[') + std::string(100'000, ']');
  const std::string call = R"({"name": "f", "arguments": ")" + deep + "\"}";
  for (const std::string& row :
       {"{\"messages\": \"" + deep + "\"}",
        R"({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [)" +
            call + "]}]}",
        R"({"messages": [{"role": "user", "content": "x"}], "tools": ")" + deep + "\"}"}) {
    EXPECT_THAT(message(row), HasSubstr("at most 64 levels")) << row.substr(0, 60);
  }
  EXPECT_THAT(message("{\"text\": \"caf\xE9\"}"), HasSubstr("found byte 0xE9 at column 14"));
  EXPECT_THAT(message("{\"text\": 1e999}"), HasSubstr("number out of range"));
  EXPECT_THAT(message("{\"text\": [1]}"), HasSubstr("'text': expected a text, found array"));
  EXPECT_THAT(message("[1]"), HasSubstr("expected a JSON object, found array"));
  EXPECT_THAT(message("{\"messages\": []}"), HasSubstr("found an empty one"));
  EXPECT_THAT(message(R"({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]})"),
              HasSubstr("pictures and sound are not learned"));
}

}  // namespace
}  // namespace bakestone
