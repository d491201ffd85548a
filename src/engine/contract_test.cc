// The numerics contract (docs/numerics.md) on whole transcripts: one request's tokens and
// log-probabilities are the same bits whatever else happens. Each test changes one circumstance and
// compares with goldens.txt, which the reference table made, request by request.
#include <fstream>
#include <future>
#include <map>
#include <thread>

#include <gtest/gtest.h>

#include "base/source_dir.h"
#include "engine/test_transcripts.h"

namespace bakestone {
namespace {

using testing::kLongTranscript;
using testing::kNumTranscripts;
using testing::RunTranscripts;
using testing::SharedTestModel;
using testing::StateModel;
using testing::TestEngine;
using testing::TranscriptHash;
using testing::TranscriptModel;

const std::map<std::string, std::string>& Goldens() {
  static const auto* goldens = [] {
    auto* all = new std::map<std::string, std::string>;
    std::ifstream file(std::string(SourceDir()) + "/src/engine/goldens.txt");
    std::string name, hash;
    while (file >> name >> hash) (*all)[name] = hash;
    return all;
  }();
  return *goldens;
}

std::vector<int> Numbers(int count, int first = 0) {
  std::vector<int> numbers;
  for (int i = 0; i < count; ++i) numbers.push_back((first + i) % kNumTranscripts);
  return numbers;
}

// Returns what the requests used together.
Usage ExpectGolden(Engine& engine, const std::vector<int>& numbers,
                   const std::string& prefix = "serve") {
  Usage sum;
  const std::vector<Event> events = RunTranscripts(engine, numbers);
  for (size_t i = 0; i < events.size(); ++i) {
    const auto golden = Goldens().find(fmt::format("{}/{}", prefix, numbers[i]));
    EXPECT_TRUE(golden != Goldens().end()) << prefix << '/' << numbers[i];
    if (golden == Goldens().end()) continue;
    EXPECT_FALSE(events[i].error) << events[i].error->what();
    EXPECT_EQ(TranscriptHash(events[i]), golden->second) << prefix << '/' << numbers[i];
    sum.cached_tokens += events[i].usage.cached_tokens;
    sum.proposed_tokens += events[i].usage.proposed_tokens;
    sum.accepted_tokens += events[i].usage.accepted_tokens;
  }
  return sum;
}

TEST(Contract, GoldensAreThereAndDiffer) {
  EXPECT_EQ(Goldens().size(), static_cast<size_t>(3 * (kNumTranscripts + 1) + 4 * 6));
  std::map<std::string, std::string> by_hash;
  for (const auto& [name, hash] : Goldens()) {
    EXPECT_TRUE(by_hash.emplace(hash, name).second) << name;
  }
}

TEST(Contract, EveryTableOfThisMachineGivesTheReferencesTranscripts) {
  for (const KernelTable* table : AvailableKernels()) {
    SCOPED_TRACE(IsaName(table->isa));
    for (const auto& golden : testing::ComputeTranscripts(*table)) {
      EXPECT_EQ(golden.hash, Goldens().at(golden.name)) << golden.name;
    }
  }
}

TEST(Contract, BatchSizes) {
  for (int batch = 1; batch <= kNumTranscripts; ++batch) {
    SCOPED_TRACE(batch);
    TestEngine test({.max_running = batch});
    ExpectGolden(test.engine, Numbers(batch, batch));
  }
}

TEST(Contract, EveryChunkOfAPrompt) {
  for (int64_t chunk = 1; chunk <= 101; ++chunk) {
    SCOPED_TRACE(chunk);
    TestEngine test({.fixed_chunk = chunk});
    ExpectGolden(test.engine, {3, 7, 18});
  }
}

TEST(Contract, ChunksAroundASegmentOfAttention) {
  for (const int64_t chunk : {31, 64, 500, 511, 512, 513, 700}) {
    SCOPED_TRACE(chunk);
    TestEngine test({.max_step_tokens = 1024, .fixed_chunk = chunk});
    ExpectGolden(test.engine, {kLongTranscript, 1});
  }
}

TEST(Contract, CacheHitOrMiss) {
  TestEngine with, without({.prefix_cache = false});
  std::vector<int> all = Numbers(kNumTranscripts);
  all.push_back(kLongTranscript);
  ExpectGolden(with.engine, all);
  EXPECT_GT(ExpectGolden(with.engine, all).cached_tokens, 1000);
  EXPECT_EQ(ExpectGolden(without.engine, all).cached_tokens, 0);
  EXPECT_EQ(ExpectGolden(without.engine, all).cached_tokens, 0);
}

TEST(Contract, OneToEightThreads) {
  for (int threads = 1; threads <= 8; ++threads) {
    SCOPED_TRACE(threads);
    TestEngine test({}, threads);
    ExpectGolden(test.engine,
                 Numbers(threads > 2 ? 1 : 12, 1));  // many threads wait for each other here
  }
}

// Ten pages: requests wait for memory, cached pages are evicted and their tokens computed again.
TEST(Contract, PagesEvictedAndComputedAgain) {
  const int64_t page = KvPageBytes(SharedTestModel()->config, KvType::kBf16);
  TestEngine test({.kv_bytes = 10 * page});
  for (int round = 0; round < 2; ++round) ExpectGolden(test.engine, Numbers(kNumTranscripts));
  EXPECT_EQ(test.engine.Metrics().pool.allocated_pages, 10);
}

TEST(Contract, SpeculationFromTheText) {
  for (const Speculation mode : {Speculation::kOff, Speculation::kAuto, Speculation::kAlways}) {
    for (const int64_t at_a_time : {1, 4, 31}) {
      TestEngine test({.speculation = {.mode = mode, .max_tokens = at_a_time}});
      const Usage usage = ExpectGolden(test.engine, Numbers(kNumTranscripts));
      EXPECT_TRUE(mode != Speculation::kOff || usage.proposed_tokens == 0);
      if (mode == Speculation::kAlways) {
        EXPECT_GT(usage.accepted_tokens, 50);
        EXPECT_GT(usage.proposed_tokens, usage.accepted_tokens);
      }
      // What was cached was verified: the same again from it.
      EXPECT_GT(ExpectGolden(test.engine, Numbers(kNumTranscripts)).cached_tokens, 0);
    }
  }
}

TEST(Contract, SpeculationByADraftModel) {
  testing::TestModelOptions options;
  options.num_layers = 1;
  options.seed = 2;
  const auto stranger = testing::LoadTestModel(options);
  for (const auto& draft : {SharedTestModel(), stranger}) {
    TestEngine test({.kv_bytes = 4 << 20,
                     .speculation = {.mode = Speculation::kAlways,
                                     .lookup = draft == stranger,
                                     .draft = draft,
                                     .max_tokens = 5}});
    for (int round = 0; round < 2; ++round) {
      const Usage usage = ExpectGolden(test.engine, Numbers(kNumTranscripts));
      EXPECT_GT(usage.proposed_tokens, usage.accepted_tokens);
      EXPECT_TRUE(draft == stranger ||
                  usage.accepted_tokens > 100);  // the target itself: wrong beside adapters only
    }
    ExpectGolden(test.engine, {kLongTranscript});
  }
}

// Others come and go, with prompts, adapters and parameters of their own.
TEST(Contract, NeighboursComeAndGo) {
  TestEngine test({.max_running = 5, .fixed_chunk = 24});
  std::vector<RequestId> strangers;
  Rng rng(11, 0);
  for (int i = 0; i < 30; ++i) {
    GenerationRequest request = testing::TranscriptRequest(
        *SharedTestModel(), static_cast<int>(rng.Below(kNumTranscripts)));
    for (int32_t& token : request.prompt) {
      token = static_cast<int32_t>(rng.Below(testing::kTestVocabSize));
    }
    request.max_tokens = 1 + static_cast<int64_t>(rng.Below(30));
    strangers.push_back(test.engine.Submit(std::move(request)));
    if (i % 3 == 0) test.engine.Cancel(strangers[static_cast<size_t>(rng.Below(strangers.size()))]);
    if (i % 5 == 0) ExpectGolden(test.engine, Numbers(7, i));
  }
}

// An engine of a model whose layers keep a state.
struct StateEngine {
  explicit StateEngine(bool delta, EngineOptions options = {}, int threads = 1)
      : pool(threads), engine(StateModel(delta), testing::TestKernels(), pool, options) {}
  ThreadPool pool;
  Engine engine;
};

class StateContract : public ::testing::TestWithParam<bool> {
 protected:
  std::string prefix() const { return GetParam() ? "delta" : "convolution"; }
  // Of the first tokens of `text`, in greedy tokens.
  static GenerationRequest Ask(const std::string& text, int64_t max_tokens) {
    GenerationRequest request;
    request.prompt = testing::TextTokens(text);
    request.max_tokens = max_tokens;
    request.ignore_eos = true;
    request.logprobs = true;
    return request;
  }
  static std::string Letters(int64_t count, int64_t first) {
    std::string text;
    for (int64_t i = 0; i < count; ++i) text += static_cast<char>('a' + (first + i * i) % 26);
    return text;
  }
};

TEST_P(StateContract, BatchesChunksAndThreads) {
  for (const int batch : {1, 7, kNumTranscripts}) {
    StateEngine test(GetParam(), {.max_running = batch}, batch == 7 ? 3 : 1);
    ExpectGolden(test.engine, Numbers(batch, batch), prefix());
  }
  for (const int64_t chunk : {1, 3, 31, 32, 33, 64, 513}) {
    SCOPED_TRACE(chunk);
    StateEngine test(GetParam(), {.max_step_tokens = 1024, .fixed_chunk = chunk});
    ExpectGolden(test.engine, {3, 7, 18, kLongTranscript}, prefix());
  }
}

TEST_P(StateContract, CacheHitOrMiss) {
  StateEngine with(GetParam()), without(GetParam(), {.prefix_cache = false});
  std::vector<int> all = Numbers(kNumTranscripts);
  all.push_back(kLongTranscript);
  ExpectGolden(with.engine, all, prefix());
  EXPECT_GT(ExpectGolden(with.engine, all, prefix()).cached_tokens, 1000);
  EXPECT_GT(with.engine.Metrics().pool.cached_states, 10);
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(ExpectGolden(without.engine, all, prefix()).cached_tokens, 0);
    EXPECT_EQ(without.engine.Metrics().pool.cached_states, 0);
  }
}

// As little as one long request takes: others wait, pages and states are evicted, and their tokens
// computed again.
TEST_P(StateContract, PagesAndStatesEvictedAndComputedAgain) {
  const ModelConfig& config = StateModel(GetParam())->config;
  const int64_t page = KvPageBytes(config, KvType::kBf16),
                state = (LayerStateBytes(config) + page - 1) / page;
  EXPECT_EQ(state, GetParam() ? 2 : 1);
  for (const int64_t spare : {0, 1, 5}) {
    StateEngine test(GetParam(), {.kv_bytes = (5 + 2 * state + spare) * page});
    for (int round = 0; round < 2; ++round) {
      ExpectGolden(test.engine, Numbers(kNumTranscripts), prefix());
    }
    const StatePoolStats pool = test.engine.Metrics().pool;
    EXPECT_EQ(pool.pages_per_state, state);
    EXPECT_LE(pool.allocated_pages + pool.allocated_states * state, 5 + 2 * state + spare);
  }
}

TEST_P(StateContract, NeighboursComeAndGo) {
  StateEngine test(GetParam(),
                   {.kv_bytes = 60 * KvPageBytes(StateModel(true)->config, KvType::kBf16),
                    .max_running = 5,
                    .fixed_chunk = 24});
  std::vector<RequestId> strangers;
  Rng rng(12, 0);
  for (int i = 0; i < 30; ++i) {
    GenerationRequest request = testing::TranscriptRequest(
        *StateModel(GetParam()), static_cast<int>(rng.Below(kNumTranscripts)));
    request.max_tokens = 1 + static_cast<int64_t>(rng.Below(30));
    strangers.push_back(test.engine.Submit(std::move(request)));
    if (i % 3 == 0) test.engine.Cancel(strangers[static_cast<size_t>(rng.Below(strangers.size()))]);
    if (i % 5 == 0) ExpectGolden(test.engine, Numbers(7, i), prefix());
  }
}

// A request of another tenant suspends a running one, which goes on from states that were kept.
TEST_P(StateContract, SuspendedAnswersGoOn) {
  StateEngine alone(GetParam(), {.prefix_cache = false}), test(GetParam(), {.max_running = 3});
  const testing::EngineBrake brake(test.engine);
  std::vector<GenerationRequest> requests;
  std::vector<std::string> hashes;
  for (int i = 0; i < 4; ++i) {
    requests.push_back(Ask(Letters(70, i), 100));
    requests.back().tenant = "many";
    hashes.push_back(TranscriptHash(Generate(alone.engine, requests.back())));
  }
  auto many = std::async(std::launch::async,
                         [&] { return testing::RunRequests(test.engine, std::move(requests)); });
  while (test.engine.Metrics().steps < 50) std::this_thread::yield();
  GenerationRequest other = Ask(Letters(70, 4), 3);
  other.tenant = "one";
  EXPECT_EQ(TranscriptHash(Generate(test.engine, other)),
            TranscriptHash(Generate(alone.engine, other)));
  const std::vector<Event> events = many.get();
  for (size_t i = 0; i < events.size(); ++i) EXPECT_EQ(TranscriptHash(events[i]), hashes[i]) << i;
  EXPECT_EQ(test.engine.Metrics().suspended, 1);
}

TEST_P(StateContract, TheNextTurnBeginsInTheAnswerBefore) {
  StateEngine test(GetParam()), cold(GetParam(), {.prefix_cache = false});
  GenerationRequest request = Ask(Letters(70, 0), 90);
  for (int turn = 0; turn < 3; ++turn) {
    const Event warm = Generate(test.engine, request);
    EXPECT_EQ(TranscriptHash(warm), TranscriptHash(Generate(cold.engine, request)));
    // The last token of an answer is never read, and the one border before it is kept.
    if (turn > 0) {
      EXPECT_EQ(warm.usage.cached_tokens,
                (warm.usage.prompt_tokens - 11) / kPageTokens * kPageTokens);
    }
    for (const TokenInfo& token : warm.tokens) request.prompt.push_back(token.token);
    for (const int32_t token : testing::TextTokens(Letters(10, turn))) {
      request.prompt.push_back(token);
    }
  }
}

// Nobody knows beforehand where prompts part: the second one finds out, the third gains.
TEST_P(StateContract, PromptsThatPartBeginWhereTheyDo) {
  StateEngine test(GetParam()), cold(GetParam(), {.prefix_cache = false});
  const std::string common = Letters(300, 3);
  const int64_t cached[] = {0, 0, 288, 288};
  for (int i = 0; i < 4; ++i) {
    const GenerationRequest request = Ask(common + Letters(200, 5 + i), 3);
    const Event warm = Generate(test.engine, request);
    EXPECT_EQ(TranscriptHash(warm), TranscriptHash(Generate(cold.engine, request)));
    EXPECT_EQ(warm.usage.cached_tokens, cached[i]) << i;
  }
  EXPECT_EQ(Generate(test.engine, Ask(common + Letters(200, 5), 3)).usage.cached_tokens, 480);
}

INSTANTIATE_TEST_SUITE_P(Mixers, StateContract, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "Delta" : "Convolution"; });

