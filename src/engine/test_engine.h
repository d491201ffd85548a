// For tests: a tiny random model loaded from disk, and requests for it.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "engine/engine.h"
#include "kernels/kernel_table.h"
#include "model/model.h"
#include "model/test_model.h"

namespace bakestone::testing {

inline const KernelTable& TestKernels() { return ChooseKernels(nullptr); }

// Loaded once a process; the file is gone when it returns.
inline std::shared_ptr<const Model> SharedTestModel() {
  static const std::shared_ptr<const Model> model = [] {
    const auto path = std::filesystem::temp_directory_path() / fmt::format("bakestone-engine-{}.gguf", ::getpid());
    WriteTestModel(path);
    ThreadPool pool(1);
    auto loaded = Model::Load(path, TestKernels(), pool);
    std::filesystem::remove(path);
    return loaded;
  }();
  return model;
}

// An engine with its threads. shared_ptr: both go together.
struct TestEngine {
  explicit TestEngine(EngineOptions options = {}, int threads = 2)
      : pool(threads), engine(SharedTestModel(), TestKernels(), pool, options) {}
  ThreadPool pool;
  Engine engine;
};

inline std::shared_ptr<Engine> MakeTestEngine(EngineOptions options = {}) {
  auto both = std::make_shared<TestEngine>(options);
  return {both, &both->engine};
}

inline std::vector<int32_t> TextTokens(const std::string& text) {
  return SharedTestModel()->tokenizer.Encode(text, {.add_special = false});
}

}  // namespace bakestone::testing
