#include <filesystem>
#include <map>

#include <gmock/gmock.h>

#include "train/batches.h"
#include "train/dataset.h"
#include "train/test_trial.h"

namespace bakestone {
namespace {

using ::bakestone::testing::MessageOf;
using ::bakestone::testing::Trial;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

TEST(Dataset, TrainsWhatTheAssistantSaysAndTheEndOfItsTurn) {
  const Trial trial("mask");
  const Dataset data =
      ReadDataset(*trial.model, trial.encode, trial.recipe.Source("chats"), {.max_tokens = 512})
          .train;
  ASSERT_EQ(data.size(), 3);
  const Tokenizer& tokenizer = trial.model->tokenizer;
  const auto trained_text = [&](const SampleView& sample) {
    std::vector<int32_t> ids;
    for (size_t i = 0; i < sample.tokens.size(); ++i) {
      if (sample.trained[i] != 0) ids.push_back(sample.tokens[i]);
    }
    return tokenizer.Decode(ids, {.render_special = true});
  };
  EXPECT_THAT(trained_text(data.At(0)), HasSubstr("Seven.<|im_end|>"));
  EXPECT_THAT(trained_text(data.At(0)), ::testing::Not(HasSubstr("When")));
  EXPECT_THAT(trained_text(data.At(1)), HasSubstr("The green one.<|im_end|>"));
  EXPECT_THAT(trained_text(data.At(2)), HasSubstr("Hello.<|im_end|>"));
  EXPECT_THAT(trained_text(data.At(2)), HasSubstr("Goodbye.<|im_end|>"));
  EXPECT_THAT(trained_text(data.At(2)), ::testing::Not(HasSubstr("Bye")));
}

TEST(Dataset, MarkdownSectionsAreDocumentsAndLongTextIsCutNotLost) {
  const Trial trial("text");
  const Dataset sections =
      ReadDataset(*trial.model, trial.encode, trial.recipe.Source("text"), {.max_tokens = 512})
          .train;
  EXPECT_EQ(sections.size(), 3);  // the title, One, Two
  std::string text;
  for (int i = 0; i < 300; ++i) text += "word" + std::to_string(i) + (i % 7 == 6 ? "\n\n" : " ");
  const std::vector<Sample> pieces = CutText(trial.model->tokenizer, text, 64);
  std::string joined;
  for (const Sample& sample : pieces) {
    EXPECT_LE(sample.tokens.size(), 64u);
    EXPECT_EQ(sample.num_trained, static_cast<int64_t>(sample.tokens.size()) - 1);
    joined += trial.model->tokenizer.Decode(sample.tokens);
  }
  EXPECT_EQ(joined, text);
}

TEST(Dataset, BadLinesAreNamedAndNothingToLearnIsAnError) {
  Trial trial("bad");
  const auto message = [&](const std::string& contents) {
    WriteFileAtomically(trial.folder / "bad.jsonl", contents);
    return MessageOf([&] {
      ReadDataset(*trial.model, trial.encode, {"bad", trial.folder / "bad.jsonl", ""},
                  {.max_tokens = 64});
    });
  };
  EXPECT_THAT(message("{\"text\": \"a b\"}\n{oops"), HasSubstr("line 2"));
  EXPECT_THAT(message("[1]"), HasSubstr("expected a JSON object"));
  EXPECT_THAT(message("{\"question\": 1}"), HasSubstr("expected 'messages'"));
  EXPECT_THAT(message("{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}"),
              HasSubstr("at least one token to learn"));
  EXPECT_THAT(message("{\"messages\": [{\"role\": \"assistant\", \"content\": 3}]}"),
              HasSubstr("'content'"));
  EXPECT_THAT(message(""), HasSubstr("empty file"));
}

TEST(Dataset, AJoinedChatIsWhatTheTemplateWritesForTheLongOne) {
  const Trial trial("join");
  const auto read = [&](const std::string& lines) {
    WriteFileAtomically(trial.folder / "join.jsonl", lines);
    return ReadDataset(*trial.model, trial.encode, {"join", trial.folder / "join.jsonl", ""},
                       {.max_tokens = 512, .joinable = true})
        .train;
  };
  const std::string system = R"({"role": "system", "content": "Be brief."}, )";
  const std::string a =
      R"({"role": "user", "content": "When?"}, {"role": "assistant", "content": "Seven."})";
  const std::string b =
      R"({"role": "user", "content": "Which?"}, {"role": "assistant", "content": "Two."})";
  for (const std::string& lead : {system, std::string()}) {
    const Dataset apart =
        read("{\"messages\": [" + lead + a + "]}\n{\"messages\": [" + lead + b + "]}\n");
    const Dataset whole = read("{\"messages\": [" + lead + a + ", " + b + "]}\n");
    const std::vector<SampleView> samples = {apart.At(0), apart.At(1)};
    const std::vector<Sample> joined = Join(samples, 2, 512);
    ASSERT_EQ(joined.size(), 1u);
    const SampleView expected = whole.At(0);
    EXPECT_THAT(joined[0].tokens, ElementsAreArray(expected.tokens));
    EXPECT_THAT(joined[0].trained, ElementsAreArray(expected.trained));
    EXPECT_EQ(joined[0].num_trained, expected.num_trained);
  }
  // Who ends with a question stands alone, and so does text.
  const Dataset open = read("{\"messages\": [" + a + R"(, {"role": "user", "content": "Why?"}]})" +
                            "\n{\"text\": \"The mill opens.\"}\n");
  ASSERT_EQ(open.size(), 2);
  EXPECT_EQ(open.At(0).lead, Sample::kStandsAlone);
  EXPECT_EQ(open.At(1).lead, Sample::kStandsAlone);
}

TEST(Dataset, ATemplateThatWritesALaterChatInAnotherWayIsRefused) {
  const nlohmann::ordered_json messages = {{{"role", "user"}, {"content", "a"}},
                                           {{"role", "assistant"}, {"content", "b"}}};
  // One token a message, and how many messages there are.
  const ChatEncoder counts = [](const nlohmann::ordered_json& chat, bool,
                                const nlohmann::ordered_json*) {
    std::vector<int32_t> tokens(chat.size(), 1);
    tokens.push_back(static_cast<int32_t>(chat.size()));
    return tokens;
  };
  const Sample sample{counts(messages, false, nullptr), {0, 0, 1}, 1};
  EXPECT_THAT(MessageOf([&] { FindLead(counts, messages, nullptr, sample); }),
              HasSubstr("the model's chat template"));
}

// A source of the trial's folder with these contents.
DataSource SourceOf(const Trial& trial, const std::string& name, const std::string& contents) {
  WriteFileAtomically(trial.folder / name, contents);
  DataSource source;
  source.name = name;
  source.path = trial.folder / name;
  return source;
}

std::string TrainedText(const Trial& trial, const SampleView& sample) {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < sample.tokens.size(); ++i) {
    if (sample.trained[i] != 0) ids.push_back(sample.tokens[i]);
  }
  return trial.model->tokenizer.Decode(ids, {.render_special = true});
}

TEST(Dataset, EveryFormatGivesTheSameSamples) {
  const Trial trial("formats");
  const auto read = [&](const std::string& name, const std::string& contents) {
    DataSource source = SourceOf(trial, name, contents);
    if (name == "other.csv") source.columns = {{"prompt", "ask"}, {"completion", "say"}};
    SourceSamples samples = ReadDataset(*trial.model, trial.encode, source, {.max_tokens = 512});
    const SampleView sample = samples.train.At(0);
    return std::make_pair(std::vector<int32_t>(sample.tokens.begin(), sample.tokens.end()),
                          samples.summary.Line());
  };
  const auto [tokens, line] = read(
      "a.jsonl",
      R"({"messages": [{"role": "user", "content": "When?"}, {"role": "assistant", "content": "Seven."}]})");
  EXPECT_THAT(line, HasSubstr("a.jsonl: JSON lines, messages (detected): 1 row, 1 learned"));
  EXPECT_EQ(
      read(
          "b.json",
          R"([{"conversations": [{"from": "human", "value": "When?"}, {"from": "gpt", "value": "Seven."}]}])")
          .first,
      tokens);
  EXPECT_EQ(read("c.jsonl", R"({"instruction": "When?", "input": "", "output": "Seven."})").first,
            tokens);
  EXPECT_EQ(read("d.csv", "prompt,completion\nWhen?,Seven.\n").first, tokens);
  EXPECT_EQ(read("other.csv", "ask;say\nWhen?;Seven.\n").first, tokens);
}

TEST(Dataset, RowsThatCannotBeUsedAreInAFileAndFewAreAllowed) {
  const Trial trial("rejects");
  std::string lines;
  for (int i = 0; i < 10; ++i) {
    lines += "{\"prompt\": \"a" + std::to_string(i) + "\", \"completion\": \"b\"}\n";
  }
  lines += "{oops}\n{\"messages\": [{\"role\": \"user\", \"content\": \"only a question\"}]}\n";
  DataSource source = SourceOf(trial, "some.jsonl", lines);
  ReadOptions options{.max_tokens = 64, .rejects = trial.folder / "rejected.jsonl"};
  EXPECT_THAT(MessageOf([&] { ReadDataset(*trial.model, trial.encode, source, options); }),
              ::testing::AllOf(HasSubstr("line 11: expected one JSON object"),
                               HasSubstr("1 of 12 lines"), HasSubstr("rejected.jsonl")));
  source.max_rejected = 0.1;
  const SourceSamples samples = ReadDataset(*trial.model, trial.encode, source, options);
  EXPECT_EQ(samples.train.size(), 10);
  EXPECT_EQ(samples.summary.rejected, 1);
  EXPECT_EQ(samples.summary.unlearned, 1);
  EXPECT_THAT(samples.summary.Warnings(),
              ElementsAre(HasSubstr("1 of 12 rows cannot be used (line 11")));
  const std::string file = ReadFile(options.rejects);
  EXPECT_THAT(file, HasSubstr("{\"line\":11,\"reason\":\"expected one JSON object"));
  EXPECT_THAT(file, HasSubstr("{\"line\":12,\"reason\":\"nothing to learn"));
}

TEST(Dataset, OverlongConversationsAreCutOrLeftOut) {
  const Trial trial("overlong");
  std::string answer;
  for (int i = 0; i < 100; ++i) answer += "seven ";
  DataSource source = SourceOf(trial, "long.jsonl",
                               "{\"prompt\": \"a\", \"completion\": \"" + answer + "\"}\n" +
                                   "{\"prompt\": \"a\", \"completion\": \"b\"}\n");
  const auto read = [&] {
    return ReadDataset(*trial.model, trial.encode, source, {.max_tokens = 64});
  };
  EXPECT_EQ(read().train.counts().cut, 1);
  EXPECT_EQ(read().train.size(), 2);
  source.overlong = OverlongPolicy::kDrop;
  EXPECT_EQ(read().train.size(), 1);
  EXPECT_EQ(read().summary.overlong, 1);
}

TEST(Dataset, MessagesSayWhetherTheyAreTrained) {
  const Trial trial("flags");
  const DataSource source = SourceOf(
      trial, "flags.jsonl",
      R"({"messages": [{"role": "user", "content": "One", "train": true}, {"role": "assistant", "content": "Two", "train": false}, {"role": "user", "content": "Three"}, {"role": "assistant", "content": "Four", "weight": 1}]})");
  const SourceSamples samples =
      ReadDataset(*trial.model, trial.encode, source, {.max_tokens = 512});
  const std::string trained = TrainedText(trial, samples.train.At(0));
  EXPECT_THAT(trained, ::testing::AllOf(HasSubstr("One"), HasSubstr("Four<|im_end|>")));
  EXPECT_THAT(trained, ::testing::Not(::testing::AnyOf(HasSubstr("Two"), HasSubstr("Three"))));
}

TEST(Dataset, DuplicatesAndPersonalDataAndTheHeldOutSide) {
  const Trial trial("plan");
  std::string lines;
  for (int i = 0; i < 40; ++i) {
    lines += fmt::format(
        "{{\"text\": \"Letter {} came from anna{}@example.org on day {} of the year {}.\"}}\n",
        i * 7, i, i * 3, 1900 + i);
  }
  lines += lines.substr(0, lines.find('\n') + 1);
  DataSource source = SourceOf(trial, "letters.jsonl", lines);
  source.duplicates = DuplicatePolicy::kExact;
  source.personal_data = PersonalDataPolicy::kMask;
  source.heldout = 0.3;
  ReadOptions options{.max_tokens = 64, .pool = nullptr, .cache = trial.folder / "cache"};
  const auto read = [&] { return ReadDataset(*trial.model, trial.encode, source, options); };
  const SourceSamples samples = read();
  EXPECT_EQ(samples.summary.exact_duplicates, 1);
  EXPECT_EQ(samples.train.size() + samples.heldout.size(), 40);
  EXPECT_GT(samples.heldout.size(), 2);
  EXPECT_EQ(samples.summary.personal_rows, 40);
  const std::string first = TrainedText(trial, samples.train.At(0));
  EXPECT_THAT(first, HasSubstr("[e-mail]"));
  EXPECT_THAT(first, ::testing::Not(HasSubstr("example.org")));
  // Again with three threads, and from the cache.
  ThreadPool three(3);
  options.pool = &three;
  for (int round = 0; round < 2; ++round) {
    const SourceSamples again = read();
    EXPECT_EQ(again.summary.Line(), samples.summary.Line());
    ASSERT_EQ(again.train.size(), samples.train.size());
    for (int64_t i = 0; i < again.train.size(); ++i) {
      EXPECT_THAT(again.train.At(i).tokens, ElementsAreArray(samples.train.At(i).tokens));
    }
    options.cache = trial.folder / "other-cache";
  }
}

TEST(SampleOrder, AWeightIsHowOftenAnEpochSeesASample) {
  SampleOrder order({{4, 1}, {6, 0.5}, {2, 2.5}}, 3, 1);
  ASSERT_EQ(order.epoch_size(), 4 + 3 + 5);
  std::map<int64_t, int> seen;
  for (int64_t i = 0; i < 2 * order.epoch_size(); ++i) ++seen[order.At(i)];
  for (int64_t i = 0; i < 4; ++i) EXPECT_EQ(seen[i], 2);
  for (int64_t i = 4; i < 10; ++i) EXPECT_EQ(seen[i], 1) << i;
  for (int64_t i = 10; i < 12; ++i) EXPECT_EQ(seen[i], 5) << i;
  SampleOrder again({{4, 1}, {6, 0.5}, {2, 2.5}}, 3, 1);
  EXPECT_EQ(again.At(20), order.At(20));
}

}  // namespace
}  // namespace bakestone
