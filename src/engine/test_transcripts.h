// For tests: requests of every kind for the tiny models, and the hash of what was answered.
// goldens.txt beside this file holds the hashes that the `reference` kernels give; whatever an
// engine is doing besides, on whatever machine, it has to give them too (docs/numerics.md).
#pragma once

#include <cstring>
#include <map>
#include <mutex>
#include <condition_variable>
#include <string>
#include <vector>

#include "base/sha256.h"
#include "engine/test_engine.h"
#include "kernels/isa.h"

namespace bakestone::testing {

inline constexpr int kNumTranscripts = 33;  // the short ones: a batch of 33
inline constexpr int kLongTranscript = 33;  // a prompt beyond one segment of attention (512 tokens)

inline void UpdateBits(Sha256& hash, uint64_t value) {
  std::array<uint8_t, 8> bytes;
  for (int i = 0; i < 8; ++i) {
    bytes[static_cast<size_t>(i)] = static_cast<uint8_t>(value >> (8 * i));
  }
  hash.Update(std::span<const uint8_t>(bytes));
}

inline void UpdateTokens(Sha256& hash, const std::vector<TokenInfo>& tokens) {
  const auto bits = [](float value) {
    uint32_t word;
    std::memcpy(&word, &value, sizeof word);
    return word;
  };
  UpdateBits(hash, tokens.size());
  for (const TokenInfo& info : tokens) {
    UpdateBits(hash, static_cast<uint64_t>(info.token));
    UpdateBits(hash, info.logprobs ? 1 + info.logprobs->top.size() : 0);
    if (!info.logprobs) continue;
    UpdateBits(hash, bits(info.logprobs->logprob));
    for (const TokenLogprob& top : info.logprobs->top) {
      UpdateBits(hash, static_cast<uint64_t>(top.token));
      UpdateBits(hash, bits(top.logprob));
    }
  }
}

// Everything of an answer that is promised: tokens, log-probabilities bit by bit, text, how it
// ended.
inline std::string TranscriptHash(const Event& event) {
  Sha256 hash;
  UpdateTokens(hash, event.prompt);
  UpdateTokens(hash, event.tokens);
  UpdateBits(hash, event.text.size());
  hash.Update(event.text);
  hash.Update(event.stop_string);
  UpdateBits(hash, event.finish ? static_cast<uint64_t>(*event.finish) : 99);
  return ToHex(hash.Finish());
}

// The request of a transcript: a function of its number. Prompts of 1 to 100 tokens (number 33:
// 700), some with shared beginnings, some that repeat themselves; greedy and sampled in every way;
// on the base and two adapters.
inline GenerationRequest TranscriptRequest(const Model& model, int number) {
  static const std::string kText =
      "the wheel turns and the stones turn, the flour falls; the wheel turns and the stones turn "
      "again, and the "
      "flour falls until the sacks are full. then the miller ";
  GenerationRequest request;
  std::string text =
      kText.substr(static_cast<size_t>(number % 5) * 7, static_cast<size_t>(1 + 37 * number % 100));
  if (number % 4 == 0) text = std::string(64, 'a') + text;
  if (number == kLongTranscript) {
    while (text.size() < 1000) text += kText;
  }
  request.prompt = model.tokenizer.Encode(text, {.add_special = false});
  request.prompt.resize(
      std::min<size_t>(request.prompt.size(), number == kLongTranscript ? 700 : 100));
  request.max_tokens = 4 + number % 9 + (number % 8 == 3 || number % 7 == 5 ? 30 : 0);
  request.ignore_eos = number % 6 != 5;
  request.logprobs = true;
  request.top_logprobs = number % 4;
  request.prompt_logprobs = number % 11 == 7;
  if (number % 3 != 0) {
    request.sampling = {.temperature = 0.4 + 0.1 * (number % 10),
                        .top_k = number % 7 == 2 ? 20 : 0,
                        .top_p = number % 2 ? 0.9 : 1.0,
                        .min_p = number % 7 == 4 ? 0.02 : 0.0,
                        .seed = static_cast<uint64_t>(number),
                        .stream = static_cast<uint64_t>(number % 2)};
  }
  if (number % 5 == 1) request.sampling.repetition_penalty = 1.1;
  if (number % 5 == 2) request.sampling.presence_penalty = 0.5;
  if (number % 5 == 3) request.sampling.frequency_penalty = 0.25;
  if (number % 7 == 5) {
    request.sampling.logit_bias = {{kTestFirstByte + 'e', 12.0f}, {kTestFirstByte + 'q', -50.0f}};
  }
  if (number % 9 == 4) request.stop = {"e", "zz"};
  static std::map<const Model*, std::array<std::shared_ptr<const Adapter>, 3>> adapters;
  static std::mutex mutex;
  std::lock_guard lock(mutex);
  auto& mine = adapters[&model];
  if (mine[1] == nullptr) {
    mine[1] = MakeTestAdapter(model.config, {Site::kQ, Site::kV}, 4, 5);
    mine[2] = MakeTestAdapter(model.config, {Site::kO, Site::kDown, Site::kGate}, 8, 6);
  }
  request.adapter = mine[static_cast<size_t>(number % 3)];
  return request;
}

// Loaded once a process. k_quants: another shape, with super-blocks, biases and an untied head.
inline std::shared_ptr<const Model> TranscriptModel(bool k_quants) {
  if (!k_quants) return SharedTestModel();
  static const std::shared_ptr<const Model> model = [] {
    TestModelOptions options;
    options.architecture = "qwen2";
    options.hidden_dim = 256;
    options.ffn_dim = 512;
    options.head_dim = 64;
    options.embedding_type = DType::kQ6_K;
    options.types = {DType::kQ4_K,   DType::kQ5_K, DType::kQ6_K, DType::kQ3_K,
                     DType::kIQ4_XS, DType::kBF16, DType::kQ2_K};
    options.tied = false;
    options.bias = true;
    options.seed = 3;
    return LoadTestModel(options);
  }();
  return model;
}

// Layers that keep a state: the delta rule's, whose states take more than one page, or
// convolutions'.
inline std::shared_ptr<const Model> StateModel(bool delta) {
  static const auto load = [](const char* architecture, uint64_t seed) {
    TestModelOptions options;
    options.architecture = architecture;
    options.num_layers = 4;
    options.seed = seed;
    return LoadTestModel(options);
  };
  static const std::shared_ptr<const Model> models[] = {load("lfm2", 4), load("qwen35", 5)};
  return models[delta ? 1 : 0];
}

// The answers to requests that are submitted at once, in their order.
inline std::vector<Event> RunRequests(Engine& engine, std::vector<GenerationRequest> requests) {
  struct Shared {
    std::mutex mutex;
    std::condition_variable ended;
    std::vector<Event> events;
    size_t unfinished = 0;
  };
  const auto shared = std::make_shared<Shared>();
  shared->events.resize(requests.size());
  shared->unfinished = requests.size();
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].sink = [shared, i](Event&& event) {
      std::lock_guard lock(shared->mutex);
      Event& all = shared->events[i];
      all.text += event.text;
      std::move(event.tokens.begin(), event.tokens.end(), std::back_inserter(all.tokens));
      std::move(event.prompt.begin(), event.prompt.end(), std::back_inserter(all.prompt));
      all.usage = event.usage;
      all.finish = event.finish;
      all.error = event.error;
      all.stop_string = event.stop_string;
      if (event.finish && --shared->unfinished == 0) shared->ended.notify_all();
    };
  }
  engine.Submit(std::move(requests));
  std::unique_lock lock(shared->mutex);
  shared->ended.wait(lock, [&] { return shared->unfinished == 0; });
  return std::move(shared->events);
}

