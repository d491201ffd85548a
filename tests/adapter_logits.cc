// The decoder with a LoRA adapter, against logits that transformers and peft made with the same
// adapter over the same weights in float32 (tools/check_peft_logits.py):
//
//   adapter_logits MODEL ADAPTER GOLDENS.logits     MODEL: a GGUF file or a folder; ADAPTER: a PEFT
//                                                   folder or a GGUF file
//   adapter_logits --hash MODEL                     what goldens of a model name it by
//
// Prints one JSON object: the largest error of a logit at Precision::kExact, how far kServe is, and
// how far the base is without the adapter. Exit 1 where an exact logit is off by 1e-3 or more, or
// where the goldens cannot tell the adapter from the base; 2 for wrong use or unreadable files.
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string_view>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "format/gguf_adapter.h"
#include "format/peft.h"
#include "model/model.h"
#include "model/test_logits.h"

namespace bakestone {
namespace {

constexpr double kTolerance = 1e-3;
constexpr double kLeastEffect = 100 * kTolerance;  // of the adapter on some logit

struct Files {
  std::filesystem::path model, adapter, goldens;
};

AdapterFile ReadAdapter(const std::filesystem::path& path, const ModelConfig& config) {
  if (std::filesystem::is_directory(path)) return ReadPeftAdapter(path);
  return ReadGgufAdapter(path, {config.num_heads, config.num_kv_heads, config.head_dim});
}

int Check(const Files& files) {
  ThreadPool pool(UsableCores());
  const KernelTable& kernels = ChooseKernels(nullptr);
  const auto model = Model::Load(files.model, kernels, pool);
  const auto adapter = Adapter::Load(ReadAdapter(files.adapter, model->config), model->config);
  const testing::Goldens goldens = testing::ReadGoldens(files.goldens);
  if (model->file_hash != goldens.model_hash) {
    Throw(ErrorCode::kInvalidArgument, "{}: expected goldens of the model {}, found of {}",
          files.goldens.string(), ToHex(model->file_hash), ToHex(goldens.model_hash));
  }
  const auto measure = [&](Precision precision, const Adapter* with) {
    Exec exec(kernels, pool, precision);
    return testing::Measure(*model->decoder, exec, goldens, 128, with);
  };
  const auto exact = measure(Precision::kExact, adapter.get());
  const auto serve = measure(Precision::kServe, adapter.get());
  const auto base = measure(Precision::kServe, nullptr);
  const nlohmann::ordered_json json = {
      {"adapter", files.adapter.string()},
      {"adapter_hash", ToHex(adapter->hash())},
      {"positions", exact.positions},
      {"exact", {{"max_error", exact.max_error}, {"top1_agreement", exact.top1_agreement()}}},
      {"serve",
       {{"mean_kl_nats", serve.mean_kl()},
        {"max_kl_nats", serve.max_kl},
        {"max_error", serve.max_error},
        {"top1_agreement", serve.top1_agreement()}}},
      {"without_adapter",
       {{"mean_kl_nats", base.mean_kl()},
        {"max_error", base.max_error},
        {"top1_agreement", base.top1_agreement()}}}};
  fmt::print("{}\n", json.dump(2));
  if (!(exact.max_error < kTolerance)) {
    fmt::print(stderr, "adapter_logits: expected exact logits within {}, found {}\n", kTolerance,
               exact.max_error);
    return 1;
  }
  if (!(base.max_error > kLeastEffect && base.mean_kl() > 2 * serve.mean_kl())) {
    fmt::print(stderr, "adapter_logits: the goldens are as near to the base as to the adapter\n");
    return 1;
  }
  return 0;
}

int PrintHash(const std::filesystem::path& path) {
  ThreadPool pool(UsableCores());
  fmt::print("{}\n", ToHex(Model::Load(path, ChooseKernels(nullptr), pool)->file_hash));
  return 0;
}

}  // namespace
}  // namespace bakestone

int main(int argc, char** argv) {
  const bool hash = argc == 3 && std::string_view(argv[1]) == "--hash";
  if (argc != 4 && !hash) {
    std::fprintf(stderr, "usage: adapter_logits MODEL ADAPTER GOLDENS.logits, or --hash MODEL\n");
    return 2;
  }
  try {
    if (hash) return bakestone::PrintHash(argv[2]);
    return bakestone::Check({argv[1], argv[2], argv[3]});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "adapter_logits: %s\n", error.what());
    return 2;
  }
}
