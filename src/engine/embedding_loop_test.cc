// Embeddings for many at once: the same bits in any company, turns, limits, cancellation, the end.
#include <filesystem>
#include <fstream>
#include <mutex>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/embedder.h"
#include "engine/test_encoder.h"

namespace bakestone {
namespace {

using namespace std::chrono_literals;
using bakestone::testing::EmbeddingPlug;
using bakestone::testing::kTestCls;
using bakestone::testing::kTestLetterA;
using bakestone::testing::MakeTestEmbeddingLoop;
using bakestone::testing::SharedTestEncoder;
using ::testing::HasSubstr;

using Vectors = std::vector<std::vector<float>>;

// What a request was told.
struct Told {
  std::promise<void> ended;
  Vectors vectors;
  bool cancelled = false;
  std::optional<Error> error;
  std::function<void(EmbeddingEvent&&)> Sink() {
    return [this](EmbeddingEvent&& event) {
      for (auto& vector : event.vectors) vectors.push_back(std::move(vector));
      cancelled = event.cancelled;
      error = event.error;
      if (event.last) ended.set_value();
    };
  }
  void Wait() { ASSERT_EQ(ended.get_future().wait_for(300s), std::future_status::ready); }
};

std::vector<std::vector<int32_t>> TokensOf(const std::vector<std::string>& texts) {
  std::vector<std::vector<int32_t>> tokens;
  for (const std::string& text : texts) {
    tokens.push_back(SharedTestEncoder()->tokenizer.Encode(text));
  }
  return tokens;
}

Error RefusedEmbedding(EmbeddingLoop& loop, std::vector<std::vector<int32_t>> texts) {
  try {
    loop.Submit({.texts = std::move(texts), .sink = [](EmbeddingEvent&&) {}});
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "expected an error";
  return Error(ErrorCode::kInternal, "none");
}

TEST(EmbeddingLoop, GivesTheBitsOfTheEmbedderInAnyCompany) {
  std::vector<std::string> texts;
  for (int i = 0; i < 90; ++i) {
    texts.push_back(std::string(static_cast<size_t>(1 + i), static_cast<char>('a' + i % 26)) +
                    " b");
  }
  ThreadPool pool(2);
  Vectors alone;
  for (const std::string& text : texts) {
    Embedder embedder(SharedTestEncoder(), ChooseKernels(nullptr), pool);
    alone.push_back(embedder.Embed(std::span(&text, 1)).front());
  }
  EXPECT_NE(alone[0], alone[1]);
  const auto loop = MakeTestEmbeddingLoop();
  Told all, again, one;
  {
    EmbeddingPlug plug(*loop);
    loop->Submit({.texts = TokensOf(texts), .sink = all.Sink()});
    loop->Submit({.texts = TokensOf({texts.rbegin(), texts.rend()}),
                  .tenant = "other",
                  .sink = again.Sink()});
    loop->Submit({.texts = TokensOf({texts[7]}), .sink = one.Sink()});
  }
  all.Wait(), again.Wait(), one.Wait();
  EXPECT_EQ(all.vectors, alone);
  EXPECT_EQ(again.vectors, Vectors(alone.rbegin(), alone.rend()));
  EXPECT_EQ(one.vectors, Vectors{alone[7]});
  EXPECT_GT(loop->Load().steps, 4);  // more tokens than a step takes
  EXPECT_EQ(loop->Load().waiting_tokens, 0);
}

TEST(EmbeddingLoop, OneTextIsNotHeldUpByThousands) {
  const auto loop = MakeTestEmbeddingLoop();
  std::mutex mutex;
  std::vector<std::string> ends;
  std::vector<std::promise<void>> done(3);
  {
    EmbeddingPlug plug(*loop);
    const std::vector<int32_t> text(100, kTestLetterA);
    const auto submit = [&](size_t i, const char* name, const char* tenant, size_t count) {
      loop->Submit({.texts = std::vector<std::vector<int32_t>>(count, text),
                    .tenant = tenant,
                    .sink = [&, i, name](EmbeddingEvent&& event) {
                      if (!event.last) return;
                      std::lock_guard lock(mutex);
                      ends.push_back(name);
                      done[i].set_value();
                    }});
    };
    submit(0, "large", "", 300);
    submit(1, "small", "", 2);
    submit(2, "other key's", "b", 2);
  }
  for (auto& one : done) one.get_future().wait();
  EXPECT_EQ(ends.back(), "large");
}

TEST(EmbeddingLoop, WhatCannotBeEmbeddedIsNamed) {
  const auto loop = MakeTestEmbeddingLoop({.max_request_tokens = 200});
  const int64_t context = loop->max_context();
  EXPECT_EQ(context, 128);
  const std::vector<int32_t> fits(128, kTestCls), longer(129, kTestCls);
  const std::tuple<std::vector<std::vector<int32_t>>, ErrorCode, const char*> cases[] = {
      {{}, ErrorCode::kInvalidArgument, "input: expected at least one text"},
      {{{kTestCls}, {}}, ErrorCode::kInvalidArgument, "input[1]: expected at least one token"},
      {{{-1}}, ErrorCode::kInvalidArgument, "input: expected token ids from 0 to 55, found -1"},
      {{{kTestCls}, {kTestCls, 56}},
       ErrorCode::kInvalidArgument,
       "input[1]: expected token ids from 0 to 55, found 56"},
      {{longer},
       ErrorCode::kOutOfMemory,
       "input: expected at most 128 tokens, the longest text, found 129"},
      {{fits, fits},
       ErrorCode::kOutOfMemory,
       "input: expected at most 200 tokens in all texts together, found 256"},
  };
  for (const auto& [texts, code, message] : cases) {
    const Error error = RefusedEmbedding(*loop, texts);
    EXPECT_EQ(error.code(), code);
    EXPECT_THAT(error.what(), HasSubstr(message));
  }
  EXPECT_EQ(MakeTestEmbeddingLoop({.max_context = 5})->max_context(), 5);
  EXPECT_EQ(RefusedEmbedding(*MakeTestEmbeddingLoop({.max_context = 5}),
                             {std::vector<int32_t>(6, kTestCls)})
                .code(),
            ErrorCode::kOutOfMemory);
  EXPECT_THROW(MakeTestEmbeddingLoop({.max_context = 0}), Error);
  Told told;
  loop->Submit({.texts = {fits}, .sink = told.Sink()});
  told.Wait();
  EXPECT_EQ(told.vectors.size(), 1u);
}

TEST(EmbeddingLoop, QueueIsBoundedAndThoseThatLeaveMakeRoom) {
  const auto loop = MakeTestEmbeddingLoop({.max_requests = 3, .max_tokens = 200});
  EmbeddingPlug plug(*loop);
  Told first, second, third;
  const auto id =
      loop->Submit({.texts = {std::vector<int32_t>(100, kTestCls)}, .sink = first.Sink()});
  EXPECT_FALSE(loop->QueueFull());
  EXPECT_EQ(RefusedEmbedding(*loop, {std::vector<int32_t>(101, kTestCls)}).code(),
            ErrorCode::kUnavailable);
  loop->Submit({.texts = {{kTestCls}}, .sink = second.Sink()});
  EXPECT_TRUE(loop->QueueFull());
  EXPECT_EQ(RefusedEmbedding(*loop, {{kTestCls}}).code(), ErrorCode::kUnavailable);
  EXPECT_EQ(loop->Load().waiting, 2);
  loop->Cancel(id);
  loop->Cancel(999);
  plug.Pull();
  first.Wait(), second.Wait();
  EXPECT_TRUE(first.cancelled);
  EXPECT_TRUE(first.vectors.empty());
  EXPECT_FALSE(second.cancelled);
  loop->Submit({.texts = {std::vector<int32_t>(100, kTestCls)}, .sink = third.Sink()});
  third.Wait();
  EXPECT_EQ(loop->Load().cancelled, 1);
  EXPECT_EQ(loop->Load().refused, 2);
}

TEST(EmbeddingLoop, TextsThatWaitAreBounded) {
  const auto loop = MakeTestEmbeddingLoop({.max_texts = 3});
  const std::vector<int32_t> text = {kTestCls};
  EXPECT_EQ(RefusedEmbedding(*loop, {text, text, text, text}).code(), ErrorCode::kOutOfMemory);
  EmbeddingPlug plug(*loop);  // has one
  Told told;
  loop->Submit({.texts = {text}, .sink = told.Sink()});
  EXPECT_FALSE(loop->QueueFull());
  EXPECT_EQ(RefusedEmbedding(*loop, {text, text}).code(), ErrorCode::kUnavailable);
  plug.Pull();
  told.Wait();
}

// A model whose last token has an infinity: its row of the embedding begins at the 55th of 32 bf16.
std::shared_ptr<const Model> DamagedEncoder() {
  const auto folder = std::filesystem::temp_directory_path() /
                      ("bakestone-damaged-encoder-" + std::to_string(::getpid()));
  bakestone::testing::WriteTestEncoder(folder);
  std::fstream file(folder / "model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
  uint64_t header_bytes = 0;
  file.read(reinterpret_cast<char*>(&header_bytes), sizeof header_bytes);
  std::string header(header_bytes, ' ');
  file.read(header.data(), static_cast<std::streamsize>(header_bytes));
  const auto offset =
      nlohmann::json::parse(header)["embeddings.word_embeddings.weight"]["data_offsets"][0]
          .get<uint64_t>();
  file.seekp(
      static_cast<std::streamoff>(sizeof header_bytes + header_bytes + offset + 55 * 32 * 2));
  file.write("\x80\x7F", 2);
  file.close();
  ThreadPool pool(1);
  auto model = Model::Load(folder, ChooseKernels(nullptr), pool);
  std::filesystem::remove_all(folder);
  return model;
}

TEST(EmbeddingLoop, FailureBelongsToWhoFailsAlone) {
  ThreadPool pool(1);
  EmbeddingLoop loop(DamagedEncoder(), ChooseKernels(nullptr), pool);
  Told before, damaged, after;
  {
    EmbeddingPlug plug(loop);
    loop.Submit({.texts = TokensOf({"ab", "c"}), .sink = before.Sink()});
    loop.Submit({.texts = {{kTestCls}, {kTestCls, 55}, {kTestCls}}, .sink = damaged.Sink()});
    loop.Submit({.texts = TokensOf({"ab"}), .sink = after.Sink()});
  }
  before.Wait(), damaged.Wait(), after.Wait();
  ASSERT_TRUE(damaged.error);
  EXPECT_EQ(damaged.error->code(), ErrorCode::kInternal);
  EXPECT_TRUE(damaged.vectors.empty());
  EXPECT_FALSE(before.error || after.error);
  EXPECT_EQ(after.vectors[0], before.vectors[0]);
  EXPECT_EQ(loop.Load().steps, 2);  // all three were in one
  EXPECT_EQ(loop.Load().failed, 1);
}

TEST(EmbeddingLoop, LateRequestsEndWithAnError) {
  const auto loop = MakeTestEmbeddingLoop({.max_request_seconds = 1e-9});
  Told told;
  loop->Submit({.texts = {{kTestCls}}, .sink = told.Sink()});
  told.Wait();
  ASSERT_TRUE(told.error);
  EXPECT_EQ(told.error->code(), ErrorCode::kUnavailable);
}

TEST(EmbeddingLoop, DrainingRefusesAndThenCuts) {
  const auto loop = MakeTestEmbeddingLoop();
  Told told;
  auto plug = std::make_optional<EmbeddingPlug>(*loop);
  loop->Submit({.texts = {{kTestCls}}, .sink = told.Sink()});
  std::thread drain([&] { EXPECT_FALSE(loop->Drain(0s)); });
  while (!loop->Draining()) std::this_thread::yield();
  EXPECT_EQ(RefusedEmbedding(*loop, {{kTestCls}}).code(), ErrorCode::kUnavailable);
  std::this_thread::sleep_for(100ms);  // the deadline has passed, too
  plug.reset();
  drain.join();
  told.Wait();
  ASSERT_TRUE(told.error);
  EXPECT_THAT(told.error->what(), HasSubstr("shutting down"));
  EXPECT_TRUE(MakeTestEmbeddingLoop()->Drain(0s));
}

}  // namespace
}  // namespace bakestone
