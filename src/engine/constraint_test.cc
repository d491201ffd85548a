// Answers held to a form, with a form of the test's own: letters a and b that never repeat, and an
// end after kLength.
#include <gtest/gtest.h>

#include "engine/test_engine.h"

namespace bakestone {
namespace {

using testing::kTestEndOfText;
using testing::kTestFirstByte;
using testing::kTestImEnd;
using testing::MakeTestEngine;
using testing::TextTokens;

constexpr size_t kLength = 12;
constexpr int32_t kA = kTestFirstByte + 'a', kB = kTestFirstByte + 'b';

class Alternating : public Constraint {
 public:
  explicit Alternating(size_t fails_at = 1000, std::chrono::milliseconds takes = {})
      : fails_at_(fails_at), takes_(takes) {}
  class Mask : public TokenMask {
   public:
    Mask(size_t fails_at, std::chrono::milliseconds takes) : fails_at_(fails_at), takes_(takes) {}
    void Fill(std::span<uint32_t> bits) override {
      std::this_thread::sleep_for(takes_);
      if (said_.size() >= fails_at_) Throw(ErrorCode::kUnsupported, "this form fails");
      std::fill(bits.begin(), bits.end(), 0);
      for (const int32_t id : {kA, kB, kTestEndOfText, kTestImEnd}) {
        if (Legal(id)) bits[static_cast<size_t>(id) / 32] |= uint32_t{1} << (id % 32);
      }
    }
    bool Accept(int32_t token) override {
      if (!Legal(token)) return false;
      said_.push_back(token);
      return true;
    }
    void Rollback(int64_t count) override {
      said_.resize(said_.size() - static_cast<size_t>(count));
    }

   private:
    bool Legal(int32_t id) const {
      if (said_.size() == kLength) return id == kTestEndOfText || id == kTestImEnd;
      return (id == kA || id == kB) && (said_.empty() || said_.back() != id);
    }
    const size_t fails_at_;
    const std::chrono::milliseconds takes_;
    std::vector<int32_t> said_;
  };
  std::unique_ptr<TokenMask> Begin() const override {
    return std::make_unique<Mask>(fails_at_, takes_);
  }

 private:
  const size_t fails_at_;
  const std::chrono::milliseconds takes_;
};

GenerationRequest Ask(const std::string& prompt) {
  GenerationRequest request;
  request.prompt = TextTokens(prompt);
  request.max_tokens = 40;
  request.constraint = std::make_shared<Alternating>();
  return request;
}

TEST(Constraint, AnswerIsOfTheFormAndEndsWhereItIsComplete) {
  const auto engine = MakeTestEngine();
  for (const double temperature : {0.0, 2.0}) {
    GenerationRequest request = Ask("hello");
    request.sampling = {.temperature = temperature, .seed = 4};
    const Event answer = Generate(*engine, request);
    EXPECT_TRUE(answer.text == "abababababab" || answer.text == "babababababa") << answer.text;
    EXPECT_EQ(answer.finish, FinishReason::kStop);
    EXPECT_EQ(answer.usage.completion_tokens, kLength + 1);
  }
}

TEST(Constraint, DraftsAreCutWhereTheyLeaveTheForm) {
  EngineOptions options;
  options.speculation.mode = Speculation::kAlways;
  const auto engine = MakeTestEngine(options);
  GenerationRequest plain = Ask("hello");
  plain.speculate = false;
  plain.logprobs = true;
  const Event expected = Generate(*engine, plain);
  for (const std::string guess :
       {"abababababab", "babababababa", "aabb", "abababababababab", "abx"}) {
    GenerationRequest request = Ask("hello");
    request.logprobs = true;
    request.expected = TextTokens(guess);
    const Event answer = Generate(*engine, request);
    EXPECT_EQ(answer.text, expected.text) << guess;
    for (size_t i = 0; i < answer.tokens.size(); ++i) {
      EXPECT_EQ(answer.tokens[i].logprobs->logprob, expected.tokens[i].logprobs->logprob)
          << guess << i;
    }
    EXPECT_TRUE(guess != expected.text || answer.usage.accepted_tokens > 0) << guess;
  }
}

TEST(Constraint, AFormThatFailsEndsItsOwnAnswerOnly) {
  const auto engine = MakeTestEngine();
  GenerationRequest good = Ask("hello"), bad = Ask("hello");
  bad.constraint = std::make_shared<Alternating>(5);
  std::promise<Event> good_end, bad_end;
  std::string good_text;
  good.sink = [&](Event&& event) {
    good_text += event.text;
    if (event.finish) good_end.set_value(std::move(event));
  };
  bad.sink = [&](Event&& event) {
    if (event.finish) bad_end.set_value(std::move(event));
  };
  engine->Submit({good, bad});
  const Event failed = bad_end.get_future().get();
  ASSERT_TRUE(failed.error);
  EXPECT_EQ(failed.error->code(), ErrorCode::kUnsupported);
  EXPECT_EQ(good_end.get_future().get().finish, FinishReason::kStop);
  EXPECT_EQ(good_text.size(), kLength);
}

// The draft reaches beyond where the form fails: what comes before is said all the same.
TEST(Constraint, AFormThatFailsInADraftFailsThereAsWithoutIt) {
  EngineOptions options;
  options.speculation.mode = Speculation::kAlways;
  const auto engine = MakeTestEngine(options);
  const auto ask = [&](bool speculate) {
    GenerationRequest request = Ask("hello");
    request.constraint = std::make_shared<Alternating>(5);
    request.speculate = speculate;
    std::string said = Generate(*engine, Ask("hello")).text;
    request.expected = TextTokens(said);
    std::string text;
    std::promise<Event> end;
    request.sink = [&](Event&& event) {
      text += event.text;
      if (event.finish) end.set_value(std::move(event));
    };
    engine->Submit(std::move(request));
    const Event last = end.get_future().get();
    EXPECT_TRUE(last.error && last.error->code() == ErrorCode::kUnsupported);
    EXPECT_EQ(said.substr(0, text.size()), text);
    return text;
  };
  EXPECT_EQ(ask(true).size(), 5);
  EXPECT_EQ(ask(false).size(), 5);
}

// Masks that take longer than the step, of answers that leave meanwhile.
TEST(Constraint, AnswersMayLeaveWhileTheirMasksAreFound) {
  EngineOptions options;
  options.speculation.mode = Speculation::kAlways;
  auto both = std::make_shared<testing::TestEngine>(options, 2);
  const std::string expected = Generate(both->engine, Ask("hello")).text;
  std::vector<RequestId> ids;
  std::vector<std::promise<Event>> ends(8);
  std::vector<std::string> texts(ends.size());
  for (size_t i = 0; i < ends.size(); ++i) {
    GenerationRequest request = Ask("hello");
    request.constraint = std::make_shared<Alternating>(1000, std::chrono::milliseconds(1));
    if (i % 2 == 0) request.expected = TextTokens("abababababab");
    request.sink = [&, i](Event&& event) {
      texts[i] += event.text;
      if (event.finish) ends[i].set_value(std::move(event));
    };
    ids.push_back(both->engine.Submit(std::move(request)));
  }
  for (size_t i = 0; i < ends.size(); i += 3) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    both->engine.Cancel(ids[i]);
  }
  for (size_t i = 0; i < ends.size(); ++i) {
    const Event last = ends[i].get_future().get();
    if (last.finish == FinishReason::kCancelled) {
      EXPECT_TRUE(i % 3 == 0 && expected.starts_with(texts[i])) << i;
    } else {
      EXPECT_EQ(texts[i], expected) << i;
    }
  }
}

}  // namespace
}  // namespace bakestone
