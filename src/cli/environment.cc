#include "cli/environment.h"

#include <errno.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <system_error>
#include <vector>

#include <fmt/ranges.h>

#include "base/error.h"
#include "base/log.h"
#include "base/thread_pool.h"
#include "cli/flags.h"
#include "kernels/isa.h"

namespace bakestone::cli {
namespace {

std::optional<std::string> Environment(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr || *value == '\0') return std::nullopt;
  return std::string(value);
}

// Names of the models in `folder`, sorted.
std::vector<std::string> StoredModels(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  std::error_code missing;
  for (const auto& entry : std::filesystem::directory_iterator(folder, missing)) {
    if (entry.path().extension() == ".gguf") names.push_back(entry.path().stem().string());
    if (entry.is_directory(missing)) names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

std::filesystem::path HomeFolder() {
  if (const auto home = Environment("BAKESTONE_HOME")) return *home;
  if (const auto home = Environment("HOME")) {
    return std::filesystem::path(*home) / ".local" / "share" / "bakestone";
  }
  Throw(ErrorCode::kInvalidArgument,
        "neither BAKESTONE_HOME nor HOME is set: set BAKESTONE_HOME to "
        "the folder that shall hold models and caches");
}

int NumThreads(std::optional<int64_t> flag) {
  if (flag) return static_cast<int>(*flag);
  if (const auto text = Environment("BAKESTONE_THREADS")) {
    char* end = nullptr;
    const long value = std::strtol(text->c_str(), &end, 10);
    if (*end != '\0' || value < 1 || value > 1024) {
      Throw(ErrorCode::kInvalidArgument,
            "BAKESTONE_THREADS: expected a number from 1 to 1024, found '{}'", *text);
    }
    return static_cast<int>(value);
  }
  return UsableCores();
}

KvType KvTypeOf(const std::string& verb, const std::string& name) {
  try {
    return ParseKvType(name);
  } catch (const Error& error) {
    throw UsageError(verb + ": --kv-type: " + error.what());
  }
}

const KernelTable& Kernels() {
  const auto isa = Environment("BAKESTONE_ISA");
  const KernelTable& kernels = ChooseKernels(isa ? isa->c_str() : nullptr);
  static std::atomic<bool> said = false;
  if (kernels.isa == Isa::kReference && !isa && !said.exchange(true)) {
    const char* missing = MissingForVectors();
    LogWarning("this processor has no {}: plain kernels; answers are the same, but slow",
               missing != nullptr ? missing : "vector kernels");
  }
  return kernels;
}

LoadOptions Loading(bool no_pack_cache) {
  PackCacheOptions cache;
  if (const auto text = Environment("BAKESTONE_PACK_CACHE")) {
    char* end = nullptr;
    const double gigabytes = std::strtod(text->c_str(), &end);
    if (*end != '\0' || !(gigabytes >= 0 && gigabytes <= 1e6)) {
      Throw(ErrorCode::kInvalidArgument,
            "BAKESTONE_PACK_CACHE: expected gigabytes from 0 to 1000000, found '{}'", *text);
    }
    cache.max_bytes = static_cast<int64_t>(gigabytes * 1e9);
  }
  const bool has_home = Environment("BAKESTONE_HOME") || Environment("HOME");
  if (no_pack_cache || cache.max_bytes == 0 || !has_home) return {};
  cache.folder = HomeFolder() / "cache" / "packed";
  return {.pack_cache = cache};
}

std::filesystem::path ResolveModel(const std::string& argument) {
  if (std::filesystem::is_regular_file(argument)) return argument;
  if (std::filesystem::is_directory(argument)) return argument;  // Hugging Face's
  if (argument.find('/') != std::string::npos) {
    std::error_code unreadable;
    if (std::filesystem::exists(argument, unreadable)) {
      Throw(ErrorCode::kInvalidArgument,
            "model '{}': expected a GGUF file or a Hugging Face folder, found neither a file nor a "
            "folder",
            argument);
    }
    Throw(ErrorCode::kNotFound, "model '{}': there is no such file or folder", argument);
  }
  const std::filesystem::path folder = HomeFolder() / "models";
  const std::filesystem::path stored = folder / (argument + ".gguf");
  if (std::filesystem::is_regular_file(stored)) return stored;
  if (std::filesystem::is_directory(folder / argument)) return folder / argument;
  const std::vector<std::string> names = StoredModels(folder);
  Throw(ErrorCode::kNotFound,
        "model '{}': expected a GGUF file, a Hugging Face folder, or the name of one in {}; found "
        "none ({})",
        argument, folder.string(),
        names.empty() ? "no model is there: tools/get_base_model.sh fetches a small one"
                      : fmt::format("there: {}", fmt::join(names, ", ")));
}

std::string ProgramName() { return program_invocation_name; }

bool StderrIsTerminal() { return ::isatty(STDERR_FILENO) == 1; }

}  // namespace bakestone::cli