TEST(Contract, OtherWeightsKvTypesAndTheExactPrecision) {
  ThreadPool pool(1);
  Engine k_quants(TranscriptModel(true), testing::TestKernels(), pool,
                  {.speculation = {.mode = Speculation::kAlways}});
  ExpectGolden(k_quants, Numbers(6), "k-quants");
  for (const Speculation mode :
       {Speculation::kOff, Speculation::kAlways}) {  // wrong guesses lie in the pages, or none
    Engine f16(TranscriptModel(false), testing::TestKernels(), pool,
               {.kv_type = KvType::kF16, .speculation = {.mode = mode}});
    Engine q8_0(TranscriptModel(true), testing::TestKernels(), pool,
                {.kv_type = KvType::kQ8_0, .fixed_chunk = 7, .speculation = {.mode = mode}});
    ExpectGolden(f16, Numbers(6), "kv-f16");
    EXPECT_GT(ExpectGolden(f16, Numbers(6), "kv-f16").cached_tokens, 0);
    ExpectGolden(q8_0, Numbers(6), "kv-q8_0");
    EXPECT_GT(ExpectGolden(q8_0, Numbers(6), "kv-q8_0").cached_tokens, 0);
  }
  Engine exact(TranscriptModel(false), testing::TestKernels(), pool,
               {.kv_type = KvType::kF32,
                .precision = Precision::kExact,
                .fixed_chunk = 9,
                .speculation = {.mode = Speculation::kAlways}});
  ExpectGolden(exact, Numbers(6), "exact");
}

}  // namespace
}  // namespace bakestone