inline std::vector<Event> RunTranscripts(Engine& engine, const std::vector<int>& numbers) {
  std::vector<GenerationRequest> requests;
  for (const int number : numbers) requests.push_back(TranscriptRequest(engine.model(), number));
  return RunRequests(engine, std::move(requests));
}

struct TranscriptGolden {
  std::string name, hash;
};

// What goldens.txt holds, computed on these kernels one request at a time.
inline std::vector<TranscriptGolden> ComputeTranscripts(const KernelTable& kernels) {
  std::vector<TranscriptGolden> goldens;
  ThreadPool pool(1);
  const auto add = [&](const std::string& prefix, Engine& engine, const std::vector<int>& numbers) {
    for (const int number : numbers) {
      goldens.push_back({fmt::format("{}/{}", prefix, number),
                         TranscriptHash(RunTranscripts(engine, {number})[0])});
    }
  };
  EngineOptions options{.prefix_cache = false, .speculation = {.mode = Speculation::kOff}};
  std::vector<int> all;
  for (int number = 0; number <= kLongTranscript; ++number) all.push_back(number);
  Engine serve(TranscriptModel(false), kernels, pool, options);
  add("serve", serve, all);
  Engine k_quants(TranscriptModel(true), kernels, pool, options);
  add("k-quants", k_quants, {0, 1, 2, 3, 4, 5});
  for (const bool delta : {false, true}) {
    Engine states(StateModel(delta), kernels, pool, options);
    add(delta ? "delta" : "convolution", states, all);
  }
  options.kv_type = KvType::kF16;
  Engine f16(TranscriptModel(false), kernels, pool, options);
  add("kv-f16", f16, {0, 1, 2, 3, 4, 5});
  options.kv_type = KvType::kQ8_0;
  Engine q8_0(TranscriptModel(true), kernels, pool, options);  // heads of 64 channels
  add("kv-q8_0", q8_0, {0, 1, 2, 3, 4, 5});
  options.precision = Precision::kExact;
  options.kv_type = KvType::kF32;
  Engine exact(TranscriptModel(false), kernels, pool, options);
  add("exact", exact, {0, 1, 2, 3, 4, 5});
  return goldens;
}

}  // namespace bakestone::testing
