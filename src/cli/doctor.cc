// bakestone doctor: cores, ISA, memory and its measured bandwidth, and which models fit.
#include <cstdio>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "base/machine.h"
#include "base/thread_pool.h"
#include "cli/environment.h"
#include "cli/flags.h"
#include "cli/verbs.h"
#include "kernels/isa.h"

namespace bakestone::cli {
namespace {

struct Shape {
  const char* name;
  double parameters;      // in 1e9
  double kv_bytes_token;  // bf16 keys and values of one token
};

// Common sizes: what a person would ask about. KV from layers x kv heads x head_dim x 2 x 2 bytes.
constexpr Shape kShapes[] = {
    {"135M (SmolLM2)", 0.135, 30 * 3 * 64 * 4.0}, {"0.5B (Qwen2.5)", 0.494, 24 * 2 * 64 * 4.0},
    {"1B (Llama 3.2)", 1.24, 16 * 8 * 64 * 4.0},  {"3B (Llama 3.2)", 3.21, 28 * 8 * 128 * 4.0},
    {"8B (Llama 3.1)", 8.03, 32 * 8 * 128 * 4.0}, {"14B (Qwen 2.5)", 14.8, 48 * 8 * 128 * 4.0},
    {"32B (Qwen 2.5)", 32.8, 64 * 8 * 128 * 4.0}, {"70B (Llama 3.1)", 70.6, 80 * 8 * 128 * 4.0},
};

constexpr double kBytesPerParameter = 4.85 / 8;  // Q4_K_M, file size over parameters
constexpr double kContext = 4096;
// Optimizer state of a rank-16 adapter, bf16 tiles and saved activations: what QLoRA adds, as a
// share of the model plus a floor.
constexpr double kTrainShare = 0.6, kTrainFloor = 0.6e9;

}  // namespace

int Doctor(const Arguments& arguments) {
  bool json = false;
  std::optional<int64_t> threads;
  Flags flags("doctor", "What this machine can run, and how fast.", "bakestone doctor --json");
  flags.Add("--json", &json, "Print one JSON object");
  flags.Add("--threads", &threads, 1, 1024, "Threads to measure with");
  flags.Parse(arguments);

  const MachineInfo machine = ReadMachine();
  ThreadPool pool(NumThreads(threads));
  const KernelTable& kernels = Kernels();
  const int64_t buffer = std::min<int64_t>(int64_t{256} << 20, machine.available_bytes / 4);
  const double bandwidth = MemoryProbe(buffer).ReadBandwidth(pool);

  nlohmann::ordered_json result = {
      {"cpu", machine.cpu},
      {"cores", machine.cores},
      {"threads", pool.num_threads()},
      {"isa", IsaName(kernels.isa)},
      {"isa_available", nlohmann::json::array()},
      {"memory_bytes", machine.memory_bytes},
      {"available_bytes", machine.available_bytes},
      {"read_bandwidth_bytes_per_second", bandwidth},
      {"home", HomeFolder().string()},
      {"models", nlohmann::json::array()},
  };
  for (const KernelTable* table : AvailableKernels()) {
    result["isa_available"].push_back(IsaName(table->isa));
  }
  for (const Shape& shape : kShapes) {
    const double weights = shape.parameters * 1e9 * kBytesPerParameter;
    const double serve = weights * 1.05 + kContext * shape.kv_bytes_token;
    const double train = serve + weights * kTrainShare + kTrainFloor;
    const auto available = static_cast<double>(machine.available_bytes);
    result["models"].push_back({{"size", shape.name},
                                {"serve_bytes", serve},
                                {"serves", serve < available},
                                {"qlora_bytes", train},
                                {"trains", train < available},
                                {"decode_tokens_per_second_limit", bandwidth / weights}});
  }
  if (json) {
    fmt::print("{}\n", result.dump(2));
    return 0;
  }
  std::string isas;
  for (const auto& isa : result["isa_available"]) isas += " " + isa.get<std::string>();
  fmt::print("processor   {}, {} usable cores, {} threads\n", machine.cpu, machine.cores,
             pool.num_threads());
  fmt::print("kernels     {} (this machine can run:{})\n", IsaName(kernels.isa), isas);
  if (const char* missing = MissingForVectors()) {
    fmt::print("            no {}, so plain kernels: answers are the same, but slow\n", missing);
  } else if (kernels.isa == Isa::kReference) {
    fmt::print("            plain kernels: answers are the same, but slow\n");
  }
  fmt::print("memory      {:.1f} GB, {:.1f} GB available, read at {:.1f} GB/s\n",
             static_cast<double>(machine.memory_bytes) * 1e-9,
             static_cast<double>(machine.available_bytes) * 1e-9, bandwidth * 1e-9);
  fmt::print("home        {}\n\n", HomeFolder().string());
  fmt::print("{:<18} {:>10} {:>7} {:>10} {:>7}  {}\n", "model (Q4_K_M)", "serve", "fits", "QLoRA",
             "fits", "decode limit");
  for (const auto& model : result["models"]) {
    fmt::print("{:<18} {:>7.1f} GB {:>7} {:>7.1f} GB {:>7}  {:.0f} tokens/s\n",
               model["size"].get<std::string>(), model["serve_bytes"].get<double>() * 1e-9,
               model["serves"].get<bool>() ? "yes" : "no",
               model["qlora_bytes"].get<double>() * 1e-9,
               model["trains"].get<bool>() ? "yes" : "no",
               model["decode_tokens_per_second_limit"].get<double>());
  }
  fmt::print(
      "\nserve: weights and a context of 4,096 tokens. QLoRA: rank 16, steps of 1,024 tokens.\n"
      "decode limit: read bandwidth over the bytes of the weights.\n");
  return 0;
}

}  // namespace bakestone::cli
