#include "engine/draft_model.h"

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/test_engine.h"
#include "engine/test_requests.h"

namespace bakestone {
namespace {

using testing::Ask;
using ::testing::HasSubstr;
using testing::Ids;
using testing::LoadTestModel;
using testing::SharedTestModel;
using testing::TestEngine;
using testing::TestModelOptions;

EngineOptions With(std::shared_ptr<const Model> draft, int64_t at_a_time = 4) {
  return {.speculation = {.mode = Speculation::kAlways,
                          .lookup = false,
                          .draft = std::move(draft),
                          .max_tokens = at_a_time}};
}

std::vector<int32_t> Plain(const GenerationRequest& request) {
  TestEngine test({.speculation = {.mode = Speculation::kOff}});
  return Ids(Generate(test.engine, request));
}

// It computes the same bits in other batches and draws with the same key: it is never wrong.
TEST(DraftModel, AModelIsAlwaysRightAboutItself) {
  TestEngine test(With(SharedTestModel()));
  for (const double temperature : {0.0, 1.5}) {
    GenerationRequest request = Ask(fmt::format("{:k>150} and so on", ""), 60);
    request.sampling = {
        .temperature = temperature, .repetition_penalty = 1.2, .frequency_penalty = 0.3, .seed = 4};
    const Event event = Generate(test.engine, request);
    EXPECT_EQ(Ids(event), Plain(request));
    EXPECT_GT(event.usage.accepted_tokens, 40);
    EXPECT_EQ(event.usage.proposed_tokens, event.usage.accepted_tokens);
  }
}

TEST(DraftModel, ShorterContextOfTheDraftEndsItsProposalsOnly) {
  TestModelOptions options;
  options.context_length = 64;
  options.seed = 8;
  TestEngine test(With(LoadTestModel(options)));
  const GenerationRequest request = Ask("once", 150);
  const Event event = Generate(test.engine, request);
  EXPECT_EQ(Ids(event), Plain(request));
  EXPECT_GT(event.usage.proposed_tokens, 0);
  EXPECT_LT(event.usage.proposed_tokens, 4 * 64);
  EXPECT_EQ(Generate(test.engine, Ask(std::string(100, 'x'), 10)).usage.proposed_tokens, 0);
}

TEST(DraftModel, OtherVocabularyIsRefusedNamingTheToken) {
  std::string bytes = testing::MakeTestModel();
  for (size_t at = 0; (at = bytes.find("<|im_end|>", at)) != std::string::npos;) {
    bytes.replace(at, 10, "<|im_fin|>");
  }
  const auto path =
      std::filesystem::temp_directory_path() / fmt::format("bakestone-draft-{}.gguf", ::getpid());
  std::ofstream(path, std::ios::binary) << bytes;
  ThreadPool pool(1);
  const auto stranger = Model::Load(path, testing::TestKernels(), pool);
  std::filesystem::remove(path);
  try {
    TestEngine test(With(stranger));
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_THAT(error.what(), HasSubstr("token 2 is '<|im_fin|>' there and '<|im_end|>' here"));
  }
}

TEST(DraftModel, ItsPagesComeOutOfTheSameMemory) {
  const int64_t page = KvPageBytes(SharedTestModel()->config, KvType::kBf16);
  EngineOptions options = With(SharedTestModel());
  options.kv_bytes = 10 * page;
  TestEngine test(options);
  EXPECT_EQ(test.engine.Metrics().pool.capacity_pages, 5);
  std::vector<std::thread> askers;
  for (int i = 0; i < 6; ++i) {
    askers.emplace_back([&, i] {
      const GenerationRequest request = Ask(std::string(40, static_cast<char>('a' + i)), 30);
      EXPECT_EQ(Generate(test.engine, request).tokens.size(), 30u);
    });
  }
  for (std::thread& asker : askers) asker.join();
}

TEST(Speculation, OffForARequestThatSaysSo) {
  TestEngine test({.speculation = {.mode = Speculation::kAlways}});
  GenerationRequest request = Ask(std::string(60, 'x'), 20);
  EXPECT_GT(Generate(test.engine, request).usage.proposed_tokens, 0);
  request.speculate = false;
  EXPECT_EQ(Generate(test.engine, request).usage.proposed_tokens, 0);
}

TEST(Speculation, ExpectedTokensComeTrueAtOnce) {
  GenerationRequest request = Ask("the quick brown fox", 40);
  request.sampling = {.temperature = 1, .seed = 9};
  request.expected = Plain(request);
  TestEngine test({.speculation = {.mode = Speculation::kAlways}});
  const Event event = Generate(test.engine, request);
  EXPECT_EQ(Ids(event), request.expected);
  EXPECT_GE(event.usage.accepted_tokens, 37);  // all but those that steps draw themselves
  EXPECT_EQ(event.usage.accepted_tokens, event.usage.proposed_tokens);
  request.expected = {testing::kTestVocabSize};
  EXPECT_THROW(test.engine.Submit(request), Error);
}

TEST(Speculation, OptionsOutOfRangeAreRefused) {
  EXPECT_THROW(TestEngine({.speculation = {.max_tokens = 0}}), Error);
  EXPECT_THROW(TestEngine({.speculation = {.max_tokens = 256}}), Error);
}

}  // namespace
}  // namespace bakestone
