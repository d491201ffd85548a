// For tests: a tiny random model loaded from disk, and requests for it.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/thread_pool.h"
#include "engine/engine.h"
#include "kernels/kernel_table.h"
#include "model/model.h"
#include "model/test_model.h"

namespace bakestone::testing {

inline const KernelTable& TestKernels() { return ChooseKernels(nullptr); }

// The file is gone when it returns.
inline std::shared_ptr<const Model> LoadTestModel(const TestModelOptions& options) {
  const auto path = std::filesystem::temp_directory_path() /
                    fmt::format("bakestone-engine-{}-{}.gguf", ::getpid(), options.seed);
  WriteTestModel(path, options);
  ThreadPool pool(1);
  auto loaded = Model::Load(path, TestKernels(), pool);
  std::filesystem::remove(path);
  return loaded;
}

// Loaded once a process.
inline std::shared_ptr<const Model> SharedTestModel() {
  static const std::shared_ptr<const Model> model = LoadTestModel({});
  return model;
}

// An engine with its threads. shared_ptr: both go together.
struct TestEngine {
  explicit TestEngine(EngineOptions options = {}, int threads = 1)
      : pool(threads), engine(SharedTestModel(), TestKernels(), pool, options) {}
  ThreadPool pool;
  Engine engine;
};

inline std::shared_ptr<Engine> MakeTestEngine(EngineOptions options = {}) {
  auto both = std::make_shared<TestEngine>(options);
  return {both, &both->engine};
}

// Holds an engine's loop still inside a sink, so that what a test sets up meanwhile cannot be
// overtaken.
class EnginePlug {
 public:
  explicit EnginePlug(Engine& engine) {
    GenerationRequest request;
    request.prompt = {kTestFirstByte};
    request.max_tokens = 1;
    request.sink = [this, pulled = pulled_.get_future().share()](Event&&) {
      plugged_.set_value();
      pulled.wait();
    };
    engine.Submit(std::move(request));
    plugged_.get_future().wait();
  }
  ~EnginePlug() { Pull(); }
  void Pull() {
    if (!std::exchange(done_, true)) pulled_.set_value();
  }

 private:
  std::promise<void> plugged_, pulled_;
  bool done_ = false;
};

// Runs along and makes every step take 2 ms or more, so that a long answer takes seconds.
class EngineBrake {
 public:
  explicit EngineBrake(Engine& engine) : engine_(engine) {
    GenerationRequest request;
    request.prompt = {kTestFirstByte};
    request.ignore_eos = true;
    request.max_tokens = 2040;
    request.sink = [](Event&&) { std::this_thread::sleep_for(std::chrono::milliseconds(2)); };
    id_ = engine.Submit(std::move(request));
  }
  ~EngineBrake() { engine_.Cancel(id_); }

 private:
  Engine& engine_;
  RequestId id_;
};

inline std::vector<int32_t> TextTokens(const std::string& text) {
  return SharedTestModel()->tokenizer.Encode(text, {.add_special = false});
}

}  // namespace bakestone::testing
