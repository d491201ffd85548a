// The numerics contract (docs/numerics.md) on a real model: transcripts of chats and texts, token
// by token with their log-probabilities' bits, against the hashes that the `reference` kernels gave
// (tests/data/model/transcripts.txt). Usage: real_contract_test [MODEL.gguf] [--print-goldens |
// gtest flags]; the model is BAKESTONE_TEST_MODEL's where none is given, and without one the test
// is skipped (exit 77).
// --print-goldens makes the file anew, on the reference table alone: when the contract changes,
// never else.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>

#include <nlohmann/json.hpp>

#include "base/source_dir.h"
#include "engine/chat.h"
#include "engine/test_transcripts.h"

namespace bakestone {
namespace {

const std::string kGoldens = std::string(SourceDir()) + "/tests/data/model/transcripts.txt";
constexpr const char* kPassage =
    "The mill stands where the river bends twice, below the old orchard. Its wheel was cut from "
    "oak in the spring "
    "after the flood, and the stones came by barge from the quarry at Senn.";

std::string g_model;

std::vector<GenerationRequest> Requests(const Model& model) {
  struct Question {
    std::string text;
    bool chat;
    double temperature;
  };
  const Question questions[] = {
      {"Why is the sky blue?", true, 0},
      {fmt::format("The text:\n\n{}\n\nThe text once more:\n\n", kPassage), false, 0},
      {"Write a line about rain.", true, 1.0},
      {fmt::format("The text:\n\n{}\n\nIn short:", kPassage), false, 0.7},
      {"def add(a, b):\n    return a + b\n\ndef add(a, b):\n", false, 0},
  };
  std::vector<GenerationRequest> requests;
  for (const auto& [text, chat, temperature] : questions) {
    GenerationRequest request;
    const nlohmann::ordered_json messages = {{{"role", "user"}, {"content", text}}};
    request.prompt = chat ? RenderChat(model, messages).tokens : model.tokenizer.Encode(text);
    request.sampling = {.temperature = temperature, .top_p = 0.9, .seed = requests.size()};
    if (requests.size() % 2 == 1) request.sampling.repetition_penalty = 1.05;
    request.logprobs = true;
    request.top_logprobs = 3;
    request.max_tokens = 16;
    requests.push_back(std::move(request));
  }
  return requests;
}

EngineOptions Plain() {
  return {.prefix_cache = false, .speculation = {.mode = Speculation::kOff}};
}

class RealContract : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    ThreadPool pool(UsableCores());
    model_ = Model::Load(g_model, ChooseKernels(nullptr), pool);
    std::ifstream file(kGoldens);
    std::string name, hash;
    while (file >> name >> hash) goldens_[name] = hash;
  }
  static void TearDownTestSuite() { model_.reset(); }

  // Returns what they used together.
  static Usage ExpectGolden(Engine& engine, size_t count) {
    std::vector<GenerationRequest> requests = Requests(*model_);
    requests.resize(count);
    const std::vector<Event> events = testing::RunRequests(engine, std::move(requests));
    Usage sum;
    for (size_t i = 0; i < events.size(); ++i) {
      EXPECT_EQ(testing::TranscriptHash(events[i]), goldens_[fmt::format("transcript/{}", i)]) << i;
      sum.cached_tokens += events[i].usage.cached_tokens;
      sum.proposed_tokens += events[i].usage.proposed_tokens;
      sum.accepted_tokens += events[i].usage.accepted_tokens;
    }
    return sum;
  }

  static inline std::shared_ptr<const Model> model_;
  static inline std::map<std::string, std::string> goldens_;
};

TEST_F(RealContract, IsTheModelThatTheGoldensAreOf) {
  EXPECT_EQ(ToHex(model_->file_hash), goldens_["model"]);
}

TEST_F(RealContract, EveryTableOfThisMachineButTheReference) {
  for (const KernelTable* table : AvailableKernels()) {
    if (table == &ChooseKernels("reference")) continue;  // it made the goldens, and takes minutes
    SCOPED_TRACE(IsaName(table->isa));
    ThreadPool pool(UsableCores());
    Engine engine(model_, *table, pool, Plain());
    ExpectGolden(engine, 2);
  }
}

TEST_F(RealContract, BatchChunksThreadsCacheAndSpeculation) {
  const size_t all = Requests(*model_).size();
  for (const int threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    EngineOptions options;
    options.fixed_chunk = threads == 2 ? 17 : 0;
    if (threads != 1) options.speculation.mode = Speculation::kAlways;
    Engine engine(model_, ChooseKernels(nullptr), pool, options);
    const Usage usage = ExpectGolden(engine, all);
    EXPECT_GT(ExpectGolden(engine, all).cached_tokens, 0);
    EXPECT_TRUE(threads == 1 ||
                (usage.accepted_tokens > 0 && usage.proposed_tokens > usage.accepted_tokens));
  }
}

int PrintGoldens() {
  const KernelTable& reference = ChooseKernels("reference");
  ThreadPool pool(UsableCores());
  const auto model = Model::Load(g_model, reference, pool);
  std::printf("model %s\n", ToHex(model->file_hash).c_str());
  Engine engine(model, reference, pool, Plain());
  size_t i = 0;
  for (GenerationRequest& request : Requests(*model)) {
    std::vector<GenerationRequest> one;
    one.push_back(std::move(request));
    std::printf("transcript/%zu %s\n", i++,
                testing::TranscriptHash(testing::RunRequests(engine, std::move(one))[0]).c_str());
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace bakestone

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const char* model = argc > 1 ? argv[1] : std::getenv("BAKESTONE_TEST_MODEL");
  if (model == nullptr || *model == 0) {
    std::fprintf(stderr, "no model given and BAKESTONE_TEST_MODEL is not set: skipped\n");
    return 77;
  }
  bakestone::g_model = model;
  if (argc > 2 && std::string(argv[2]) == "--print-goldens") return bakestone::PrintGoldens();
  return RUN_ALL_TESTS();
}
