#include "pipeline/result_files.h"

#include <algorithm>
#include <charconv>

#include <fmt/core.h>

#include "format/gguf_adapter.h"
#include "format/peft.h"
#include "pipeline/trained_source.h"
#include "train/export.h"

namespace bakestone {
namespace {

void WriteAdapter(const Model& model, const TrainLayout& layout, std::span<const float> values,
                  const Recipe& recipe, const std::string& licence,
                  const std::filesystem::path& folder, std::vector<std::string>* files) {
  AdapterFile file = MakeAdapterFile(model, layout, values, recipe.lora, recipe.name);
  file.licence = licence;
  WritePeftAdapter(file, folder / "adapter");
  files->insert(files->end(), {"adapter/adapter_config.json", "adapter/adapter_model.safetensors",
                               "adapter/README.md"});
  if (file.use_dora) return;  // GGUF has no place for magnitudes
  const ModelConfig& config = model.config;
  WriteGgufAdapter(file, {config.num_heads, config.num_kv_heads, config.head_dim},
                   folder / "adapter.gguf");
  files->push_back("adapter.gguf");
}

// The step of a stage's folder; -1: it is none.
int64_t StepOf(const std::string& name, const std::string& stage) {
  const std::string prefix = stage + "-";
  if (!name.starts_with(prefix)) return -1;
  int64_t step = -1;
  const char* end = name.data() + name.size();
  const auto [stop, code] = std::from_chars(name.data() + prefix.size(), end, step);
  return code == std::errc() && stop == end ? step : -1;
}

}  // namespace

std::vector<std::string> WriteResultFiles(const Model& model, const TrainLayout& layout,
                                          std::span<const float> values, const Recipe& recipe,
                                          const std::filesystem::path& folder,
                                          const KernelTable& kernels, ThreadPool& pool,
                                          const ResultFilesOptions& options) {
  std::vector<std::string> files;
  const bool whole =
      recipe.lora.full() || recipe.lora.trains_rows();  // pairs alone would not be the result
  if (!whole) WriteAdapter(model, layout, values, recipe, options.licence, folder, &files);
  if (recipe.lora.served_as_adapter()) return files;
  const ModelSource source = OpenTrainedSource(model, layout, values, recipe.lora);
  WriteOptions write;
  write.notes = {{"general.name", recipe.name}};
  if (!options.licence.empty()) write.notes.emplace_back("general.license", options.licence);
  if (options.progress) {
    write.progress = [&](int64_t done, int64_t total, const std::string&) {
      options.progress(done, total);
    };
  }
  WriteQuantized(source, PlanAsIs(source), folder / "model.gguf", kernels, pool, write);
  files.push_back("model.gguf");
  return files;
}

std::filesystem::path KeptFolder(const std::filesystem::path& kept, const std::string& stage,
                                 int64_t step) {
  return kept / fmt::format("{}-{}", stage, step);
}

void DropOldKept(const std::filesystem::path& kept, const std::string& stage, int64_t step,
                 int64_t keep, int64_t best_step) {
  std::vector<int64_t> steps;
  for (const auto& entry : std::filesystem::directory_iterator(kept)) {
    const int64_t found = StepOf(entry.path().filename().string(), stage);
    if (found >= 0 && found <= step) steps.push_back(found);
  }
  std::sort(steps.begin(), steps.end());
  for (size_t i = 0; i + static_cast<size_t>(keep) < steps.size(); ++i) {
    if (steps[i] != best_step) std::filesystem::remove_all(KeptFolder(kept, stage, steps[i]));
  }
}

}  // namespace bakestone
